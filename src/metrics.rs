//! `/metrics`: what the parts of the server count, and what the process takes, in Prometheus' text format.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Milliseconds matter up to a second; beyond it something is wrong, and 30 s is as wrong as 31.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// How often histograms are folded, so that they do not grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

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
