//! The judges judged: a server that does what ContextNexus must not do is convicted, so that an acquittal means something.

use crate::support::fleet::{Fleet, KINDS, interop_dir};
use crate::support::ledger::{Ledger, Verdict, start_load, tokens_by_client};
use crate::support::process::{PATIENCE, Running, eventually, free_port, tied};
use crate::support::{Random, seed};
use serde_json::json;
use std::time::Duration;

/// Acknowledges and shows on receipt, stores half a second later.
struct Forgetful {
    port: u16,
    directory: tempfile::TempDir,
    flags: &'static [&'static str],
    running: Option<Running>,
}

impl Forgetful {
    fn start(flags: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { port: free_port(), directory, flags, running: None };
        server.restart();
        server
    }

    fn restart(&mut self) {
        let mut command = tied("node");
        command
            .arg(interop_dir().join("lib/forgetful.mjs"))
            .arg(self.port.to_string())
            .arg(self.directory.path())
            .args(self.flags);
        let mut running = Running::start("forgetful server", command);
        running.wait_for_line("ready", Duration::from_secs(20));
        self.running = Some(running);
    }

    fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

#[test]
fn the_clients_converge_on_any_honest_server() {
    let server = Forgetful::start(&[]);
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    for kind in KINDS {
        fleet.open(kind, kind, &server.base(), "room", "none");
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("edit", json!({ "seed": seed, "count": 200, "flaky": true }));
    fleet.wait(&[], "synced", Duration::from_secs(20));
    fleet.call("converge", json!({ "timeoutMs": 5_000 }));
}

#[test]
fn without_fan_out_the_comparison_fails() {
    let server = Forgetful::start(&["--no-fanout"]);
    let seed = seed();
    let mut fleet = Fleet::with_seed(seed);
    for kind in KINDS {
        fleet.open(kind, kind, &server.base(), "room", "none");
    }
    fleet.wait(&[], "synced", Duration::from_secs(10));
    fleet.call("edit", json!({ "seed": seed, "count": 100 }));
    let outcome = fleet.send("converge", json!({ "timeoutMs": 2_000, "inVain": true })).result();
    assert!(
        outcome.is_err_and(|error| error.contains("differ")),
        "clients that hear nothing of each other were called equal"
    );
}

#[test]
fn a_server_that_acknowledges_on_receipt_is_convicted() {
    let mut server = Forgetful::start(&[]);
    let seed = seed();
    let mut random = Random(seed);
    let mut ledger = Ledger::default();
    for cycle in 0..20 {
        let mut fleet = Fleet::start();
        start_load(&mut fleet, &server.base(), "room", "none", &format!("{cycle}"), 40, &ledger.file());
        if cycle == 0 {
            eventually(PATIENCE, "the load runs", || {
                let promised = ledger.promises();
                !promised.acked.is_empty() && !promised.seen.is_empty()
            });
        }
        std::thread::sleep(Duration::from_millis(300 + random.below(1_000)));
        server.running = None;
        fleet.kill();
        server.restart();
        let promised = ledger.promises();
        let held = tokens_by_client(&mut Fleet::start(), "y-websocket-3", &server.base(), "room", "none");
        let verdict = Verdict::of(&promised.all(), &held);
        assert!(verdict.twice.is_empty(), "the harness wrote a token twice: {verdict:?}");
        if !verdict.is_clean() {
            return; // caught
        }
    }
    panic!("20 kills of a server that stores late were not noticed (CNX_SEED={seed})");
}
