//! Two nodes on one PostgreSQL, with a Redis that comes and goes, a node that dies and one that is frozen.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::strings;
use crate::support::redis::Redis;
use crate::support::server::{Options, TestServer};
use crate::support::world::World;
use crate::support::{scaled, seed};
use serde_json::json;
use std::time::Duration;

/// Eight clients over two nodes, all dialects on each side of the middle.
pub const CLIENTS: [(&str, &str, usize); 8] = [
    ("y-websocket-3-first", "y-websocket-3", 0),
    ("y-websocket-4-second", "y-websocket-4", 1),
    ("hocuspocus-2-first", "hocuspocus-2", 0),
    ("hocuspocus-3-second", "hocuspocus-3", 1),
    ("hocuspocus-4-first", "hocuspocus-4", 0),
    ("y-sweet-0.9-second", "y-sweet-0.9", 1),
    ("y-sweet-0.9-first", "y-sweet-0.9", 0),
    ("y-websocket-3-second", "y-websocket-3", 1),
];

pub struct Nodes {
    pub second: TestServer,
    pub world: World,
    redis: Redis,
}

impl Nodes {
    fn start() -> Self {
        Self::start_as(World::start_with)
    }

    /// With a PostgreSQL of the test's own where it says so.
    pub fn start_as(world: fn(Options) -> World) -> Self {
        let redis = Redis::start();
        let options = Options { redis: Some(redis.url()), ..Options::default() };
        let world = world(options.clone());
        let second = world.second_node(options);
        Self { second, world, redis }
    }

    pub fn base(&self, node: usize) -> String {
        if node == 0 { self.world.base() } else { self.second.base.clone() }
    }

    pub fn token(&self, node: usize) -> &str {
        if node == 0 { &self.world.server.token } else { &self.second.token }
    }

    pub fn open(&self, fleet: &mut Fleet, room: &str) {
        for (name, kind, node) in CLIENTS {
            fleet.open(name, kind, &self.base(node), room, self.token(node));
        }
        fleet.wait(&[], "synced", Duration::from_secs(10));
    }
}

#[test]
fn two_nodes_converge_while_redis_is_flushed_stopped_and_a_node_dies() {
    let mut nodes = Nodes::start();
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    nodes.open(&mut fleet, "nodes");
    let edits = json!({ "seed": seed, "count": 1_000, "pauseMs": 5, "flaky": true });
    let editing = fleet.send("edit", edits.clone());
    let pause = || std::thread::sleep(Duration::from_millis(700));
    pause();
    nodes.redis.flush();
    pause();
    nodes.redis.kill();
    pause();
    pause();
    nodes.redis.restart();
    pause();
    nodes.second.kill();
    pause();
    nodes.second.restart();
    fleet.finish(editing, &edits);
    for (name, ..) in CLIENTS {
        fleet.call("online", json!({ "client": name }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    let bases = [nodes.base(0), nodes.base(1)];
    nodes.world.assert_one_truth_on(&mut fleet, "nodes", &bases);
}

/// Without Redis a head check finds what other nodes wrote.
#[test]
fn two_nodes_without_redis_converge_within_a_few_seconds() {
    let world = World::start();
    let second = world.second_node(Options::default());
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    for (name, kind, node) in CLIENTS {
        let (base, token) =
            if node == 0 { (&world.server.base, &world.server.token) } else { (&second.base, &second.token) };
        fleet.open(name, kind, base, "no-redis", token);
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("edit", json!({ "seed": seed, "count": 200, "pauseMs": 5 }));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    world.assert_one_truth_on(&mut fleet, "no-redis", &[world.base(), second.base.clone()]);
}

/// Cursors cross the nodes, and a dead node's are gone within 30 s.
#[test]
fn the_cursors_of_a_dead_node_disappear() {
    let mut nodes = Nodes::start();
    let mut fleet = Fleet::start();
    nodes.open(&mut fleet, "cursors");
    let mut ids = Vec::new();
    for (name, _, node) in CLIENTS {
        fleet.call("setAwareness", json!({ "client": name, "state": { "cursor": node } }));
        ids.push((name, node, fleet.status(name)["clientId"].clone()));
    }
    let all: Vec<_> = ids.iter().map(|(_, _, id)| id.clone()).collect();
    for (name, ..) in CLIENTS {
        fleet.call("waitAwareness", json!({ "client": name, "ids": all, "timeoutMs": 3_000 }));
    }
    // The second node's clients go down with it and do not come back.
    nodes.second.kill();
    for (name, _, node) in CLIENTS {
        if node == 1 {
            fleet.call("vanish", json!({ "client": name }));
        }
    }
    let left: Vec<_> = ids.iter().filter(|(_, node, _)| *node == 0).map(|(_, _, id)| id.clone()).collect();
    for (name, _, node) in CLIENTS {
        if node == 0 {
            fleet.call("waitAwareness", json!({ "client": name, "ids": left, "timeoutMs": 60_000 }));
        }
    }
}

/// A node that is stopped for a while stops nobody, and finds its way back.
#[test]
fn a_frozen_node_stops_nobody_and_catches_up() {
    let nodes = Nodes::start();
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    nodes.open(&mut fleet, "frozen");
    let first: Vec<&str> = CLIENTS.iter().filter(|(_, _, node)| *node == 0).map(|(name, ..)| *name).collect();
    let all: Vec<&str> = CLIENTS.iter().map(|(name, ..)| *name).collect();
    let before = json!({ "seed": seed, "count": 200, "pauseMs": 3 });
    let editing = fleet.send("edit", before.clone());
    std::thread::sleep(Duration::from_millis(300));
    nodes.second.freeze(); // in the middle of its own appends
    fleet.finish(editing, &before);
    // The first node's clients write, are acknowledged and see each other.
    let count = scaled(10, 60) * 20;
    let more = json!({ "clients": first, "seed": seed + 1, "count": count, "pauseMs": 50 });
    fleet.call("edit", more);
    fleet.wait(&first, "saved", Duration::from_secs(5));
    fleet.call("converge", json!({ "clients": first, "timeoutMs": 5_000 }));
    nodes.second.thaw();
    for name in &all {
        fleet.call("online", json!({ "client": name }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.call("edit", json!({ "seed": seed + 2, "count": 100 }));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
    fleet.wait(&[], "saved", Duration::from_secs(10));
    nodes.world.assert_one_truth_on(&mut fleet, "frozen", &[nodes.base(0), nodes.base(1)]);
}

/// One name, created at once on two nodes by many clients: one document.
#[test]
fn one_name_created_on_two_nodes_at_once_is_one_document() {
    let nodes = Nodes::start();
    let mut fleet = Fleet::start();
    for room in 0..5 {
        let room = format!("race-{room}");
        let mut opening = Vec::new();
        for (name, kind, node) in CLIENTS {
            let (base, token) = (nodes.base(node), nodes.token(node));
            opening.push(
                fleet.send("open", json!({ "client": name, "kind": kind, "base": base, "room": room, "token": token })),
            );
        }
        for pending in opening {
            fleet.finish(pending, &json!(room));
        }
        fleet.wait(&[], "synced", Duration::from_secs(15));
        for (name, ..) in CLIENTS {
            fleet.call("write", json!({ "client": name, "token": format!("tok-{name}") }));
        }
        fleet.wait(&[], "saved", Duration::from_secs(5));
        fleet.call("converge", json!({}));
        assert_eq!(strings(&fleet.call("tokens", json!({ "client": "y-sweet-0.9-first" }))).len(), CLIENTS.len());
        nodes.world.document(&room);
        for (name, ..) in CLIENTS {
            fleet.call("close", json!({ "client": name }));
        }
    }
}

/// All kinds are among the eight, or the tests above say less than they claim.
#[test]
fn every_kind_is_on_one_of_the_nodes() {
    for kind in KINDS {
        assert!(CLIENTS.iter().any(|(_, k, _)| *k == kind), "{kind}");
    }
}
