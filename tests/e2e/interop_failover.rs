//! PostgreSQL loses its newest commits under two running nodes, because an asynchronous replica is promoted or a backup
//! is restored. No document forks, and the clients that are connected bring back what the database lost.

use super::interop_nodes::{CLIENTS, Nodes};
use crate::support::cluster::{Cluster, copy, number};
use crate::support::fleet::Fleet;
use crate::support::ledger::{Ledger, Verdict, strings};
use crate::support::process::{PATIENCE, eventually};
use crate::support::seed;
use crate::support::world::World;
use serde_json::{Value, json};
use std::time::Duration;

const ROOM: &str = "promoted";
/// Nobody writes into it after replication was cut: nothing of it is lost, and nothing may happen to it.
const QUIET_ROOM: &str = "promoted-quiet";
/// Made after replication was cut: the replica has never heard of it.
const YOUNG_ROOM: &str = "promoted-young";

/// Who is in the two rooms beside the one that all are in.
const BESIDE: [(&str, &str, usize, &str); 6] = [
    ("quiet-y-websocket-3", "y-websocket-3", 0, QUIET_ROOM),
    ("quiet-hocuspocus-4", "hocuspocus-4", 1, QUIET_ROOM),
    ("quiet-y-sweet-0.9", "y-sweet-0.9", 0, QUIET_ROOM),
    ("young-y-websocket-3", "y-websocket-3", 0, YOUNG_ROOM),
    ("young-hocuspocus-4", "hocuspocus-4", 1, YOUNG_ROOM),
    ("young-y-sweet-0.9", "y-sweet-0.9", 0, YOUNG_ROOM),
];

#[test]
fn a_promoted_replica_forks_no_document_and_gets_back_what_it_lacks() {
    let mut nodes = Nodes::start_as(World::start_private);
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    let mut ledger = Ledger::default();
    nodes.open(&mut fleet, ROOM);
    open_beside(&nodes, &mut fleet, QUIET_ROOM);
    let everybody: Vec<&str> = CLIENTS.iter().map(|(name, ..)| *name).collect();
    fleet.call("edit", json!({ "clients": everybody, "seed": seed, "count": 100 }));
    fleet.wait(&[], "saved", Duration::from_secs(10));

    let mut replica = nodes.world.postgres().replica();
    replica.stop_replicating();
    open_beside(&nodes, &mut fleet, YOUNG_ROOM);
    let log = ledger.file();
    fleet.call("load", json!({ "clients": everybody, "perSecond": 20, "prefix": "p", "log": log }));
    eventually(PATIENCE, "the replica lacks a good deal", || ledger.promises().all().len() > 300);

    // Under load: the address leads to a standby first, as it does where a fail-over is slow, and then to a primary that lacks all of this.
    nodes.world.postgres().kill();
    let promised_before = ledger.promises().all();
    replica.take_address_of(nodes.world.postgres());
    let primary = nodes.world.exchange_postgres(replica);
    let lost = lost(&nodes, &mut fleet, &promised_before);
    assert!(lost > 100, "the replica lacks next to nothing ({lost}): this proves nothing (CNX_SEED={seed})");
    std::thread::sleep(Duration::from_secs(2));
    nodes.world.postgres().promote();
    std::thread::sleep(Duration::from_secs(2));
    fleet.call("stopLoad", json!({}));

    // Nobody is told to reconnect: what has to happen happens by itself.
    fleet.wait(&[], "synced", Duration::from_secs(60));
    fleet.wait(&[], "saved", Duration::from_secs(60));
    fleet.call("converge", json!({ "clients": everybody, "timeoutMs": 20_000 }));
    for node in [&mut nodes.world.server, &mut nodes.second] {
        assert!(node.is_alive(), "a node ended: {}", node.log_tail());
    }
    for (name, ..) in CLIENTS {
        let status = fleet.status(name);
        assert_eq!(status["opened"], 1, "{name} had to connect again: {status} (CNX_SEED={seed})");
    }
    let promised = ledger.promises().all();
    assert!(promised.len() > promised_before.len(), "nothing was acknowledged after the fail-over");
    let verdict = Verdict::of(&promised, &strings(&fleet.call("tokens", json!({ "client": "hocuspocus-4-first" }))));
    assert!(verdict.is_clean(), "{verdict:?} (CNX_SEED={seed})");
    for room in [QUIET_ROOM, YOUNG_ROOM] {
        let there = beside(room);
        fleet.call("converge", json!({ "clients": there, "timeoutMs": 20_000 }));
        let mut held = strings(&fleet.call("tokens", json!({ "client": there[1] })));
        held.sort();
        let mut written: Vec<_> = there.iter().map(|name| format!("tok-first-{name}")).collect();
        written.sort();
        assert_eq!(held, written, "{room} (CNX_SEED={seed})");
    }
    for (name, _, _, room) in BESIDE {
        let status = fleet.status(name);
        assert!(room != QUIET_ROOM || status["opened"] == 1, "{name} had nothing to do with it: {status}");
    }
    let quarantined = number(&nodes.world.database.superuser, "select count(*) from quarantine");
    assert_eq!(quarantined, 0, "what came back was taken for a fork");
    for room in [ROOM, QUIET_ROOM, YOUNG_ROOM] {
        assert_no_fork(&nodes, &mut fleet, room);
    }
    // Of the fleet only those who are in the same room can be compared with it.
    for (name, ..) in BESIDE {
        fleet.call("close", json!({ "client": name }));
    }
    nodes.world.assert_one_truth_on(&mut fleet, ROOM, &[nodes.base(0), nodes.base(1)]);
    drop(primary);
}

/// Opens one of the other rooms; each client writes one token.
fn open_beside(nodes: &Nodes, fleet: &mut Fleet, room: &str) {
    for (name, kind, node, _) in BESIDE.iter().filter(|(_, _, _, theirs)| *theirs == room) {
        fleet.open(name, kind, &nodes.base(*node), room, nodes.token(*node));
    }
    let names = beside(room);
    fleet.wait(&names, "synced", Duration::from_secs(10));
    for name in names {
        fleet.call("write", json!({ "client": name, "token": format!("tok-first-{name}") }));
    }
}

fn beside(room: &str) -> Vec<&'static str> {
    BESIDE.iter().filter(|(_, _, _, theirs)| *theirs == room).map(|(name, ..)| *name).collect()
}

/// How many of the promised tokens the database that is there now has not.
fn lost(nodes: &Nodes, fleet: &mut Fleet, promised: &std::collections::BTreeSet<String>) -> usize {
    let folded = fleet.call("fold", json!({ "updates": nodes.world.log(ROOM) }));
    let held = strings(&fleet.call("tokensOf", json!({ "update": folded })));
    Verdict::of(promised, &held).missing.len()
}

/// Both nodes stand where the log ends, by number and by name.
fn assert_no_fork(nodes: &Nodes, fleet: &mut Fleet, room: &str) {
    let document = nodes.world.document(room);
    let head = nodes.world.text(
        "select seq || '-' || replace(tip::text, '-', '') from document_heads where document_id = $1::uuid",
        &document.to_string(),
    );
    for node in [0, 1] {
        let url = format!("{}/v1/documents/{document}/content", nodes.base(node));
        let headers = json!({ "authorization": format!("Bearer {}", nodes.token(node)) });
        let answer: Value = fleet.call("http", json!({ "url": url, "headers": headers }));
        assert_eq!(answer["status"], 200, "{answer}");
        assert_eq!(answer["headers"]["etag"], format!("\"{head}-y\""), "{room} on node {node}");
    }
}

#[test]
fn clients_bring_back_what_a_restored_database_lost() {
    let mut nodes = Nodes::start_as(World::start_private);
    let seed = seed();
    let mut ledger = Ledger::default();
    let mut fleet = Fleet::with_seed(seed);
    nodes.open(&mut fleet, "restored");
    fleet.call("edit", json!({ "seed": seed, "count": 100 }));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    let backup = Backup::take(nodes.world.postgres());
    fleet.wait(&[], "saved", Duration::from_secs(10));
    let log = ledger.file();
    let names: Vec<&str> = CLIENTS.iter().map(|(name, ..)| *name).collect();
    fleet.call("load", json!({ "clients": names, "perSecond": 20, "prefix": "r", "log": log }));
    eventually(PATIENCE, "there is something to lose", || ledger.promises().all().len() > 150);
    fleet.call("stopLoad", json!({}));
    fleet.wait(&[], "saved", Duration::from_secs(5));
    let lost_from = nodes.world.log("restored").len();
    backup.restore(nodes.world.postgres());
    let after = nodes.world.log("restored").len();
    assert!(after < lost_from, "the restored database lacks {lost_from} - {after} updates");
    // Somebody writes: both nodes find that their prefix is gone.
    fleet.call("write", json!({ "client": "y-websocket-3-first", "token": "tok-after" }));
    fleet.call("write", json!({ "client": "y-sweet-0.9-second", "token": "tok-after-too" }));
    std::thread::sleep(Duration::from_secs(3));
    for name in &names {
        fleet.call("online", json!({ "client": name }));
    }
    fleet.wait(&[], "synced", Duration::from_secs(45));
    fleet.call("converge", json!({ "timeoutMs": 10_000 }));
    fleet.wait(&[], "saved", Duration::from_secs(10));
    let promised = ledger.promises().all();
    assert!(promised.len() > 100, "the load ran");
    let held = strings(&fleet.call("tokens", json!({ "client": "hocuspocus-4-first" })));
    let verdict = Verdict::of(&promised, &held);
    assert!(verdict.is_clean(), "{verdict:?} (CNX_SEED={seed})");
    nodes.world.assert_one_truth_on(&mut fleet, "restored", &[nodes.base(0), nodes.base(1)]);
}

/// A copy of the cluster's files while it was down.
struct Backup(tempfile::TempDir);

impl Backup {
    fn take(cluster: &mut Cluster) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        cluster.stop();
        copy(&cluster.data(), &directory.path().join("data"));
        cluster.restart();
        Self(directory)
    }

    fn restore(&self, cluster: &mut Cluster) {
        cluster.kill();
        std::fs::remove_dir_all(cluster.data()).expect("the data can be removed");
        copy(&self.0.path().join("data"), &cluster.data());
        cluster.restart();
    }
}
