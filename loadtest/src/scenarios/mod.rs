//! The scenarios. Each module has the same shape: `Args` for the command line, and `run`, which carries it out once
//! against one [`Bench`] and answers an [`Outcome`]. Runs, the relay beside, tables and thresholds are the
//! [`driver`](crate::driver)'s business.

pub mod attack;
pub mod coldload;
pub mod compare;
pub mod converge;
pub mod durability;
pub mod idle;
pub mod overload;
pub mod ramp;
pub mod stalled;
pub mod steady;
pub mod storm;

use std::error::Error;
use std::path::PathBuf;

use crate::bench::{Bench, ServerArgs};
use crate::outcome::{Outcome, Thresholds};
use crate::relay::Writes;

/// What a run answers. Whoever gets the error can only tell the user, so it is any error.
pub type ScenarioResult = Result<Outcome, Box<dyn Error>>;

/// What every scenario shares.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// The server under test.
    #[command(flatten)]
    pub server: ServerArgs,
    /// How often, and beside what.
    #[command(flatten)]
    pub runs: RunArgs,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What must be kept.
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// How often, and beside what.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Runs")]
pub struct RunArgs {
    /// How often to run; the summary is of medians.
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    /// Before each run, the same against an own relay on the server's CPU; figures are set beside its.
    #[arg(long)]
    pub relay: bool,
    /// When that relay writes: where a server merges, the simplest relay says more than a good one.
    #[arg(long, value_enum, default_value = "batched")]
    pub relay_writes: Writes,
}

/// Where results go.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Append the figures to this file, one JSON object a line.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write one page with tables and plots, good to be sent around: it needs nothing else.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Pin the generator to this CPU (as `taskset -c` would).
    #[arg(long)]
    pub cpu: Option<usize>,
    /// No progress.
    #[arg(long)]
    pub quiet: bool,
}

/// What can be done.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Scenario {
    /// A few writers, many readers of one document: what a delivery costs and how long it takes.
    Fanout(steady::Args),
    /// Many documents with two clients each, both writing.
    Many(steady::Args),
    /// How long acknowledgements take at a total rate spread over many documents.
    #[command(alias = "latency")]
    Ack(steady::Args),
    /// Many cursors moving in one document.
    Cursors(steady::Args),
    /// Fan-out over the nodes of one server: two or more --url, every process by --server-pid.
    TwoNodes(steady::Args),
    /// The highest rate at which the latest percent is still delivered in time, and why there is no higher.
    Ramp(ramp::Args),
    /// Beyond the maximum for a while, and whether everything arrives all the same.
    Overload(overload::Args),
    /// Readers that stop reading beside others in a busy document: what they cost, and whether the others notice.
    Stalled(stalled::Args),
    /// An attacker with a member's token of another tenant, and a thousand sockets without one, beside many documents.
    Attack(attack::Args),
    /// What a connection costs while nobody does anything, and how quickly thousands open.
    Idle(idle::Args),
    /// A real document's making, then its first load after a restart.
    Coldload(coldload::Args),
    /// Kill and restart under many clients that all come back at once.
    Storm(storm::Args),
    /// Kill and count: SIGKILL at random moments, and whether anything acknowledged or shown is missing afterwards.
    Durability(durability::Args),
    /// Random edits by real Yjs documents with disconnects; at the end all must be equal.
    Converge(converge::Args),
}

impl Scenario {
    /// What all have.
    pub fn common(&self) -> &Common {
        match self {
            Self::Fanout(args) | Self::Many(args) | Self::Ack(args) | Self::Cursors(args) | Self::TwoNodes(args) => {
                &args.common
            }
            Self::Ramp(args) => &args.common,
            Self::Overload(args) => &args.common,
            Self::Stalled(args) => &args.common,
            Self::Attack(args) => &args.common,
            Self::Idle(args) => &args.common,
            Self::Coldload(args) => &args.common,
            Self::Storm(args) => &args.common,
            Self::Durability(args) => &args.common,
            Self::Converge(args) => &args.common,
        }
    }

    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fanout(_) => "fanout",
            Self::Many(_) => "many",
            Self::Ack(_) => "ack",
            Self::Cursors(_) => "cursors",
            Self::TwoNodes(_) => "two-nodes",
            Self::Ramp(_) => "ramp",
            Self::Overload(_) => "overload",
            Self::Stalled(_) => "stalled",
            Self::Attack(_) => "attack",
            Self::Idle(_) => "idle",
            Self::Coldload(_) => "coldload",
            Self::Storm(_) => "storm",
            Self::Durability(_) => "durability",
            Self::Converge(_) => "converge",
        }
    }

    /// Whether it starts the server itself, which also means that a relay without a store is no measure for it.
    pub fn launches(&self) -> bool {
        matches!(self, Self::Coldload(_) | Self::Storm(_) | Self::Durability(_))
    }

    /// Carries it out once.
    pub async fn run(&self, bench: &Bench) -> ScenarioResult {
        match self {
            Self::Fanout(args) => steady::run(&steady::FANOUT, args, bench).await,
            Self::Many(args) => steady::run(&steady::MANY, args, bench).await,
            Self::Ack(args) => steady::run(&steady::ACK, args, bench).await,
            Self::Cursors(args) => steady::run(&steady::CURSORS, args, bench).await,
            Self::TwoNodes(args) => steady::run(&steady::TWO_NODES, args, bench).await,
            Self::Ramp(args) => ramp::run(args, bench).await,
            Self::Overload(args) => overload::run(args, bench).await,
            Self::Stalled(args) => stalled::run(args, bench).await,
            Self::Attack(args) => attack::run(args, bench).await,
            Self::Idle(args) => idle::run(args, bench).await,
            Self::Coldload(args) => coldload::run(args, bench).await,
            Self::Storm(args) => storm::run(args, bench).await,
            Self::Durability(args) => durability::run(args, bench).await,
            Self::Converge(args) => converge::run(args, bench).await,
        }
    }
}

/// Seconds as given on a command line.
fn seconds(value: f64) -> Result<std::time::Duration, Box<dyn Error>> {
    Ok(std::time::Duration::try_from_secs_f64(value)?)
}
