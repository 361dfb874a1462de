//! Simulation: whole deployments in one thread, without a clock, from one seed each.
//!
//! A [`schedule`] is drawn first and lived through after: editors with yrs documents behind the stock clients' side of each dialect,
//! two or three nodes made of the states of production ([`node`] performs what they decide), slow sockets, a log that fails, answers
//! late or not at all, a bus that loses, doubles and reorders, kills, clock skew, snapshots, and databases that are restored from a
//! backup under running nodes. During all that, and after everybody came to rest ([`world`]):
//!
//! * whatever is acknowledged, shown, published or read is in the log at that moment, and it is the same;
//! * each client is acknowledged exactly as often as its dialect says;
//! * positions grow, and each is a prefix of the log; queues keep their bounds; nothing sound is quarantined, nobody honest is closed, but for those
//!   under whose client id a stranger wrote, or of whom something could not be folded, whose words are kept;
//! * editors, nodes, the log folded, and a snapshot with its tail are equal, and nothing that was ever committed is missing.
//!
//! Beside that, faults are planted ([`faults`]), and each must be found.
//!
//! ```text
//! cargo test -p contextnexus-actors --test simulation                          60 worlds of 200 steps, and the planted faults
//! CNX_LONG=1 cargo test --release -p contextnexus-actors --test simulation     1,000 worlds
//! CNX_SIMULATION_SEEDS=50000 CNX_SIMULATION_STEPS=600 …                        as many and as long as you like
//! CNX_SIMULATION_SEED=17 …                                                     this one alone
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod court;
mod editor;
mod faults;
mod node;
mod schedule;
mod service;
mod store;
mod world;

use faults::{Fault, PLANTED};
use schedule::{draw, shrink};
use std::collections::BTreeMap;
use std::sync::Once;
use world::{Failure, run};

/// Steps of one world (`CNX_SIMULATION_STEPS`).
const STEPS: usize = 200;
/// Worlds of the short form.
const SEEDS: u64 = 60;
/// Worlds of the long form (`CNX_LONG=1`).
const SEEDS_LONG: u64 = 1_000;

/// Lives through a seed's world. When it fails: its schedule, made as short as it can be, and what went wrong.
fn failure(seed: u64, fault: Option<Fault>) -> Option<String> {
    let (setting, schedule) = draw(seed, steps());
    let first = run(&setting, &schedule, fault).err()?;
    let is_same = |failure: &Failure| failure.kind() == first.kind();
    let shorter = shrink(schedule, |shorter| run(&setting, shorter, fault).is_err_and(|failure| is_same(&failure)));
    let last = run(&setting, &shorter, fault).err().unwrap_or_else(|| first.clone());
    let lines: Vec<String> = shorter.iter().enumerate().map(|(at, step)| format!("  {at:3} {step:?}")).collect();
    Some(format!(
        "seed {seed} fails: {}\nCNX_SIMULATION_SEED={seed} CNX_SIMULATION_STEPS={} lives through it alone. {setting:?}, {} steps are enough:\n{}\nat step {:?}: {}",
        first.what,
        steps(),
        shorter.len(),
        lines.join("\n"),
        last.at,
        last.what
    ))
}

fn steps() -> usize {
    number("CNX_SIMULATION_STEPS").map_or(STEPS, |steps| steps as usize)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn is_found(seed: u64, fault: Fault) -> bool {
    let (setting, schedule) = draw(seed, steps());
    run(&setting, &schedule, Some(fault)).is_err()
}

/// A panic of a state is a finding like any other, and told once: by the message of the test.
fn hush() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.location().is_some_and(|place| place.file().ends_with("simulation/main.rs")) {
                usual(panic);
            }
        }));
    });
}

#[test]
fn all_worlds_keep_every_promise() {
    hush();
    let chosen = number("CNX_SIMULATION_SEED");
    let is_long = std::env::var("CNX_LONG").is_ok_and(|long| long == "1");
    let seeds: Vec<u64> = match chosen {
        Some(seed) => vec![seed],
        None => (0..number("CNX_SIMULATION_SEEDS").unwrap_or(if is_long { SEEDS_LONG } else { SEEDS })).collect(),
    };
    for seed in seeds {
        if let Some(failure) = failure(seed, None) {
            panic!("{failure}");
        }
    }
}

#[test]
fn every_planted_fault_is_found() {
    hush();
    for (fault, seeds) in PLANTED {
        let found = (0..seeds).find(|seed| is_found(*seed, fault));
        let Some(found) = found else { panic!("{fault:?} was not found in {seeds} worlds") };
        eprintln!("{fault:?} is found by seed {found}");
    }
}

#[test]
fn one_seed_is_one_world() {
    hush();
    for seed in 0..10 {
        let (setting, schedule) = draw(seed, steps());
        assert_eq!(run(&setting, &schedule, None), run(&setting, &schedule, None), "seed {seed}");
    }
}

#[test]
fn a_failing_schedule_becomes_short() {
    hush();
    let seed = (0..SEEDS).find(|seed| is_found(*seed, Fault::AcknowledgedBeforeCommit)).unwrap();
    let (setting, schedule) = draw(seed, steps());
    let fails = |steps: &[schedule::Step]| run(&setting, steps, Some(Fault::AcknowledgedBeforeCommit)).is_err();
    assert!(fails(&schedule));
    let shorter = shrink(schedule, fails);
    assert!(fails(&shorter) && shorter.len() <= 30, "{shorter:?}");
}

/// What sixty worlds are full of, and how much of it there is at least: a simulation in which nothing happens finds nothing.
const TROUBLE: [(&str, u64); 23] = [
    ("a bus message followed on", 100),
    ("a bus message left a gap", 30),
    ("a bus message was old", 100),
    ("a client id was squatted on", 5),
    ("a document came to rest", 20),
    ("a document was rebuilt", 5),
    ("a document was unloaded", 2),
    ("a head was held", 1),
    ("a log was tried", 10),
    ("a mark was returned", 100),
    ("a recovery began", 50),
    ("a repetition was echoed", 50),
    ("a request was answered", 50),
    ("a snapshot was taken", 100),
    ("a status was given", 200),
    ("an append found PostgreSQL away", 10),
    ("an append was behind", 50),
    ("an append was committed", 300),
    ("an append's outcome was unknown", 20),
    ("an update was taken out", 10),
    ("somebody caught up", 10),
    ("somebody was told to load the page again", 2),
    ("something went out in pieces", 10),
];

#[test]
fn worlds_are_full_of_trouble() {
    hush();
    let mut seen = BTreeMap::<&str, u64>::new();
    for seed in 0..SEEDS {
        let (setting, schedule) = draw(seed, steps());
        // A world that fails is told by another test.
        for (what, count) in run(&setting, &schedule, None).unwrap_or_default().seen {
            *seen.entry(what).or_default() += count;
        }
    }
    for (what, least) in TROUBLE {
        assert!(seen.get(what).copied().unwrap_or_default() >= least, "too seldom: {what}, of {seen:#?}");
    }
}
