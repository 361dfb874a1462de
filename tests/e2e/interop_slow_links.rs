//! Large documents over slow lines that break in the middle: what has come counts, in both directions.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::throttle::{Line, Throttle};
use crate::support::world::World;
use crate::support::{long, scaled};
use serde_json::json;
use std::time::{Duration, Instant};

/// What is written at a time.
const PIECE: usize = 32 * 1024;

/// 5 MiB at 50 KiB/s in the long form, and less over a faster line in the ordinary run.
fn line() -> (usize, Line) {
    let bytes = scaled(768, 5 * 1024) as usize * 1024;
    let line = Line {
        bytes_per_s: scaled(150, 50) * 1024,
        delay: Duration::from_millis(200),
        cut_down_at: u64::MAX,
        cut_up_at: u64::MAX,
    };
    (bytes, line)
}

/// Generous: no verdict depends on the speed of the machine.
fn patience() -> Duration {
    Duration::from_secs(scaled(180, 800))
}

/// One of each dialect, and all of them in the long form.
fn kinds() -> &'static [&'static str] {
    if long() { &KINDS } else { &["y-websocket-3", "hocuspocus-4", "y-sweet-0.9"] }
}

fn once_and_no_more(what: &str, carried: u64, bytes: usize) {
    eprintln!("{what}: {carried} bytes carried, {:.3} of {bytes}", carried as f64 / bytes as f64);
    assert!(carried as f64 <= 1.2 * bytes as f64, "{what}: {carried} bytes were carried for {bytes}");
    assert!(carried as usize >= bytes, "{what}: {carried} bytes cannot hold {bytes}");
}

#[test]
fn a_large_document_arrives_over_a_slow_line_that_breaks_and_is_not_sent_twice() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let (bytes, line) = line();
    fleet.open("writer", "y-websocket-3", &world.base(), "slow-down", &world.token());
    fleet.wait(&["writer"], "synced", Duration::from_secs(30));
    // Half of it is one block, as a paste or an import is, and half of it is many.
    fleet.call("insert", json!({ "client": "writer", "at": 0, "text": "p".repeat(bytes / 2) }));
    for _ in 0..bytes / 2 / PIECE {
        fleet.call("insert", json!({ "client": "writer", "at": 0, "text": "x".repeat(PIECE) }));
    }
    fleet.wait(&["writer"], "saved", Duration::from_secs(60));

    let cut_down_at = bytes as u64 / 2;
    let lines: Vec<(&str, Throttle)> =
        kinds().iter().map(|kind| (*kind, Throttle::before(&world.base(), Line { cut_down_at, ..line }))).collect();
    let started = Instant::now();
    for (kind, line) in &lines {
        fleet.open(kind, kind, &line.base(), "slow-down", &world.token());
    }
    for (kind, line) in &lines {
        fleet.wait(&[kind], "synced", patience());
        let milliseconds = patience().as_millis() as u64;
        fleet.call("converge", json!({ "clients": ["writer", kind], "timeoutMs": milliseconds }));
        let status = fleet.status(kind);
        once_and_no_more(&format!("{kind} down, {:.0?}", started.elapsed()), line.down(), bytes);
        assert_eq!(status["opened"], 2, "{kind}: one cut, and no other: {status}");
    }
}

#[test]
fn what_was_written_over_a_slow_line_that_breaks_arrives_and_is_not_sent_twice() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let (bytes, line) = line();
    let cut_up_at = bytes as u64 / 2;
    let lines: Vec<(&str, Throttle)> =
        kinds().iter().map(|kind| (*kind, Throttle::before(&world.base(), Line { cut_up_at, ..line }))).collect();
    for (kind, line) in &lines {
        let room = format!("slow-up-{kind}");
        fleet.open(kind, kind, &line.base(), &room, &world.token());
        fleet.wait(&[kind], "synced", patience());
    }
    let started = Instant::now();
    for (kind, _) in &lines {
        for _ in 0..bytes / PIECE {
            fleet.call("insert", json!({ "client": kind, "at": 0, "text": "x".repeat(PIECE) }));
        }
    }
    for (kind, line) in &lines {
        fleet.wait(&[kind], "saved", patience());
        once_and_no_more(&format!("{kind} up, {:.0?}", started.elapsed()), line.up(), bytes);
        let reader = format!("reader-{kind}");
        fleet.open(&reader, "y-websocket-3", &world.base(), &format!("slow-up-{kind}"), &world.token());
        fleet.wait(&[&reader], "synced", patience());
        let milliseconds = patience().as_millis() as u64;
        fleet.call("converge", json!({ "clients": [kind, reader], "timeoutMs": milliseconds }));
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 2, "{kind}: one cut, and no other: {status}");
    }
}

/// What was written offline, and what is pasted, is one message of the client's. It takes longer than at 64 KiB/s, and longer than a Y-Sweet
/// client waits for a sign of life.
#[test]
fn a_large_message_of_a_client_arrives_over_a_slow_line() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let bytes = scaled(384, 2 * 1024) as usize * 1024;
    let line = Line { bytes_per_s: scaled(20, 40) * 1024, ..line().1 };
    // A Hocuspocus provider sends what was written offline twice: from its queue, and in its step 2.
    let offline = |kind: &str| if kind.starts_with("hocuspocus") { 2 * bytes } else { bytes };
    let lines: Vec<(&str, Throttle)> =
        kinds().iter().map(|kind| (*kind, Throttle::before(&world.base(), line))).collect();
    for (kind, line) in &lines {
        let room = format!("offline-{kind}");
        fleet.open(kind, kind, &line.base(), &room, &world.token());
        fleet.wait(&[kind], "synced", patience());
        fleet.call("offline", json!({ "client": kind }));
        fleet.call("insert", json!({ "client": kind, "at": 0, "text": "x".repeat(bytes) }));
    }
    for (kind, _) in &lines {
        fleet.call("online", json!({ "client": kind }));
    }
    for (kind, line) in &lines {
        fleet.wait(&[kind], "saved", patience());
        once_and_no_more(&format!("{kind} offline"), line.up(), offline(kind));
    }
    for (kind, _) in &lines {
        fleet.call("insert", json!({ "client": kind, "at": 0, "text": "y".repeat(bytes) }));
    }
    for (kind, line) in &lines {
        fleet.wait(&[kind], "saved", patience());
        once_and_no_more(&format!("{kind} offline and pasted"), line.up(), offline(kind) + bytes);
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 2, "{kind} was not closed while it sent: {status}");
    }
}
