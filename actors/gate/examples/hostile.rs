//! Hostile updates by the million through the gate and yrs: see README.md of this crate.
//!
//! `cargo run --release -p contextnexus-gate --example hostile -- [--updates N] [--seed S] [--jobs J] [--off CHECK | --each-off]`
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/trial/mod.rs"]
mod trial;

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trial::{Counts, Orders, Outcome, SWITCHES, Switch, UPDATES_PER_DOCUMENT};

/// Documents of one child process.
const SHARD: u64 = 20_000;
/// Every rule must have been met so often in a run of ten million.
const HITS_MIN: u64 = 1_000;
/// Documents that a check that is switched off is given to be missed.
const DOCUMENTS_UNTIL_MISSED: u64 = 20_000;

struct Arguments {
    updates: u64,
    seed: u64,
    jobs: u64,
    patience: Duration,
    off: Vec<Switch>,
}

fn arguments() -> Option<Arguments> {
    let mut arguments =
        Arguments { updates: 10_000_000, seed: 0, jobs: 1, patience: Duration::from_secs(60), off: Vec::new() };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        if argument == "--each-off" {
            arguments.off = SWITCHES.to_vec();
            continue;
        }
        let value = given.next()?;
        match argument.as_str() {
            "--updates" => arguments.updates = value.parse().ok()?,
            "--seed" => arguments.seed = value.parse().ok()?,
            "--jobs" => arguments.jobs = value.parse().ok()?,
            "--patience" => arguments.patience = Duration::from_secs(value.parse().ok()?),
            "--off" => arguments.off.push(Switch::named(&value)?),
            _ => return None,
        }
    }
    Some(arguments)
}

fn child() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

fn main() -> ExitCode {
    if trial::is_child() {
        trial::obey();
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = arguments() else {
        eprintln!("arguments: --updates N, --seed S, --jobs J, --patience SECONDS, --off CHECK, --each-off");
        return ExitCode::FAILURE;
    };
    if arguments.off.is_empty() { attack(&arguments) } else { switch_off(&arguments) }
}

/// Every update in turn, in shards.
fn attack(arguments: &Arguments) -> ExitCode {
    let documents = arguments.updates.div_ceil(UPDATES_PER_DOCUMENT);
    let (started, next, tried) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let (counts, convictions) = (Mutex::new(Counts::default()), Mutex::new(Vec::new()));
    let shards = documents.div_ceil(SHARD);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= shards {
                        return;
                    }
                    let first = shard * SHARD;
                    let orders = Orders {
                        seed: arguments.seed + first,
                        documents: SHARD.min(documents - first),
                        off: None,
                        is_brief: true,
                    };
                    match trial::run(&orders, child(), arguments.patience, &mut |_| {}) {
                        Outcome::Sound(of_shard) => {
                            tried.fetch_add(of_shard.get("tried"), Ordering::Relaxed);
                            counts.lock().unwrap().merge(&of_shard);
                        }
                        Outcome::Convicted { seed, how } => {
                            eprintln!("CONVICTED at seed {seed}: {how}");
                            convictions.lock().unwrap().push((seed, how));
                        }
                    }
                    let tried = tried.load(Ordering::Relaxed);
                    eprintln!("{tried} updates in {:.0} s", started.elapsed().as_secs_f64());
                }
            });
        }
    });
    let (counts, convictions) = (counts.into_inner().unwrap(), convictions.into_inner().unwrap());
    for (name, count) in &counts.0 {
        println!("{count:>12}  {name}");
    }
    let passed = counts.get("whole") + counts.get("part");
    println!(
        "{} in {:.0} s, seeds {}..{}",
        counts.verdict(),
        started.elapsed().as_secs_f64(),
        arguments.seed,
        arguments.seed + documents
    );
    let mut sound = true;
    for (seed, how) in &convictions {
        println!("CONVICTED at seed {seed}: {how}");
        sound = false;
    }
    if passed * 5 < counts.get("tried") {
        println!("FEWER THAN ONE IN FIVE PASS: the run says little");
        sound = false;
    }
    // In a shorter run as many fewer.
    let hits_min = HITS_MIN * arguments.updates / 10_000_000;
    for switch in SWITCHES {
        let hits = counts.get(&format!("rule {}", switch.name()));
        if hits < hits_min {
            println!("{} WAS MET ONLY {hits} TIMES", switch.name());
            sound = false;
        }
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each check switched off in turn: the run must fail without it.
fn switch_off(arguments: &Arguments) -> ExitCode {
    let mut missed = true;
    for &off in &arguments.off {
        let orders =
            Orders { seed: arguments.seed, documents: DOCUMENTS_UNTIL_MISSED, off: Some(off), is_brief: false };
        let started = Instant::now();
        match trial::run(&orders, child(), arguments.patience, &mut |_| {}) {
            Outcome::Convicted { seed, how } => {
                let how: String = how.chars().take(160).collect();
                println!("{:<24} missed after {:>6} documents, {how}", off.name(), seed - arguments.seed + 1);
            }
            Outcome::Sound(counts) => {
                println!("{:<24} NOT MISSED: {} in {:?}", off.name(), counts.verdict(), started.elapsed());
                missed = false;
            }
        }
    }
    if missed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
