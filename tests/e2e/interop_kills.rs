//! Kill anything at any moment: what was acknowledged, or received by any other client, is there after a cold restart,
//! although no writer ever returns.

use crate::support::cluster::number;
use crate::support::fleet::{Fleet, KINDS};
use crate::support::ledger::{Ledger, Verdict, start_load, strings, tokens_by_client};
use crate::support::process::{PATIENCE, eventually};
use crate::support::server::Options;
use crate::support::table_lock::TableLock;
use crate::support::world::World;
use crate::support::{Random, scaled, seed};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

const ROOM: &str = "kills";

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Server,
    Postgres,
    Both,
}

/// When something is killed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    /// At random under load, or while the clients still connect.
    Load,
    /// A snapshot is being stored.
    Snapshot,
    /// The document is being loaded into a server that has just started.
    ColdLoad,
}

#[test]
fn nothing_is_lost_when_the_server_is_killed() {
    kill_again_and_again(Victim::Server, scaled(10, 100));
}

#[test]
fn nothing_is_lost_when_postgresql_is_killed() {
    kill_again_and_again(Victim::Postgres, scaled(10, 20));
}

#[test]
fn nothing_is_lost_when_both_are_killed() {
    kill_again_and_again(Victim::Both, scaled(10, 10));
}

fn kill_again_and_again(victim: Victim, cycles: u64) {
    let seed = seed();
    let mut random = Random(seed);
    let setting = |name: &str, value: &str| (format!("CONTEXTNEXUS_{name}"), value.to_owned());
    // Small tails, so that there is a snapshot to store in every cycle.
    let mut environment = vec![setting("LIMITS__SNAPSHOT_TAIL_UPDATES", "50")];
    if victim == Victim::Both {
        environment.push(setting("SERVER__WORKERS", "1")); // on one thread, as on a machine with one CPU
    }
    let options = Options { environment, ..Default::default() };
    let mut world = World::start_private(options);
    let mut ledger = Ledger::default();
    let (mut storing, mut loading, mut under_load) = (0, 0, 0);
    for cycle in 0..cycles {
        let moment = [Moment::Load, Moment::Snapshot, Moment::ColdLoad][(cycle % 3) as usize];
        if moment == Moment::ColdLoad {
            world.server.restart(); // the judge has warmed it
        }
        let mut fleet = Fleet::with_seed(seed);
        let log = ledger.file();
        // A third of the kills under load come while the clients still connect.
        let is_early = cycle / 3 % 3 == 2;
        let load = Load { prefix: cycle.to_string(), log, held: cycle / 3 % 2 == 0, is_early, ledger: &ledger };
        let lock = run_until(moment, &world, &mut fleet, &load, &mut random);
        under_load += usize::from(moment == Moment::Load && !is_early);
        kill(victim, &mut world, &mut random);
        // Only where the step could not end before the kill it is known to have been under way.
        storing += u64::from(moment == Moment::Snapshot && lock.is_some());
        loading += u64::from(moment == Moment::ColdLoad && lock.is_some());
        drop(lock);
        // What the killed server had sent still counts: it is read to the end before the clients go.
        fleet.wait(&[], "disconnected", Duration::from_secs(20));
        fleet.kill();
        if victim != Victim::Server {
            world.postgres().restart();
        }
        world.server.restart();
        let promised = ledger.promises();
        judge(&world, &promised.all(), &format!("cycle {cycle}, {moment:?}, CNX_SEED={seed}"));
        eprintln!("cycle {cycle}, {moment:?}: {} acknowledged, {} seen", promised.acked.len(), promised.seen.len());
    }
    eprintln!("of {cycles} kills, {storing} while a snapshot was stored, {loading} while a document was loaded cold");
    assert!(storing > 0, "no kill while a snapshot was being stored");
    assert!(loading > 0, "no kill while a document was being loaded");
    let promised = ledger.promises();
    assert!(under_load > 0, "no kill under load");
    assert!(promised.acked.len() >= under_load * ACKNOWLEDGED, "{} acknowledged", promised.acked.len());
    assert!(promised.seen.len() >= under_load * ACKNOWLEDGED, "{} seen by others", promised.seen.len());
    assert_eq!(number(&world.database.superuser, "select count(*) from quarantine"), 0, "a sound row was quarantined");
    assert!(
        number(&world.database.superuser, "select count(*) from document_snapshots") > 0,
        "no snapshot was written"
    );
    let mut fleet = Fleet::start();
    world.assert_one_truth(&mut fleet, ROOM);
}

/// So many tokens are acknowledged, and seen by others, before a kill under load: however long that takes on this machine.
const ACKNOWLEDGED: usize = 60;

/// What the writers of one cycle write, and where it is noted.
struct Load<'a> {
    prefix: String,
    log: PathBuf,
    ledger: &'a Ledger,
    /// The kill does not wait until the load runs.
    is_early: bool,
    /// Whether the step at which the kill comes is held until then, or was let go some milliseconds before, so that all its later
    /// instants are among the kills too.
    held: bool,
}

/// Starts writers and answers at that moment, with the lock that holds the server there where it is to be held.
fn run_until(
    moment: Moment,
    world: &World,
    fleet: &mut Fleet,
    load: &Load<'_>,
    random: &mut Random,
) -> Option<TableLock> {
    let mut lock = match moment {
        Moment::Load => None,
        Moment::Snapshot => Some(TableLock::on_storing_snapshots(world)),
        Moment::ColdLoad => Some(TableLock::on_loading(world)),
    };
    let before = load.ledger.promises();
    start_load(fleet, &world.base(), ROOM, &world.token(), &load.prefix, scaled(40, 150), &load.log);
    let Some(taken) = &mut lock else {
        if !load.is_early {
            eventually(PATIENCE, "the load runs", || {
                let now = load.ledger.promises();
                let more = |now: &BTreeSet<String>, before: &BTreeSet<String>| now.len() >= before.len() + ACKNOWLEDGED;
                more(&now.acked, &before.acked) && more(&now.seen, &before.seen)
            });
        }
        std::thread::sleep(Duration::from_millis(random.below(if load.is_early { 200 } else { 800 })));
        return None;
    };
    taken.wait_for_somebody(Duration::from_secs(60));
    if load.held {
        return lock;
    }
    drop(lock);
    std::thread::sleep(Duration::from_micros(random.below(8_000)));
    None
}

fn kill(victim: Victim, world: &mut World, random: &mut Random) {
    match victim {
        Victim::Server => world.server.kill(),
        Victim::Postgres => {
            world.postgres().kill();
            // The server goes on without its database for a moment: it must not promise anything now.
            std::thread::sleep(Duration::from_millis(random.below(500)));
            world.server.kill();
        }
        Victim::Both if random.below(2) == 0 => {
            world.server.kill();
            world.postgres().kill();
        }
        Victim::Both => {
            world.postgres().kill();
            world.server.kill();
        }
    }
}

/// PostgreSQL dies and returns under a server that goes on, with clients that stay.
#[test]
fn clients_that_stay_lose_nothing_when_postgresql_is_killed() {
    let seed = seed();
    let mut random = Random(seed);
    let mut world = World::start_private(Options::default());
    let mut ledger = Ledger::default();
    let mut fleet = Fleet::with_seed(seed);
    start_load(&mut fleet, &world.base(), ROOM, &world.token(), "stay", scaled(40, 150), &ledger.file());
    for _ in 0..scaled(3, 20) {
        std::thread::sleep(Duration::from_millis(300 + random.below(1_500)));
        world.postgres().kill();
        std::thread::sleep(Duration::from_millis(100 + random.below(1_000)));
        world.postgres().restart();
    }
    std::thread::sleep(Duration::from_secs(1));
    fleet.call("stopLoad", json!({}));
    for kind in KINDS {
        fleet.call("online", json!({ "client": kind }));
    }
    fleet.wait(&[], "saved", Duration::from_secs(20));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
    assert!(world.server.is_alive(), "the server is the same process: {}", world.server.log_tail());
    for kind in KINDS {
        let status = fleet.status(kind);
        assert_eq!(status["opened"], 1, "{kind} was closed while PostgreSQL was away: {status} (CNX_SEED={seed})");
    }
    judge(&world, &ledger.promises().all(), &format!("clients stayed, CNX_SEED={seed}"));
    world.assert_one_truth(&mut fleet, ROOM);
}

/// Reads the document over every path and holds each against what was promised.
fn judge(world: &World, promised: &BTreeSet<String>, when: &str) {
    let mut fleet = Fleet::start();
    if promised.is_empty() {
        return; // killed before anything was promised
    }
    let mut readings = Vec::new();
    for kind in ["y-websocket-3", "hocuspocus-4", "y-sweet-0.9"] {
        readings.push((kind.to_owned(), tokens_by_client(&mut fleet, kind, &world.base(), ROOM, &world.token())));
    }
    let update = world.as_update(&mut fleet, ROOM);
    readings.push(("as-update".to_owned(), strings(&fleet.call("tokensOf", json!({ "update": update })))));
    let folded = fleet.call("fold", json!({ "updates": world.log(ROOM) }));
    readings.push(("folded log".to_owned(), strings(&fleet.call("tokensOf", json!({ "update": folded })))));
    for (path, held) in readings {
        let verdict = Verdict::of(promised, &held);
        assert!(verdict.is_clean(), "{when}: read by {path}: {verdict:?}");
    }
}
