//! What the gate says of the cost of an update holds for yrs. The long form is `examples/dear.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
#[path = "dear/mod.rs"]
mod search;

#[test]
fn nothing_that_is_admitted_costs_many_times_what_the_gate_says() {
    let found = search::search(&mut common::rng(1), if cfg!(debug_assertions) { 400 } else { 1_000 });
    // Which candidates come hangs on what was dearest, so on the machine: enough of them, that it has seen both.
    assert!(found.rows > 50 && found.refused > 5, "{found:?}");
    // A tree that is not optimised, on a machine that is shared, takes longer.
    let dearest = found.by_estimate.unwrap();
    assert!(dearest.times() < if cfg!(debug_assertions) { 20.0 } else { 5.0 }, "{dearest:?}");
}
