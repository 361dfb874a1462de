use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::document::messages::Input;
use crate::ids::{SessionId, UserId};
use crate::ports::documents::{WriteRefused, Writer};
use crate::protocol::Dialect;
use tokio::sync::oneshot;
use uuid::Uuid;

fn writer(role: Role) -> Writer {
    Writer { session: SessionId(Uuid::from_u128(7)), user: UserId(Uuid::from_u128(7)), role }
}

#[test]
fn a_joiners_step_2_stands_before_anything_newer() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "one")));
    let bob = bench.stranger(2, Dialect::Hocuspocus, Role::Editor, 2);
    bench.whisper(&bob, Input::Step1(bob.state_vector()));
    bench.log_answers();
    let order: Vec<_> = bench
        .inbox(&bob)
        .iter()
        .filter_map(|sent| match sent {
            Sent::Step2(_) => Some("step 2"),
            Sent::Update(_) => Some("update"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["step 2", "update"]);
    bench.read_all(&bob);
    assert_eq!(bob.text(), "one");
}

#[test]
fn whoever_fell_behind_is_caught_up_from_the_recent_updates() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    for turn in 0..5 {
        bench.say(&ann, Input::Update(ann.type_at(turn, "x")));
    }
    let first = bench.inbox(&bob).iter().take(2).cloned().collect::<Vec<_>>();
    for sent in first {
        if let Sent::Update(update) = sent {
            bob.apply(&update);
        }
    }
    let (rest, position) = bench.state.catch_up(2).unwrap();
    bob.apply(&rest);
    assert_eq!((bob.text().as_str(), position.seq), ("xxxxx", 5));
}

#[test]
fn over_http_an_update_is_all_or_nothing() {
    let mut bench = Bench::new();
    let ann = bench.stranger(1, Dialect::YWebsocket, Role::Editor, 1);
    let first = ann.type_at(0, "first ");
    let second = ann.type_at(6, "second");
    let (answer, mut answered) = oneshot::channel();
    let mut effects = bench.state.write(writer(Role::Editor), second.clone(), None, answer);
    effects.extend(bench.state.advance(bench.now));
    bench.perform(effects);
    assert!(matches!(answered.try_recv().unwrap(), Err(WriteRefused::Gap { .. })));
    assert!(bench.log.rows(bench.key).is_empty());
    for update in [first, second] {
        let (answer, mut answered) = oneshot::channel();
        let mut effects = bench.state.write(writer(Role::Editor), update, None, answer);
        effects.extend(bench.state.advance(bench.now));
        bench.perform(effects);
        assert!(answered.try_recv().is_err(), "answered before the commit");
        bench.log_answers();
        answered.try_recv().unwrap().unwrap();
    }
    assert_eq!(bench.text(), "first second");
}

#[test]
fn a_reader_writes_nothing_over_http_either() {
    let mut bench = Bench::new();
    let ann = bench.stranger(1, Dialect::YWebsocket, Role::Editor, 1);
    let (answer, mut answered) = oneshot::channel();
    let mut effects = bench.state.write(writer(Role::Viewer), ann.type_at(0, "x"), None, answer);
    effects.extend(bench.state.advance(bench.now));
    bench.perform(effects);
    assert_eq!(answered.try_recv().unwrap(), Err(WriteRefused::ReadOnly));
}
