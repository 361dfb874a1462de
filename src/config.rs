//! Settings: what there is to set, and the whole of it after all layers were laid over each other.
//!
//! `default.toml` is the one list of names, defaults, reasons and ranges; [`layers`] reads them from there. Nothing else in
//! the program reads the environment.

mod layers;

pub use layers::{ConfigError, Sources};

use crate::proxies::TrustedProxies;
use contextnexus_actors::limits::Limits;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Every setting. Documented, with defaults, reasons and ranges, in `default.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the documentation is the default file, and stands nowhere twice
pub struct Config {
    pub data_dir: PathBuf,
    pub server: Server,
    pub database: Database,
    pub embedded: Embedded,
    pub redis: Redis,
    pub auth: Auth,
    pub retention: Retention,
    pub demo: Demo,
    pub telemetry: Telemetry,
    pub folding: Folding,
    pub limits: Limits,
}

/// The HTTP server and its connections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Server {
    pub listen: SocketAddr,
    pub public_url: String,
    pub tls_certificate: String,
    pub tls_key: String,
    pub workers: usize,
    pub allowed_origins: Vec<String>,
    pub cors_origins: Vec<String>,
    pub check_token_origins: bool,
    pub trusted_proxies: TrustedProxies,
    pub connections_per_node_max: usize,
    pub connections_per_address_max: usize,
    pub connections_per_user_max: usize,
    pub header_timeout_s: u64,
    pub keep_alive_s: u64,
    pub json_bytes_max: usize,
    pub http_connections_max: usize,
    pub http_connections_per_address_max: usize,
    pub show_s_max: u64,
    pub show_workers: usize,
    pub show_queue_max: usize,
    pub drain_s: u64,
}

/// What is done about updates that end the process.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Folding {
    pub cpu_s_max: u64,
}

/// PostgreSQL, somebody else's. Without `url` this server runs its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Database {
    pub url: Secret,
    pub owner_url: Secret,
    pub backup_url: Secret,
    pub start_wait_s: u64,
    pub connections_max: u32,
    pub acquire_timeout_s: u64,
    pub statement_timeout_s: u64,
    pub lock_timeout_s: u64,
    pub log_writers: u32,
    pub log_busy_updates_per_s: u32,
    pub log_gap_ms: u64,
    pub log_full_documents: usize,
    pub log_batch_documents_max: usize,
    pub log_batch_bytes_max: usize,
    pub log_waiting_bytes_max: usize,
    pub log_answer_timeout_s: u64,
    pub allow_weak_durability: bool,
}

/// This server's own PostgreSQL.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Embedded {
    pub binaries: Binaries,
    pub fetch_version: u32,
    pub run_as: String,
    pub shared_buffers_mb: u32,
    pub start_timeout_s: u64,
}

/// Where PostgreSQL's binaries come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Binaries {
    /// Installed ones, else fetched ones.
    Auto,
    /// Installed ones only.
    Installed,
    /// Fetched ones only.
    Fetch,
    /// This `bin` directory only.
    Path(PathBuf),
}

impl From<String> for Binaries {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "installed" => Self::Installed,
            "fetch" => Self::Fetch,
            _ => Self::Path(text.into()),
        }
    }
}

/// The bus between nodes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Redis {
    pub url: Secret,
    pub outgoing_bytes_max: usize,
    pub outgoing_messages_max: usize,
}

/// Signing in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Auth {
    pub login_days: i64,
    pub attempts_per_account: u32,
    pub attempt_per_account_s: u64,
    pub attempts_per_address: u32,
    pub attempt_per_address_s: u64,
    pub password_threads: usize,
    pub password_queue_max: usize,
}

/// How long things are kept that nobody can use any longer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Retention {
    pub idempotency_keys_h: i32,
    pub ended_sessions_days: i32,
    pub upkeep_interval_s: u64,
}

/// The demo tenant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Demo {
    pub enabled: bool,
    pub password: Secret,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Telemetry {
    pub log: String,
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A setting that holds a password. It shows itself to nobody by accident.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl Secret {
    /// The text, or `None` where nothing was set.
    pub fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "unset" } else { "redacted" })
    }
}

impl Config {
    /// Whether this server runs a PostgreSQL of its own.
    pub fn is_embedded(&self) -> bool {
        self.database.url.get().is_none()
    }

    /// Whether the demo tenant is made.
    pub fn has_demo(&self) -> bool {
        self.demo.enabled || self.is_embedded()
    }

    /// Threads that serve HTTP.
    pub fn workers(&self) -> usize {
        match self.server.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            workers => workers,
        }
    }
}

#[cfg(test)]
mod tests;
