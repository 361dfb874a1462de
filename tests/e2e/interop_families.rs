//! Every client that the README promises, in one document: they converge, see each other's cursors, and come back after a cut.

use crate::support::fleet::{FAMILIES, Fleet};
use crate::support::ledger::strings;
use crate::support::process::eventually;
use crate::support::relay::Relay;
use crate::support::seed;
use crate::support::world::World;
use serde_json::{Value, json};
use std::time::Duration;

const ROOM: &str = "families";
const PYCRDT: &str = "pycrdt";
/// y-websocket and Hocuspocus wait 2.5 s and 30 s at most between two attempts.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// A provider that drops what it is shown after a reconnect learns of a cursor when its owner renews it, every 15 s and a little.
const CURSORS_WITHIN: Duration = Duration::from_secs(40);

struct Families {
    javascript: Fleet,
    python: Fleet,
    /// Name and client id of each.
    cursors: Vec<(String, u64)>,
}

impl Families {
    fn open(base: &str, tokens: &[String], seed: u64) -> Self {
        let mut families = Self { javascript: Fleet::with_seed(seed), python: Fleet::python(), cursors: Vec::new() };
        families.python.seed = Some(seed);
        for (name, token) in FAMILIES.iter().copied().chain([PYCRDT]).zip(tokens.iter().cycle()) {
            let id = families.fleet(name).open(name, name, base, ROOM, token);
            families.cursors.push((name.to_owned(), id));
        }
        families
    }

    fn fleet(&mut self, name: &str) -> &mut Fleet {
        if name == PYCRDT { &mut self.python } else { &mut self.javascript }
    }

    fn names(&self) -> Vec<String> {
        self.cursors.iter().map(|(name, _)| name.clone()).collect()
    }

    fn wait(&mut self, until: &str) {
        self.javascript.wait(&[], until, BACK_WITHIN);
        self.python.wait(&[], until, BACK_WITHIN);
    }

    fn edit(&mut self, seed: u64, count: u64) {
        let arguments = json!({ "seed": seed, "count": count });
        let editing = self.javascript.send("edit", arguments.clone());
        self.python.call("edit", json!({ "seed": seed, "count": count / 10, "pauseMs": 20 }));
        self.javascript.finish(editing, &arguments);
    }

    /// All hold the same.
    fn converge(&mut self) {
        let mut last = Value::Null;
        eventually(BACK_WITHIN, "all hold the same document", || {
            let update = self.python.call("update", json!({ "client": PYCRDT }));
            last = self.javascript.call("difference", json!({ "also": [{ "name": PYCRDT, "update": update }] }));
            last.is_null()
        });
    }

    /// Everybody sees everybody's cursor, each with its name.
    fn see_each_other(&mut self, when: &str) {
        let cursors = self.cursors.clone();
        let ids: Vec<u64> = cursors.iter().map(|(_, id)| *id).collect();
        for name in self.names() {
            let within = CURSORS_WITHIN.as_millis() as u64;
            let fleet = self.fleet(&name);
            fleet.call("waitAwareness", json!({ "client": name, "ids": ids, "timeoutMs": within }));
            let seen = fleet.call("awareness", json!({ "client": name }));
            for (owner, id) in &cursors {
                let states = seen.as_array().expect("a list");
                let state = states.iter().find(|state| state["clientId"] == *id).expect("it was waited for");
                assert_eq!(state["state"]["user"]["name"], **owner, "what {name} sees of {owner} {when}: {state}");
            }
        }
    }
}

#[test]
fn every_family_converges_sees_cursors_and_comes_back_after_a_cut() {
    let seed = seed();
    let world = World::start();
    let relay = Relay::before(&world.base());
    let tokens = [world.token(), world.member("ada", "editor").token, world.member("grace", "editor").token];
    let mut families = Families::open(&relay.base(), &tokens, seed);
    families.wait("synced");
    families.edit(seed, 300);
    families.converge();
    families.see_each_other("at first");

    relay.cut();
    families.wait("disconnected");
    for name in families.names() {
        families.fleet(&name).call("write", json!({ "client": name, "token": format!("tok-{name}") }));
    }
    relay.restore();
    families.wait("synced");
    families.converge();
    let mut brought = strings(&families.javascript.call("tokens", json!({ "client": "y-websocket-3" })));
    brought.sort();
    let mut expected: Vec<String> = families.names().iter().map(|name| format!("tok-{name}")).collect();
    expected.sort();
    assert_eq!(brought, expected, "what was written while the network was cut (CNX_SEED={seed})");
    families.see_each_other("after the cut");

    families.edit(seed + 1, 100);
    families.converge();
    families.javascript.wait(&[], "saved", BACK_WITHIN);
    world.assert_one_truth(&mut families.javascript, ROOM);
}

/// y-partyserver's own messages are text frames. No other party speaks them here: they are ignored, and the connection goes on.
#[test]
fn a_text_frame_of_y_partyserver_is_ignored() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for name in ["party", "y-websocket-3"] {
        fleet.open(name, name, &world.base(), ROOM, &world.token());
    }
    fleet.wait(&[], "synced", BACK_WITHIN);
    fleet.call("say", json!({ "client": "party", "text": "hello" }));
    fleet.call("write", json!({ "client": "party", "token": "tok-after" }));
    fleet.wait(&["party"], "saved", BACK_WITHIN);
    fleet.call("converge", json!({ "timeoutMs": BACK_WITHIN.as_millis() as u64 }));
    let status = fleet.status("party");
    assert_eq!((&status["opened"], &status["closes"]), (&json!(1), &json!([])), "{status}");
}

/// pycrdt counts in bytes: an insertion at the third byte of 😀 has its right origin in whatever the author of 😀 wrote next, be it in
/// another root type. Neither side gains by asking again, so it is told the rule and what to do, in every dialect and over HTTP.
#[test]
fn what_pycrdt_puts_between_two_root_types_is_refused_with_what_to_do() {
    const RULE: &str = "in different shared types; write it again from a fresh document";
    let world = World::start();
    let (mut python, mut javascript) = (Fleet::python(), Fleet::start());
    python.open("author", "pycrdt", &world.base(), "smiley", &world.token());
    python.wait(&["author"], "synced", BACK_WITHIN);
    python.call("insert", json!({ "client": "author", "at": 0, "text": "😀" }));
    python.call("write", json!({ "client": "author", "token": "tok-1" }));
    let kinds = ["y-websocket-3", "hocuspocus-4", "y-sweet-0.9"];
    for kind in kinds {
        javascript.open(kind, kind, &world.base(), "smiley", &world.token());
    }
    javascript.wait(&[], "synced", BACK_WITHIN);
    python.open("splitter", "pycrdt", &world.base(), "smiley", &world.token());
    python.wait(&["splitter"], "synced", BACK_WITHIN);
    for name in kinds {
        eventually(BACK_WITHIN, "all has come", || {
            strings(&javascript.call("tokens", json!({ "client": name }))) == ["tok-1"]
        });
    }
    eventually(BACK_WITHIN, "all has come", || {
        python.call("tokens", json!({ "client": "splitter" })) == json!(["tok-1"])
    });

    let update = python.call("insert", json!({ "client": "splitter", "at": 2, "text": "x" }));
    eventually(BACK_WITHIN, "pycrdt is told", || {
        let told = python.status("splitter")["told"].clone();
        told[0]["code"] == 4400 && told[0]["reason"].as_str().is_some_and(|reason| reason.contains(RULE))
    });
    let answer = world.http(&mut javascript, "POST", "/d/smiley/update", json!({ "body": update }));
    assert!(answer["json"]["detail"].as_str().is_some_and(|detail| detail.contains(RULE)), "{answer}");
    for kind in kinds {
        javascript.call("apply", json!({ "client": kind, "update": update }));
        eventually(BACK_WITHIN, &format!("{kind} is told"), || {
            let status = javascript.status(kind);
            [&status["closes"][0]["reason"], &status["stateless"][0]]
                .iter()
                .any(|told| told.as_str().is_some_and(|told| told.contains(RULE)))
        });
    }
}
