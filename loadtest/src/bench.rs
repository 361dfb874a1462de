//! What a scenario runs against: addresses and clients, the processes to watch, and where progress goes.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{Access, TokenIn};
use crate::metrics::{self, Counters, MetricsError};
use crate::process::{self, ProcessError, Usage};
use crate::progress::Progress;
use crate::wire::dialect::Dialect;
use crate::wire::target::Target;

/// Memory is looked at so often where a peak is of interest.
const MEMORY_LOOKS_APART: Duration = Duration::from_millis(250);

/// How to reach the server under test.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "The server")]
pub struct ServerArgs {
    /// Address of the server: ws://HOST:PORT[/PATH]. Without a path the paths of ContextNexus are used. Several
    /// addresses are nodes of one server, connections take them in turn.
    #[arg(long = "url", required = true)]
    pub urls: Vec<Target>,
    /// Which clients to play; several take turns: y-websocket,hocuspocus,y-sweet.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "y-websocket", ignore_case = true)]
    pub dialect: Vec<Dialect>,
    /// The token to show: in y-websocket where --token-in says, in Hocuspocus in the first message, in Y-Sweet to the
    /// server's HTTP calls.
    #[arg(long, env = "LOADTEST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A JSON file whose field `token` is the token: ContextNexus' credentials.json.
    #[arg(long, conflicts_with = "token")]
    pub credentials: Option<PathBuf>,
    /// Where y-websocket shows the token.
    #[arg(long, value_enum, default_value = "header")]
    pub token_in: TokenIn,
    /// Process id of the server, and of its PostgreSQL and Redis where those are not its children; whole trees count.
    #[arg(long)]
    pub server_pid: Vec<u32>,
    /// The CPU the server is pinned to, for the relay, the commit probe and servers started here; found by --server-pid
    /// where given.
    #[arg(long)]
    pub server_cpu: Option<usize>,
    /// The server's metrics, http://HOST:PORT/metrics: its counters are held against the generator's own.
    #[arg(long)]
    pub metrics: Option<String>,
    /// A postgres:// address: the median one-row commit at the scenario's rate is measured beside (needs psql).
    #[arg(long)]
    pub commit_probe: Option<String>,
}

/// Why addresses, processes or metrics cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The file with the token is not there or not readable.
    #[error("{file} holds no token: {why}")]
    Credentials {
        /// Which file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The processes to watch cannot be watched.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The server's metrics cannot be read.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The machine said no.
    #[error("the generator's own threads failed")]
    Io(#[from] std::io::Error),
}

/// The most memory that was seen while somebody looked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// Of the whole process tree, in bytes.
    pub bytes: u64,
    /// The same without databases and buses.
    pub own_bytes: u64,
}

/// One server under test, or the relay in its place.
#[derive(Debug)]
pub struct Bench {
    /// Addresses, clients, processes.
    pub server: ServerArgs,
    /// Where progress goes.
    pub progress: Progress,
    /// Whether this is the generator's own relay, which has one node and no store.
    pub is_relay: bool,
}

impl Bench {
    /// Against `server`.
    pub fn new(server: ServerArgs, progress: Progress) -> Self {
        Self { server, progress, is_relay: false }
    }

    /// Every dialect at every address. Reads the credentials anew: a first start may have just written them.
    pub fn accesses(&self) -> Result<Vec<Access>, BenchError> {
        let server = &self.server;
        let token = match &server.credentials {
            None => server.token.clone(),
            Some(file) => Some(Self::token_in(file)?),
        };
        let mut all = Vec::new();
        for dialect in &server.dialect {
            all.extend(server.urls.iter().map(|target| Access {
                target: target.clone(),
                dialect: *dialect,
                token: token.clone(),
                token_in: server.token_in,
            }));
        }
        Ok(all)
    }

    /// The field `token` of this JSON file.
    pub fn token_in(file: &Path) -> Result<String, BenchError> {
        let failed = |why: String| BenchError::Credentials { file: file.display().to_string(), why };
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| failed(format!("not JSON: {error}")))?;
        let token = json.get("token").and_then(|token| token.as_str());
        Ok(token.ok_or_else(|| failed("no field `token`".to_owned()))?.to_owned())
    }

    /// Usage of the server's process trees now; `None` where nobody said which they are. Off the generator's thread:
    /// reading /proc takes milliseconds in which frames would wait.
    pub async fn usage(&self) -> Result<Option<Usage>, BenchError> {
        if self.server.server_pid.is_empty() {
            return Ok(None);
        }
        let pids = self.server.server_pid.clone();
        let usage = tokio::task::spawn_blocking(move || process::usage(&pids)).await.map_err(std::io::Error::other)?;
        Ok(Some(usage?))
    }

    /// Waits for `work` and meanwhile looks at the server's memory.
    pub async fn watch_memory<T>(&self, work: impl Future<Output = T>) -> Result<(T, Peak), BenchError> {
        let mut most = Peak::default();
        let mut work = std::pin::pin!(work);
        loop {
            if let Some(usage) = self.usage().await? {
                most.bytes = most.bytes.max(usage.memory_bytes());
                most.own_bytes = most.own_bytes.max(usage.memory_bytes_own());
            }
            match tokio::time::timeout(MEMORY_LOOKS_APART, &mut work).await {
                Ok(done) => return Ok((done, most)),
                Err(_) => continue,
            }
        }
    }

    /// The server's counters now; none where it has no metrics.
    pub async fn scrape(&self) -> Result<Counters, BenchError> {
        match &self.server.metrics {
            Some(address) => Ok(metrics::scrape(address).await?),
            None => Ok(Counters::default()),
        }
    }

    /// The CPU that the server runs on, where it is known.
    pub fn server_cpu(&self) -> Option<usize> {
        self.server.server_cpu.or_else(|| self.server.server_pid.first().copied().and_then(process::pinned_to))
    }

    /// Which clients are played, for reports.
    pub fn dialects(&self) -> String {
        let names: Vec<String> = self.server.dialect.iter().map(Dialect::to_string).collect();
        names.join(",")
    }
}
