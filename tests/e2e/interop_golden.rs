//! The handshakes of the three dialects (docs/protocols.md, "Messages"), byte for byte, with nothing but a socket.

use crate::support::fleet::Fleet;
use crate::support::world::World;
use serde_json::{Value, json};

fn text(text: &str) -> String {
    let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{:02x}{bytes}", text.len())
}

fn open(fleet: &mut Fleet, world: &World, path: &str) {
    fleet.call("rawOpen", json!({ "raw": "raw", "url": format!("{}{path}", world.server.socket_base()) }));
}

fn frames(fleet: &mut Fleet, count: usize) -> Vec<String> {
    let answer = fleet.call("rawWait", json!({ "raw": "raw", "count": count }));
    answer["frames"].as_array().expect("frames").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn send(fleet: &mut Fleet, hex: &str) {
    fleet.call("rawSend", json!({ "raw": "raw", "hex": hex }));
}

/// No frame comes beyond those read.
fn silence(fleet: &mut Fleet, after: usize) {
    std::thread::sleep(std::time::Duration::from_millis(300));
    let all = fleet.call("rawFrames", json!({ "raw": "raw" }));
    assert_eq!(all.as_array().expect("frames").len(), after, "{all}");
}

/// Text "a" of client 1 at clock 0 in the root `t`, as yjs writes it.
const UPDATE: &str = "0101010004010174016100";
const UPDATE_LENGTH: &str = "0b";

#[test]
fn y_websocket() {
    let world = World::start();
    let mut fleet = Fleet::start();
    open(&mut fleet, &world, &format!("/yjs/golden-y-websocket?token={}", world.token()));
    // The server's step 1 of an empty document, unasked.
    assert_eq!(frames(&mut fleet, 1), ["00000100"]);
    send(&mut fleet, "00000100");
    assert_eq!(frames(&mut fleet, 2)[1], "0001020000", "an empty step 2 answers an empty step 1");
    // A first awareness state, clock 1. The sender knows it; liveness is the keep-alive's business.
    let state = "01".to_owned() + "06" + "01" + "01" + "01" + &text("{}");
    send(&mut fleet, &state);
    // An update comes back after it was committed.
    let update = format!("0002{UPDATE_LENGTH}{UPDATE}");
    send(&mut fleet, &update);
    assert_eq!(frames(&mut fleet, 3)[2], update);
    assert_eq!(world.log("golden-y-websocket").len(), 1, "what came back is in the log");
    // Query awareness: all states, as one message. What an owner brings with a new connection is shown at its next
    // clock.
    let shown = "01".to_owned() + "06" + "01" + "01" + "02" + &text("{}");
    send(&mut fleet, "03");
    assert_eq!(frames(&mut fleet, 4)[3], shown);
    // A step 1 that lacks nothing.
    send(&mut fleet, "000003010101");
    assert_eq!(frames(&mut fleet, 5)[4], "0001020000");
    silence(&mut fleet, 5);
}

#[test]
fn hocuspocus() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let name = text("golden-hocuspocus");
    open(&mut fleet, &world, "/collab");
    let token = world.token();
    // All at once, as the providers do: token with version, step 1, first awareness (clock 0).
    send(&mut fleet, &format!("{name}0200{}{}", text(&token), text("4.8.0")));
    send(&mut fleet, &format!("{name}00000100"));
    send(&mut fleet, &format!("{name}0106010100027b7d"));
    let heard = frames(&mut fleet, 3);
    assert_eq!(heard[0], format!("{name}0202{}", text("read-write")), "authenticated");
    assert_eq!(heard[1], format!("{name}00000100"), "the server's step 1 stands before its step 2");
    assert_eq!(heard[2], format!("{name}0001020000"));
    let before = frames(&mut fleet, 3).len();
    // The client's empty step 2: one status.
    send(&mut fleet, &format!("{name}0001020000"));
    let heard = frames(&mut fleet, before + 1);
    assert_eq!(heard[before], format!("{name}0801"));
    // An update: one status, and no echo, since the status says it all.
    send(&mut fleet, &format!("{name}0002{UPDATE_LENGTH}{UPDATE}"));
    assert_eq!(frames(&mut fleet, before + 2)[before + 1], format!("{name}0801"));
    assert_eq!(world.log("golden-hocuspocus").len(), 1, "what was acknowledged is in the log");
    // Ping is answered with pong, and the document is left with its reason.
    send(&mut fleet, "09");
    assert_eq!(frames(&mut fleet, before + 3)[before + 2], "0a");
    send(&mut fleet, &format!("{name}07"));
    assert_eq!(frames(&mut fleet, before + 4)[before + 3], format!("{name}07{}", text("provider_initiated")));
    silence(&mut fleet, before + 4);
}

#[test]
fn y_sweet() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let answer = world.http(&mut fleet, "POST", "/doc/new", json!({ "json": { "docId": "golden-y-sweet" } }));
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(answer["json"], json!({ "docId": "golden-y-sweet" }));
    let answer =
        world.http(&mut fleet, "POST", "/doc/golden-y-sweet/auth", json!({ "json": { "authorization": "full" } }));
    assert_eq!(answer["status"], 200, "{answer}");
    let client_token = &answer["json"];
    assert_eq!(client_token["url"], format!("{}/d/golden-y-sweet/ws", world.server.socket_base()));
    assert_eq!(client_token["baseUrl"], format!("{}/d/golden-y-sweet", world.base()));
    assert_eq!(client_token["docId"], "golden-y-sweet");
    assert_eq!(client_token["authorization"], "full");
    let token = client_token["token"].as_str().expect("a token");
    open(&mut fleet, &world, &format!("/d/golden-y-sweet/ws/golden-y-sweet?token={token}"));
    assert_eq!(frames(&mut fleet, 1), ["00000100"]);
    // Step 1, then 102 (version 0), as the client does on open. The echo of 102 must wait for the client's step 2.
    send(&mut fleet, "00000100");
    send(&mut fleet, "660100");
    assert_eq!(frames(&mut fleet, 2)[1], "0001020000");
    silence(&mut fleet, 2);
    send(&mut fleet, "0001020000");
    assert_eq!(frames(&mut fleet, 3)[2], "660100", "now the echo, byte for byte");
    // An update and its version: the version's echo says that both are committed.
    send(&mut fleet, &format!("0002{UPDATE_LENGTH}{UPDATE}"));
    send(&mut fleet, "660101");
    assert_eq!(frames(&mut fleet, 4)[3], "660101");
    assert_eq!(world.log("golden-y-sweet").len(), 1, "what was acknowledged is in the log");
    let answer = world.http(
        &mut fleet,
        "GET",
        "/d/golden-y-sweet/as-update",
        json!({ "headers": { "authorization": format!("Bearer {token}") } }),
    );
    assert_eq!(answer["status"], 200);
    for (method, path) in [("GET", "/ready"), ("POST", "/check_store"), ("GET", "/check_store")] {
        assert_eq!(world.http(&mut fleet, method, path, json!({}))["status"], 200, "{path}");
    }
}

/// y-websocket up to 3.1 reads only the first message of a frame (docs/protocols.md, "One message per frame").
#[test]
fn one_message_per_frame() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let kinds = crate::support::fleet::KINDS;
    for kind in kinds {
        fleet.open(kind, kind, &world.base(), "frames", &world.token());
    }
    fleet.wait(&[], "synced", std::time::Duration::from_secs(10));
    for kind in kinds {
        fleet.call("burst", json!({ "client": kind, "count": 30 }));
    }
    fleet.wait(&[], "saved", std::time::Duration::from_secs(5));
    fleet.call("converge", json!({}));
    for kind in kinds {
        assert_eq!(fleet.count(kind, "framesWithMore"), 0, "{kind} was sent a frame with more than one message");
        assert_eq!(fleet.status(kind)["errors"], json!([]));
    }
}
