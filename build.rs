//! Tells the program of which commit it is built: `CNX_REVISION` where it is set (an archive has no history), else what Git
//! says. Only for a release: a build for tests would be made again after each commit.
//!
//! Not `CONTEXTNEXUS_…`: `cargo run` hands on what is set here, and the server would take it for a setting.
#![allow(clippy::print_stdout)] // cargo reads it

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CNX_REVISION");
    let given = std::env::var("CNX_REVISION").ok().filter(|revision| !revision.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let revision = given.or_else(|| if is_release { from_git() } else { None });
    println!("cargo:rustc-env=CNX_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

fn from_git() -> Option<String> {
    // Every commit, checkout and reset writes a line there.
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
