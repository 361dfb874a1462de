//! Whoever joins, at any time, reads values as they were written: their types, their signs, the order of their keys.

use crate::support::cluster::number;
use crate::support::fleet::Fleet;
use crate::support::process::{PATIENCE, eventually};
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::{Value, json};

/// One of each dialect, and one of the next generation of Yjs.
const KINDS: [&str; 4] = ["y-websocket-3", "hocuspocus-4", "y-sweet-0.9", "y-websocket-4"];

/// What somebody reads who has just come.
fn read(fleet: &mut Fleet, world: &World, room: &str, kind: &str) -> Value {
    fleet.open("reader", kind, &world.base(), room, &world.token());
    fleet.wait(&["reader"], "synced", PATIENCE);
    let values = fleet.call("values", json!({ "client": "reader" }));
    fleet.call("close", json!({ "client": "reader" }));
    values
}

#[test]
fn a_newcomer_reads_the_values_that_were_written_before_and_after_a_restart() {
    // Each update is followed by a snapshot.
    let setting = ("CONTEXTNEXUS_LIMITS__SNAPSHOT_TAIL_UPDATES".to_owned(), "1".to_owned());
    let mut world = World::start_with(Options { environment: vec![setting], ..Default::default() });
    let mut fleet = Fleet::start();
    let mut written = Vec::new();
    for kind in ["y-websocket-3", "hocuspocus-4", "y-sweet-0.9"] {
        let room = format!("values-{kind}");
        fleet.open("writer", kind, &world.base(), &room, &world.token());
        fleet.wait(&["writer"], "synced", PATIENCE);
        fleet.call("writeValues", json!({ "client": "writer" }));
        fleet.wait(&["writer"], "saved", PATIENCE);
        let values = fleet.call("values", json!({ "client": "writer" }));
        for told in ["big: 1234567890123456789n", "negativeZero: -0", "ordered: {b: 1,a: 2}", "absent: undefined"] {
            assert!(values["map"].as_array().expect("a list").contains(&json!(told)), "{told} of {values}");
        }
        for reader in KINDS {
            assert_eq!(read(&mut fleet, &world, &room, reader), values, "{reader} in {room}, of the tree");
        }
        fleet.call("close", json!({ "client": "writer" }));
        written.push((room, values));
    }
    let stored = "select count(distinct document_id) from document_snapshots";
    eventually(PATIENCE, "a snapshot of each is stored", || number(&world.database.superuser, stored) == 3);
    assert_sound(&world);
    world.server.restart();
    for (room, values) in &written {
        for reader in KINDS {
            assert_eq!(read(&mut fleet, &world, room, reader), *values, "{reader} in {room}, of the snapshot");
        }
        // One more update, so that the snapshot becomes a tree.
        fleet.open("writer", "y-websocket-3", &world.base(), room, &world.token());
        fleet.call("write", json!({ "client": "writer", "token": "one more" }));
        fleet.wait(&["writer"], "saved", PATIENCE);
        fleet.call("close", json!({ "client": "writer" }));
        for reader in KINDS {
            assert_eq!(
                read(&mut fleet, &world, room, reader),
                *values,
                "{reader} in {room}, of the tree of the snapshot"
            );
        }
    }
    assert_sound(&world);
    fleet.assert_clean();
}

/// No snapshot was found to be another document.
fn assert_sound(world: &World) {
    let metrics = world.metrics();
    let of_snapshots: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("contextnexus_snapshots_total{")).collect();
    assert!(of_snapshots.iter().any(|line| line.contains("stored")), "{of_snapshots:?}");
    assert!(!of_snapshots.iter().any(|line| line.contains("unsound")), "{of_snapshots:?}");
}
