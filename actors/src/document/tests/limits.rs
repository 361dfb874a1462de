use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::Input;
use crate::ids::{UserId, UserSessionId};
use crate::limits::Limits;
use crate::ports::documents::{WriteRefused, Writer};
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::lib0::{write_var_bytes, write_var_uint};
use contextnexus_gate::{AwarenessEntry, encode_awareness};
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
        user_session: UserSessionId(Uuid::from_u128(7)),
        user: UserId(Uuid::from_u128(7)),
        role: Role::Editor,
        until: None,
    };
    let mut effects = bench.state.write(by, ann.type_at(0, &"x".repeat(3_000)), None, answer);
    effects.extend(bench.state.advance(bench.now));
    bench.perform(effects);
    assert_eq!(answered.try_recv().unwrap(), Err(WriteRefused::Full("the document is too large (document_bytes_max)")));
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

/// Years of pages that wrote once, all of it deleted and collected: Yjs keeps their ids, and none of them locks the
/// document.
#[test]
fn a_document_that_thirty_thousand_pages_have_written_takes_one_more() {
    const DEPARTED: u64 = 30_000;
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, DEPARTED);
    for client in (1_000..1_000 + DEPARTED).rev() {
        bytes.push(1);
        write_var_uint(&mut bytes, client);
        bytes.extend([0, 0, 1]); // from clock 0: one collected unit
    }
    bytes.push(0);
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(bytes.into()));
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&bob, Input::Update(bob.type_at(0, "and one more")));
    assert_eq!(bench.text(), "and one more");
    assert_eq!((bench.count(&ann, &FULL), bench.count(&bob, &FULL)), (0, 0));
}

#[test]
fn presence_beyond_its_size_is_left_out_and_its_sender_stays() {
    let mut bench = limited(|limits| limits.awareness_state_bytes_max = 300);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Awareness(ann.announcement(1, &format!("\"{}\"", "x".repeat(298)))));
    assert_eq!(bench.state.everybody(None)[0].state.len(), 300);
    assert_eq!(bench.state.take_presence_dropped(), 0);
    bench.say(&ann, Input::Awareness(ann.announcement(2, &format!("\"{}\"", "y".repeat(299)))));
    assert_eq!(bench.state.take_presence_dropped(), 1);
    assert_eq!(bench.state.everybody(None)[0].state[1], b'x', "the last that fits is shown");
    assert!(!bench.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Closed(_))));
    bench.say(&ann, Input::Update(ann.type_at(0, "still here")));
    assert_eq!(bench.text(), "still here");
}

#[test]
fn one_connection_relays_a_bounded_number_of_others() {
    let mut bench = limited(|limits| limits.awareness_ids_per_connection_max = 2);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Awareness(ann.announcement(1, "{}")));
    let relayed: Vec<_> = (10..15)
        .map(|client| AwarenessEntry { client, clock: 1, state: Bytes::from_static(b"{}"), is_null: false })
        .collect();
    bench.say(&ann, Input::Awareness(encode_awareness(&relayed)));
    assert_eq!((bench.state.everybody(None).len(), bench.state.take_presence_dropped()), (2, 4));
    assert!(!bench.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Closed(_))));
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

/// So many root types, each with one value.
fn root_names(client: u64, names: u64) -> Bytes {
    let mut bytes = vec![1];
    write_var_uint(&mut bytes, names);
    write_var_uint(&mut bytes, client);
    bytes.push(0);
    for name in 0..names {
        bytes.extend([8, 1]);
        write_var_bytes(&mut bytes, format!("{client}-{name:x}").as_bytes());
        bytes.extend([1, 126]);
    }
    bytes.push(0);
    bytes.into()
}

#[test]
fn a_document_is_full_when_it_would_take_too_much_memory() {
    let mut bench = limited(|limits| limits.document_memory_bytes_max = 4 << 20);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let eve = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"x".repeat(500_000))));
    assert!(root_names(2, 20_000).len() < 300_000);
    bench.say(&eve, Input::Update(root_names(2, 20_000)));
    assert_eq!(bench.count(&eve, &FULL), 1, "a few bytes that take many");
    for client in 10..40 {
        let eve = bench.editor(client, Dialect::YWebsocket, Role::Editor);
        bench.say(&eve, Input::Update(root_names(client, 1_000)));
    }
    assert!(bench.state.bytes() < 6 << 20, "{}", bench.state.bytes());
    let one = Editor::new(99);
    let bob = bench.editor(3, Dialect::Hocuspocus, Role::Editor);
    bench.say(&bob, Input::Update(one.type_at(0, &"y".repeat(1_000_000))));
    assert_eq!(bench.count(&bob, &FULL), 1);
    bench.say(&ann, Input::Update(ann.delete(0, 400_000)));
    assert_eq!(bench.text().len(), 100_000, "what deletes is taken");
    bench.say(&ann, Input::Update(ann.type_at(0, &"z".repeat(100))));
    assert_eq!((bench.count(&ann, &FULL), bench.text().len()), (0, 100_100), "and makes room");
}

#[test]
fn honest_typing_is_estimated_by_what_yrs_makes_of_it() {
    let mut bench = limited(|limits| limits.document_memory_bytes_max = 1 << 20);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    for letter in 0..5_000 {
        bench.whisper(&ann, Input::Update(ann.type_at(letter, "x")));
    }
    bench.log_answers();
    assert_eq!((bench.count(&ann, &FULL), bench.text().len()), (0, 5_000));
}

const REFUSED: Sent = Sent::Closed(close::MALFORMED);

/// yrs walks over all entries of a key to find the place of one whose author knew none of them.
#[test]
fn an_update_that_is_too_dear_to_fold_is_refused_and_nobody_else_notices() {
    let mut bench = limited(|limits| limits.integration_ms_max = 50);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "hello")));
    let mut dear = vec![1];
    write_var_uint(&mut dear, 20_000);
    dear.extend([77, 0]);
    (0..20_000).for_each(|_| dear.extend([0x28, 1, 1, b'm', 1, b'k', 1, 126]));
    dear.push(0);
    bench.say(&bob, Input::Update(dear.into()));
    assert_eq!(bench.count(&bob, &REFUSED), 1);
    bench.say(&ann, Input::Update(ann.type_at(5, " again")));
    assert_eq!((bench.count(&ann, &REFUSED), bench.text().as_str()), (0, "hello again"));
}

#[test]
fn origins_that_cross_are_refused_in_a_document_that_was_loaded_and_what_is_known_needs_no_tree() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "hello")));
    let three: Vec<u8> = [13, 12, 11].iter().flat_map(|client| [1, *client, 0, 4, 1, 1, b'z', 1, b'x']).collect();
    let three = Bytes::from([&[3][..], &three, &[0]].concat());
    bench.say(&ann, Input::Update(three.clone()));
    let mut again = Bench::over(bench.log.clone(), bench.key, Limits::default());
    let bob = again.editor(2, Dialect::YWebsocket, Role::Editor);
    again.say(&bob, Input::Step2(three));
    assert!(again.state.is_compact(), "it says nothing new");
    let between = |left: u8, right: u8| Bytes::from([1, 1, 14, 0, 0xc4, left, 0, right, 0, 1, b'd', 0].to_vec());
    again.say(&bob, Input::Update(between(13, 11)));
    assert_eq!(again.count(&bob, &REFUSED), 1);
    let cid = again.editor(3, Dialect::YWebsocket, Role::Editor);
    again.say(&cid, Input::Update(between(11, 13)));
    assert_eq!(again.count(&cid, &REFUSED), 0);
}

/// What is dear to fold, though less than refused, is not folded together with more of it.
#[test]
fn a_batch_ends_where_it_would_be_long_to_fold() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let entries = |client: u8| {
        let mut update = vec![1];
        write_var_uint(&mut update, 1_500);
        update.extend([client, 0]);
        (0..1_500).for_each(|_| update.extend([0x28, 1, 1, b'm', 1, client, 1, 126]));
        update.push(0);
        Bytes::from(update)
    };
    let mut effects = Vec::new();
    for client in 100..106 {
        effects.extend(bench.state.hear(ann.follower, Input::Update(entries(client)), bench.now));
    }
    effects.extend(bench.state.advance(bench.now));
    let rows: usize = effects
        .iter()
        .filter_map(|effect| match effect {
            crate::document::messages::Effect::Append { rows, .. } => {
                Some(rows.iter().map(|row| row.updates.len()).sum::<usize>())
            }
            _ => None,
        })
        .sum();
    assert!((1..6).contains(&rows), "{rows} updates in one batch");
    assert_eq!(bench.state.waiting().0, 6, "the others come after it");
}
