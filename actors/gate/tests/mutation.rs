//! Hostile updates from a seed, in short: the gate never panics, what it admits yrs survives, and no check could be spared.
//! The long form, for millions of them, is `examples/hostile.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
mod trial;

use std::process::Command;
use std::time::Duration;

use trial::{Orders, Outcome, SWITCHES, Switch};

const PATIENCE: Duration = Duration::from_secs(120);

fn run(orders: &Orders) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    trial::run(orders, command, PATIENCE, &mut |_| {})
}

/// What `run` starts.
#[test]
#[ignore = "the child process of the other tests"]
fn child() {
    trial::obey();
}

#[test]
fn yrs_survives_what_the_gate_admits() {
    let orders = Orders { seed: 0, documents: 2_000, off: None, is_brief: true };
    match run(&orders) {
        Outcome::Convicted { seed, how } => panic!("seed {seed}: {how}"),
        Outcome::Sound(counts) => {
            assert!((counts.get("whole") + counts.get("part")) * 5 >= counts.get("tried"), "too few pass: {counts:?}");
            let met = |switch: &Switch| counts.get(&format!("rule {}", switch.name())) > 0;
            let unmet: Vec<String> =
                SWITCHES.iter().filter(|switch| !met(switch)).map(|switch| switch.name()).collect();
            assert!(unmet.is_empty(), "never met: {unmet:?}");
        }
    }
}

#[test]
fn every_check_is_missed_when_it_is_switched_off() {
    let mut spared = Vec::new();
    for &off in SWITCHES {
        let orders = Orders { seed: 0, documents: 6_000, off: Some(off), is_brief: true };
        if matches!(run(&orders), Outcome::Sound(_)) {
            spared.push(off.name());
        }
    }
    assert!(spared.is_empty(), "nothing is amiss without {spared:?}");
}
