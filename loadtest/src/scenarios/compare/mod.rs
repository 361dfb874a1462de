//! compare: several servers back to back on the same cores, beside the relay, in one table.

mod contender;
mod peers;

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;

pub use contender::{Contender, ContenderError};

use super::{OutputArgs, Scenario};
use crate::bench::Bench;
use crate::driver::{self, Verdict};
use crate::launch::{LaunchArgs, Launched};
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::relay::Relay;
use crate::report::{Group, Report};

/// Several servers under one scenario.
///
/// Each --server is `name=NAME url=ws://… [dialect=hocuspocus] [credentials=FILE | token=T] [metrics=http://…] [pid=N]
/// [log=FILE] start=COMMAND`, where everything behind `start=` is the command; or one of the presets y-websocket,
/// hocuspocus, y-sweet.
/// Behind `--` stands the scenario with its own options: `compare --server … --server y-websocket -- fanout --duration 8`.
/// Thresholds among these hold for the first server.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A server: `name=… url=… start=…`, or y-websocket, hocuspocus, y-sweet. The first is the one that thresholds are for.
    #[arg(long = "server", required = true, value_name = "SPEC")]
    pub servers: Vec<String>,
    /// The CPU for each server and what it starts, its database included.
    #[arg(long, default_value_t = 0)]
    pub server_cpu: usize,
    /// Runs against each server; medians count.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Runs against the relay; the median counts. 0 leaves it out.
    #[arg(long, default_value_t = 5)]
    pub relay_runs: usize,
    /// Where presets are installed by npm, once.
    #[arg(long, default_value = "target/loadtest-peers")]
    pub peers_dir: PathBuf,
    /// Seconds that a start may take.
    #[arg(long, default_value_t = 60.0)]
    pub ready: f64,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The scenario and its options, without --url and the like.
    #[arg(last = true, required = true)]
    pub scenario: Vec<String>,
}

/// The command line behind `--`.
#[derive(Debug, Parser)]
struct Inner {
    #[command(subcommand)]
    scenario: Scenario,
}

/// Runs everything and prints one table.
pub async fn run(args: &Args) -> Verdict {
    // A scenario that cannot be read must not be found out after the first server has started.
    inner(args, &["--url".to_owned(), "ws://127.0.0.1:1".to_owned()])?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let generator_cpu = args.output.cpu.unwrap_or(usize::from(args.server_cpu == 0));
    let mut warnings = Vec::new();
    let output = match cpus > 1 && generator_cpu != args.server_cpu {
        true => OutputArgs { cpu: Some(generator_cpu), ..args.output.clone() },
        false => {
            warnings.push("servers and generator share one CPU: these figures compare little".to_owned());
            args.output.clone()
        }
    };
    driver::prepare(&output)?;
    let progress = Progress::new(output.quiet);

    let mut contenders = Vec::new();
    for spec in &args.servers {
        match peers::preset(spec, &args.peers_dir, &progress).await {
            Some(Ok(contender)) => contenders.push(contender),
            Some(Err(why)) => {
                progress.note(&format!("{spec} is skipped: {why}"));
                warnings.push(format!("{spec} was skipped: {why}"));
            }
            None => contenders.push(spec.parse::<Contender>()?),
        }
    }
    if contenders.is_empty() {
        return Err("no server is left to compare".into());
    }

    let relay = relay_runs(args, &output).await?;
    let mut groups: Vec<Group> = relay.into_iter().collect();
    let relay = groups.first().cloned();
    let mut broken = Vec::new();
    for (number, contender) in contenders.iter().enumerate() {
        // One that cannot take the scenario must not cost the figures of the others.
        match contender_runs(contender, args, &output).await {
            Ok(runs) => {
                let group = Group::new(&contender.name, runs, relay.as_ref());
                if number == 0 {
                    let thresholds = inner(args, &contender.arguments())?.common().thresholds.clone();
                    broken = driver::judge(&group, &thresholds);
                }
                groups.push(group);
            }
            Err(error) => {
                let words = format!("{} could not carry it out: {}", contender.name, driver::chain(error.as_ref()));
                progress.note(&words);
                if number == 0 { &mut broken } else { &mut warnings }.push(words);
            }
        }
    }
    driver::finish(&Report { groups, broken, warnings }, &output)
}

fn inner(args: &Args, server: &[String]) -> Result<Scenario, Box<dyn Error>> {
    let program = std::iter::once("loadtest".to_owned());
    let line = program.chain(args.scenario.iter().cloned()).chain(server.iter().cloned());
    Ok(Inner::try_parse_from(line)?.scenario)
}

async fn relay_runs(args: &Args, output: &OutputArgs) -> Result<Option<Group>, Box<dyn Error>> {
    let scenario = inner(args, &["--url".to_owned(), "ws://127.0.0.1:1".to_owned()])?;
    if args.relay_runs == 0 || scenario.launches() {
        return Ok(None); // a relay without a store is no measure for what restarts
    }
    let relay = Relay::start(Some(args.server_cpu), scenario.common().runs.relay_writes).await?;
    let mut runs = Vec::new();
    for run in 1..=args.relay_runs {
        let bench = relay.bench(Progress::new(output.quiet));
        runs.push(driver::once(&scenario, &bench, "relay", run, args.relay_runs, output).await?);
    }
    Ok(Some(Group::new("relay", runs, None)))
}

async fn contender_runs(
    contender: &Contender,
    args: &Args,
    output: &OutputArgs,
) -> Result<Vec<Outcome>, Box<dyn Error>> {
    let scenario = inner(args, &contender.arguments())?;
    let mut server = scenario.common().server.clone();
    server.server_cpu = Some(args.server_cpu);
    let launch = LaunchArgs { ready: args.ready, ..contender.launch() };
    let patience = launch.patience();
    // What restarts its server starts it too.
    let scenario =
        if scenario.launches() { inner(args, &contender.launching_arguments(args.ready))? } else { scenario };
    let mut launched = None;
    if !scenario.launches() {
        let mut process = Launched::spawn(&launch, Some(args.server_cpu))?;
        server.server_pid.extend(process.pid());
        let bench = Bench::new(server.clone(), Progress::new(output.quiet));
        process.wait_synced(&bench, &format!("ready-{:08x}", rand::random::<u32>()), patience).await?;
        launched = Some(process);
    }
    let mut runs = Vec::new();
    for run in 1..=args.runs.max(1) {
        let bench = Bench::new(server.clone(), Progress::new(output.quiet));
        runs.push(driver::once(&scenario, &bench, &contender.name, run, args.runs, output).await?);
    }
    if let Some(process) = launched {
        process.end().await?;
    }
    Ok(runs)
}
