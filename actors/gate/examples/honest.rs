//! Honest histories by the thousand through the gate: none is refused, none diverges. See README.md of this crate.
//!
//! `cargo run --release -p contextnexus-gate --example honest -- [--histories N] [--seed S]` plays histories of yrs editors;
//! `node record.mjs yjs13 1 1000 | cargo run --release -p contextnexus-gate --example honest -- --recorded` what Yjs wrote.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::BufRead as _;
use std::process::{Command, ExitCode};
use std::time::Instant;

use common::history::{Outcomes, play};
use common::recorded::History;

/// Histories of one process: yrs never frees a document that holds another one.
const SHARD: u64 = 5_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (histories, seed) = (number("--histories", 50_000), number("--seed", 0));
    if arguments.iter().any(|argument| argument == "--recorded") {
        recorded();
    } else if arguments.iter().any(|argument| argument == "--shard") {
        let mut seen = Outcomes::default();
        (seed..seed + histories).for_each(|seed| seen.add(&play(seed)));
        println!("seeds {seed}..{}: {seen:?}", seed + histories);
    } else {
        let started = Instant::now();
        for first in (seed..seed + histories).step_by(SHARD as usize) {
            let count = SHARD.min(seed + histories - first);
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--shard", "--seed", &first.to_string(), "--histories", &count.to_string()])
                .status()
                .unwrap();
            if !status.success() {
                println!("A HISTORY IS REFUSED OR DIVERGES: its seed stands above");
                return ExitCode::FAILURE;
            }
        }
        println!("{histories} histories converged in {:.0} s", started.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

fn recorded() {
    let started = Instant::now();
    let (mut count, mut updates) = (0u64, 0);
    for line in std::io::stdin().lock().lines() {
        let history = History::read(&line.unwrap());
        count += 1;
        updates += history.sent.len();
        history.replay(&format!("history {count}"));
        if count % 1_000 == 0 {
            eprintln!("{count} histories in {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    println!(
        "{count} recorded histories ({updates} updates) read the same, in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(count > 0, "nothing was recorded");
}
