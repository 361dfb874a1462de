//! Arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use contextnexus_loadtest::client::TokenIn;
use contextnexus_loadtest::durability::Victim;
use contextnexus_loadtest::report::Thresholds;
use contextnexus_loadtest::wire::dialect::Dialect;
use contextnexus_loadtest::wire::target::Target;

/// Load scenarios for any Yjs server (y-websocket, Hocuspocus and Y-Sweet dialects). Knows only the wire.
///
/// Ends with 0 when every threshold was kept, with 1 when one was not or content was lost, with 2 when the scenario
/// could not be carried out.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// A few writers, many readers of one document: what a delivery costs and how long it takes.
    Fanout(Steady),
    /// Many documents with two clients each, both writing.
    Many(Steady),
    /// How long acknowledgements take at a total rate spread over many documents.
    #[command(alias = "latency")]
    Ack(Steady),
    /// Kill and count: SIGKILL at random moments, and whether anything acknowledged or shown is missing afterwards.
    Durability(Durability),
    /// Random edits by real Yjs documents with disconnects; at the end all must be equal.
    Converge(Converge),
    /// A bare fan-out server without CRDT and store: the physical reference. Serves dialect A until it is killed.
    Relay(Relay),
}

/// How to reach the server under test.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// Address of the server: ws://HOST:PORT[/PATH]. Without a path the paths of ContextNexus are used. Several
    /// addresses are nodes of one server, connections take them in turn.
    #[arg(long = "url", required = true)]
    pub urls: Vec<Target>,
    /// The token to show: in A where --token-in says, in B in the first message, in C to the server's HTTP calls.
    #[arg(long, env = "LOADTEST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A JSON file whose field `token` is the token: ContextNexus' credentials.json.
    #[arg(long, conflicts_with = "token")]
    pub credentials: Option<PathBuf>,
    /// Where dialect A shows the token.
    #[arg(long, value_enum, default_value = "header")]
    pub token_in: TokenIn,
}

/// What every scenario shares.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Append the figures to this file, one JSON object a line.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Pin the generator to this CPU (as `taskset -c` would).
    #[arg(long)]
    pub cpu: Option<usize>,
    /// No progress lines.
    #[arg(long)]
    pub quiet: bool,
}

/// The scenarios with a constant rate. What is not given has the scenario's default.
#[derive(Clone, Debug, Args)]
pub struct Steady {
    #[command(flatten)]
    pub server: Server,
    /// Which clients to play.
    #[arg(long, value_enum, default_value = "a", ignore_case = true)]
    pub dialect: Dialect,
    #[command(flatten)]
    pub common: Common,
    /// How many documents (fanout 1, many 500, ack 50).
    #[arg(long)]
    pub documents: Option<usize>,
    /// Writing connections per document (fanout 1, many 2, ack 2).
    #[arg(long)]
    pub writers: Option<usize>,
    /// Connections per document that only read (fanout 100, many 0, ack 0).
    #[arg(long)]
    pub readers: Option<usize>,
    /// Updates a second: of each writer (fanout 50, many 5), of all together in ack (1000).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds of sending before the measured window.
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds to wait after the last send for what is still under way.
    #[arg(long, default_value_t = 10.0)]
    pub drain: f64,
    /// How often to run; the summary is of medians.
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    /// Before each run, the same against an own relay on the same CPU, and ratios to it at the end.
    #[arg(long)]
    pub relay: bool,
    /// Process id of the server, and of its PostgreSQL where that is not its child; the whole trees are counted.
    #[arg(long)]
    pub server_pid: Vec<u32>,
    /// The CPU the server is pinned to, for the relay and the commit probe; found by --server-pid where given.
    #[arg(long)]
    pub server_cpu: Option<usize>,
    /// The server's metrics, http://HOST:PORT/metrics: counters that moved are reported in the JSON lines.
    #[arg(long)]
    pub metrics: Option<String>,
    /// A postgres:// address: the median one-row commit at the scenario's rate is measured beside (needs psql).
    #[arg(long)]
    pub commit_probe: Option<String>,
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// Kill and count.
#[derive(Clone, Debug, Args)]
pub struct Durability {
    #[command(flatten)]
    pub server: Server,
    /// Which clients to play, all at once: a,b,c.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "a", ignore_case = true)]
    pub dialect: Vec<Dialect>,
    #[command(flatten)]
    pub common: Common,
    /// The command that starts the server in the foreground (read by `sh`, run by `exec`: give the binary itself).
    #[arg(long)]
    pub start: String,
    /// Where the server's output is appended to.
    #[arg(long)]
    pub server_log: Option<PathBuf>,
    /// Who is killed.
    #[arg(long, value_enum, default_value = "server")]
    pub kill: Victim,
    /// PostgreSQL's postmaster.pid, to kill it by.
    #[arg(long)]
    pub database_pid_file: Option<PathBuf>,
    /// The command that starts the database again, where the server does not do so itself.
    #[arg(long)]
    pub database_start: Option<String>,
    /// How often.
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// Seconds of load before a kill: at least.
    #[arg(long, default_value_t = 0.05)]
    pub min_load: f64,
    /// Seconds of load before a kill: at most.
    #[arg(long, default_value_t = 2.0)]
    pub max_load: f64,
    /// Seconds that a start may take.
    #[arg(long, default_value_t = 60.0)]
    pub ready: f64,
    /// How many documents.
    #[arg(long, default_value_t = 10)]
    pub documents: usize,
    /// Writing clients per document and dialect.
    #[arg(long, default_value_t = 2)]
    pub writers: usize,
    /// Updates a second, all writers together.
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    /// The server's metrics, http://HOST:PORT/metrics: anything counted as quarantined is a fault.
    #[arg(long)]
    pub metrics: Option<String>,
    /// Of the random moments; random where not given, and in the report.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many owed tokens may be missing.
    #[arg(long, default_value_t = 0)]
    pub max_loss: usize,
}

/// Random edits.
#[derive(Clone, Debug, Args)]
pub struct Converge {
    #[command(flatten)]
    pub server: Server,
    /// Which clients to play, in turn: a,b,c.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "a", ignore_case = true)]
    pub dialect: Vec<Dialect>,
    #[command(flatten)]
    pub common: Common,
    /// How many editors.
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
    /// Edits of all together.
    #[arg(long, default_value_t = 1_000)]
    pub edits: usize,
    /// Edits a second of all together.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Chance that an edit's author disconnects before it.
    #[arg(long, default_value_t = 0.02)]
    pub disconnect: f64,
    /// Seconds offline, at most; work goes on meanwhile.
    #[arg(long, default_value_t = 1.0)]
    pub offline: f64,
    /// Seconds after the last edit and reconnect until all must be equal.
    #[arg(long, default_value_t = 5.0)]
    pub settle: f64,
    /// Do not ask for the document by fresh clients at the end (the relay has none).
    #[arg(long)]
    pub no_fresh: bool,
    /// Of edits and disconnects; random where not given, and in the report.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// The relay's own arguments.
#[derive(Debug, Args)]
pub struct Relay {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:9900")]
    pub listen: String,
    /// Pin the relay to this CPU.
    #[arg(long)]
    pub cpu: Option<usize>,
}
