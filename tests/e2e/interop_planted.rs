//! The control of `interop_kills`: a build of this server that acknowledges on receipt is convicted within 20 kills at
//! 2,000 updates a second, by the procedure that acquits the server itself. All parts of the planted build are the
//! server's own, but for the log ([`Liar`]).

use crate::support::cluster::Cluster;
use crate::support::liar::Liar;
use crate::support::planted;
use crate::support::process::tied;
use crate::support::server::{TestServer, binary};
use crate::support::{scaled, seed};
use clap::Parser as _;
use contextnexus::app::Seams;
use contextnexus_loadtest::bench::Bench as LoadBench;
use contextnexus_loadtest::outcome::Outcome;
use contextnexus_loadtest::progress::Progress;
use contextnexus_loadtest::scenarios::durability;
use std::process::Command;
use std::time::Duration;

/// Of all writers together, a second.
const RATE: f64 = 2_000.0;
/// Set where this test binary is to be the planted server.
const PLANTED: &str = "CNX_PLANTED_SERVER";

/// Not a test: the planted server, which the test below starts by this name.
#[test]
#[ignore = "the planted server itself; `a_build_that_acknowledges_on_receipt_is_convicted` runs it"]
fn planted_server() {
    planted::serve(PLANTED, Seams { log: Liar::over, ..Seams::default() });
}

#[test]
fn a_build_that_acknowledges_on_receipt_is_convicted() {
    let mut planted = tied(std::env::current_exe().expect("this test binary has a path"));
    planted.args(["--ignored", "--exact", "--nocapture", "interop_planted::planted_server"]).env(PLANTED, "1");
    let bench = Bench::new(planted);
    for kill in 1..=20 {
        let outcome = bench.kill(1, kill);
        let figure = |name| outcome.figures.get(name).expect("a figure");
        assert_eq!(
            [figure("duplicated"), figure("torn")],
            [0.0, 0.0],
            "a harness that writes rubbish convicts anybody"
        );
        if figure("lost_acknowledged") > 0.0 {
            eprintln!("convicted by kill {kill}: {:?}", outcome.faults);
            return;
        }
    }
    panic!("20 kills of a server that acknowledges on receipt were not noticed (CNX_SEED={})", bench.seed);
}

#[test]
fn the_same_procedure_acquits_the_server() {
    let bench = Bench::new(tied(binary()));
    let outcome = bench.kill(scaled(5, 20), 0);
    assert!(outcome.is_sound(), "{:?} (CNX_SEED={})", outcome.faults, bench.seed);
    assert_eq!(outcome.figures.get("quarantined"), Some(0.0), "nothing was quarantined, and the server was asked");
}

/// Writers of all dialects, a server to kill under them, and its database.
struct Bench {
    seed: u64,
    start: String,
    server: TestServer,
    _cluster: Cluster,
}

/// The load generator's command line.
#[derive(clap::Parser)]
struct Generator {
    #[command(flatten)]
    durability: durability::Args,
}

impl Bench {
    /// For the server that this command starts, given the settings of a node.
    fn new(program: Command) -> Self {
        let cluster = Cluster::start();
        // Makes the tenant, the token and the choice of a port; then its place is taken.
        let mut server = TestServer::start(&cluster.database("contextnexus_test"));
        server.terminate(Duration::from_secs(20));
        let start = shell(&server.settings(program));
        Self { seed: seed(), start, server, _cluster: cluster }
    }

    /// Kills it so often and never lets a writer return; the judge is the load generator's.
    fn kill(&self, kills: u64, seed: u64) -> Outcome {
        let (base, token) = (&self.server.base, &self.server.token);
        let arguments = [
            "durability",
            "--dialect=y-websocket,hocuspocus,y-sweet",
            "--min-load=0.7",
            "--max-load=1.7",
            &format!("--url={base}"),
            &format!("--token={token}"),
            &format!("--metrics={base}/metrics"),
            &format!("--start={}", self.start),
            &format!("--rate={RATE}"),
            &format!("--kills={kills}"),
            &format!("--seed={}", self.seed ^ seed),
        ];
        let arguments = Generator::try_parse_from(arguments).expect("the load generator's own arguments").durability;
        let against = LoadBench::new(arguments.common.server.clone(), Progress::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome = tokio::task::LocalSet::new()
            .block_on(&runtime, durability::run(&arguments, &against))
            .unwrap_or_else(|error| panic!("{error} (CNX_SEED={})", self.seed));
        let rate = outcome.figures.get("acknowledged_rate").expect("it was measured");
        eprintln!("{rate:.0} updates/s were acknowledged");
        assert!(
            rate > 0.8 * RATE,
            "only {rate:.0} updates/s were acknowledged: this is not the load that was asked for"
        );
        outcome
    }
}

/// A command as `sh` reads it, with no other environment than its own.
fn shell(command: &Command) -> String {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut words = vec!["env".to_owned(), "-i".to_owned()];
    words.extend(variables.map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(value))));
    words.extend([command.get_program()].into_iter().chain(command.get_args()).map(quoted));
    words.join(" ")
}
