//! Looks for updates that the gate admits and that cost yrs more than the gate says: see README.md of this crate.
//!
//! `cargo run --release -p contextnexus-gate --example dear -- [--candidates N] [--seed S]`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/dear/mod.rs"]
mod dear;

use std::process::ExitCode;
use std::time::Instant;

/// Candidates that are led by the same dearest ones.
const HERD: u64 = 500;
/// Measured time for one estimated: what is above has no bound. On a machine on which a text that is typed letter by letter takes longer than
/// estimated, everything may take longer by as much.
const TIMES_MAX: f64 = 1.5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (candidates, seed) = (number("--candidates", 1_000_000), number("--seed", 0));
    let (started, mut all) = (Instant::now(), dear::Found::default());
    let (mut slowest, mut is_above) = (1.0_f64, false);
    for herd in 0..candidates.div_ceil(HERD) {
        let slow = dear::honest().times().max(1.0);
        slowest = slowest.max(slow);
        let found = dear::search(&mut common::rng(seed + herd), HERD.min(candidates - herd * HERD));
        all.candidates += found.candidates;
        all.rows += found.rows;
        all.refused += found.refused;
        let larger = |old: &mut Option<dear::Measured>, new, value: fn(&dear::Measured) -> f64| {
            if let Some(new) = new
                && old.as_ref().is_none_or(|old| value(&new) > value(old))
            {
                *old = Some(new);
            }
        };
        if let Some(row) = found.by_estimate.as_ref().filter(|row| row.times() > TIMES_MAX * slow) {
            println!("seed {}: {:.2} times, a text {slow:.2} times", seed + herd, row.times());
            is_above = true;
        }
        larger(&mut all.by_estimate, found.by_estimate, dear::Measured::times);
        larger(&mut all.by_byte, found.by_byte, dear::Measured::ns_per_byte);
        larger(&mut all.longest, found.longest, |row| row.taken.as_secs_f64());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{} candidates, {} rows folded, {} refused, {seconds:.0} s", all.candidates, all.rows, all.refused);
    println!("a text letter by letter took up to {slowest:.2} times what is estimated");
    for (what, row) in [("by its estimate", &all.by_estimate), ("by the byte", &all.by_byte), ("of all", &all.longest)]
    {
        let Some(row) = row else { continue };
        println!(
            "dearest {what}: {:?} for {} bytes, estimated {:?} ({:.2} times, {:.0} ns a byte): {}",
            row.taken,
            row.bytes,
            row.estimate,
            row.times(),
            row.ns_per_byte(),
            row.shape.chars().take(600).collect::<String>()
        );
    }
    if is_above {
        println!("AN UPDATE COSTS MORE THAN THE GATE SAYS");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
