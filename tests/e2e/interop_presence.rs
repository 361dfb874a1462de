//! Cursors after a reconnect, with the real clients. A client repeats its last state at its last clock when it comes
//! back, others remember that clock, and a new one follows only when the cursor moves or after 15 s. Here no client
//! renews anything by itself: what is seen again was shown by the server, however fast the machine is.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::process::eventually;
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::{Value, json};
use std::time::Duration;

/// Nothing that the clients do by themselves makes it come later: patience, and no bound.
const PATIENCE_MS: u64 = 60_000;

/// Those of all tests, and Hocuspocus 4.7.
fn kinds() -> Vec<&'static str> {
    KINDS.into_iter().chain(["hocuspocus-4.7"]).collect()
}

fn id(fleet: &mut Fleet, client: &str) -> Value {
    fleet.status(client)["clientId"].clone()
}

fn see(fleet: &mut Fleet, clients: &[&str], ids: &[Value]) {
    for client in clients {
        fleet.call("waitAwareness", json!({ "client": client, "ids": ids, "timeoutMs": PATIENCE_MS }));
    }
}

/// Opens it so that it never renews its state, nor forgets one that is not renewed.
fn open(fleet: &mut Fleet, client: &str, kind: &str, world: &World, room: &str, token: &str, options: Value) {
    fleet.open_with(client, kind, &world.base(), room, token, options);
    fleet.call("noRenewals", json!({ "client": client }));
}

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
        open(&mut fleet, kind, kind, &world, "cut", &world.token(), json!({}));
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
            let what = format!("{other} sees the newest states after {kind} came back");
            eventually(Duration::from_millis(PATIENCE_MS), &what, || {
                let states = fleet.call("awareness", json!({ "client": other }));
                states.as_array().expect("states").iter().all(|state| state["state"]["cursor"] == json!(at))
            });
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
        open(&mut fleet, kind, kind, &world, "restart", &world.token(), json!({}));
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
    open(&mut fleet, "watcher", "y-websocket-3", &world, "sign-in", &world.token(), json!({}));
    fleet.wait(&["watcher"], "synced", Duration::from_secs(20));
    let watcher = id(&mut fleet, "watcher");
    for kind in kinds() {
        let before = format!("{kind}-before");
        open(&mut fleet, &before, kind, &world, "sign-in", &world.token(), json!({}));
        fleet.wait(&[before.as_str()], "synced", Duration::from_secs(20));
        for cursor in 0..5 {
            fleet.call("setAwareness", json!({ "client": before, "state": { "cursor": cursor } }));
        }
        let ids = [watcher.clone(), id(&mut fleet, &before)];
        see(&mut fleet, &["watcher"], &ids);
        fleet.call("close", json!({ "client": before, "keepDocument": true }));
        see(&mut fleet, &["watcher"], &ids[..1]);
        let options = json!({ "documentOf": before });
        open(&mut fleet, kind, kind, &world, "sign-in", &ann.token, options);
        fleet.wait(&[kind], "synced", Duration::from_secs(20));
        see(&mut fleet, &["watcher", kind], &ids);
        fleet.call("setAwareness", json!({ "client": kind, "state": { "cursor": 77 } }));
        see(&mut fleet, &["watcher"], &ids);
        fleet.call("close", json!({ "client": kind }));
        see(&mut fleet, &["watcher"], &ids[..1]);
    }
}
