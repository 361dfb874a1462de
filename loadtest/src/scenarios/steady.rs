//! fanout, many and ack: the same engine under three shapes, beside the relay where asked for.

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use contextnexus_loadtest::client::{Access, TokenIn};
use contextnexus_loadtest::measure::Measurement;
use contextnexus_loadtest::report::{self, Ratios};
use contextnexus_loadtest::steady::{self, Plan, Watch};
use contextnexus_loadtest::wire::dialect::Dialect;
use contextnexus_loadtest::{probe, process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Verdict, accesses, prepare};
use crate::cli::Steady;

/// The shapes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One document, many readers.
    Fanout,
    /// Many documents, two writers each.
    Many,
    /// A total rate over many documents.
    Ack,
}

/// Runs a shape as often as asked and judges.
pub async fn run(kind: Kind, args: Steady) -> Verdict {
    prepare(&args.common)?;
    let plan = plan(kind, &args)?;
    let accesses = accesses(&args.server, args.dialect)?;
    let server_cpu = args.server_cpu.or_else(|| args.server_pid.first().copied().and_then(process::pinned_to));
    let mut relay = match args.relay {
        true => Some(Relay::start(server_cpu).await?),
        false => None,
    };
    let watch = Watch { pids: args.server_pid.clone(), metrics: args.metrics.clone(), progress: !args.common.quiet };
    let mut runs = Vec::new();
    let mut relay_runs = Vec::new();
    for run in 1..=args.runs.max(1) {
        if let Some(relay) = &mut relay {
            announce(&args, &plan, "relay", run);
            let watch = Watch { pids: relay.pid.into_iter().collect(), metrics: None, progress: watch.progress };
            let mut measured = steady::run(&plan, std::slice::from_ref(&relay.access), &watch).await?;
            finish(&mut measured, "relay", run, &args)?;
            relay_runs.push(measured);
        }
        announce(&args, &plan, "server", run);
        let mut measured = steady::run(&plan, &accesses, &watch).await?;
        if let Some(url) = &args.commit_probe {
            match probe::commit_p50_ms(url, plan.rate, server_cpu).await {
                Ok(ms) => measured.commit_p50_ms = Some(ms),
                Err(error) => eprintln!("no commit probe: {error}"),
            }
        }
        finish(&mut measured, "server", run, &args)?;
        runs.push(measured);
    }
    let ratios = Ratios::new(&runs, &relay_runs);
    report::print_table(&relay_runs.iter().chain(&runs).cloned().collect::<Vec<_>>());
    ratios.print();
    if let Some(file) = &args.common.json {
        report::append_json(file, &ratios)?;
    }
    let broken = args.thresholds.broken(&ratios);
    for line in &broken {
        eprintln!("not kept: {line}");
    }
    Ok(broken.is_empty())
}

fn plan(kind: Kind, args: &Steady) -> Result<Plan, Box<dyn Error>> {
    let (scenario, documents, writers, readers, rate) = match kind {
        Kind::Fanout => ("fanout", 1, 1, 100, 50.0),
        Kind::Many => ("many", 500, 2, 0, 5.0),
        Kind::Ack => ("ack", 50, 2, 0, 1_000.0),
    };
    let documents = args.documents.unwrap_or(documents);
    let writers = args.writers.unwrap_or(writers);
    let rate = args.rate.unwrap_or(rate);
    if documents == 0 || writers == 0 || rate.is_nan() || rate <= 0.0 || args.duration <= 0.0 {
        return Err("documents, writers, rate and duration must be above zero".into());
    }
    Ok(Plan {
        scenario,
        documents,
        writers,
        readers: args.readers.unwrap_or(readers),
        rate: if matches!(kind, Kind::Ack) { rate / (documents * writers) as f64 } else { rate },
        warm_up: Duration::try_from_secs_f64(args.warm_up)?,
        duration: Duration::try_from_secs_f64(args.duration)?,
        drain: Duration::try_from_secs_f64(args.drain)?,
    })
}

fn announce(args: &Steady, plan: &Plan, against: &str, run: usize) {
    if !args.common.quiet {
        eprintln!(
            "{} against the {against}, run {run} of {}: {} documents x ({} writers at {}/s + {} readers)",
            plan.scenario, args.runs, plan.documents, plan.writers, plan.rate, plan.readers
        );
    }
}

fn finish(measured: &mut Measurement, against: &str, run: usize, args: &Steady) -> std::io::Result<()> {
    measured.against = against.to_owned();
    measured.run = run;
    match &args.common.json {
        Some(file) => report::append_json(file, measured),
        None => Ok(()),
    }
}

/// A relay in a process of its own, so that its CPU time is its own.
struct Relay {
    access: Access,
    pid: Option<u32>,
    /// Killed when dropped.
    _process: Child,
}

impl Relay {
    async fn start(cpu: Option<usize>) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", "--listen", "127.0.0.1:0"]);
        match cpu {
            Some(cpu) => drop(command.args(["--cpu", &cpu.to_string()])),
            None => eprintln!("the server is pinned to no CPU, so the relay is not either: ratios may not compare"),
        }
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().ok_or("the relay has no output")?;
        let line = BufReader::new(stdout).lines().next_line().await?.ok_or("the relay did not start")?;
        let url = line.split(' ').next_back().ok_or("the relay named no address")?;
        let access = Access { target: url.parse()?, dialect: Dialect::A, token: None, token_in: TokenIn::Header };
        Ok(Self { access, pid: process.id(), _process: process })
    }
}
