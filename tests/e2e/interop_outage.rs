//! PostgreSQL is unavailable while people type. Nobody is closed, memory is bounded, nothing is promised; afterwards
//! everything is there and exact.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::{Ledger, Verdict, strings};
use crate::support::process::{PATIENCE, eventually};
use crate::support::scaled;
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::json;
use std::time::{Duration, Instant};

const ROOM: &str = "outage";

#[test]
fn nobody_is_closed_and_nothing_is_lost_while_postgresql_is_away() {
    // A small budget, so that a short outage is typed over twice: what does not fit is dropped, owed, and asked for afterwards.
    let budget = 1 << 20;
    let options = Options {
        environment: vec![
            ("CONTEXTNEXUS_LIMITS__DOCUMENT_WAITING_BYTES_MAX".to_owned(), budget.to_string()),
            ("CONTEXTNEXUS_LIMITS__NODE_WAITING_BYTES_MAX".to_owned(), (budget * 2).to_string()),
        ],
        ..Options::default()
    };
    let mut world = World::start_private(options);
    let mut ledger = Ledger::default();
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), ROOM, &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    let memory_before = world.server.memory_kib();

    world.postgres().stop();
    let stopped = Instant::now();
    eventually(PATIENCE, "/ready is false", || world.get(&mut fleet, "/ready")["status"] == 503);
    assert_eq!(world.get(&mut fleet, "/live")["status"], 200);
    let log = ledger.file();
    fleet.call("load", json!({ "clients": KINDS, "perSecond": 10, "prefix": "o", "log": log }));
    let outage = Duration::from_secs(scaled(45, 300));
    let mut typed = 0;
    // As many as each client writes in that time, where the machine lets it.
    let wanted = scaled(45, 300) as usize * 10 / 2;
    let mut written = 0;
    while stopped.elapsed() < outage || typed < 2 * budget || written < wanted {
        assert!(stopped.elapsed() < outage + PATIENCE, "{typed} bytes and {written} tokens were written");
        written = strings(&fleet.call("tokens", json!({ "client": "y-websocket-3" }))).len();
        if typed < 2 * budget {
            for kind in KINDS {
                fleet.call("insert", json!({ "client": kind, "at": 0, "text": "typed while away ".repeat(1_000) }));
                typed += 17_000;
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(ledger.promises().all().is_empty(), "something was acknowledged or shown while PostgreSQL was away");
    let grown = world.server.memory_kib().saturating_sub(memory_before);
    assert!(grown < 200 * 1024, "memory grew by {grown} KiB");
    for kind in KINDS {
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 1, "{kind} was closed: {status}");
        assert_eq!(status["saved"], false, "{kind} was told that it is saved: {status}");
    }
    let refused = world.http(&mut fleet, "POST", &format!("/d/{ROOM}/update"), json!({ "body": "AAA=" }));
    assert_eq!(refused["status"], 503, "{refused}");
    assert!(refused["headers"]["retry-after"].is_string(), "{refused}");

    world.postgres().restart();
    fleet.call("stopLoad", json!({}));
    fleet.wait(&[], "saved", Duration::from_secs(45));
    fleet.call("converge", json!({ "timeoutMs": 10_000 }));
    std::thread::sleep(Duration::from_secs(1)); // what comes twice comes by then
    for kind in KINDS {
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 1, "{kind} was closed: {status}");
        if kind.starts_with("hocuspocus") {
            assert_eq!(status["unsynced"], 0, "{kind}: {status}");
            assert_eq!(status["lowestUnsynced"], 0, "{kind}: {status}");
            assert_eq!(status["owed"]["sent"], status["owed"]["answered"], "{kind}: {status}");
        }
    }
    let promised = ledger.promises().all();
    assert!(promised.len() >= wanted, "{} were promised, {written} written by one client alone", promised.len());
    let held = strings(&fleet.call("tokens", json!({ "client": "hocuspocus-3" })));
    let verdict = Verdict::of(&promised, &held);
    assert!(verdict.is_clean(), "{verdict:?}");
    world.assert_one_truth(&mut fleet, ROOM);
    let ready = world.get(&mut fleet, "/ready");
    assert_eq!(ready["status"], 200, "{ready}");
}

/// PostgreSQL hangs without a word (no connection is reset): the same, and keep-alive goes on.
#[test]
fn a_hanging_postgresql_is_an_outage_too() {
    let mut world = World::start_private(Options::default());
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "hang", &world.token());
    }
    fleet.wait(&[], "saved", Duration::from_secs(10));
    world.postgres().freeze_all();
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-{kind}") }));
    }
    std::thread::sleep(Duration::from_secs(scaled(12, 35)));
    for kind in KINDS {
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 1, "{kind} was closed: {status}");
        assert_eq!(status["saved"], false, "{kind}: {status}");
    }
    world.postgres().thaw_all();
    fleet.wait(&[], "saved", Duration::from_secs(20));
    fleet.call("converge", json!({}));
    assert_eq!(strings(&fleet.call("tokens", json!({ "client": "y-sweet-0.9" }))).len(), KINDS.len());
    world.assert_one_truth(&mut fleet, "hang");
}

/// SIGTERM: not ready, everything accepted is committed, clients are closed and come back to the next process.
#[test]
fn a_drain_loses_nothing() {
    let mut world = World::start_private(Options::default());
    let mut ledger = Ledger::default();
    let mut fleet = Fleet::start();
    let log = ledger.file();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "drain", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("load", json!({ "clients": KINDS, "perSecond": 30, "prefix": "d", "log": log }));
    for _ in 0..scaled(2, 10) {
        std::thread::sleep(Duration::from_secs(2));
        let status = world.server.terminate(PATIENCE);
        assert!(status.success(), "the drain ended with {status}");
        world.server.restart();
    }
    std::thread::sleep(Duration::from_secs(2));
    fleet.call("stopLoad", json!({}));
    for kind in KINDS {
        fleet.call("online", json!({ "client": kind }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.wait(&[], "saved", Duration::from_secs(10));
    fleet.call("converge", json!({}));
    let verdict =
        Verdict::of(&ledger.promises().all(), &strings(&fleet.call("tokens", json!({ "client": "y-sweet-0.9" }))));
    assert!(verdict.is_clean(), "{verdict:?}");
    world.assert_one_truth(&mut fleet, "drain");
}
