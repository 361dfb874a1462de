//! Rights that run out, are renewed, or change under open sockets; limits that pass; and what a client is told of each.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::strings;
use crate::support::process::eventually;
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::json;
use std::time::Duration;

const HOCUSPOCUS: [&str; 3] = ["hocuspocus-2", "hocuspocus-3", "hocuspocus-4"];
const PATIENCE: Duration = Duration::from_secs(60);

fn limited(limits: &[(&str, &str)]) -> World {
    let set = |(name, value): &(&str, &str)| (format!("CONTEXTNEXUS_LIMITS__{name}"), (*value).to_owned());
    World::start_with(Options { environment: limits.iter().map(set).collect(), ..Options::default() })
}

/// The first code with which a socket of the client was closed.
fn first_close(fleet: &mut Fleet, client: &str) -> Option<u64> {
    fleet.status(client)["closes"][0]["code"].as_u64()
}

fn write(fleet: &mut Fleet, client: &str, token: &str) {
    fleet.call("write", json!({ "client": client, "token": token }));
}

/// Tokens of a document as its log has them.
fn logged(world: &World, fleet: &mut Fleet, room: &str) -> Vec<String> {
    let folded = fleet.call("fold", json!({ "updates": world.log(room) }));
    strings(&fleet.call("tokensOf", json!({ "update": folded })))
}

#[test]
fn a_token_that_runs_out_neither_reads_nor_writes_on_open_sockets() {
    let world = World::start();
    let mut fleet = Fleet::start();
    fleet.open("owner", "y-websocket-3", &world.base(), "passing", &world.token());
    fleet.wait(&["owner"], "synced", PATIENCE);
    let member = world.member_for("petra", "editor", "8 seconds");
    for kind in KINDS {
        let options = world.as_is(kind, "passing", &member.token);
        fleet.open_with(kind, kind, &world.base(), "passing", &member.token, options);
    }
    for kind in KINDS {
        // Nobody is waited for here who came too late on a slow machine: all that matters is how it ends.
        eventually(PATIENCE, "the token has run out on every socket", || {
            let status = fleet.status(kind);
            let code = status["closes"][0]["code"].as_u64();
            code == Some(4501) || code == Some(4401) || status["counts"]["denied"].as_u64() >= Some(1)
        });
    }
    let synced: Vec<&str> = KINDS.into_iter().filter(|kind| fleet.count(kind, "stepTwoIn") > 0).collect();
    assert!(!synced.is_empty(), "nobody was in while the token was good");
    for kind in synced {
        assert_eq!(first_close(&mut fleet, kind), Some(4501), "{kind}: {}", fleet.status(kind));
    }
    let written = world.log("passing").len();
    for kind in KINDS {
        write(&mut fleet, kind, &format!("tok-{kind}"));
    }
    write(&mut fleet, "owner", "tok-owner");
    fleet.wait(&["owner"], "saved", PATIENCE);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.log("passing").len(), written + 1, "a token that had run out wrote");
    for kind in KINDS {
        let seen = strings(&fleet.call("tokens", json!({ "client": kind })));
        assert!(!seen.contains(&"tok-owner".to_owned()), "{kind} read after its token had run out");
    }
}

#[test]
fn a_client_with_a_fresh_token_comes_back_by_itself() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let member = world.member_for("frank", "editor", "20 seconds");
    let fresh = world.fresh_token(&member);
    for kind in KINDS {
        let options = world.as_is(kind, "refreshed", &member.token);
        fleet.open_with(kind, kind, &world.base(), "refreshed", &member.token, options);
    }
    fleet.wait(&[], "synced", Duration::from_secs(15));
    for kind in KINDS {
        fleet.call("setToken", json!({ "client": kind, "token": fresh }));
    }
    for kind in ["y-websocket-3", "y-websocket-4", "hocuspocus-2", "y-sweet-0.9"] {
        eventually(PATIENCE, "its token has run out", || first_close(&mut fleet, kind) == Some(4501));
        eventually(PATIENCE, "it is back", || fleet.status(kind)["opened"].as_u64() >= Some(2));
    }
    fleet.wait(&[], "synced", PATIENCE);
    for kind in KINDS {
        write(&mut fleet, kind, &format!("tok-{kind}"));
    }
    fleet.wait(&[], "saved", PATIENCE);
    for kind in ["hocuspocus-3", "hocuspocus-4"] {
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 1, "{kind} is asked for its token ahead, and stays open: {status}");
        assert_eq!(status["failedAuthentications"], json!([]), "{kind}: {status}");
    }
    assert_eq!(logged(&world, &mut fleet, "refreshed").len(), KINDS.len());
}

#[test]
fn a_token_that_runs_out_ends_its_document_and_no_other_on_the_socket() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let member = world.member_for("mona", "editor", "12 seconds");
    for kind in HOCUSPOCUS {
        fleet.open(kind, kind, &world.base(), "stays", &world.token());
        let name = format!("passing-{kind}");
        fleet.open_with(&name, kind, &world.base(), "goes", &member.token, json!({ "socketOf": kind }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    for kind in HOCUSPOCUS {
        let name = format!("passing-{kind}");
        eventually(PATIENCE, "its document has ended", || fleet.count(&name, "denied") > 0);
        write(&mut fleet, kind, &format!("tok-{kind}"));
    }
    fleet.wait(&HOCUSPOCUS, "saved", PATIENCE);
    for kind in HOCUSPOCUS {
        let status = fleet.status(kind);
        assert_eq!((&status["opened"], &status["closes"]), (&json!(1), &json!([])), "{kind}: {status}");
        assert_eq!(status["counts"]["denied"], 0, "{kind}: {status}");
    }
    let fresh = world.fresh_token(&member);
    for kind in ["hocuspocus-3", "hocuspocus-4"] {
        let name = format!("passing-{kind}");
        write(&mut fleet, &name, &format!("tok-late-{kind}"));
        fleet.call("setToken", json!({ "client": name, "token": fresh, "send": true }));
        eventually(PATIENCE, "what it wrote is saved after all", || {
            logged(&world, &mut fleet, "goes").contains(&format!("tok-late-{kind}"))
        });
        assert_eq!(fleet.status(&name)["authenticated"], true);
    }
}

#[test]
fn a_right_token_soon_after_a_wrong_one_is_not_refused_later() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let right = world.token();
    let wrong = world.wrong_token();
    for kind in ["hocuspocus-3", "hocuspocus-4"] {
        // Once, so that the second refusal is said late.
        let first = format!("first-{kind}");
        fleet.open(&first, kind, &world.base(), "late", &wrong);
        fleet.wait(&[&first], "denied", PATIENCE);
        fleet.call("vanish", json!({ "client": first }));
        for again in 0..2 {
            let name = format!("{kind}-{again}");
            fleet.open(&name, kind, &world.base(), "late", &wrong);
            std::thread::sleep(Duration::from_millis(300));
            fleet.call("setToken", json!({ "client": name, "token": right, "send": true }));
            fleet.wait(&[&name], "synced", PATIENCE);
        }
    }
    std::thread::sleep(Duration::from_secs(5)); // longer than the longest delay of a refusal
    for name in ["hocuspocus-3-0", "hocuspocus-3-1", "hocuspocus-4-0", "hocuspocus-4-1"] {
        let status = fleet.status(name);
        assert_eq!(status["authenticated"], true, "{name} was refused after it had been let in: {status}");
        write(&mut fleet, name, &format!("tok-{name}"));
    }
    eventually(PATIENCE, "all of them write", || logged(&world, &mut fleet, "late").len() == 4);
}

#[test]
fn nobody_slows_down_somebody_elses_login() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let wrong = world.wrong_token();
    for n in 0..6 {
        let name = format!("stranger-{n}");
        fleet.open(&name, "hocuspocus-4", &world.base(), "busy", &wrong);
    }
    for n in 0..6 {
        fleet.wait(&[&format!("stranger-{n}")], "denied", PATIENCE);
    }
    // The next of theirs is told after 4 s. Somebody else's first mistake is told at once: of several, one that no busy machine held up.
    let told_after: Vec<u64> = ["C", "D", "E", "F", "G"]
        .into_iter()
        .map(|letter| {
            let name = format!("mistaken-{letter}");
            fleet.open(&name, "hocuspocus-4", &world.base(), "busy", &wrong.replace("AAAA", &letter.repeat(4)));
            fleet.wait(&[&name], "denied", PATIENCE);
            let status = fleet.status(&name);
            status["deniedAt"].as_u64().expect("a time") - status["attempts"][0].as_u64().expect("a time")
        })
        .collect();
    assert!(told_after.iter().any(|ms| *ms < 4_000), "first mistakes were told after {told_after:?} ms");
}

#[test]
fn a_changed_role_is_told_to_the_page_and_what_was_unsaved_is_saved() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let member = world.member("rosa", "editor");
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "roles", &member.token);
    }
    fleet.wait(&[], "saved", PATIENCE);
    world.set_role(&member, "viewer");
    for kind in HOCUSPOCUS {
        eventually(PATIENCE, "it is told that it may only read", || fleet.status(kind)["scope"] == "readonly");
    }
    for kind in ["y-websocket-3", "y-websocket-4"] {
        eventually(PATIENCE, "it is told that it may only read", || fleet.count(kind, "denied") > 0);
    }
    for kind in KINDS {
        write(&mut fleet, kind, &format!("tok-{kind}"));
    }
    std::thread::sleep(Duration::from_secs(1));
    for kind in KINDS {
        assert_eq!(fleet.status(kind)["saved"], false, "{kind} was told that its write is saved");
    }
    world.set_role(&member, "editor");
    for kind in HOCUSPOCUS {
        eventually(PATIENCE, "it is told that it may write", || fleet.status(kind)["scope"] == "read-write");
        eventually(PATIENCE, "nothing is unsaved", || fleet.status(kind)["unsynced"] == 0);
    }
    for kind in ["y-websocket-3", "y-websocket-4", "y-sweet-0.9"] {
        eventually(PATIENCE, "what was unsaved is saved", || fleet.status(kind)["saved"] == true);
    }
    assert_eq!(logged(&world, &mut fleet, "roles").len(), KINDS.len());
    for kind in KINDS {
        assert_eq!(fleet.status(kind)["opened"], 1, "{kind} was closed for a change of role");
    }
}

#[test]
fn who_meets_a_limit_that_passes_gets_in_when_it_has_passed() {
    let world = limited(&[("DOCUMENT_CONNECTIONS_MAX", "1")]);
    let mut fleet = Fleet::start();
    for kind in KINDS {
        let room = format!("full-{kind}");
        fleet.open("seated", "y-websocket-3", &world.base(), &room, &world.token());
        fleet.wait(&["seated"], "synced", PATIENCE);
        fleet.open(kind, kind, &world.base(), &room, &world.token());
        eventually(PATIENCE, "it is told to come back", || first_close(&mut fleet, kind) == Some(1013));
        fleet.call("close", json!({ "client": "seated" }));
        fleet.wait(&[kind], "synced", PATIENCE);
        fleet.call("close", json!({ "client": kind }));
    }
    // Beside an open document the server tries again itself.
    for kind in HOCUSPOCUS {
        let (room, waits) = (format!("shared-{kind}"), format!("waits-{kind}"));
        fleet.open("seated", "y-websocket-3", &world.base(), &room, &world.token());
        fleet.wait(&["seated"], "synced", PATIENCE);
        fleet.open(kind, kind, &world.base(), &format!("own-{kind}"), &world.token());
        fleet.wait(&[kind], "synced", PATIENCE);
        fleet.open_with(&waits, kind, &world.base(), &room, &world.token(), json!({ "socketOf": kind }));
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(fleet.status(&waits)["synced"], false);
        fleet.call("close", json!({ "client": "seated" }));
        fleet.wait(&[&waits], "synced", PATIENCE);
        assert_eq!(fleet.status(kind)["opened"], 1, "{kind}: its other document was disturbed");
    }
}

/// More than the default of 64 KiB: it is not shown and counted, and its owner goes on editing.
#[test]
fn presence_over_its_limit_ends_no_session() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), "cursors", &world.token());
    }
    fleet.wait(&[], "synced", PATIENCE);
    for kind in KINDS {
        fleet.call("setAwareness", json!({ "client": kind, "state": { "cursor": "x".repeat(100_000) } }));
        write(&mut fleet, kind, &format!("tok-{kind}"));
    }
    undisturbed(&mut fleet);
    assert!(world.metric("contextnexus_presence_dropped_total") >= KINDS.len() as f64);
}

/// As an export from elsewhere has it: JSON of 300 levels under a key of 5000 letters.
#[test]
fn deep_values_and_long_keys_end_no_session() {
    let world = World::start();
    let mut fleet = Fleet::start();
    let deep = (0..300).fold(json!("at last"), |value, _| json!([value]));
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), &format!("deep-{kind}"), &world.token());
        fleet.wait(&[kind], "synced", PATIENCE);
        fleet.call("setKey", json!({ "client": kind, "key": "short", "value": deep }));
        fleet.call("setKey", json!({ "client": kind, "key": "k".repeat(5_000), "value": 1 }));
    }
    undisturbed(&mut fleet);
}

/// Everything is saved, and nobody was closed.
fn undisturbed(fleet: &mut Fleet) {
    for kind in KINDS {
        eventually(PATIENCE, &format!("{kind} is saved"), || {
            let status = fleet.status(kind);
            assert_eq!((&status["opened"], &status["closes"]), (&json!(1), &json!([])), "{kind}: {status}");
            status["saved"] == true
        });
    }
}

/// A document that is larger than an update may be comes back in one step 2, as a client brings what the database lost.
#[test]
fn a_document_larger_than_an_update_comes_back_in_a_step_2() {
    const PIECES: usize = 10;
    let world = limited(&[("UPDATE_BYTES_MAX", "65536")]);
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open(kind, kind, &world.base(), &format!("lost-{kind}"), &world.token());
        fleet.wait(&[kind], "synced", PATIENCE);
        fleet.call("offline", json!({ "client": kind }));
        for _ in 0..PIECES {
            fleet.call("insert", json!({ "client": kind, "at": 0, "text": "x".repeat(20_000) }));
        }
        fleet.call("online", json!({ "client": kind }));
    }
    for kind in KINDS {
        eventually(PATIENCE, &format!("{kind} is back"), || {
            let status = fleet.status(kind);
            let ended = status["closes"].as_array().expect("closes").iter().find(|close| close["code"] != 1006);
            assert_eq!(ended, None, "{kind} was closed when it brought its document back");
            status["opened"] == 2 && status["saved"] == true
        });
        let folded = fleet.call("fold", json!({ "updates": world.log(&format!("lost-{kind}")) }));
        fleet.call("converge", json!({ "clients": [kind], "also": [{ "name": "log", "update": folded }] }));
    }
}

#[test]
fn a_refusal_on_a_shared_socket_refuses_one_document() {
    let world = limited(&[
        ("DOCUMENTS_PER_CONNECTION_MAX", "3"),
        ("UPDATE_BYTES_MAX", "131072"),
        ("DOCUMENT_BYTES_MAX", "131072"),
        ("STEP2_BYTES_MAX", "140000"),
    ]);
    let mut fleet = Fleet::start();
    for kind in HOCUSPOCUS {
        fleet.open(kind, kind, &world.base(), &format!("good-{kind}"), &world.token());
        fleet.wait(&[kind], "synced", PATIENCE);
        let on = json!({ "socketOf": kind });
        let (named, large, many) = (format!("named-{kind}"), format!("large-{kind}"), format!("many-{kind}"));
        fleet.open_with(&named, kind, &world.base(), "no-such-project/x", &world.token(), on.clone());
        fleet.wait(&[&named], "denied", PATIENCE);
        fleet.open_with(&large, kind, &world.base(), &format!("large-{kind}"), &world.token(), on.clone());
        fleet.wait(&[&large], "synced", PATIENCE);
        fleet.open_with(&many, kind, &world.base(), &format!("many-{kind}"), &world.token(), on);
        fleet.wait(&[&many], "denied", PATIENCE);
        fleet.call("insert", json!({ "client": large, "at": 0, "text": "x".repeat(300_000) }));
        eventually(PATIENCE, "the page is told which limit it was", || {
            fleet.status(&large)["stateless"][0].as_str().is_some_and(|told| told.contains("step2_bytes_max"))
        });
        write(&mut fleet, kind, &format!("tok-{kind}"));
        fleet.wait(&[kind], "saved", PATIENCE);
        let status = fleet.status(kind);
        assert_eq!((&status["opened"], &status["closes"]), (&json!(1), &json!([])), "{kind}: {status}");
    }
}
