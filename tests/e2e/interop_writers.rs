//! Whose client id it is, with the real clients: words under an id that somebody else has used meanwhile are kept, and nobody is told that they are
//! saved.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::process::{PATIENCE, eventually};
use crate::support::world::World;
use serde_json::{Value, json};

const EVIL: &str = "EVIL-TEXT-OF-20-CHARS";

fn text(fleet: &mut Fleet, client: &str) -> Value {
    fleet.call("text", json!({ "client": client }))
}

/// Whether a client was told that other content stands under its client id.
fn is_told(status: &Value) -> bool {
    let closes = status["closes"].as_array().cloned().unwrap_or_default();
    let stateless = status["stateless"].as_array().cloned().unwrap_or_default();
    closes.iter().any(|close| close["code"] == 4409)
        || stateless.iter().any(|told| told.as_str().is_some_and(|told| told.contains("4409")))
}

/// Somebody else writes `EVIL` behind what the client of that id has written, and is gone again.
fn squat(fleet: &mut Fleet, world: &World, token: &str, room: &str, client_id: &Value, deletes: bool) {
    let (eve, watcher) = (format!("eve-{room}"), format!("watcher-{room}"));
    for (name, token) in [(&eve, token), (&watcher, &world.token())] {
        fleet.open(name, "y-websocket-3", &world.base(), room, token);
    }
    fleet.wait(&[eve.as_str(), watcher.as_str()], "synced", PATIENCE);
    assert_eq!(text(fleet, &watcher), json!("hello "));
    let forged = json!({ "client": eve, "clientId": client_id, "at": 6, "text": EVIL, "deletes": deletes });
    fleet.call("forge", forged);
    fleet.call("converge", json!({ "clients": [eve, watcher] }));
    for name in [&eve, &watcher] {
        fleet.call("close", json!({ "client": name }));
    }
}

#[test]
fn words_under_a_squatted_client_id_are_kept_and_never_called_saved() {
    let mut world = World::start();
    let (ann, eve) = (world.member("ann", "editor"), world.member("eve", "editor"));
    let mut fleet = Fleet::start();
    let room = |kind: &str| format!("squatted-{kind}");
    for (at, kind) in KINDS.into_iter().enumerate() {
        fleet.open(kind, kind, &world.base(), &room(kind), &ann.token);
        fleet.wait(&[kind], "synced", PATIENCE);
        fleet.call("insert", json!({ "client": kind, "at": 0, "text": "hello " }));
        fleet.wait(&[kind], "saved", PATIENCE);
        fleet.call("offline", json!({ "client": kind }));
        fleet.wait(&[kind], "disconnected", PATIENCE);
        let client_id = fleet.status(kind)["clientId"].clone();
        squat(&mut fleet, &world, &eve.token, &room(kind), &client_id, at % 2 == 1);
        fleet.call("insert", json!({ "client": kind, "at": 6, "text": format!("important-{kind}") }));
    }
    world.server.kill();
    world.server.restart();
    for kind in KINDS {
        fleet.call("online", json!({ "client": kind }));
        eventually(PATIENCE, "it is told", || is_told(&fleet.status(kind)));
        let status = fleet.status(kind);
        assert_eq!(status["saved"], false, "{kind}: {status}");
        assert_eq!(text(&mut fleet, kind), json!(format!("hello important-{kind}")), "{kind}: its page");
        let path = format!("/v1/documents/{}/quarantine", world.document(&room(kind)));
        let as_ann = json!({ "headers": { "authorization": format!("Bearer {}", ann.token) } });
        let mut kept = Value::Null;
        eventually(PATIENCE, "it is kept", || {
            kept = world.http(&mut fleet, "GET", &path, as_ann.clone())["json"]["items"][0].clone();
            kept["reason"] == "fork"
        });
        let path = format!("{path}/{}", kept["id"].as_str().expect("an id"));
        let bytes = world.http(&mut fleet, "GET", &path, as_ann)["body"].clone();
        let folded = fleet.call("rawText", json!({ "update": bytes }));
        assert!(folded.as_str().is_some_and(|text| text.contains(&format!("important-{kind}"))), "{kind}: {folded}");
        fleet.call("vanish", json!({ "client": kind }));
        // The page is loaded anew, and its user goes on.
        let again = format!("again-{kind}");
        fleet.open(&again, kind, &world.base(), &room(kind), &ann.token);
        fleet.wait(&[again.as_str()], "synced", PATIENCE);
        fleet.call("insert", json!({ "client": again, "at": 0, "text": "again " }));
        fleet.wait(&[again.as_str()], "saved", PATIENCE);
        fleet.call("vanish", json!({ "client": again }));
    }
}

#[test]
fn who_signs_in_on_an_open_page_goes_on_writing_under_its_client_id() {
    let world = World::start();
    let ann = world.member("ann", "editor");
    let mut fleet = Fleet::start();
    for kind in KINDS {
        let (room, before) = (format!("sign-in-{kind}"), format!("{kind}-before"));
        fleet.open(&before, kind, &world.base(), &room, &world.token());
        fleet.wait(&[before.as_str()], "synced", PATIENCE);
        fleet.call("insert", json!({ "client": before, "at": 0, "text": "as one, " }));
        fleet.wait(&[before.as_str()], "saved", PATIENCE);
        fleet.call("close", json!({ "client": before, "keepDocument": true }));
        fleet.open_with(kind, kind, &world.base(), &room, &ann.token, json!({ "documentOf": before }));
        fleet.wait(&[kind], "synced", PATIENCE);
        for round in 0..2 {
            fleet.call("insert", json!({ "client": kind, "at": 8, "text": format!("as another {round}, ") }));
            fleet.wait(&[kind], "saved", PATIENCE);
            fleet.call("offline", json!({ "client": kind }));
            fleet.wait(&[kind], "disconnected", PATIENCE);
            fleet.call("insert", json!({ "client": kind, "at": 8, "text": "offline, " }));
            fleet.call("online", json!({ "client": kind }));
            fleet.wait(&[kind], "synced", PATIENCE);
            fleet.wait(&[kind], "saved", PATIENCE);
        }
        assert!(!is_told(&fleet.status(kind)), "{kind}: {}", fleet.status(kind));
        world.assert_one_truth(&mut fleet, &room);
        fleet.call("vanish", json!({ "client": kind }));
    }
}

#[test]
fn a_viewer_who_announces_a_client_id_stops_nobody() {
    let mut world = World::start();
    let (ann, eve) = (world.member("ann", "editor"), world.member("eve", "viewer"));
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "announced", &ann.token);
    }
    fleet.wait(&[], "synced", PATIENCE);
    for kind in KINDS {
        fleet.call("insert", json!({ "client": kind, "at": 0, "text": "x" }));
    }
    fleet.wait(&[], "saved", PATIENCE);
    let ids: Vec<Value> = KINDS.into_iter().map(|kind| fleet.status(kind)["clientId"].clone()).collect();
    for kind in KINDS {
        fleet.call("offline", json!({ "client": kind }));
    }
    world.server.kill();
    world.server.restart();
    for (kind, id) in KINDS.into_iter().zip(ids) {
        fleet.open_with(
            &format!("eve-{kind}"),
            "y-websocket-3",
            &world.base(),
            "announced",
            &eve.token,
            json!({ "clientId": id }),
        );
        fleet.wait(&[format!("eve-{kind}").as_str()], "synced", PATIENCE);
        fleet.call("setAwareness", json!({ "client": format!("eve-{kind}"), "state": { "user": "Ann" } }));
    }
    for kind in KINDS {
        fleet.call("insert", json!({ "client": kind, "at": 0, "text": "important " }));
        fleet.call("online", json!({ "client": kind }));
        fleet.wait(&[kind], "synced", PATIENCE);
        fleet.wait(&[kind], "saved", PATIENCE);
    }
    assert!(
        text(&mut fleet, "y-websocket-3")
            .as_str()
            .is_some_and(|text| text.matches("important ").count() == KINDS.len())
    );
    world.assert_one_truth(&mut fleet, "announced");
}
