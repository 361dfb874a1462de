//! What clients are told, and when: nothing before the commit, everything exactly once after it.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::strings;
use crate::support::process::{PATIENCE, eventually};
use crate::support::table_lock::TableLock;
use crate::support::world::World;
use serde_json::{Value, json};
use std::time::Duration;

const HOCUSPOCUS: [&str; 3] = ["hocuspocus-2", "hocuspocus-3", "hocuspocus-4"];

fn open_all(fleet: &mut Fleet, world: &World, room: &str) {
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), room, &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.wait(&[], "saved", Duration::from_secs(5));
}

/// The rule above all others.
#[test]
fn nothing_is_acknowledged_or_shown_before_the_commit() {
    let world = World::start();
    let mut fleet = Fleet::start();
    open_all(&mut fleet, &world, "gate");
    let gate = TableLock::on_appends(&world);
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-{kind}") }));
    }
    // Longer than the three seconds after which Y-Sweet's client gives a silent server up.
    std::thread::sleep(Duration::from_secs(5));
    for kind in KINDS {
        let status = fleet.status(kind);
        assert_eq!(status["saved"], false, "{kind} was told that it is saved: {status}");
        let tokens = strings(&fleet.call("tokens", json!({ "client": kind })));
        assert_eq!(tokens, [format!("tok-{kind}")], "{kind} was shown what is not committed");
        assert_eq!(status["opened"], 1, "{kind} was closed during a slow commit: {status}");
    }
    let update = world.as_update(&mut fleet, "gate");
    assert_eq!(fleet.call("tokensOf", json!({ "update": update })), json!([]), "HTTP showed what is not committed");
    drop(gate);
    fleet.wait(&[], "saved", Duration::from_secs(10));
    fleet.call("converge", json!({}));
    assert_eq!(strings(&fleet.call("tokens", json!({ "client": "y-sweet-0.9" }))).len(), KINDS.len());
    world.assert_one_truth(&mut fleet, "gate");
}

/// On each reconnect a Y-Sweet client sends step 1, then 102, then its unsaved content: an early echo would be a false "saved".
#[test]
fn after_a_reconnect_102_waits_for_the_content() {
    let world = World::start();
    let mut fleet = Fleet::start();
    fleet.open("y-sweet-0.9", "y-sweet-0.9", &world.base(), "reconnect-y-sweet", &world.token());
    fleet.wait(&["y-sweet-0.9"], "synced", Duration::from_secs(10));
    fleet.wait(&["y-sweet-0.9"], "saved", Duration::from_secs(5));
    fleet.call("offline", json!({ "client": "y-sweet-0.9" }));
    fleet.wait(&["y-sweet-0.9"], "disconnected", Duration::from_secs(5));
    fleet.call("write", json!({ "client": "y-sweet-0.9", "token": "tok-offline" }));
    let gate = TableLock::on_appends(&world);
    fleet.call("online", json!({ "client": "y-sweet-0.9" }));
    fleet.wait(&["y-sweet-0.9"], "synced", Duration::from_secs(10));
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        let status = fleet.status("y-sweet-0.9");
        assert_eq!(status["unsaved"], true, "102 came before the commit: {status}");
        assert_eq!(status["opened"], 2, "closed while the commit was slow: {status}");
    }
    drop(gate);
    fleet.wait(&["y-sweet-0.9"], "saved", Duration::from_secs(10));
    let log = world.log("reconnect-y-sweet");
    let folded = fleet.call("fold", json!({ "updates": log }));
    assert_eq!(fleet.call("tokensOf", json!({ "update": folded })), json!(["tok-offline"]));
}

/// Providers count up for each update and down for each status: one too many or too few leaves them wrong for ever.
#[test]
fn after_a_burst_every_update_has_exactly_one_status() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for kind in HOCUSPOCUS {
        fleet.open(kind, kind, &world.base(), "burst", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    for _ in 0..3 {
        for kind in HOCUSPOCUS {
            fleet.call("burst", json!({ "client": kind, "count": 300 }));
        }
        fleet.wait(&[], "saved", Duration::from_secs(10));
    }
    settle(&mut fleet, &HOCUSPOCUS, true);
    assert_eq!(fleet.count("hocuspocus-4", "updatesOut"), 900);
}

/// In-flight updates are lost with the socket; the next connection begins a new account.
#[test]
fn after_a_reconnect_the_account_is_exact_again() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for kind in HOCUSPOCUS {
        fleet.open(kind, kind, &world.base(), "reconnect-hocuspocus", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    for _ in 0..3 {
        for kind in HOCUSPOCUS {
            fleet.call("burst", json!({ "client": kind, "count": 50 }));
            fleet.call("offline", json!({ "client": kind }));
        }
        fleet.wait(&[], "disconnected", Duration::from_secs(5));
        for kind in HOCUSPOCUS {
            fleet.call("online", json!({ "client": kind }));
        }
        fleet.wait(&[], "synced", Duration::from_secs(20));
        fleet.wait(&[], "saved", Duration::from_secs(10));
    }
    settle(&mut fleet, &HOCUSPOCUS, true);
    // With work done offline as well. Provider 2.15 sends what it queued a second time and counts that only downwards (with its own
    // server too), so for it the frames are the account.
    for kind in HOCUSPOCUS {
        fleet.call("offline", json!({ "client": kind }));
    }
    fleet.wait(&[], "disconnected", Duration::from_secs(5));
    for kind in HOCUSPOCUS {
        fleet.call("burst", json!({ "client": kind, "count": 20 }));
        fleet.call("online", json!({ "client": kind }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.wait(&[], "saved", Duration::from_secs(10));
    settle(&mut fleet, &HOCUSPOCUS, false);
    fleet.call("converge", json!({}));
    world.assert_one_truth(&mut fleet, "reconnect-hocuspocus");
}

/// Nothing more comes, and nothing is missing.
fn settle(fleet: &mut Fleet, kinds: &[&str], strict: bool) {
    for kind in kinds {
        eventually(PATIENCE, &format!("{kind} is owed nothing"), || {
            let status = fleet.status(kind);
            status["owed"]["sent"] == status["owed"]["answered"]
        });
    }
    std::thread::sleep(Duration::from_millis(700)); // one too many comes by then
    for kind in kinds {
        let status = fleet.status(kind);
        assert_eq!(status["owed"]["sent"], status["owed"]["answered"], "{kind}: {status}");
        assert_eq!(status["counts"]["refused"], 0, "{kind}: {status}");
        if strict || *kind != "hocuspocus-2" {
            assert_eq!(status["unsynced"], 0, "{kind}: {status}");
            assert_eq!(status["lowestUnsynced"], 0, "{kind} went below zero: {status}");
        }
    }
}

fn varstring(text: &str) -> String {
    let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{:02x}{bytes}", text.len())
}

/// An update whose ground is missing is owed its status until the content that it lacks has come; then it gets one, and the step 2 none.
#[test]
fn a_gap_is_owed_exactly_one_status() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let name = varstring("gap");
    fleet.call("rawOpen", json!({ "raw": "raw", "url": format!("{}/collab", world.server.socket_base()) }));
    let send = |fleet: &mut Fleet, hex: String| {
        fleet.call("rawSend", json!({ "raw": "raw", "hex": hex }));
    };
    send(&mut fleet, format!("{name}0200{}{}", varstring(&world.token()), varstring("4.8.0")));
    send(&mut fleet, format!("{name}00000100"));
    fleet.call("rawWait", json!({ "raw": "raw", "count": 3 }));
    send(&mut fleet, format!("{name}0001020000"));
    fleet.call("rawWait", json!({ "raw": "raw", "count": 4 }));
    // Text "b" of client 1 at clock 1, behind "a" at clock 0, which nobody has sent.
    send(&mut fleet, format!("{name}0002{}", varbytes("010101018401000162", "00")));
    fleet.call("rawWait", json!({ "raw": "raw", "count": 5 }));
    std::thread::sleep(Duration::from_millis(800));
    let heard = raw_frames(&mut fleet);
    assert_eq!(statuses(&heard, &name), 1, "only the status of the first step 2: {heard:?}");
    let asked = heard[4..].iter().filter(|frame| frame.starts_with(&format!("{name}0000"))).count();
    assert_eq!(asked, 1, "one step 1 asks for what is missing: {heard:?}");
    // The answer holds both.
    send(&mut fleet, format!("{name}0001{}", varbytes("01020100040101740161840100", "016200")));
    eventually(PATIENCE, "the update that was owed has its status", || statuses(&raw_frames(&mut fleet), &name) > 1);
    std::thread::sleep(Duration::from_millis(800));
    let heard = raw_frames(&mut fleet);
    assert_eq!(statuses(&heard, &name), 2, "one status for the owed update, none for the answer: {heard:?}");
    let folded = fleet.call("fold", json!({ "updates": world.log("gap") }));
    let fresh = fleet.call("difference", json!({ "clients": [], "also": [
        { "name": "log", "update": folded }, { "name": "http", "update": world.as_update(&mut Fleet::start(), "gap") } ] }));
    assert_eq!(fresh, Value::Null);
}

/// The answer may be large, and the line slow: whoever is asked for what is missing is not asked again meanwhile.
#[test]
fn who_is_answering_a_step_1_is_not_sent_a_second() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let (sockets, token) = (world.server.socket_base(), world.token());
    assert_eq!(world.http(&mut fleet, "POST", "/doc/new", json!({ "json": { "docId": "slow" } }))["status"], 200);
    let dialects = [
        ("y-websocket", format!("{sockets}/yjs/slow?token={token}"), String::new()),
        ("hocuspocus", format!("{sockets}/collab"), varstring("slow")),
        ("y-sweet", format!("{sockets}/d/slow/ws/slow?token={token}"), String::new()),
    ];
    let asked = |fleet: &mut Fleet, dialect: &str, name: &str| {
        let frames = strings(&fleet.call("rawFrames", json!({ "raw": dialect })));
        frames.iter().filter(|frame| frame.starts_with(&format!("{name}0000"))).count()
    };
    let mut before = Vec::new();
    for (dialect, url, name) in &dialects {
        fleet.call("rawOpen", json!({ "raw": dialect, "url": url }));
        let send = |fleet: &mut Fleet, hex: String| fleet.call("rawSend", json!({ "raw": dialect, "hex": hex }));
        if !name.is_empty() {
            send(&mut fleet, format!("{name}0200{}{}", varstring(&token), varstring("4.8.0")));
        }
        send(&mut fleet, format!("{name}00000100"));
        eventually(PATIENCE, "it is asked what it has", || asked(&mut fleet, dialect, name) > 0);
        send(&mut fleet, format!("{name}0001020000"));
        let first = asked(&mut fleet, dialect, name);
        // Text "b" at clock 1, behind "a" at clock 0, which nobody has sent.
        send(&mut fleet, format!("{name}0002{}", varbytes("010101018401000162", "00")));
        eventually(PATIENCE, "it is asked for what is missing", || asked(&mut fleet, dialect, name) > first);
        before.push(first);
    }
    // Nobody answers yet. A second question came after 2 s.
    std::thread::sleep(Duration::from_secs(6));
    for ((dialect, _, name), before) in dialects.iter().zip(before) {
        assert_eq!(asked(&mut fleet, dialect, name), before + 1, "{dialect} was asked again while it answered");
    }
}

fn raw_frames(fleet: &mut Fleet) -> Vec<String> {
    strings(&fleet.call("rawFrames", json!({ "raw": "raw" })))
}

fn statuses(frames: &[String], name: &str) -> usize {
    frames.iter().filter(|frame| **frame == format!("{name}0801")).count()
}

/// Hexadecimal parts as a length-prefixed byte array.
fn varbytes(head: &str, tail: &str) -> String {
    let all = format!("{head}{tail}");
    format!("{:02x}{all}", all.len() / 2)
}

/// A Hocuspocus client that asks anew (`forceSync`) cancels what it was owed, and counts from one again.
#[test]
fn a_forced_sync_starts_the_account_anew() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for kind in HOCUSPOCUS {
        fleet.open(kind, kind, &world.base(), "resync", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    for kind in HOCUSPOCUS {
        fleet.call("resync", json!({ "client": kind }));
    }
    for kind in HOCUSPOCUS {
        eventually(PATIENCE, &format!("{kind} has nothing unsynced"), || fleet.status(kind)["unsynced"] == 0);
    }
    std::thread::sleep(Duration::from_millis(700)); // one status too many comes by then
    for kind in HOCUSPOCUS {
        let status = fleet.status(kind);
        assert_eq!(status["unsynced"], 0, "{kind}: {status}");
    }
}
