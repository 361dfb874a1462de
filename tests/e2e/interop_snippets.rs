//! The connection snippets of the README, as they are there: each is a program under `tests/interop/snippets`, run here as
//! the README tells.

use crate::support::fleet::interop_dir;
use crate::support::process::{Running, tied};
use crate::support::world::World;
use std::time::Duration;

#[test]
fn every_snippet_of_the_readme_runs() {
    let world = World::start();
    let directory = interop_dir().join("snippets");
    let mut command = tied("node");
    command.arg("run.mjs").current_dir(&directory).env("URL", world.base()).env("TOKEN", world.token());
    let mut running = Running::start("snippets", command);
    let status = running.wait(Duration::from_secs(420));
    assert!(status.success(), "the snippets ended with {status}:\n{}", running.tail());
    let passed = running.lines().iter().filter(|line| line.starts_with("ok ")).count();
    assert!(passed >= 6, "only {passed} snippets ran:\n{}", running.tail());
}
