//! The command line: one scenario per call. See README.md beside this crate.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use contextnexus_loadtest::driver;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", driver::chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

/// True when every threshold was kept.
fn run(cli: cli::Cli) -> Result<bool, Box<dyn std::error::Error>> {
    // One thread: the generator is to fit on the core that the server does not use.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        // What was started must end with this program: servers are in process groups of their own, which no Ctrl-C
        // reaches. Dropping the scenario ends them.
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            verdict = cli.run() => verdict,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminated.recv() => Err("terminated".into()),
        }
    })
}
