//! Staying connected: idle clients, presence, many documents on one socket.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::process::{PATIENCE, eventually};
use crate::support::scaled;
use crate::support::world::World;
use serde_json::json;
use std::time::Duration;

/// Stock clients give a server up after 30 s without data (Y-Sweet after 3 s), WebSocket pings do not count.
#[test]
fn idle_clients_stay_connected() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), &format!("idle-{kind}"), &world.token());
        // Without presence nobody renews anything: the server alone keeps the connection alive.
        let silent = format!("silent-{kind}");
        fleet.open(&silent, kind, &world.base(), &format!("idle-{silent}"), &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    for kind in KINDS {
        fleet.call("setAwareness", json!({ "client": format!("silent-{kind}"), "state": null }));
    }
    std::thread::sleep(Duration::from_secs(scaled(40, 125)));
    for kind in KINDS {
        for name in [kind.to_owned(), format!("silent-{kind}")] {
            let status = fleet.status(&name);
            assert_eq!(status["opened"], 1, "{name} reconnected: {status}");
            assert_eq!(status["closes"], json!([]), "{name} was closed: {status}");
            assert_eq!(status["synced"], true, "{name}: {status}");
        }
    }
    fleet.assert_clean(); // an opcode that an old provider does not know throws inside it
}

#[test]
fn presence_crosses_the_dialects_and_goes_with_the_socket() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let mut ids: Vec<(String, u64)> = Vec::new();
    for kind in KINDS {
        ids.push((kind.to_owned(), fleet.open(kind, kind, &world.base(), "presence", &world.token())));
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    for kind in KINDS {
        fleet.call("setAwareness", json!({ "client": kind, "state": { "user": { "name": kind }, "cursor": 7 } }));
    }
    see(&mut fleet, &ids, 2_000);
    for kind in KINDS {
        let states = fleet.call("awareness", json!({ "client": kind }));
        for (name, id) in &ids {
            let state =
                states.as_array().expect("states").iter().find(|state| state["clientId"] == *id).expect("the state");
            assert_eq!(state["state"]["user"]["name"], json!(name));
        }
    }
    // One leaves in good order, one loses its socket: both are gone at once, for all.
    for (leaver, how) in
        [("hocuspocus-3", "close"), ("y-websocket-3", "vanish"), ("y-sweet-0.9", "vanish"), ("hocuspocus-4", "close")]
    {
        fleet.call(how, json!({ "client": leaver }));
        ids.retain(|(name, _)| name != leaver);
        see(&mut fleet, &ids, 1_000);
    }
    // Who comes back is seen again.
    ids.push(("back".to_owned(), fleet.open("back", "y-websocket-3", &world.base(), "presence", &world.token())));
    fleet.wait(&["back"], "synced", Duration::from_secs(5));
    fleet.call("setAwareness", json!({ "client": "back", "state": { "cursor": 1 } }));
    see(&mut fleet, &ids, 2_000);
}

fn see(fleet: &mut Fleet, ids: &[(String, u64)], within_ms: u64) {
    let wanted: Vec<u64> = ids.iter().map(|(_, id)| *id).collect();
    for (name, _) in ids {
        fleet.call("waitAwareness", json!({ "client": name, "ids": wanted, "timeoutMs": within_ms }));
    }
}

/// Hocuspocus: one socket carries many documents; each has its own handshake, account and end.
#[test]
fn many_documents_on_one_socket() {
    const DOCUMENTS: usize = 20;
    let world = World::start();
    for kind in ["hocuspocus-2", "hocuspocus-3", "hocuspocus-4"] {
        let mut fleet = Fleet::start();
        let room = |at: usize| format!("many-{kind}-{at}");
        fleet.open("0", kind, &world.base(), &room(0), &world.token());
        for at in 1..DOCUMENTS {
            let options = json!({ "socketOf": "0" });
            fleet.open_with(&at.to_string(), kind, &world.base(), &room(at), &world.token(), options);
        }
        // One that this token may not have: its end is no end for the others.
        fleet.open_with(
            "foreign",
            kind,
            &world.base(),
            "no-such-project/room",
            &world.token(),
            json!({ "socketOf": "0" }),
        );
        let names: Vec<String> = (0..DOCUMENTS).map(|at| at.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        fleet.wait(&names, "synced", Duration::from_secs(15));
        fleet.wait(&["foreign"], "denied", Duration::from_secs(10));
        for name in &names {
            fleet.call("write", json!({ "client": name, "token": format!("tok-{name}") }));
        }
        fleet.wait(&names, "saved", Duration::from_secs(10));
        fleet.call("close", json!({ "client": "7" }));
        fleet.call("write", json!({ "client": "8", "token": "tok-after" }));
        fleet.wait(&["8"], "saved", Duration::from_secs(5));
        assert_eq!(fleet.status("8")["opened"], 1, "{kind}: all of it went over one socket");
        let mut other = Fleet::start();
        for at in 0..DOCUMENTS {
            let held = crate::support::ledger::tokens_by_client(
                &mut other,
                "y-websocket-3",
                &world.base(),
                &room(at),
                &world.token(),
            );
            let expected =
                if at == 8 { vec!["tok-8".to_owned(), "tok-after".to_owned()] } else { vec![format!("tok-{at}")] };
            assert_eq!(held, expected, "{kind}: document {at}");
        }
    }
}

/// Hocuspocus 4 may open one document twice on one socket, told apart by a session in the name.
#[test]
fn one_document_twice_on_one_socket() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let options = json!({ "sessionAwareness": true });
    fleet.open_with("one", "hocuspocus-4", &world.base(), "twice", &world.token(), options);
    let options = json!({ "sessionAwareness": true, "socketOf": "one" });
    fleet.open_with("two", "hocuspocus-4", &world.base(), "twice", &world.token(), options);
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("write", json!({ "client": "one", "token": "tok-one" }));
    fleet.call("write", json!({ "client": "two", "token": "tok-two" }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    fleet.call("converge", json!({}));
    for name in ["one", "two"] {
        assert_eq!(fleet.status(name)["unsynced"], 0);
    }
    assert_eq!(world.log("twice").len(), 2);
}

/// Yjs 14 draws client ids of 53 bits.
#[test]
fn client_ids_of_53_bits() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let largest = 9_007_199_254_740_991_u64;
    for (name, id) in [("largest", largest), ("next", largest - 1), ("above-32", 4_294_967_296)] {
        fleet.open_with(name, "y-websocket-4", &world.base(), "wide", &world.token(), json!({ "clientId": id }));
    }
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "wide", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("edit", json!({ "seed": 53, "count": 200 }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    fleet.call("converge", json!({}));
    assert!(fleet.status("largest")["ownClock"].as_u64() > Some(0), "it wrote");
    world.assert_one_truth(&mut fleet, "wide");
}

/// A client that asks for the state every 200 ms gets what it lacks, which is next to nothing.
#[test]
fn a_periodic_resync_is_cheap() {
    let world = World::start();
    let mut fleet = Fleet::start();
    fleet.open("writer", "y-websocket-3", &world.base(), "resync-interval", &world.token());
    fleet.wait(&["writer"], "synced", Duration::from_secs(10));
    fleet.call("insert", json!({ "client": "writer", "at": 0, "text": "long ".repeat(20_000) }));
    fleet.wait(&["writer"], "saved", Duration::from_secs(5));
    for kind in ["y-websocket-3", "y-websocket-4"] {
        let options = json!({ "resyncInterval": 200, "record": true });
        fleet.open_with(kind, kind, &world.base(), "resync-interval", &world.token(), options);
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    for kind in ["y-websocket-3", "y-websocket-4"] {
        eventually(PATIENCE, &format!("{kind} is answered ten times"), || fleet.count(kind, "stepTwoIn") >= 10);
        let record = fleet.call("record", json!({ "client": kind }));
        let large = |frame: &&serde_json::Value| {
            frame["way"] == "in" && frame["hex"].as_str().is_some_and(|hex| hex.len() > 2_000)
        };
        let whole = record.as_array().expect("frames").iter().filter(large).count();
        assert_eq!(whole, 1, "{kind} was sent the whole document again and again");
    }
}

/// The token as a subprotocol: the server selects the name and keeps the secret to itself.
#[test]
fn a_token_in_the_subprotocol() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let protocols = json!(["contextnexus", format!("contextnexus.token.{}", world.token())]);
    for kind in ["y-websocket-3", "y-websocket-4"] {
        let options = json!({ "protocols": protocols });
        fleet.open_with(kind, kind, &world.base(), "subprotocol", &world.token(), options);
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("write", json!({ "client": "y-websocket-3", "token": "tok-1" }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    fleet.call("converge", json!({}));
}

/// `?token=` works because y-websocket and Y-Sweet have nothing else; no log may keep it.
#[test]
fn no_token_and_no_text_in_the_logs() {
    let options = crate::support::server::Options {
        environment: vec![("CONTEXTNEXUS_TELEMETRY__LOG".to_owned(), "trace".to_owned())],
        ..Default::default()
    };
    let world = World::start_with(options);
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "quiet", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("insert", json!({ "client": "hocuspocus-4", "at": 0, "text": "unmistakable-secret-sentence" }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    fleet.call("converge", json!({}));
    let log = world.server.log().join("\n");
    assert!(log.len() > 1_000, "trace was asked for");
    let secret = world.token().splitn(3, '_').nth(2).expect("three parts").to_owned();
    assert!(!log.contains(&secret), "a token is in the log");
    assert!(!log.contains("unmistakable-secret-sentence"), "document text is in the log");
}
