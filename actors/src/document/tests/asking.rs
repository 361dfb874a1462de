use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::Input;
use crate::limits::Limits;
use crate::protocol::Dialect;
use bytes::Bytes;
use std::time::Duration;

fn step2s(bench: &Bench, editor: &Editor) -> usize {
    bench.inbox(editor).iter().filter(|sent| matches!(sent, Sent::Step2(_))).count()
}

/// Says all of it at once.
fn deliver(bench: &mut Bench, editor: &Editor, inputs: Vec<Input>, is_sending: bool) {
    let effects = bench.state.deliver(editor.follower, inputs, is_sending, bench.now);
    bench.perform(effects);
    bench.log_answers();
}

fn step1(editor: &Editor) -> Input {
    Input::Step1(editor.state_vector())
}

/// Knows a part of what client 1 wrote, each time another.
fn made_up(number: u8) -> Input {
    Input::Step1(Bytes::from(vec![1, 1, number % 100 + 1]))
}

/// A document in which client 1 has written, and nobody is heard any more.
fn written(bytes: usize) -> Bench {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"x".repeat(bytes))));
    bench.forget_inboxes();
    bench
}

#[test]
fn of_several_questions_at_once_the_last_is_answered() {
    let mut bench = written(100);
    for dialect in [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet] {
        let bob = bench.stranger(2, dialect, Role::Viewer, 2);
        let mut inputs: Vec<Input> = (0..50).map(made_up).collect();
        inputs.push(step1(&bob));
        deliver(&mut bench, &bob, inputs, false);
        assert_eq!(step2s(&bench, &bob), 1, "{dialect:?}");
        bench.read_all(&bob);
        assert_eq!(bob.text().len(), 100, "{dialect:?}: the last, which knew nothing");
    }
}

#[test]
fn a_question_waits_for_the_state_that_is_on_its_way() {
    let mut bench = written(100);
    let bob = bench.stranger(2, Dialect::YWebsocket, Role::Viewer, 2);
    deliver(&mut bench, &bob, vec![step1(&bob)], false);
    assert_eq!(step2s(&bench, &bob), 1);
    for number in 0..100 {
        deliver(&mut bench, &bob, vec![made_up(number)], true);
    }
    bench.time_passes(Duration::from_secs(60));
    assert_eq!(step2s(&bench, &bob), 1, "one large answer waits already");
    assert!(bench.awaited.iter().all(|follower| *follower == bob.follower) && !bench.awaited.is_empty());
    let effects = bench.state.states_arrived(&[bob.follower], bench.now);
    bench.perform(effects);
    assert_eq!(step2s(&bench, &bob), 2, "the newest stands for all");
    bench.time_passes(Duration::from_secs(60));
    assert_eq!(step2s(&bench, &bob), 2);

    deliver(&mut bench, &bob, vec![made_up(1)], true);
    let effects = bench.state.leave(bob.follower, bench.now);
    bench.perform(effects);
    let effects = bench.state.states_arrived(&[bob.follower], bench.now);
    assert!(effects.is_empty(), "nobody waits for it");
}

#[test]
fn one_connection_takes_a_part_of_the_time_with_what_it_asks() {
    let mut bench = written(1_000_000);
    let hostile = bench.stranger(2, Dialect::YWebsocket, Role::Viewer, 2);
    let honest = bench.stranger(3, Dialect::YWebsocket, Role::Viewer, 3);
    let (mut asked, start) = (0_usize, bench.now);
    while bench.now < start + Duration::from_secs(1) {
        bench.say(&hostile, made_up(asked as u8));
        bench.time_passes(Duration::from_millis(1));
        asked += 1;
    }
    // A look at a megabyte is taken for 10 ms, and four times that is paused.
    let answered = step2s(&bench, &hostile);
    assert!((10..30).contains(&answered), "{answered} of {asked}");
    bench.say(&honest, step1(&honest));
    assert_eq!(step2s(&bench, &honest), 1, "the first of a connection waits for nothing");
    bench.time_passes(Duration::from_secs(1));
    assert_eq!(step2s(&bench, &hostile), answered + 1, "the last is answered in the end");
    assert_eq!(bench.count(&hostile, &Sent::Closed(close::LIMIT)), 0);
}

#[test]
fn who_comes_again_on_the_same_connection_is_still_paused() {
    let mut bench = written(1_000_000);
    let bob = bench.stranger(2, Dialect::Hocuspocus, Role::Viewer, 2);
    bench.say(&bob, made_up(1));
    let effects = bench.state.leave(bob.follower, bench.now);
    bench.perform(effects);
    bench.forget_inboxes();
    let again = bench.comes_again(&bob, Dialect::Hocuspocus, Role::Viewer);
    bench.say(&again, made_up(2));
    assert_eq!(step2s(&bench, &again), 0);
    bench.time_passes(Duration::from_secs(1));
    assert_eq!(step2s(&bench, &again), 1);
}

#[test]
fn a_step1_of_hocuspocus_counts_from_when_it_came() {
    let mut bench = written(1_000_000);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    bench.say(&bob, made_up(1));
    bench.forget_inboxes();
    // Its counter begins anew with the step 1, and the update behind it is one more.
    bench.say(&bob, made_up(2));
    bench.say(&bob, Input::Update(bob.type_at(0, "y")));
    assert_eq!((step2s(&bench, &bob), bench.count(&bob, &Sent::Status(true))), (0, 1));
    bench.time_passes(Duration::from_secs(1));
    assert_eq!(step2s(&bench, &bob), 1);
    let asked = bench.inbox(&bob).iter().any(|sent| matches!(sent, Sent::Step1(_)));
    assert!(asked, "and it is asked for what it has");
    bench.say(&bob, Input::Step2(Bytes::from_static(&[0, 0])));
    assert_eq!(bench.count(&bob, &Sent::Status(true)), 2);
}

#[test]
fn who_is_here_is_told_at_intervals_too() {
    let mut bench = Bench::with_limits(Limits { awareness_state_bytes_max: 1 << 20, ..Limits::default() });
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let large = format!("\"{}\"", "x".repeat(1 << 19));
    bench.say(&ann, Input::Awareness(ann.announcement(1, &large)));
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Viewer);
    for _ in 0..100 {
        bench.say(&bob, Input::QueryAwareness);
        bench.time_passes(Duration::from_millis(1));
    }
    let answered = bench.count(&bob, &Sent::Awareness(1));
    assert!((2..50).contains(&answered), "{answered} of 100");
    bench.time_passes(Duration::from_secs(1));
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), answered + 1);
}
