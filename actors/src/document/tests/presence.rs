use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::document::FollowerId;
use crate::document::messages::Input;
use crate::document::presence::{Announcer, Presence};
use crate::ids::{ConnectionId, UserId};
use crate::ports::bus::Claim;
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::AwarenessEntry;
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
        let mut presence = Presence::new(Duration::from_millis(20), Duration::from_secs(30), 64, 8_192);
        let from = Announcer {
            follower: FollowerId { connection: ConnectionId(Uuid::nil()), attachment: 0 },
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
