//! What a run says at its end: a table for people, JSON lines for tools, a verdict for scripts.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what this program says is its product")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::measure::{Measurement, Quantiles, median};

/// Tells whoever waits that something happens; not part of the result.
pub fn progress(line: &str) {
    eprintln!("{line}");
}

/// Figures of the server over those of the relay in the same runs, each from medians.
#[derive(Clone, Debug, Serialize)]
pub struct Ratios {
    /// The scenario's name.
    pub scenario: String,
    /// How many runs each.
    pub runs: usize,
    /// The relay's CPU per delivery, in microseconds.
    pub relay_cpu_us_per_delivery: Option<f64>,
    /// The relay's median delivery, in milliseconds.
    pub relay_p50_ms: Option<f64>,
    /// CPU per delivery of the server's own processes over the relay's.
    pub cpu_own: Option<f64>,
    /// The same with PostgreSQL and Redis.
    pub cpu_total: Option<f64>,
    /// Median delivery, in milliseconds.
    pub p50_ms: Option<f64>,
    /// How much above the relay's that is.
    pub p50_over_relay_ms: Option<f64>,
    /// Delivery, the latest percent.
    pub p99_ms: Option<f64>,
    /// Median acknowledgement.
    pub ack_p50_ms: Option<f64>,
    /// Acknowledgement, the latest percent.
    pub ack_p99_ms: Option<f64>,
    /// Median one-row commit.
    pub commit_p50_ms: Option<f64>,
    /// All runs together.
    pub missing: u64,
    /// All runs together.
    pub unacknowledged: u64,
    /// True when any run's figures describe the generator.
    pub generator_was_the_limit: bool,
    /// True when something else used the generator's core in any run.
    pub generator_was_disturbed: bool,
    /// The highest seen: above the busy cores, others disturbed the runs.
    pub load_average_max: f64,
}

impl Ratios {
    /// Sums up the runs against the server and those against the relay (none where it was not asked for).
    pub fn new(server: &[Measurement], relay: &[Measurement]) -> Self {
        let over =
            |runs: &[Measurement], figure: &dyn Fn(&Measurement) -> Option<f64>| median(runs.iter().filter_map(figure));
        let total = |run: &Measurement| run.server.as_ref().map(|usage| usage.cpu_us_per_delivery);
        let own = |run: &Measurement| run.server.as_ref().map(|usage| usage.cpu_us_per_delivery_own);
        let p50 = |run: &Measurement| run.delivery.map(|quantiles| quantiles.p50_ms);
        let divide = |a: Option<f64>, b: Option<f64>| a.zip(b).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b);
        let relay_cpu = over(relay, &total);
        let relay_p50 = over(relay, &p50);
        let all = || server.iter().chain(relay);
        Self {
            scenario: server.first().map(|run| run.scenario.clone()).unwrap_or_default(),
            runs: server.len(),
            relay_cpu_us_per_delivery: relay_cpu,
            relay_p50_ms: relay_p50,
            cpu_own: divide(over(server, &own), relay_cpu),
            cpu_total: divide(over(server, &total), relay_cpu),
            p50_ms: over(server, &p50),
            p50_over_relay_ms: over(server, &p50).zip(relay_p50).map(|(server, relay)| server - relay),
            p99_ms: over(server, &|run| run.delivery.map(|quantiles| quantiles.p99_ms)),
            ack_p50_ms: over(server, &|run| run.acknowledgement.map(|quantiles| quantiles.p50_ms)),
            ack_p99_ms: over(server, &|run| run.acknowledgement.map(|quantiles| quantiles.p99_ms)),
            commit_p50_ms: over(server, &|run| run.commit_p50_ms),
            missing: server.iter().map(|run| run.missing).sum(),
            unacknowledged: server.iter().map(|run| run.unacknowledged).sum(),
            generator_was_the_limit: all().any(|run| run.generator.was_the_limit),
            generator_was_disturbed: all().any(|run| run.generator.was_disturbed),
            load_average_max: all().map(|run| run.load_average).fold(0.0, f64::max),
        }
    }

    /// Prints what the runs come to.
    pub fn print(&self) {
        let show = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value:.2}{unit}"));
        println!("\n{} (medians of {})", self.scenario, self.runs);
        if self.relay_p50_ms.is_some() {
            println!("  CPU per delivery over the relay's   {}", show(self.cpu_own, ""));
            println!("  the same with PostgreSQL            {}", show(self.cpu_total, ""));
            println!(
                "  delivery p50                        {} (relay {}, above it {})",
                show(self.p50_ms, " ms"),
                show(self.relay_p50_ms, " ms"),
                show(self.p50_over_relay_ms, " ms")
            );
        } else {
            println!("  delivery p50                        {}", show(self.p50_ms, " ms"));
        }
        println!("  delivery p99                        {}", show(self.p99_ms, " ms"));
        println!(
            "  acknowledgement p50, p99            {}, {}",
            show(self.ack_p50_ms, " ms"),
            show(self.ack_p99_ms, " ms")
        );
        if self.commit_p50_ms.is_some() {
            println!("  one-row commit p50                  {}", show(self.commit_p50_ms, " ms"));
        }
        println!("  missing, unacknowledged             {}, {}", self.missing, self.unacknowledged);
        println!("  load average of the machine         up to {:.1}", self.load_average_max);
        if self.generator_was_the_limit {
            println!("  CAUTION: the generator itself was the limit; these figures are not the server's");
        }
        if self.generator_was_disturbed {
            println!("  CAUTION: the generator was disturbed by others on its core; latencies may be too high");
        }
    }
}

/// Prints one line per run.
pub fn print_table(runs: &[Measurement]) {
    println!(
        "\n{:<10} {:<7} {:>3} {:>6} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8} {:>7} {:>6} {:>8} {:>8}",
        "scenario",
        "against",
        "run",
        "conns",
        "updates/s",
        "deliver/s",
        "p50 ms",
        "p99 ms",
        "ack p50",
        "ack p99",
        "CPU %",
        "us/deliv",
        "MiB",
        "gen %",
        "missing",
        "unacked"
    );
    for run in runs {
        let quantile = |quantiles: Option<Quantiles>, pick: fn(&Quantiles) -> f64| {
            quantiles.map_or("-".to_owned(), |quantiles| format!("{:.2}", pick(&quantiles)))
        };
        let usage = |pick: fn(&crate::measure::ServerUsage) -> f64, digits: usize| {
            run.server.as_ref().map_or("-".to_owned(), |usage| format!("{:.digits$}", pick(usage)))
        };
        println!(
            "{:<10} {:<7} {:>3} {:>6} {:>9.0} {:>11.0} {:>9} {:>9} {:>9} {:>9} {:>7} {:>8} {:>7} {:>6.0} {:>8} {:>8}{}",
            run.scenario,
            run.against,
            run.run,
            run.connections,
            run.rate_sent,
            run.deliveries as f64 / run.seconds,
            quantile(run.delivery, |quantiles| quantiles.p50_ms),
            quantile(run.delivery, |quantiles| quantiles.p99_ms),
            quantile(run.acknowledgement, |quantiles| quantiles.p50_ms),
            quantile(run.acknowledgement, |quantiles| quantiles.p99_ms),
            usage(|usage| usage.cpu_total * 100.0, 1),
            usage(|usage| usage.cpu_us_per_delivery, 1),
            usage(|usage| usage.memory_mib_max, 0),
            run.generator.cpu * 100.0,
            run.missing,
            run.unacknowledged,
            run.generator.caution().map_or(String::new(), |words| format!("  {words}")),
        );
        if run.refused > 0 || run.dropped > 0 {
            println!(
                "           {} refusals, {} connections dropped; the last: {}",
                run.refused, run.dropped, run.last_fault
            );
        }
    }
}

/// Appends one JSON line.
pub fn append_json(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// What a run must keep to for the program to end with 0.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Thresholds {
    /// Delivery p99, in milliseconds.
    #[arg(long)]
    pub max_p99_ms: Option<f64>,
    /// Acknowledgement p99, in milliseconds.
    #[arg(long)]
    pub max_ack_p99_ms: Option<f64>,
    /// Missing deliveries and missing acknowledgements, all runs together.
    #[arg(long)]
    pub max_loss: Option<u64>,
    /// CPU per delivery over the relay's, PostgreSQL included (needs --relay and --server-pid).
    #[arg(long)]
    pub max_cpu_ratio: Option<f64>,
}

impl Thresholds {
    /// What was not kept, in words; a figure that a threshold needs and nobody measured counts as not kept.
    pub fn broken(&self, ratios: &Ratios) -> Vec<String> {
        let above = |name: &str, limit: Option<f64>, figure: Option<f64>| match (limit?, figure) {
            (limit, Some(figure)) if figure <= limit => None,
            (limit, Some(figure)) => Some(format!("{name} is {figure:.2}, above {limit}")),
            (limit, None) => Some(format!("{name} was not measured, {limit} cannot be checked")),
        };
        let loss = ratios.missing + ratios.unacknowledged;
        [
            above("delivery p99 (ms)", self.max_p99_ms, ratios.p99_ms),
            above("acknowledgement p99 (ms)", self.max_ack_p99_ms, ratios.ack_p99_ms),
            above("loss", self.max_loss.map(|limit| limit as f64), Some(loss as f64)),
            above("CPU per delivery over the relay's", self.max_cpu_ratio, ratios.cpu_total),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_nobody_measured_is_not_kept() {
        let ratios = Ratios::new(&[], &[]);
        let thresholds = Thresholds { max_p99_ms: Some(5.0), max_loss: Some(0), ..Thresholds::default() };
        assert_eq!(thresholds.broken(&ratios).len(), 1, "no loss is kept, no p99 is not");
        let lossy = Ratios { missing: 1, p99_ms: Some(5.5), ..ratios };
        assert_eq!(thresholds.broken(&lossy).len(), 2);
        assert!(Thresholds::default().broken(&lossy).is_empty());
    }
}
