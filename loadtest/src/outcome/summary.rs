//! Several runs of one scenario as one: medians, the worst of what must not be, and how they stand beside the relay.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Outcome, kind};

/// What must not be is summed up by its worst run, everything else by its median.
const WORST: [&str; 16] = [
    "unequal",
    "missing",
    "unacked",
    "refused",
    "dropped",
    "lost",
    "lost_acknowledged",
    "duplicated",
    "torn",
    "differing",
    "quarantined",
    "load_average",
    "memory_mib",
    "late_p99_ms",
    "generator_percent",
    "generator_waited_percent",
];

/// The runs against one server.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario's name.
    pub scenario: String,
    /// Whom they were against.
    pub against: String,
    /// How many.
    pub runs: usize,
    /// Always `true`: tells this line from a run's in the JSON lines.
    pub summary: bool,
    /// Medians; of what must not be, the worst.
    pub figures: BTreeMap<&'static str, f64>,
    /// The same beside the relay's, where both have it and it means something.
    pub beside_relay: BTreeMap<&'static str, f64>,
    /// The first run's order, for people.
    #[serde(skip)]
    pub order: Vec<&'static str>,
}

impl Summary {
    /// Sums up `runs`, beside those of the relay where there are any.
    pub fn new(runs: &[Outcome], relay: Option<&Self>) -> Self {
        let mut order: Vec<&'static str> = Vec::new();
        for name in runs.iter().flat_map(|run| run.figures.names()) {
            if !order.contains(&name) {
                order.push(name);
            }
        }
        let value = |name: &str| {
            let values = runs.iter().filter_map(|run| run.figures.get(name));
            if WORST.contains(&name) { values.reduce(f64::max) } else { median(values) }
        };
        let figures: BTreeMap<_, _> = order.iter().filter_map(|name| Some((*name, value(name)?))).collect();
        let beside = |name: &'static str| {
            let (server, relay) = (figures.get(name)?, relay?.figures.get(name)?);
            Some((name, kind(name)?.beside(*server, *relay)?))
        };
        Self {
            scenario: runs.first().map(|run| run.scenario.clone()).unwrap_or_default(),
            against: runs.first().map(|run| run.against.clone()).unwrap_or_default(),
            runs: runs.len(),
            summary: true,
            beside_relay: order.iter().filter_map(|name| beside(name)).collect(),
            figures,
            order,
        }
    }
}

/// The middle one; the mean of the two in the middle for an even count. `None` for nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cpu: f64, missing: f64) -> Outcome {
        let mut outcome = Outcome::new("fanout", String::new());
        outcome.figures.set("cpu_us", cpu);
        outcome.figures.set("missing", missing);
        outcome
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_loss_in_one_run_does_not_vanish_in_a_median() {
        let summary = Summary::new(&[run(1.0, 0.0), run(2.0, 7.0), run(9.0, 0.0)], None);
        assert_eq!((summary.figures["cpu_us"], summary.figures["missing"]), (2.0, 7.0));
        assert!(summary.beside_relay.is_empty());
    }

    #[test]
    fn a_server_stands_beside_the_relay_in_what_both_have() {
        let relay = Summary::new(&[run(2.0, 0.0)], None);
        let server = Summary::new(&[run(3.0, 0.0)], Some(&relay));
        assert_eq!(server.beside_relay, [("cpu_us", 1.5)].into());
    }
}
