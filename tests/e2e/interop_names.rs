//! Names: what is a room in one dialect is the same room in every other, and over HTTP.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::strings;
use crate::support::process::eventually;
use crate::support::world::World;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

fn wait_for(fleet: &mut Fleet, clients: &[&str]) {
    fleet.wait(clients, "synced", Duration::from_secs(20));
    fleet.wait(clients, "saved", Duration::from_secs(20));
}

/// Yjs names sub-documents by UUIDs: whichever client comes first creates the document, with this id, and all others
/// find it.
#[test]
fn a_uuid_is_a_room_in_every_dialect() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for (number, first) in KINDS.into_iter().enumerate() {
        let id = Uuid::from_u128(0x0a1b_2c3d_4e5f_4000_8000_0000_0000_0000 + number as u128);
        let rooms = [(id.to_string(), true), (id.simple().to_string(), false)];
        for (room, is_id) in rooms {
            let name = |kind: &str| format!("{kind} {number} {is_id}");
            fleet.open(&name(first), first, &world.base(), &room, &world.token());
            fleet.call("write", json!({ "client": name(first), "token": "tok-first" }));
            wait_for(&mut fleet, &[&name(first)]);
            assert_eq!(world.document(&room) == id, is_id, "{first} opened {room}");
            let others: Vec<&str> = KINDS.into_iter().filter(|kind| *kind != first).collect();
            for kind in &others {
                let written = if is_id && *kind == "hocuspocus-4" { room.to_uppercase() } else { room.clone() };
                fleet.open(&name(kind), kind, &world.base(), &written, &world.token());
            }
            for kind in &others {
                fleet.wait(&[&name(kind)], "synced", Duration::from_secs(20));
                let tokens = strings(&fleet.call("tokens", json!({ "client": name(kind) })));
                assert_eq!(tokens, ["tok-first"], "{kind} in {room} of {first}");
            }
            let of_room = world.get(&mut fleet, &format!("/v1/documents?room={room}"));
            assert_eq!(of_room["json"]["items"][0]["id"], world.document(&room).to_string(), "{of_room}");
            assert_eq!(world.get(&mut fleet, &format!("/d/{room}/as-update"))["status"], 200);
            let by_id = world.get(&mut fleet, &format!("/v1/documents/{}/content", world.document(&room)));
            assert_eq!(by_id["status"], 200, "{room}: {by_id}");
            for kind in KINDS {
                fleet.call("close", json!({ "client": name(kind) }));
            }
        }
    }
}

/// What `/doc/new` and `/doc/{id}/auth` hand out, the real Y-Sweet client opens; and it is the document that the other
/// dialects call so.
#[test]
fn whatever_y_sweet_is_handed_it_can_open() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for (number, room) in
        ["a:b", "user@host", "plan (2)", "100%", "ys/x", "a%2Fb", "50%25 é?#", "a\\b", "x/ws/y", " +& ", "😀"]
            .into_iter()
            .enumerate()
    {
        let (y_sweet, hocuspocus) = (format!("y-sweet {number}"), format!("hocuspocus {number}"));
        fleet.open(&y_sweet, "y-sweet-0.9", &world.base(), room, &world.token());
        fleet.call("write", json!({ "client": y_sweet, "token": "tok-1" }));
        wait_for(&mut fleet, &[&y_sweet]);
        assert_eq!(fleet.status(&y_sweet)["closes"], json!([]), "{room}");
        fleet.open(&hocuspocus, "hocuspocus-4", &world.base(), &format!("playground/{room}"), &world.token());
        fleet.wait(&[&hocuspocus], "synced", Duration::from_secs(20));
        assert_eq!(strings(&fleet.call("tokens", json!({ "client": hocuspocus }))), ["tok-1"], "{room} in Hocuspocus");
        let found = format!("/v1/documents?room={}", contextnexus::paths::segment(&format!("playground/{room}")));
        assert_eq!(world.get(&mut fleet, &found)["json"]["items"][0]["name"], room);
        let segment = contextnexus::paths::segment(room);
        assert_eq!(world.get(&mut fleet, &format!("/d/{segment}/as-update"))["status"], 200, "{room}");
        // y-websocket puts the name into the address as it is.
        if !room.contains(['?', '#', '/', '\\']) && !["a%2Fb"].contains(&room) {
            let y_websocket = format!("y-websocket {number}");
            fleet.open(&y_websocket, "y-websocket-3", &world.base(), room, &world.token());
            fleet.wait(&[&y_websocket], "synced", Duration::from_secs(20));
            assert_eq!(
                strings(&fleet.call("tokens", json!({ "client": y_websocket }))),
                ["tok-1"],
                "{room} in y-websocket"
            );
        }
        fleet.call("close", json!({ "client": y_sweet }));
        fleet.call("close", json!({ "client": hocuspocus }));
    }
    // The SDKs send the name as it is, slashes too.
    for room in ["100%", "ys/x", "plan (2)"] {
        let answer = world.http(&mut fleet, "POST", &format!("/doc/{room}/auth"), json!({ "json": {} }));
        assert_eq!((&answer["status"], &answer["json"]["docId"]), (&json!(200), &json!(room)), "{answer}");
    }
}

/// A name that is refused, and a project that is not there, are called so in every dialect.
#[test]
fn a_refused_name_is_called_so_in_every_dialect() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for (number, (room, why)) in [
        ("pl\u{200b}an", "a document name has no invisible characters"),
        ("gpj.\u{202e}exe", "a document name has no invisible characters"),
        ("\u{3000}", "a document name is not blank"),
        ("nowhere/plan", "no such project"),
    ]
    .into_iter()
    .enumerate()
    {
        for kind in ["y-websocket-3", "hocuspocus-4"] {
            let name = format!("{kind} {number}");
            fleet.open(&name, kind, &world.base(), room, &world.token());
            eventually(Duration::from_secs(20), "the refusal is told", || {
                let status = fleet.status(&name);
                match kind {
                    "y-websocket-3" => status["closes"][0]["code"] == 4404 && status["closes"][0]["reason"] == why,
                    _ => status["failedAuthentications"][0] == why,
                }
            });
            fleet.call("vanish", json!({ "client": name }));
        }
        if why == "no such project" {
            continue; // Y-Sweet knows no projects
        }
        let answer = world.http(&mut fleet, "POST", "/doc/new", json!({ "json": { "docId": room } }));
        assert_eq!(answer["status"], 422, "{answer}");
        assert_eq!(answer["json"]["detail"], format!("docId: {why}"));
    }
}

/// An empty frame says nothing of a token: Hocuspocus 2.15 would never come back after 4401.
#[test]
fn an_empty_frame_is_malformed_and_an_update_in_format_v2_is_called_so() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let token = world.token();
    let sockets = world.server.socket_base();
    let created = world.http(&mut fleet, "POST", "/doc/new", json!({ "json": { "docId": "v2" } }));
    assert_eq!(created["status"], 200, "{created}");
    let urls = [
        ("y-websocket", format!("{sockets}/yjs/v2?token={token}")),
        ("hocuspocus", format!("{sockets}/collab")),
        ("hocuspocus-4", format!("{sockets}/collab")),
        ("y-sweet", format!("{sockets}/d/v2/ws/v2?token={token}")),
    ];
    // A text "hi" in the root "text", as Yjs encodes it in format v2.
    let v2 = v2_update();
    for (dialect, url) in urls {
        let open = |fleet: &mut Fleet, raw: &str| fleet.call("rawOpen", json!({ "raw": raw, "url": url }));
        let closed = |fleet: &mut Fleet, raw: &str| -> Value {
            fleet.call("rawClosed", json!({ "raw": raw, "timeoutMs": 20_000 }))
        };
        let empty = format!("{dialect} empty");
        open(&mut fleet, &empty);
        fleet.call("rawSend", json!({ "raw": empty, "hex": "" }));
        assert_eq!(closed(&mut fleet, &empty), json!({ "code": 4400, "reason": "empty message" }), "{dialect}");

        let raw = format!("{dialect} v2");
        open(&mut fleet, &raw);
        let name = if dialect.starts_with("hocuspocus") { "027632" } else { "" };
        if dialect.starts_with("hocuspocus") {
            let auth: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
            // Only version 4 tells its version, and understands the message that closes one document.
            let version = if dialect == "hocuspocus-4" { "05342e382e30" } else { "" };
            let auth = format!("{name}0200{:02x}{auth}{version}", token.len());
            fleet.call("rawSend", json!({ "raw": raw, "hex": auth }));
            fleet.call("rawWait", json!({ "raw": raw, "count": 1, "timeoutMs": 20_000 }));
        }
        let update = format!("{name}0002{:02x}{v2}", v2.len() / 2);
        fleet.call("rawSend", json!({ "raw": raw, "hex": update }));
        let reason = "an update in format v2; send format v1";
        if dialect == "hocuspocus-4" {
            let told: String = reason.bytes().map(|byte| format!("{byte:02x}")).collect();
            eventually(Duration::from_secs(20), "the reason is told", || {
                strings(&fleet.call("rawFrames", json!({ "raw": raw }))).iter().any(|frame| frame.contains(&told))
            });
        } else {
            let closed = closed(&mut fleet, &raw);
            assert_eq!(closed["code"], 4400, "{dialect}");
            assert!(closed["reason"].as_str().is_some_and(|told| told.contains(reason)), "{dialect}: {closed}");
        }
    }
}

fn v2_update() -> String {
    use yrs::{ReadTxn as _, Text as _, Transact as _};
    let doc = yrs::Doc::with_client_id(7);
    let text = doc.get_or_insert_text("text");
    text.insert(&mut doc.try_transact_mut().expect("alone"), 0, "hi");
    let update = doc.try_transact().expect("alone").encode_state_as_update_v2(&yrs::StateVector::default());
    update.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whoever comes second finds what the first created: that is no error, neither in the server's log nor in
/// PostgreSQL's.
#[test]
fn two_who_create_one_name_at_once_are_no_error_in_the_log() {
    let mut world = World::start_private(crate::support::server::Options::default());
    let mut fleet = Fleet::start();
    let project = world.get(&mut fleet, "/v1/projects")["json"]["items"][0]["id"].clone();
    let token = world.token();
    let headers = json!({ "authorization": format!("Bearer {token}") });
    for round in 0..10 {
        let room = if round % 2 == 0 { format!("race {round}") } else { Uuid::from_u128(7 + round).to_string() };
        let mut requests = Vec::new();
        for _ in 0..4 {
            for (path, body) in [
                ("/v1/documents", json!({ "project_id": project, "name": room })),
                ("/doc/new", json!({ "docId": room })),
            ] {
                let url = format!("{}{path}", world.base());
                let request = json!({ "method": "POST", "url": url, "headers": headers, "json": body });
                requests.push((fleet.send("http", request.clone()), request));
            }
        }
        let opened = fleet.open(&format!("y-websocket {round}"), "y-websocket-3", &world.base(), &room, &token);
        fleet.open(&format!("hocuspocus {round}"), "hocuspocus-4", &world.base(), &room, &token);
        assert!(opened > 0);
        for (request, what) in requests {
            let answer = fleet.finish(request, &what);
            assert!([200, 201, 409].contains(&answer["status"].as_u64().unwrap_or_default()), "{what}: {answer}");
        }
        wait_for(&mut fleet, &[&format!("y-websocket {round}"), &format!("hocuspocus {round}")]);
    }
    let errors: Vec<String> = world.server.log().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors, Vec::<String>::new());
    let mut logged = world.postgres().log();
    logged.retain(|line| line.contains("ERROR:"));
    assert_eq!(logged, Vec::<String>::new());
}
