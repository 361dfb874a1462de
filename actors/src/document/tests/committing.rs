use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::{Effect, Input};
use crate::limits::Limits;
use crate::ports::log::AppendOutcome;
use crate::protocol::Dialect;

#[test]
fn nobody_sees_an_update_before_it_is_committed() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "hello")));
    assert!(bench.inbox(&ann).is_empty() && bench.inbox(&bob).is_empty(), "shown before the commit");
    assert!(bench.published.is_empty(), "published before the commit");
    assert_eq!(bench.text(), "", "readable before the commit");
    bench.log_answers();
    bench.read_all(&bob);
    assert_eq!(bob.text(), "hello");
    assert_eq!(bench.text(), "hello");
    assert_eq!(bench.published.len(), 1);
}

#[test]
fn what_arrives_while_an_append_is_in_flight_is_one_batch() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "a")));
    for letter in ["b", "c", "d"] {
        bench.whisper(&ann, Input::Update(ann.type_at(1, letter)));
        bench.whisper(&bob, Input::Update(bob.type_at(0, letter)));
    }
    assert_eq!(bench.parked.len(), 1, "two appends in flight");
    bench.log_answers();
    assert_eq!(bench.state.position().seq, 7);
    let appends: std::collections::BTreeSet<_> = bench.log.rows(bench.key).iter().map(|row| row.append_id.0).collect();
    assert_eq!(appends.len(), 2, "six waiting updates are one append");
    let shown = bench.inbox(&bob).iter().filter(|sent| matches!(sent, Sent::Update(_))).count();
    assert_eq!(shown, 2, "and one broadcast");
}

#[test]
fn the_memory_is_the_fold_of_the_log() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "hello world")));
    bench.say(&ann, Input::Update(ann.delete(0, 6)));
    let mut again = Bench::over(bench.log.clone(), bench.key, Limits::default());
    assert_eq!(again.state.position(), bench.state.position());
    assert_eq!(again.text(), "world");
    assert_eq!(bench.text(), "world");
}

#[test]
fn two_nodes_write_one_document_and_stay_equal() {
    let mut here = Bench::new();
    let mut there = Bench::over(here.log.clone(), here.key, Limits::default());
    let ann = here.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = there.editor(2, Dialect::YWebsocket, Role::Editor);
    here.whisper(&ann, Input::Update(ann.type_at(0, "ann ")));
    there.say(&bob, Input::Update(bob.type_at(0, "bob ")));
    here.log_answers(); // lost the race: reads the tail, admits again, appends
    here.read_all(&ann);
    assert!(ann.text().contains("bob") && ann.text().contains("ann"), "{}", ann.text());
    there.say(&bob, Input::Update(bob.type_at(0, "again ")));
    let head = crate::ports::log::Head { position: here.state.position(), deleted: false };
    let _ = there.state.head_moved(head);
    let effects = here.state.head_moved(crate::ports::log::Head { position: there.state.position(), deleted: false });
    here.perform(effects);
    here.log_answers();
    assert_eq!(here.text(), there.text());
    assert_eq!(here.state.position(), there.state.position());
}

#[test]
fn three_lost_races_take_the_heads_lock() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "x")));
    for _ in 0..3 {
        bench.append_fails(AppendOutcome::Behind);
        let tail = bench.parked.remove(0);
        assert!(matches!(tail, Effect::ReadTail(_)));
        let tail = bench.log.tail_now(bench.key, bench.state.position());
        let effects = bench.state.tail_read(tail, bench.now);
        bench.perform(effects);
    }
    assert!(matches!(bench.parked[0], Effect::LockHead(_)));
    bench.log_answers();
    assert_eq!(bench.text(), "x");
}

#[test]
fn a_tombstone_closes_everybody_and_writes_nothing() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.log.set_deleted(bench.key, true);
    bench.say(&ann, Input::Update(ann.type_at(0, "late")));
    assert_eq!(bench.died, Some(close::NOT_FOUND));
    assert!(bench.log.rows(bench.key).is_empty());
}

#[test]
fn malformed_bytes_close_their_sender_and_change_nothing() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(vec![1, 2, 3].into()));
    assert_eq!(bench.count(&ann, &Sent::Closed(close::MALFORMED)), 1);
    bench.say(&bob, Input::Update(bob.type_at(0, "fine")));
    assert_eq!(bench.text(), "fine");
}
