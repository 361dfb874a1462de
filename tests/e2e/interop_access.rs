//! Who may, who may not, and how each client hears of it: wrong tokens, read-only, revocation, downgrade, rename, delete.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::strings;
use crate::support::process::{PATIENCE, eventually, is_established};
use crate::support::scaled;
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::json;
use std::time::{Duration, Instant};

/// Only y-websocket 3.1 (by code) and Hocuspocus 2.15 can be told to stop; the others retry whatever they hear and must stay cheap.
#[test]
fn a_wrong_token_is_refused_and_stubborn_clients_are_slowed() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let token = world.wrong_token();
    for kind in KINDS {
        let options = world.as_is(kind, "refused", &token);
        fleet.open_with(kind, kind, &world.base(), "refused", &token, options);
    }
    let seconds = scaled(15, 60);
    std::thread::sleep(Duration::from_secs(seconds));
    for kind in KINDS {
        let status = fleet.status(kind);
        let attempts = status["attempts"].as_array().expect("attempts").len() as u64;
        // Without a delay @y/websocket 4 would come back ten times a second.
        assert!(attempts <= 3 + seconds / 2, "{kind} came {attempts} times in {seconds} s: {status}");
        assert_eq!(status["synced"], false, "{kind}: {status}");
        match kind {
            "y-websocket-3" => {
                assert_eq!(status["closes"][0]["code"], 4401, "{status}");
                assert_eq!(attempts, 1, "y-websocket 3.1 heeds 44xx: {status}");
            }
            "y-websocket-4" | "y-sweet-0.9" => assert_eq!(status["closes"][0]["code"], 4401, "{status}"),
            _ => {
                assert!(status["counts"]["denied"].as_u64() >= Some(1), "{kind}: {status}");
                assert_eq!(status["counts"]["closed"], 0, "{kind}: Hocuspocus sends no CLOSE after it: {status}");
                assert_ne!(status["failedAuthentications"], json!([]), "{kind}: {status}");
            }
        }
    }
}

/// A viewer's writes are dropped and answered in the dialect, never closed on; the viewer has a cursor like everybody.
#[test]
fn a_viewer_reads_and_points_but_does_not_write() {
    let world = World::start();
    let viewer = world.member("victor", "viewer");
    let mut fleet = Fleet::start();
    fleet.open("editor", "y-websocket-3", &world.base(), "viewed", &world.token());
    fleet.wait(&["editor"], "synced", Duration::from_secs(10));
    fleet.call("write", json!({ "client": "editor", "token": "tok-editor" }));
    fleet.wait(&["editor"], "saved", Duration::from_secs(5));
    let mut ids = vec![fleet.status("editor")["clientId"].clone()];
    for kind in KINDS {
        let options = json!({ "readOnly": true });
        fleet.open_with(kind, kind, &world.base(), "viewed", &viewer.token, options);
        ids.push(fleet.status(kind)["clientId"].clone());
    }
    fleet.wait(&KINDS, "synced", Duration::from_secs(10));
    for kind in KINDS {
        assert_eq!(strings(&fleet.call("tokens", json!({ "client": kind }))), ["tok-editor"]);
        fleet.call("setAwareness", json!({ "client": kind, "state": { "cursor": 1 } }));
    }
    fleet.call("setAwareness", json!({ "client": "editor", "state": { "cursor": 1 } }));
    fleet.call("waitAwareness", json!({ "client": "editor", "ids": ids, "timeoutMs": 3_000 }));
    for kind in ["hocuspocus-2", "hocuspocus-3", "hocuspocus-4"] {
        let status = fleet.status(kind);
        assert_eq!(status["unsynced"], 0, "{kind}: a step 2 that holds nothing new is accepted: {status}");
        assert_eq!(status["counts"]["refused"], 0, "{kind}: {status}");
    }
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-{kind}") }));
    }
    fleet.wait(&["y-websocket-3", "y-websocket-4"], "denied", PATIENCE);
    fleet.wait(&["hocuspocus-2", "hocuspocus-3", "hocuspocus-4"], "refused", PATIENCE);
    std::thread::sleep(Duration::from_secs(5)); // what Y-Sweet's client, which is told nothing, might be told falsely
    for kind in KINDS {
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 1, "{kind} was closed for writing: {status}");
        assert_eq!(status["saved"], false, "{kind} was told that its write is saved: {status}");
        match kind {
            "y-websocket-3" | "y-websocket-4" => {
                assert!(status["counts"]["denied"].as_u64() >= Some(1), "{kind}: {status}")
            }
            "y-sweet-0.9" => {}
            _ => assert_eq!(status["counts"]["refused"], 1, "{kind}: {status}"),
        }
    }
    assert_eq!(
        strings(&fleet.call("tokens", json!({ "client": "editor" }))),
        ["tok-editor"],
        "a viewer's write was shown"
    );
    let folded = fleet.call("fold", json!({ "updates": world.log("viewed") }));
    assert_eq!(
        fleet.call("tokensOf", json!({ "update": folded })),
        json!(["tok-editor"]),
        "a viewer's write is in the log"
    );
}

/// A revoked session ends on its open sockets within a second, without Redis.
#[test]
fn revocation_reaches_open_sockets() {
    let world = World::start();
    let member = world.member("rita", "editor");
    let mut fleet = Fleet::start();
    open_as(&mut fleet, &world, "revoked", &member.token);
    world.revoke(&member);
    let started = Instant::now();
    loop {
        let open: Vec<&str> = KINDS
            .into_iter()
            .filter(|kind| {
                let status = fleet.status(kind);
                let ended = match *kind {
                    "hocuspocus-2" | "hocuspocus-3" | "hocuspocus-4" => {
                        status["counts"]["denied"].as_u64() >= Some(1) || status["closes"] != json!([])
                    }
                    _ => status["closes"][0]["code"] == 4401,
                };
                !ended
            })
            .collect();
        if open.is_empty() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "still open after the revocation: {open:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let written = world.log("revoked").len();
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-{kind}") }));
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.log("revoked").len(), written, "a revoked session wrote");
}

/// A reader that has stopped reading cannot be told; its socket ends all the same.
#[test]
fn revocation_reaches_a_reader_that_has_stopped_reading() {
    // Nothing else ends it meanwhile: it is no slow consumer, and asked whether it lives only after 20 s.
    let environment = vec![("CONTEXTNEXUS_LIMITS__OUTBOX_STALL_S".to_owned(), "600".to_owned())];
    let world = World::start_with(Options { environment, ..Options::default() });
    let member = world.member("stuck", "viewer");
    let mut fleet = Fleet::start();
    fleet.open("editor", "hocuspocus-4", &world.base(), "stuck", &world.token());
    fleet.wait(&["editor"], "synced", Duration::from_secs(10));
    fleet.call("write", json!({ "client": "editor", "token": "tok-1" }));
    fleet.wait(&["editor"], "saved", Duration::from_secs(5));
    let url = format!("{}/yjs/stuck?token={}", world.server.socket_base(), member.token);
    fleet.call("rawOpen", json!({ "raw": "stuck", "url": url }));
    fleet.call("rawSend", json!({ "raw": "stuck", "hex": "00000100" }));
    fleet.call("rawWait", json!({ "raw": "stuck", "count": 2 }));
    let port = fleet.call("rawPause", json!({ "raw": "stuck" })).as_u64().expect("a port") as u16;
    let server_port = world.base().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    // More than the socket's buffers hold.
    for _ in 0..12 {
        fleet.call("insert", json!({ "client": "editor", "at": 0, "text": "x".repeat(1 << 20) }));
    }
    fleet.wait(&["editor"], "saved", Duration::from_secs(10));
    assert!(is_established(server_port, port), "the reader is connected, if silent");
    world.revoke(&member);
    eventually(Duration::from_secs(15), "the silent reader's socket ends", || !is_established(server_port, port));
}

/// An editor who becomes a viewer stays connected and cannot write, within a second.
#[test]
fn a_downgrade_reaches_open_sockets() {
    let world = World::start();
    let member = world.member("dora", "editor");
    let mut fleet = Fleet::start();
    open_as(&mut fleet, &world, "downgraded", &member.token);
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-before-{kind}") }));
    }
    fleet.wait(&[], "saved", Duration::from_secs(5));
    world.set_role(&member, "viewer");
    let mut probes = 0;
    eventually(PATIENCE, "the downgrade is known on the socket", || {
        fleet.call("write", json!({ "client": "y-websocket-3", "token": format!("tok-before-probe-{probes}") }));
        probes += 1;
        fleet.count("y-websocket-3", "denied") > 0
    });
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-after-{kind}") }));
    }
    std::thread::sleep(Duration::from_secs(1));
    let folded = fleet.call("fold", json!({ "updates": world.log("downgraded") }));
    let tokens = strings(&fleet.call("tokensOf", json!({ "update": folded })));
    assert!(tokens.len() >= KINDS.len(), "{tokens:?}");
    assert!(tokens.iter().all(|token| token.starts_with("tok-before-")), "written after the downgrade: {tokens:?}");
    for kind in KINDS {
        assert_eq!(fleet.status(kind)["saved"], false, "{kind} was told that its write is saved");
    }
}

/// A document that is deleted ends for everybody with 4404, and its name answers the same until it is restored.
#[test]
fn delete_and_restore_under_connected_clients() {
    let world = World::start();
    let mut fleet = Fleet::start();
    open_as(&mut fleet, &world, "deleted", &world.token());
    fleet.call("write", json!({ "client": "y-websocket-3", "token": "tok-1" }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    let path = format!("/v1/documents/{}", world.document("deleted"));
    let answer = world.get(&mut fleet, &path);
    assert_eq!(answer["status"], 200, "{answer}");
    let headers = json!({ "headers": { "if-match": answer["headers"]["etag"] } });
    let answer = world.http(&mut fleet, "DELETE", &path, headers);
    assert!(matches!(answer["status"].as_u64(), Some(200 | 204)), "{answer}");
    for kind in KINDS {
        eventually(PATIENCE, &format!("{kind} is told that the document is gone"), || {
            let status = fleet.status(kind);
            match kind {
                "hocuspocus-2" | "hocuspocus-3" | "hocuspocus-4" => status["counts"]["denied"].as_u64() >= Some(1),
                _ => status["closes"][0]["code"] == 4404,
            }
        });
        fleet.call("vanish", json!({ "client": kind }));
    }
    // y-websocket 3.1 comes once and is told for good.
    fleet.open("late", "y-websocket-3", &world.base(), "deleted", &world.token());
    eventually(PATIENCE, "a client of a deleted document is told so", || {
        fleet.status("late")["closes"][0]["code"] == 4404 // delayed, as all final refusals are
    });
    let answer = world.http(&mut fleet, "POST", &format!("{path}/restore"), json!({}));
    assert!(matches!(answer["status"].as_u64(), Some(200 | 204)), "{answer}");
    for kind in KINDS {
        let name = format!("again-{kind}");
        fleet.open(&name, kind, &world.base(), "deleted", &world.token());
        fleet.wait(&[&name], "synced", Duration::from_secs(10));
        assert_eq!(strings(&fleet.call("tokens", json!({ "client": name }))), ["tok-1"]);
    }
}

/// A rename leaves those who are connected alone, and the old name still leads to the document.
#[test]
fn rename_under_connected_clients() {
    let world = World::start();
    let mut fleet = Fleet::start();
    open_as(&mut fleet, &world, "old-name", &world.token());
    let document = world.document("old-name");
    let path = format!("/v1/documents/{document}");
    let answer = world.get(&mut fleet, &path);
    let more = json!({ "headers": { "if-match": answer["headers"]["etag"] }, "json": { "name": "new-name" } });
    let answer = world.http(&mut fleet, "PATCH", &path, more);
    assert_eq!(answer["status"], 200, "{answer}");
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-{kind}") }));
    }
    fleet.wait(&[], "saved", Duration::from_secs(5));
    fleet.call("converge", json!({}));
    for kind in KINDS {
        assert_eq!(fleet.status(kind)["opened"], 1, "{kind} was closed by a rename");
        fleet.call("offline", json!({ "client": kind }));
        fleet.call("online", json!({ "client": kind }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(20));
    for kind in KINDS {
        let name = format!("new-{kind}");
        fleet.open(&name, kind, &world.base(), "new-name", &world.token());
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("write", json!({ "client": "y-websocket-3", "token": "tok-old-name" }));
    fleet.call("write", json!({ "client": "new-hocuspocus-4", "token": "tok-new-name" }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    fleet.call("converge", json!({}));
    assert_eq!(world.document("new-name"), document);
}

fn open_as(fleet: &mut Fleet, world: &World, room: &str, token: &str) {
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), room, token);
    }
    fleet.wait(&KINDS, "synced", Duration::from_secs(10));
    fleet.wait(&KINDS, "saved", Duration::from_secs(5));
}
