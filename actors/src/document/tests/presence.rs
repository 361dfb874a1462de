use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::budget::Budget;
use crate::document::FollowerId;
use crate::document::follower_output::FollowerOutput;
use crate::document::messages::{Input, Outgoing};
use crate::document::presence::{Announcer, Presence};
use crate::ids::{SessionId, UserId};
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::ports::bus::Claim;
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::AwarenessEntry;
use futures_util::task::noop_waker;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[test]
fn a_cursor_does_not_point_into_text_that_nobody_has() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "hello")));
    bench.whisper(&ann, Input::Awareness(ann.announcement(1, "{}")));
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 0, "before its text");
    bench.log_answers();
    let order: Vec<_> = bench.inbox(&bob).iter().map(|sent| matches!(sent, Sent::Update(_))).collect();
    assert_eq!(order, [true, false]);
}

#[test]
fn presence_waits_for_postgresql_no_longer_than_100_ms() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "hello")));
    bench.whisper(&ann, Input::Awareness(ann.announcement(1, "{}")));
    let parked = std::mem::take(&mut bench.parked);
    bench.time_passes(Duration::from_millis(99));
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 0);
    bench.time_passes(Duration::from_millis(2));
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 1);
    bench.parked = parked;
}

#[test]
fn presence_that_waited_goes_with_its_connection() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "hello")));
    bench.whisper(&ann, Input::Awareness(ann.announcement(1, "{}")));
    let effects = bench.state.leave(ann.follower, bench.now);
    bench.perform(effects);
    bench.time_passes(Duration::from_millis(200));
    bench.log_answers();
    assert!(bench.state.everybody(None).is_empty(), "a cursor of nobody");
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 0);
}

#[test]
fn a_closing_sockets_clients_are_gone_at_once() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Viewer);
    bench.say(&ann, Input::Awareness(ann.announcement(1, "{}")));
    bench.time_passes(Duration::from_millis(50));
    assert_eq!(bench.state.everybody(None).len(), 1);
    bench.forget_inboxes();
    let effects = bench.state.leave(ann.follower, bench.now);
    bench.perform(effects);
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 1);
    assert!(bench.state.everybody(None).is_empty());
}

#[test]
fn who_says_farewell_is_gone_before_the_socket_closes() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    bench.say(&ann, Input::Awareness(ann.announcement(1, "{}")));
    bench.time_passes(Duration::from_millis(50));
    bench.forget_inboxes();
    bench.say(&ann, Input::Awareness(ann.announcement(2, "null")));
    bench.time_passes(Duration::from_millis(50));
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 1);
    assert!(bench.state.everybody(None).is_empty());
}

#[test]
fn an_id_held_by_another_connection_is_dropped_and_its_sender_stays() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Awareness(ann.announcement(1, r#"{"name":"Ann"}"#)));
    bench.say(&bob, Input::Awareness(ann.announcement(u64::from(u32::MAX), r#"{"name":"Eve"}"#)));
    bench.say(&bob, Input::Awareness(ann.announcement(u64::from(u32::MAX), "null")));
    let here = bench.state.everybody(None);
    assert_eq!((here.len(), here[0].clock, &here[0].state[..]), (1, 2, br#"{"name":"Ann"}"#.as_slice()));
    assert!(!bench.inbox(&bob).iter().any(|sent| matches!(sent, Sent::Closed(_))));
}

#[test]
fn states_within_an_interval_are_sent_once_and_the_newest_wins() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    for clock in 1..=10 {
        bench.say(&ann, Input::Awareness(ann.announcement(clock, "{}")));
    }
    bench.time_passes(Duration::from_millis(50));
    assert_eq!(bench.count(&bob, &Sent::Awareness(1)), 2, "the first at once, the last after the interval");
    assert_eq!(bench.state.everybody(None)[0].clock, 10);
}

#[test]
fn the_fewer_hear_of_it_the_sooner_they_do() {
    let pause = |receivers| {
        let mut presence = Presence::new(&Limits::default(), Arc::new(Budget::new(usize::MAX)));
        let from = Announcer {
            follower: FollowerId { session: SessionId(Uuid::nil()), attachment: 0 },
            user: UserId(Uuid::nil()),
            own: Some(1),
            claim: Claim::Editor,
            is_first: false,
            since: Instant::now(),
        };
        let said = |clock: u64| {
            let state = Bytes::from(format!("{{\"at\":{clock}}}"));
            [AwarenessEntry { client: 1, clock, state, is_null: false }]
        };
        let now = Instant::now();
        presence.announce(from, &said(1), now);
        assert!(presence.flush(receivers, now).is_some());
        presence.announce(from, &said(2), now);
        let next = presence.deadline().unwrap();
        assert!(presence.flush(receivers, next - Duration::from_nanos(1)).is_none());
        assert!(presence.flush(receivers, next).is_some());
        next - now
    };
    assert!(pause(2) < Duration::from_micros(100));
    assert!((Duration::from_millis(1)..Duration::from_millis(2)).contains(&pause(50)));
    assert_eq!(pause(10_000), Duration::from_millis(20));
}

#[test]
fn only_its_subject_adds_blocks_under_an_id_that_is_live() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Awareness(ann.announcement(1, "{}")));
    let squatter = bench.stranger(1, Dialect::Hocuspocus, Role::Editor, 66);
    bench.say(&squatter, Input::Step1(squatter.state_vector()));
    bench.say(&squatter, Input::Update(squatter.type_at(0, "EVIL")));
    assert_eq!(bench.text(), "");
    assert_eq!(bench.count(&squatter, &Sent::Status(true)), 0);
    bench.say(&ann, Input::Update(ann.type_at(0, "mine")));
    assert_eq!(bench.text(), "mine");
}

#[test]
fn offline_work_comes_in_through_somebody_elses_browser() {
    let mut bench = Bench::new();
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    let ann = bench.stranger(1, Dialect::YWebsocket, Role::Editor, 1);
    let offline = ann.type_at(0, "from the train");
    let effects = bench.state.leave(ann.follower, bench.now);
    bench.perform(effects);
    bench.say(&bob, Input::Awareness(bob.announcement(1, "{}")));
    bench.say(&bob, Input::Update(offline));
    assert_eq!(bench.text(), "from the train");
}

fn state(letters: usize) -> String {
    format!("\"{}\"", "x".repeat(letters))
}

#[test]
fn a_document_shows_so_much_presence_and_who_is_there_stays() {
    let limits = Limits { document_awareness_bytes_max: 100_000, ..Limits::default() };
    let mut bench = Bench::with_limits(limits);
    let viewers: Vec<_> = (1..=40).map(|client| bench.editor(client, Dialect::YWebsocket, Role::Viewer)).collect();
    for viewer in &viewers {
        bench.say(viewer, Input::Awareness(viewer.announcement(1, &state(8_000))));
    }
    let fits = 100_000 / (8_002 + 256);
    assert_eq!(bench.state.everybody(None).len(), fits);
    assert_eq!(bench.state.take_presence_dropped(), 40 - fits as u64);
    for viewer in &viewers[fits..] {
        bench.say(viewer, Input::Awareness(viewer.announcement(2, &state(200))));
    }
    assert_eq!(bench.state.everybody(None).len(), 40, "a cursor always fits");

    bench.say(&viewers[0], Input::Awareness(viewers[0].announcement(2, &state(9_000))));
    assert_eq!(bench.state.take_presence_dropped(), 1);
    let first = |bench: &Bench| bench.state.everybody(None).into_iter().find(|entry| entry.client == 1).unwrap();
    assert_eq!(first(&bench).state.len(), 8_002, "who is there stays as it is");
    let effects = bench.state.leave(viewers[1].follower, bench.now);
    bench.perform(effects);
    bench.say(&viewers[0], Input::Awareness(viewers[0].announcement(3, &state(1_100))));
    assert_eq!(first(&bench).state.len(), 1_102, "less always fits");
    let closed = viewers.iter().flat_map(|viewer| bench.inbox(viewer)).any(|sent| matches!(sent, Sent::Closed(_)));
    assert!(!closed, "nobody is closed");
}

#[test]
fn all_documents_of_a_node_share_what_presence_takes() {
    let node = Arc::new(Budget::new(50_000));
    let mut documents: Vec<Presence> = (0..2).map(|_| Presence::new(&Limits::default(), node.clone())).collect();
    let now = Instant::now();
    let mut shown = 0;
    for (number, client) in (1..=20).enumerate() {
        let follower = FollowerId { session: SessionId(Uuid::from_u128(client)), attachment: 0 };
        let user = UserId(Uuid::from_u128(client));
        let from =
            Announcer { follower, user, claim: Claim::Editor, own: Some(client as u64), is_first: true, since: now };
        let said = AwarenessEntry { client: client as u64, clock: 1, state: state(8_000).into(), is_null: false };
        documents[number % 2].announce(from, &[said], now);
        shown = documents.iter().map(|document| document.all(None).len()).sum();
    }
    assert_eq!(shown, 50_000 / (8_002 + 256));
    assert!(node.used() <= 50_000);
    drop(documents);
    assert_eq!(node.used(), 0);
}

#[test]
fn presence_that_is_large_is_sent_no_faster_than_it_can_be_written() {
    let mut presence = Presence::new(&Limits::default(), Arc::new(Budget::new(usize::MAX)));
    let now = Instant::now();
    let from = Announcer {
        follower: FollowerId { session: SessionId(Uuid::nil()), attachment: 0 },
        user: UserId(Uuid::nil()),
        claim: Claim::Editor,
        own: Some(1),
        is_first: false,
        since: now,
    };
    let said = AwarenessEntry { client: 1, clock: 1, state: state(60_000).into(), is_null: false };
    presence.announce(from, std::slice::from_ref(&said), now);
    assert!(presence.flush(1_000, now).is_some());
    presence.announce(from, &[AwarenessEntry { clock: 9, state: state(60_001).into(), ..said }], now);
    let pause = presence.deadline().unwrap() - now;
    assert!(pause >= Duration::from_millis(60), "60 MB in {pause:?}");
}

/// 40 viewers who do not read, each shown 65 states of 8 KiB of each.
#[test]
fn what_waits_for_one_who_does_not_read_is_bounded_however_much_presence_there_is() {
    let outbox = Arc::new(Outbox::new(100_000));
    let mut output = FollowerOutput::new(Dialect::YWebsocket, Bytes::new(), outbox.clone(), Arc::default());
    let entry = |client| AwarenessEntry { client, clock: 1, state: state(8_000).into(), is_null: false };
    let everybody: Vec<AwarenessEntry> = (0..200).map(entry).collect();
    let mut seen = 0;
    output.send(&Outgoing::Awareness(everybody.clone()));
    while output.has_unseen() || outbox.waiting() > 0 {
        assert!(outbox.waiting() <= 100_000 + 80_000, "{} bytes wait", outbox.waiting());
        let (mut frames, waker) = (VecDeque::new(), noop_waker());
        let _ = outbox.poll_drain(&mut Context::from_waker(&waker), usize::MAX, &mut frames);
        seen += frames.iter().map(Bytes::len).sum::<usize>();
        let unseen = output.take_unseen();
        let rest: Vec<_> = everybody.iter().filter(|entry| unseen.contains(&entry.client)).cloned().collect();
        if !rest.is_empty() {
            output.send(&Outgoing::Awareness(rest));
        }
    }
    assert!(seen >= 200 * 8_000, "all of it comes as there is room: {seen}");
}
