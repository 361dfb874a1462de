use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::Input;
use crate::ids::{SessionId, UserId};
use crate::limits::Limits;
use crate::ports::documents::{WriteRefused, Writer};
use crate::protocol::Dialect;
use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

const FULL: Sent = Sent::Closed(close::LIMIT);

fn limited(change: impl FnOnce(&mut Limits)) -> Bench {
    let mut limits = Limits::default();
    change(&mut limits);
    Bench::with_limits(limits)
}

#[test]
fn a_full_document_takes_what_deletes_and_nothing_that_adds() {
    let mut bench = limited(|limits| limits.document_bytes_max = 2_000);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"x".repeat(1_900))));
    bench.say(&bob, Input::Update(bob.type_at(0, &"y".repeat(200))));
    assert_eq!(bench.count(&bob, &FULL), 1);
    assert_eq!(bench.text().len(), 1_900, "it was stored all the same");

    let whole = ann.step2(&[0]);
    bench.say(&ann, Input::Step2(whole));
    assert_eq!(bench.count(&ann, &FULL), 0, "what is known adds nothing");
    bench.say(&ann, Input::Update(ann.delete(0, 1_500)));
    let cid = bench.editor(3, Dialect::YSweet, Role::Editor);
    bench.say(&cid, Input::Update(cid.type_at(0, &"z".repeat(1_000))));
    assert_eq!(bench.count(&cid, &FULL), 0, "deleted content still counts");
    assert_eq!(bench.text().len(), 1_400);
}

#[test]
fn what_was_deleted_before_it_was_loaded_does_not_count_either() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"x".repeat(1_900))));
    bench.say(&ann, Input::Update(ann.delete(0, 1_500)));
    for index in 0..200 {
        bench.say(&ann, Input::Update(ann.type_at(index, "z"))); // as many blocks, until yrs joins them
    }
    let limits = Limits { document_bytes_max: 2_000, ..Limits::default() };
    let mut again = Bench::over(bench.log.clone(), bench.key, limits);
    let bob = again.editor(2, Dialect::YWebsocket, Role::Editor);
    let shown = again
        .log
        .load_now(again.key)
        .unwrap()
        .tail
        .rows
        .iter()
        .flat_map(|row| &row.updates)
        .map(Bytes::len)
        .sum::<usize>();
    assert!(shown > 4_000, "{shown}");
    again.say(&bob, Input::Update(bob.type_at(0, &"y".repeat(1_000))));
    assert_eq!((again.count(&bob, &FULL), again.text().len()), (0, 1_600));
}

#[test]
fn a_full_document_says_so_over_http() {
    let mut bench = limited(|limits| limits.document_bytes_max = 2_000);
    let ann = bench.stranger(1, Dialect::YWebsocket, Role::Editor, 1);
    let (answer, mut answered) = oneshot::channel();
    let by = Writer {
        session: SessionId(Uuid::from_u128(7)),
        user: UserId(Uuid::from_u128(7)),
        role: Role::Editor,
        until: None,
    };
    let mut effects = bench.state.write(by, ann.type_at(0, &"x".repeat(3_000)), None, answer);
    effects.extend(bench.state.advance(bench.now));
    bench.perform(effects);
    assert_eq!(answered.try_recv().unwrap(), Err(WriteRefused::Full("the document is too large")));
}

#[test]
fn one_client_too_many_is_over_a_limit_and_not_malformed() {
    let mut bench = limited(|limits| limits.document_clients_max = 2);
    for client in 1..=3 {
        let editor = bench.editor(client, Dialect::YWebsocket, Role::Editor);
        bench.say(&editor, Input::Update(editor.type_at(0, "x")));
        assert_eq!(bench.count(&editor, &FULL), usize::from(client == 3), "client {client}");
    }
}

#[test]
fn an_awareness_state_has_the_size_that_is_set() {
    let mut bench = limited(|limits| limits.awareness_state_bytes_max = 300);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Awareness(ann.announcement(1, &format!("\"{}\"", "x".repeat(298)))));
    assert_eq!(bench.count(&ann, &FULL), 0);
    bench.say(&ann, Input::Awareness(ann.announcement(2, &format!("\"{}\"", "x".repeat(299)))));
    assert_eq!(bench.count(&ann, &FULL), 1);
}

#[test]
fn a_step_2_may_be_larger_than_an_update_because_it_brings_a_document_back() {
    for dialect in [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet] {
        let mut bench = limited(|limits| {
            limits.update_bytes_max = 1_000;
            limits.step2_bytes_max = 5_000;
            limits.document_bytes_max = 5_000;
        });
        let ann = bench.editor(1, dialect, Role::Editor);
        ann.type_at(0, &"x".repeat(3_000));
        bench.say(&ann, Input::Step2(ann.step2(&[0])));
        bench.log_answers();
        assert_eq!(bench.text().len(), 3_000, "{dialect:?}");
        let too_large = Sent::Closed(close::TOO_LARGE);
        assert_eq!(bench.count(&ann, &too_large), 0, "{dialect:?}");
        let bob = bench.editor(2, dialect, Role::Editor);
        bench.say(&bob, Input::Update(bob.type_at(0, &"y".repeat(1_500))));
        assert_eq!(bench.count(&bob, &too_large), 1, "{dialect:?}: an update has a limit of its own");
        let cid = bench.editor(3, dialect, Role::Editor);
        cid.type_at(0, &"z".repeat(6_000));
        bench.say(&cid, Input::Step2(cid.step2(&[0])));
        assert_eq!(bench.count(&cid, &too_large), 1, "{dialect:?}: and so has a step 2");
    }
}
