use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::document::follower_output::FollowerOutput;
use crate::document::follower_outputs::FollowerOutputs;
use crate::document::messages::Input;
use crate::document::replica::ReplicaError;
use crate::ids::{Position, UserId, UserSessionId};
use crate::limits::Limits;
use crate::outbox::{Drained, Outbox};
use crate::ports::documents::{WriteRefused, Writer};
use crate::protocol::Dialect;
use crate::protocol::codec::{Incoming, decode};
use bytes::Bytes;
use contextnexus_gate::{AwarenessEntry, AwarenessUpdate, Caps, encode_awareness};
use futures_util::task::noop_waker;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

fn writer(role: Role) -> Writer {
    Writer { user_session: UserSessionId(Uuid::from_u128(7)), user: UserId(Uuid::from_u128(7)), role, until: None }
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

fn welcome(bench: &mut Bench, client: u64) -> Bytes {
    let newcomer = bench.stranger(client, Dialect::YWebsocket, Role::Viewer, client.into());
    bench.say(&newcomer, Input::Step1(newcomer.state_vector()));
    let step2 = bench.inbox(&newcomer).iter().find_map(|sent| match sent {
        Sent::Step2(update) => Some(update.clone()),
        _ => None,
    });
    bench.read_all(&newcomer);
    step2.expect("a step 2")
}

#[test]
fn many_who_join_at_once_are_sent_one_encoded_state_and_never_an_older_one() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"one ".repeat(100))));
    let (first, second) = (welcome(&mut bench, 2), welcome(&mut bench, 3));
    assert_eq!(first.as_ptr(), second.as_ptr(), "encoded twice");
    bench.say(&ann, Input::Update(ann.type_at(400, "two")));
    let third = welcome(&mut bench, 4);
    let reader = bench.stranger(5, Dialect::YWebsocket, Role::Viewer, 5);
    reader.apply(&third);
    assert_eq!(reader.text(), bench.text());
}

#[test]
fn an_encoded_state_is_not_kept_for_long() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"one ".repeat(100))));
    bench.time_passes(std::time::Duration::from_secs(2));
    let before = bench.state.bytes();
    welcome(&mut bench, 2);
    assert!(bench.state.bytes() > before + 400, "it counts as long as it is there");
    bench.time_passes(std::time::Duration::from_millis(600));
    assert!(bench.state.bytes() > before + 400, "it is kept for a moment");
    bench.time_passes(std::time::Duration::from_millis(600));
    assert_eq!(bench.state.bytes(), before);
}

#[test]
fn who_makes_a_document_load_is_sent_the_snapshot_as_it_is_stored() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "stored")));
    let snapshot = bench.state.snapshot().0.unwrap().verify().unwrap();
    let state = snapshot.state.clone();
    bench.log.save_snapshot_now(bench.key, snapshot).unwrap();
    let mut again = Bench::over(bench.log.clone(), bench.key, Limits::default());
    assert_eq!(welcome(&mut again, 2).as_ptr(), state.as_ptr());
    bench.say(&ann, Input::Update(ann.type_at(6, " and more")));
    let mut later = Bench::over(bench.log.clone(), bench.key, Limits::default());
    let reader = later.stranger(3, Dialect::YWebsocket, Role::Viewer, 3);
    reader.apply(&welcome(&mut later, 2));
    assert_eq!(reader.text(), "stored and more");
}

#[test]
fn a_snapshot_with_another_value_than_was_committed_is_not_stored() {
    // An entry "k" of the map "m", at clock 0 of client 9.
    let entry = |value: [u8; 2]| Bytes::from([&[1, 1, 9, 0, 0x28, 1, 1, b'm', 1, b'k', 1][..], &value, &[0]].concat());
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(entry([125, 0x40])));
    let taken = bench.state.snapshot().0.unwrap();
    assert_eq!(taken.clone().verify().unwrap().state, entry([125, 0x40]));
    assert_eq!(taken.of_state(entry([125, 0])).verify().map(drop), Err(ReplicaError::Differs));
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
    let (rest, position) = bench.state.catch_up(2, bench.now).unwrap();
    bob.apply(&rest.last);
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
    bench.log_answers(); // another node may have what it builds on
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
fn a_request_may_build_on_what_another_node_committed() {
    let mut here = Bench::new();
    let mut there = Bench::over(here.log.clone(), here.key, Limits::default());
    let ann = here.editor(1, Dialect::YWebsocket, Role::Editor);
    here.say(&ann, Input::Update(ann.type_at(0, "first ")));
    let (answer, mut answered) = oneshot::channel();
    let mut effects = there.state.write(writer(Role::Editor), ann.type_at(6, "second"), None, answer);
    effects.extend(there.state.advance(there.now));
    there.perform(effects);
    assert!(answered.try_recv().is_err(), "refused although the log has what it builds on");
    there.log_answers();
    answered.try_recv().unwrap().unwrap();
    assert_eq!(there.text(), "first second");
    assert!(there.state.is_settled());
}

/// What a y-websocket connection is sent, off its socket.
fn updates_on(outbox: &Outbox) -> Vec<Bytes> {
    let mut frames = VecDeque::new();
    let Poll::Ready(Drained::Frames) =
        outbox.poll_drain(&mut Context::from_waker(&noop_waker()), usize::MAX / 2, &mut frames)
    else {
        return Vec::new();
    };
    let update = |frame: Bytes| match decode(Dialect::YWebsocket, &frame.slice(if frame[1] == 126 { 4 } else { 2 }..)) {
        Ok((_, Incoming::Step2(update) | Incoming::Update(update))) => Some(update),
        _ => None,
    };
    frames.into_iter().filter_map(update).collect()
}

fn cursor(client: u64, clock: u64) -> AwarenessEntry {
    AwarenessEntry { client, clock, state: Bytes::from_static(b"{}"), is_null: false }
}

/// The clocks of the presence that a y-websocket connection is sent, off its socket.
fn awareness_on(outbox: &Outbox) -> Vec<u64> {
    let mut frames = VecDeque::new();
    let _ = outbox.poll_drain(&mut Context::from_waker(&noop_waker()), usize::MAX / 2, &mut frames);
    let said = frames.into_iter().filter_map(|frame| match decode(Dialect::YWebsocket, &frame.slice(2..)) {
        Ok((_, Incoming::Awareness(update))) => AwarenessUpdate::parse(&update, &Caps::default()).ok(),
        _ => None,
    });
    said.flatten().map(|entry| entry.clock).collect()
}

#[test]
fn whoever_is_behind_when_the_log_is_another_gets_everything_of_it() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.stranger(2, Dialect::YWebsocket, Role::Editor, 2);
    let backup = bench.log.backup();
    let outbox = Arc::new(Outbox::new(10));
    let mut outputs = FollowerOutputs::new(mpsc::channel(1).0);
    outputs
        .insert(bob.follower, FollowerOutput::new(Dialect::YWebsocket, Bytes::new(), outbox.clone(), Arc::default()));
    outputs.welcome(bob.follower, &Bytes::from_static(&[0, 0]).into(), 0);
    for (at, word) in [(0, "lost "), (5, "for "), (9, "ever")] {
        let update = ann.type_at(at, word);
        bench.say(&ann, Input::Update(update.clone()));
        outputs.show(&update.into(), bench.state.position(), None, &mut bench.state);
    }

    bench.log.restore(backup);
    let mut other = Bench::over(bench.log.clone(), bench.key, Limits::default());
    let cid = other.editor(3, Dialect::YWebsocket, Role::Editor);
    other.say(&cid, Input::Update(cid.type_at(0, "new ")));
    other.say(&cid, Input::Update(cid.type_at(4, "words")));
    let head = bench.log.load_now(bench.key).unwrap().tail.head;
    let effects = bench.state.head_moved(head);
    bench.perform(effects);
    bench.log_answers();
    let (through, state) = bench.state.read(bench.now).unwrap();
    assert_eq!(through, Position { seq: 2, ..other.state.position() });
    outputs.show_anew(&state.into(), through, &mut bench.state);

    let before = updates_on(&outbox);
    outputs.catch_up(&mut bench.state, bench.now);
    for update in before.iter().chain(&updates_on(&outbox)) {
        bob.apply(update);
    }
    assert!(bob.text().contains("new words"), "{}", bob.text());
}

#[test]
fn who_had_no_room_for_a_cursor_gets_everybodys_last_one_when_it_has_drained() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.stranger(2, Dialect::YWebsocket, Role::Editor, 2);
    let outbox = Arc::new(Outbox::new(10));
    let (drained, mut news) = mpsc::channel(1);
    let mut outputs = FollowerOutputs::new(drained);
    outputs
        .insert(bob.follower, FollowerOutput::new(Dialect::YWebsocket, Bytes::new(), outbox.clone(), Arc::default()));
    outputs.welcome(bob.follower, &Bytes::from_static(&[0; 20]).into(), 0);
    for clock in 1..4 {
        bench.say(&ann, Input::Awareness(encode_awareness(&[cursor(1, clock)])));
        outputs.show_presence(&[cursor(1, clock)], None);
    }
    assert_eq!(awareness_on(&outbox), [] as [u64; 0], "no room beside the state");
    news.try_recv().expect("it drained, and somebody waited for that");
    outputs.catch_up(&mut bench.state, bench.now);
    assert_eq!(awareness_on(&outbox), [3], "the last, once");
    outputs.catch_up(&mut bench.state, bench.now);
    assert_eq!(awareness_on(&outbox), [] as [u64; 0]);
}

#[test]
fn who_fell_behind_together_shares_one_update_and_nothing_is_merged_for_who_takes_nothing() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let readers = [
        bench.stranger(2, Dialect::YWebsocket, Role::Editor, 2),
        bench.stranger(3, Dialect::YWebsocket, Role::Editor, 3),
    ];
    let outboxes = [Arc::new(Outbox::new(10)), Arc::new(Outbox::new(10))];
    let mut outputs = FollowerOutputs::new(mpsc::channel(1).0);
    for (reader, outbox) in readers.iter().zip(&outboxes) {
        outputs.insert(
            reader.follower,
            FollowerOutput::new(Dialect::YWebsocket, Bytes::new(), outbox.clone(), Arc::default()),
        );
        outputs.welcome(reader.follower, &Bytes::from_static(&[0, 0]).into(), 0);
    }
    for (at, word) in [(0, "one "), (4, "two "), (8, "three")] {
        let update = ann.type_at(at, word);
        bench.say(&ann, Input::Update(update.clone()));
        outputs.show(&update.into(), bench.state.position(), None, &mut bench.state);
    }
    bench.log_answers();
    let [first, second] = &outboxes;
    let before = second.waiting();
    updates_on(first);
    outputs.catch_up(&mut bench.state, bench.now);
    assert_eq!(second.waiting(), before, "nothing is added to what is not taken");
    let caught_up = updates_on(first);
    updates_on(second);
    outputs.catch_up(&mut bench.state, bench.now);
    assert_eq!(updates_on(second), caught_up);
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
