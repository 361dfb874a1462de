//! The server's own binary, as a process that a test may kill, freeze and start again.

use super::cluster::DatabaseUrls;
use super::process::{Running, tied};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

pub struct TestServer {
    /// `http://127.0.0.1:PORT`, the same after each restart.
    pub base: String,
    /// A bearer token of the demo user, good for every dialect.
    pub token: String,
    name: String,
    listen: String,
    environment: Vec<(String, String)>,
    // Dropped before the directory in which it writes.
    running: Option<Running>,
    data_dir: tempfile::TempDir,
}

/// How to start one.
#[derive(Clone, Default)]
pub struct Options {
    pub name: String,
    pub redis: Option<String>,
    /// Further settings, as environment.
    pub environment: Vec<(String, String)>,
}

/// `CNX_BINARY`, or the one that was built with these tests.
pub fn binary() -> PathBuf {
    std::env::var_os("CNX_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_contextnexus").into(), PathBuf::from)
}

impl TestServer {
    /// One node on this database, with the demo tenant, ready.
    pub fn start(database: &DatabaseUrls) -> Self {
        Self::start_with(database, Options::default())
    }

    pub fn start_with(database: &DatabaseUrls, options: Options) -> Self {
        let mut environment = vec![
            ("DATABASE_URL".to_owned(), database.application.clone()),
            ("DATABASE_OWNER_URL".to_owned(), database.owner.clone()),
            ("CONTEXTNEXUS_DEMO__ENABLED".to_owned(), "true".to_owned()),
            // The cluster that all tests share runs without fsync; those that are killed have it.
            ("CONTEXTNEXUS_DATABASE__ALLOW_WEAK_DURABILITY".to_owned(), "true".to_owned()),
        ];
        environment.extend(options.redis.map(|url| ("REDIS_URL".to_owned(), url)));
        environment.extend(options.environment);
        let mut server = Self {
            base: String::new(),
            token: String::new(),
            name: if options.name.is_empty() { "contextnexus".to_owned() } else { options.name },
            listen: "127.0.0.1:0".to_owned(),
            environment,
            data_dir: tempfile::Builder::new().prefix("cnx-node-").tempdir().expect("a temporary directory"),
            running: None,
        };
        server.restart();
        server
    }

    /// Any subcommand of the binary, with this node's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tied(binary());
        command.args(arguments);
        self.settings(command)
    }

    /// The command with this node's settings as its environment, and no other.
    pub fn settings(&self, mut command: Command) -> Command {
        let own: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        command.current_dir(self.data_dir.path()).env_clear();
        command.envs(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("CONTEXTNEXUS_DATA_DIR", self.data_dir.path().join("data"));
        command.env("CONTEXTNEXUS_LISTEN", &self.listen);
        if let Some(workers) = std::env::var_os("CNX_WORKERS") {
            command.env("CONTEXTNEXUS_SERVER__WORKERS", workers);
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        if let Some(level) = std::env::var_os("RUST_LOG") {
            command.env("CONTEXTNEXUS_TELEMETRY__LOG", level);
        }
        command
    }

    /// Runs a subcommand to its end and answers what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the binary runs");
        assert!(
            output.status.success(),
            "contextnexus {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts it (again), on the address it had before, and waits for the ready line.
    pub fn restart(&mut self) {
        self.running = None;
        let mut running = Running::start(&self.name, self.command(&[]));
        let line = running.wait_for_line("ContextNexus is ready at ", Duration::from_secs(60));
        let base = line.rsplit(' ').next().expect("an address").to_owned();
        self.listen = base.split("://").last().expect("an address").to_owned();
        self.base = base;
        self.running = Some(running);
        let credentials = self.credentials();
        self.token = credentials["token"].as_str().expect("a token").to_owned();
    }

    pub fn credentials(&self) -> Value {
        let path = self.data_dir.path().join("data/credentials.json");
        let text = std::fs::read_to_string(&path).expect("credentials.json is written before the ready line");
        serde_json::from_str(&text).expect("credentials.json is JSON")
    }

    fn process(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running.take().expect("the server runs").kill();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        let mut running = self.running.take().expect("the server runs");
        running.signal("TERM");
        running.wait(within)
    }

    pub fn freeze(&self) {
        self.process().signal("STOP");
    }

    pub fn thaw(&self) {
        self.process().signal("CONT");
    }

    pub fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::is_alive)
    }

    pub fn log(&self) -> Vec<String> {
        self.process().lines()
    }

    pub fn log_tail(&self) -> String {
        self.process().tail()
    }

    /// Resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// `ws://…` instead of `http://…`.
    pub fn socket_base(&self) -> String {
        self.base.replacen("http", "ws", 1)
    }
}
