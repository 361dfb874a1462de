//! The figures of a run: counted while it runs, summed up at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::process::{OwnTime, Usage, is_beside};

/// Above this share of its core the generator measures itself.
pub const GENERATOR_CPU_MAX: f64 = 0.9;
/// A generator that waits longer than this share of the time for its core shares it with others.
pub const WAITED_MAX: f64 = 0.2;
/// Sends later than this (p99) mean that the schedule was not kept.
pub const LATE_MS_MAX: f64 = 5.0;

/// Latencies in microseconds, 1 µs to a minute at three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// Later than a minute is as bad as a minute.
const MICROS_MAX: u64 = 60_000_000;

impl Default for Latencies {
    fn default() -> Self {
        // The bounds are constants that the constructor accepts; a test makes one.
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).unwrap_or_else(|_| unreachable!()))
    }
}

impl Latencies {
    /// Counts one of `nanos`.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record((nanos / 1_000).clamp(1, MICROS_MAX));
    }

    /// Takes over what another one counted.
    pub fn add(&mut self, other: &Self) {
        let _ = self.0.add(&other.0); // the same bounds, so nothing is out of range
    }

    /// The share of latencies at or below a growing one, from the quickest to the slowest: `(share, milliseconds)`.
    pub fn spread(&self) -> Vec<(f64, f64)> {
        const SHARES: [f64; 16] =
            [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0];
        match self.0.is_empty() {
            true => Vec::new(),
            false => SHARES.iter().map(|share| (*share, self.0.value_at_quantile(*share) as f64 / 1_000.0)).collect(),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The usual quantiles; `None` where nothing was counted.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        (!self.0.is_empty()).then(|| Quantiles {
            count: self.0.len(),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            max_ms: self.0.max() as f64 / 1_000.0,
        })
    }
}

/// Quantiles of a set of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// Nine of ten were at most this.
    pub p90_ms: f64,
    /// All but one in a hundred.
    pub p99_ms: f64,
    /// The worst.
    pub max_ms: f64,
}

/// What the generator knows of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// CPU time over wall time of the measured window: 1.0 is one core.
    pub cpu: f64,
    /// Time in which it could have run but something else had its core, over wall time.
    pub waited: f64,
    /// How late the latest percent of sends were.
    pub late_p99_ms: f64,
    /// True when it had no CPU time left: these figures describe the generator rather than the server.
    pub was_the_limit: bool,
    /// True when others left it too little of its core, or it did not keep its schedule.
    pub was_disturbed: bool,
}

impl Generator {
    /// Judges a window.
    pub fn new(own: OwnTime, window: Duration, late: &Latencies) -> Self {
        let share = |of: Duration| of.as_secs_f64() / window.as_secs_f64();
        let (cpu, waited) = (share(own.used), share(own.waited));
        let late_p99_ms = late.quantiles().map_or(0.0, |quantiles| quantiles.p99_ms);
        let was_the_limit = cpu >= GENERATOR_CPU_MAX;
        let was_disturbed = !was_the_limit && (late_p99_ms > LATE_MS_MAX || waited > WAITED_MAX);
        Self { cpu, waited, late_p99_ms, was_the_limit, was_disturbed }
    }

    /// Whether it had no time left, for whatever reason: what it measured then is its own slowness.
    pub fn had_no_time(&self) -> bool {
        self.cpu + self.waited >= GENERATOR_CPU_MAX
    }

    /// A word of caution for people.
    pub fn caution(&self) -> Option<String> {
        let Self { cpu, waited, late_p99_ms, .. } = self;
        if self.was_the_limit {
            Some(format!("THE GENERATOR WAS THE LIMIT ({:.0} % of its core)", cpu * 100.0))
        } else if self.was_disturbed {
            Some(format!(
                "the generator was disturbed: it waited for its core {:.0} % of the time, a hundredth of its sends came {late_p99_ms:.0} ms late",
                waited * 100.0
            ))
        } else {
            None
        }
    }
}

/// What the server's processes used in the measured window.
#[derive(Clone, Debug, Serialize)]
pub struct ServerUsage {
    /// CPU time over wall time, by process name: 1.0 is one core.
    pub cpu: BTreeMap<String, f64>,
    /// The same of all processes together.
    pub cpu_total: f64,
    /// CPU time per delivery, in microseconds.
    pub cpu_us_per_delivery: f64,
    /// The same without processes named `postgres` and `redis-server`.
    pub cpu_us_per_delivery_own: f64,
    /// The largest memory seen, in MiB.
    pub memory_mib_max: f64,
}

impl ServerUsage {
    /// From two samples around a window in which so many deliveries were made.
    pub fn new(before: &Usage, after: &Usage, window: Duration, deliveries: u64, memory_bytes_max: u64) -> Self {
        let used = after.cpu_since(before);
        let own: Duration = used.iter().filter(|(name, _)| !is_beside(name)).map(|(_, duration)| *duration).sum();
        let total: Duration = used.values().sum();
        let per_delivery = |cpu: Duration| cpu.as_secs_f64() * 1e6 / deliveries.max(1) as f64;
        let share = |cpu: Duration| cpu.as_secs_f64() / window.as_secs_f64();
        Self {
            cpu: used.iter().map(|(name, cpu)| (name.clone(), share(*cpu))).collect(),
            cpu_total: share(total),
            cpu_us_per_delivery: per_delivery(total),
            cpu_us_per_delivery_own: per_delivery(own),
            memory_mib_max: memory_bytes_max as f64 / f64::from(1 << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_beside_the_server_are_counted_apart() {
        let usage = |server: u64, postgres: u64| Usage {
            cpu: [("contextnexus".to_owned(), server), ("postgres".to_owned(), postgres)]
                .map(|(name, ms)| (name, Duration::from_millis(ms)))
                .into(),
            memory: BTreeMap::new(),
        };
        let used = ServerUsage::new(&usage(100, 50), &usage(300, 150), Duration::from_secs(1), 100, 2 << 20);
        assert_eq!((used.cpu_us_per_delivery, used.cpu_us_per_delivery_own), (3_000.0, 2_000.0));
        assert_eq!((used.cpu_total, used.memory_mib_max), (0.3, 2.0));
    }

    #[test]
    fn a_busy_late_or_starved_generator_says_so() {
        let second = Duration::from_secs(1);
        let judge = |used: u32, waited: u32, late: &Latencies| {
            Generator::new(OwnTime { used: second * used / 100, waited: second * waited / 100 }, second, late)
        };
        let mut late = Latencies::default();
        late.record(100_000);
        assert!(judge(50, 0, &late).caution().is_none());
        assert!(judge(95, 0, &late).was_the_limit);
        assert!(judge(50, 30, &late).was_disturbed && !judge(50, 30, &late).had_no_time());
        assert!(judge(50, 45, &late).had_no_time() && !judge(50, 45, &late).was_the_limit);
        late.record(9_000_000);
        assert!(judge(50, 0, &late).was_disturbed);
    }
}
