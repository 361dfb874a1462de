//! Honest histories of several editors, however they are delivered: nothing is refused, nothing is lost, nothing waits in yrs.
//! The long form is `examples/honest.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::history::{Outcomes, play};

#[test]
fn honest_histories_converge_however_they_are_delivered() {
    let seeds = 300;
    let mut seen = Outcomes::default();
    for seed in 0..seeds {
        seen.add(&play(seed));
    }
    // The histories are worth something only if they take every way through the gate.
    assert!(seen.whole > seeds && seen.part > seeds && seen.nothing > seeds && seen.missing > seeds / 2, "{seen:?}");
}
