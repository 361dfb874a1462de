//! Every stock client in one document, random edits, random disconnects, a server that dies in between.

use crate::support::fleet::Fleet;
use crate::support::scaled;
use crate::support::seed;
use crate::support::world::World;
use serde_json::json;
use std::time::Duration;

const CLIENTS: [(&str, &str); 8] = [
    ("y-websocket-3", "y-websocket-3"),
    ("y-websocket-4", "y-websocket-4"),
    ("hocuspocus-2", "hocuspocus-2"),
    ("hocuspocus-3", "hocuspocus-3"),
    ("hocuspocus-4", "hocuspocus-4"),
    ("y-sweet-0.9", "y-sweet-0.9"),
    ("second-y-websocket-4", "y-websocket-4"),
    ("second-hocuspocus-4", "hocuspocus-4"),
];

#[test]
fn all_clients_end_equal_after_a_thousand_edits_disconnects_and_a_sigkill() {
    for round in 0..scaled(1, 10) {
        converge(seed().wrapping_add(round));
    }
}

fn converge(seed: u64) {
    let mut world = World::start();
    let people = [world.token(), world.member("ada", "editor").token, world.member("grace", "editor").token];
    let mut fleet = Fleet::with_seed(seed);
    for (at, (name, kind)) in CLIENTS.into_iter().enumerate() {
        fleet.open(name, kind, &world.base(), "convergence", &people[at % people.len()]);
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));

    let edits = json!({ "seed": seed, "count": 1_000, "pauseMs": 4, "flaky": true });
    let editing = fleet.send("edit", edits.clone());
    std::thread::sleep(Duration::from_millis(1_500 + seed % 1_500));
    world.server.kill();
    std::thread::sleep(Duration::from_millis(300));
    world.server.restart();
    fleet.finish(editing, &edits);

    // Some clients wait long between two attempts; the five seconds begin when the last is back.
    for (name, _) in CLIENTS {
        fleet.call("online", json!({ "client": name }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    world.assert_one_truth(&mut fleet, "convergence");
}

/// The same comparison with fan-out switched off at the clients' edge: it must fail, or the test above proves nothing.
#[test]
fn with_fan_out_switched_off_they_do_not_end_equal() {
    let world = World::start();
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    for (name, kind) in CLIENTS {
        let options = json!({ "dropUpdates": true });
        fleet.open_with(name, kind, &world.base(), "no-fan-out", &world.token(), options);
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("edit", json!({ "seed": seed, "count": 200 }));
    let outcome = fleet.send("converge", json!({ "timeoutMs": 3_000, "inVain": true })).result();
    assert!(
        outcome.is_err_and(|error| error.contains("differ")),
        "clients that hear nothing of each other were called equal"
    );
}

/// Offline on both sides of an edit, then together again: nobody's work is lost, whoever comes back first.
#[test]
fn offline_edits_merge() {
    let world = World::start();
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    for (name, kind) in CLIENTS {
        fleet.open(name, kind, &world.base(), "offline", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("edit", json!({ "seed": seed, "count": 50 }));
    for (name, _) in CLIENTS {
        fleet.call("offline", json!({ "client": name }));
    }
    fleet.wait(&[], "disconnected", Duration::from_secs(5));
    for (at, (name, _)) in CLIENTS.into_iter().enumerate() {
        fleet.call("edit", json!({ "clients": [name], "seed": seed + at as u64, "count": 40, "pauseMs": 0 }));
        fleet.call("write", json!({ "client": name, "token": format!("tok-{name}") }));
    }
    for (name, _) in CLIENTS {
        fleet.call("online", json!({ "client": name }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
    let mut tokens = crate::support::ledger::strings(&fleet.call("tokens", json!({ "client": "y-sweet-0.9" })));
    tokens.sort();
    let mut expected: Vec<String> = CLIENTS.iter().map(|(name, _)| format!("tok-{name}")).collect();
    expected.sort();
    assert_eq!(tokens, expected, "(CNX_SEED={seed})");
    world.assert_one_truth(&mut fleet, "offline");
}

/// Work that one editor made offline and another brings: admitted, and known as relayed.
#[test]
fn offline_work_relayed_by_somebody_else_is_admitted() {
    let world = World::start();
    let grace = world.member("grace", "editor");
    let mut fleet = Fleet::start();
    fleet.open("author", "y-websocket-3", &world.base(), "relayed", &world.token());
    fleet.wait(&["author"], "synced", Duration::from_secs(10));
    fleet.call("offline", json!({ "client": "author" }));
    fleet.wait(&["author"], "disconnected", Duration::from_secs(5));
    fleet.call("write", json!({ "client": "author", "token": "tok-offline" }));
    let update = fleet.call("update", json!({ "client": "author" }));
    // The author's laptop sleeps; a colleague got the update from it some other way.
    fleet.open("relay", "hocuspocus-4", &world.base(), "relayed", &grace.token);
    fleet.wait(&["relay"], "synced", Duration::from_secs(10));
    fleet.call("apply", json!({ "client": "relay", "update": update }));
    fleet.wait(&["relay"], "saved", Duration::from_secs(5));
    let log = world.log("relayed");
    let folded = fleet.call("fold", json!({ "updates": log }));
    assert_eq!(fleet.call("tokensOf", json!({ "update": folded })), json!(["tok-offline"]));
    // And the author, who comes back with the same content, is told that it is saved.
    fleet.call("online", json!({ "client": "author" }));
    fleet.wait(&["author"], "synced", Duration::from_secs(10));
    fleet.wait(&["author"], "saved", Duration::from_secs(5));
    world.assert_one_truth(&mut fleet, "relayed");
}
