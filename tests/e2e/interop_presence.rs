//! Cursors after a reconnect, with the real clients. A client repeats its last state at its last clock when it comes
//! back, others remember that clock, and a new one follows only when the cursor moves or after 15 s: what is seen
//! within the bound below was shown by the server.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::{Value, json};
use std::time::Duration;

/// Tells a second from the 15 s of a renewal, on any machine.
const SOON_MS: u64 = 6_000;

/// Those of all tests, and Hocuspocus 4.7.
fn kinds() -> Vec<&'static str> {
    KINDS.into_iter().chain(["hocuspocus-4.7"]).collect()
}

fn id(fleet: &mut Fleet, client: &str) -> Value {
    fleet.status(client)["clientId"].clone()
}

fn see(fleet: &mut Fleet, clients: &[&str], ids: &[Value]) {
    for client in clients {
        fleet.call("waitAwareness", json!({ "client": client, "ids": ids, "timeoutMs": SOON_MS }));
    }
}

/// All move now, so that no renewal helps before 15 s have passed.
fn move_all(fleet: &mut Fleet, clients: &[&str], to: usize) {
    for client in clients {
        fleet.call("setAwareness", json!({ "client": client, "state": { "cursor": to } }));
    }
}

#[test]
fn who_was_cut_off_is_seen_and_sees_the_others_again() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let kinds = kinds();
    for kind in &kinds {
        fleet.open(kind, kind, &world.base(), "cut", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(20));
    let ids: Vec<Value> = kinds.iter().map(|kind| id(&mut fleet, kind)).collect();
    for (at, kind) in kinds.iter().enumerate() {
        move_all(&mut fleet, &kinds, at);
        see(&mut fleet, &kinds, &ids);
        fleet.call("offline", json!({ "client": kind }));
        let others: Vec<&str> = kinds.iter().copied().filter(|other| other != kind).collect();
        let without: Vec<Value> = ids.iter().filter(|other| **other != ids[at]).cloned().collect();
        see(&mut fleet, &others, &without);
        fleet.call("online", json!({ "client": kind }));
        fleet.wait(&[*kind], "synced", Duration::from_secs(20));
        see(&mut fleet, &kinds, &ids);
        for other in &kinds {
            let states = fleet.call("awareness", json!({ "client": other }));
            for state in states.as_array().expect("states") {
                assert_eq!(
                    state["state"]["cursor"],
                    json!(at),
                    "{other} sees an old state after {kind} came back: {states}"
                );
            }
        }
    }
}

/// Everybody comes back to a server that has forgotten everybody.
#[test]
fn after_a_restart_of_the_server_everybody_is_seen() {
    let mut world = World::start_with(Options::default());
    let mut fleet = Fleet::start();
    let kinds = kinds();
    for kind in &kinds {
        fleet.open(kind, kind, &world.base(), "restart", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(20));
    let ids: Vec<Value> = kinds.iter().map(|kind| id(&mut fleet, kind)).collect();
    move_all(&mut fleet, &kinds, 1);
    see(&mut fleet, &kinds, &ids);
    // Owners hear at which clock they are shown and go on from there: what a server knew before that is lost with it.
    std::thread::sleep(Duration::from_secs(2));
    for kind in &kinds {
        fleet.call("offline", json!({ "client": kind }));
    }
    world.server.kill();
    world.server.restart();
    for kind in &kinds {
        fleet.call("online", json!({ "client": kind }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(20));
    see(&mut fleet, &kinds, &ids);
}

/// The page stays, with its `Doc` and so its client id; the user and the provider are others.
#[test]
fn who_signs_in_on_an_open_page_keeps_a_cursor() {
    let world = World::start();
    let ann = world.member("ann", "editor");
    let mut fleet = Fleet::start();
    fleet.open("watcher", "y-websocket-3", &world.base(), "sign-in", &world.token());
    fleet.wait(&["watcher"], "synced", Duration::from_secs(20));
    let watcher = id(&mut fleet, "watcher");
    for kind in kinds() {
        let before = format!("{kind}-before");
        fleet.open(&before, kind, &world.base(), "sign-in", &world.token());
        fleet.wait(&[before.as_str()], "synced", Duration::from_secs(20));
        for cursor in 0..5 {
            fleet.call("setAwareness", json!({ "client": before, "state": { "cursor": cursor } }));
        }
        let ids = [watcher.clone(), id(&mut fleet, &before)];
        see(&mut fleet, &["watcher"], &ids);
        fleet.call("close", json!({ "client": before, "keepDocument": true }));
        see(&mut fleet, &["watcher"], &ids[..1]);
        let options = json!({ "documentOf": before });
        fleet.open_with(kind, kind, &world.base(), "sign-in", &ann.token, options);
        fleet.wait(&[kind], "synced", Duration::from_secs(20));
        see(&mut fleet, &["watcher", kind], &ids);
        fleet.call("setAwareness", json!({ "client": kind, "state": { "cursor": 77 } }));
        see(&mut fleet, &["watcher"], &ids);
        fleet.call("close", json!({ "client": kind }));
        see(&mut fleet, &["watcher"], &ids[..1]);
    }
}
