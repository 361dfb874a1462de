//! `/metrics`: what the parts of the server count, and what the process takes, in Prometheus' text format.

use contextnexus_actors::document::close;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Milliseconds matter up to a second; beyond it something is wrong, and 30 s is as wrong as 31.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// How often histograms are folded, so that they do not grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How full every queue is (ARCHITECTURE.md, "Queues and bounds"). Here from the start, so that an alarm can be set before the first one fills.
const QUEUES: &[(&str, &str)] = &[
    ("contextnexus_loads_waiting", "Documents that are being read from the log."),
    ("contextnexus_authority_waiting", "Tokens and rooms that are being looked up."),
    ("contextnexus_bus_events_waiting", "Messages from the bus that documents have not taken yet."),
    ("contextnexus_bus_outgoing_bytes", "Bytes that wait to be published."),
    ("contextnexus_directory_waiting", "Joins that wait for the directory."),
    ("contextnexus_http_connections", "Connections that speak HTTP; a WebSocket is none any more."),
    ("contextnexus_log_waiting_appends", "Appends that wait for a transaction."),
    ("contextnexus_log_waiting_bytes", "Bytes of these."),
    ("contextnexus_outbox_bytes", "Bytes that wait to be written to WebSockets, all together."),
    ("contextnexus_passwords_waiting", "Passwords that are hashed or wait for it."),
    ("contextnexus_read_backs_waiting", "Snapshots that are being read back, or wait for it."),
    ("contextnexus_recent_bytes", "Recent updates that documents keep for those who are behind."),
    ("contextnexus_show_waiting", "Documents that are shown as JSON or text, or wait for it."),
    ("contextnexus_unauthenticated_bytes", "Bytes of clients whose token is not checked yet."),
    ("contextnexus_waiting_bytes", "Updates that wait for their commit, all documents together."),
    ("contextnexus_waiting_bytes_of_fullest", "The same in the document where most wait."),
    (
        "contextnexus_ws_held_back_connections",
        "WebSockets that are not read, because a session or document has not taken what came.",
    ),
    ("contextnexus_ws_unfinished_bytes", "Bytes of messages that have not come whole."),
];

/// What was answered "full".
const REFUSALS: &[(&str, &str)] = &[
    (
        "contextnexus_behind_total",
        "Connections that fell behind in a document, and got one update for what they missed or were closed.",
    ),
    ("contextnexus_bus_overflows_total", "Subscriptions whose queue was full: the log was looked at instead."),
    ("contextnexus_dropped_updates_total", "Updates dropped unadmitted for lack of room, to be asked for again."),
    ("contextnexus_http_stalled_total", "HTTP connections closed because the client took nothing of an answer."),
    ("contextnexus_log_full_total", "Appends that found no room in the log writer in time."),
    ("contextnexus_passwords_refused_total", "Logins refused because too many waited."),
    ("contextnexus_show_refused_total", "Documents not shown because too many waited."),
];

/// The same by close code.
const REFUSALS_BY_CODE: &[(&str, &str)] = &[
    ("contextnexus_closed_total", "Connections closed by their session, and attachments closed by their document."),
    ("contextnexus_refused_total", "Documents that a connection asked for and did not get."),
];

/// The metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder that `metrics::counter!` and the like write to. Once per process.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .install_recorder()?;
        describe_gauge!("process_resident_memory_bytes", "Memory of this process that is in RAM.");
        describe_gauge!("process_open_fds", "Files and sockets that this process has open.");
        describe_gauge!("process_max_fds", "Files and sockets that this process may open.");
        describe_gauge!("process_threads", "Threads of this process.");
        describe_counter!("process_cpu_milliseconds_total", "CPU time that this process has used.");
        for (name, what) in QUEUES {
            describe_gauge!(*name, *what);
            gauge!(*name).set(0.0);
        }
        for (name, what) in REFUSALS {
            describe_counter!(*name, *what);
            counter!(*name).absolute(0);
        }
        for (name, what) in REFUSALS_BY_CODE {
            describe_counter!(*name, *what);
            for code in close::ALL {
                counter!(*name, "code" => code.to_string()).absolute(0);
            }
        }
        Ok(Self { handle })
    }

    /// Keeps the recorder small. Runs for ever.
    pub async fn keep_up(self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.handle.run_upkeep();
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> String {
        record_process();
        self.handle.render()
    }
}

/// Reads what the kernel knows about this process; what it does not tell is left out.
fn record_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    if let Some(kib) = field("VmRSS") {
        gauge!("process_resident_memory_bytes").set(kib * 1024.0);
    }
    if let Some(threads) = field("Threads") {
        gauge!("process_threads").set(threads);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(files.count() as f64);
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge!("process_max_fds").set(limit as f64);
    }
    if let Some(milliseconds) = cpu_milliseconds() {
        counter!("process_cpu_milliseconds_total").absolute(milliseconds);
    }
}

fn cpu_milliseconds() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold spaces; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
