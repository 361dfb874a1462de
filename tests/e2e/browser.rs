//! The page in real browsers, against the server's own binary.

use crate::support::cluster::Cluster;
use crate::support::process::{Running, tied};
use crate::support::server::TestServer;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Browsers start slowly on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A script of `tests/browser`, told where the server and its credentials are. Screenshots go to `target/browser`.
fn script(name: &str, server: &TestServer, scratch: &tempfile::TempDir) -> Command {
    let credentials = scratch.path().join("credentials.json");
    std::fs::write(&credentials, server.credentials().to_string()).unwrap();
    let mut command = tied("node");
    command
        .current_dir(tests().join("browser"))
        .arg(name)
        .args(["--url", &server.base, "--credentials"])
        .arg(credentials)
        // Browsers leave their profiles behind when they are killed.
        .env("TMPDIR", scratch.path());
    command.arg("--out").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser"));
    command
}

fn passes(name: &str) {
    let cluster = Cluster::start();
    let server = TestServer::start(&cluster.database("workspace"));
    let scratch = tempfile::tempdir().unwrap();
    let output = script(name, &server, &scratch).output().expect("node runs");
    let said = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&said));
    assert!(output.status.success(), "{name} failed\n{}", server.log_tail());
}

#[test]
fn browser_two_people_write_and_see_each_others_cursors() {
    passes("two-browsers.mjs");
}

#[test]
fn browser_says_what_is_wrong_and_loses_nothing() {
    passes("states.mjs");
}

#[test]
fn browser_shows_what_is_there_and_says_what_is_so() {
    passes("truth.mjs");
}

#[test]
fn browser_outlives_a_server_that_is_killed() {
    let cluster = Cluster::start();
    let mut server = TestServer::start(&cluster.database("workspace"));
    let scratch = tempfile::tempdir().unwrap();
    let mut page = Running::start("restart.mjs", script("restart.mjs", &server, &scratch));
    page.wait_for_line("now: kill the server", PATIENCE);
    server.kill();
    page.wait_for_line("now: start the server", PATIENCE);
    server.restart();
    page.wait_for_line("restart: passed", PATIENCE);
}
