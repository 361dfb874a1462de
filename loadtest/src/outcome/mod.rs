//! What a run comes to: figures with names, faults, words, plots. One form for every scenario, so that tables, ratios,
//! thresholds, JSON and the page need to know no scenario.

mod bounds;
mod kinds;
mod summary;

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use bounds::{Bound, BoundError, Thresholds, goals};
pub use kinds::{Beside, KINDS, Kind, kind};
pub use summary::{Summary, median};

use crate::metrics::Check;

/// One run of one scenario against one server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// `server`, `relay`, or a name of [`compare`](crate::scenarios::compare).
    pub against: String,
    /// Which clients were played: `y-websocket`, or `y-websocket,hocuspocus,y-sweet`.
    pub dialects: String,
    /// Counted from 1.
    pub run: usize,
    /// What was done, in words: documents, clients, rates.
    pub shape: String,
    /// What was measured, the most important first.
    pub figures: Figures,
    /// What must not be: lost content, dropped connections. Any of them makes the program end with 1.
    pub faults: Vec<String>,
    /// Why the figures may not be the server's.
    pub cautions: Vec<String>,
    /// What else is worth knowing: why a search stopped, where a trace came from.
    pub notes: Vec<String>,
    /// The server's counters beside the generator's own.
    pub checks: Vec<Check>,
    /// Counters of the server's `/metrics` that moved.
    pub moved: BTreeMap<String, f64>,
    /// CPU time over wall time, by process name: 1.0 is one core.
    pub cpu_by_process: BTreeMap<String, f64>,
    /// What happened over time, and how latencies are spread.
    pub plots: Vec<Plot>,
}

impl Outcome {
    /// An empty one.
    pub fn new(scenario: &str, shape: String) -> Self {
        Self { scenario: scenario.to_owned(), shape, ..Self::default() }
    }

    /// Whether there is nothing to complain of.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Named numbers in an order; every name stands in [`KINDS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    /// Sets a figure. One that nobody could measure is left out rather than made up.
    pub fn set(&mut self, name: &'static str, value: impl Into<Option<f64>>) {
        debug_assert!(kind(name).is_some(), "no kind describes {name}");
        let Some(value) = value.into().filter(|value| value.is_finite()) else { return };
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// A count as a figure.
    pub fn count(&mut self, name: &'static str, value: impl TryInto<u64>) {
        self.set(name, value.try_into().ok().map(|value| value as f64));
    }

    /// The figure of that name, where it was measured.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Names in their order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A chart of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Plot {
    /// Lines of one name under one title are drawn into one chart when servers are compared.
    pub title: &'static str,
    /// What runs to the right, with its unit.
    pub x: &'static str,
    /// What runs upwards, with its unit.
    pub y: &'static str,
    /// Whether the axes are logarithmic: right, up.
    pub log: (bool, bool),
    /// One or more lines.
    pub lines: Vec<Line>,
}

/// A line of a chart.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

impl Line {
    /// A line of that name.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_nobody_could_measure_is_not_there() {
        let mut figures = Figures::default();
        figures.set("missing", 3.0);
        figures.set("missing", 4.0);
        figures.set("delivery_p50_ms", None);
        figures.set("delivery_p99_ms", f64::NAN);
        figures.count("refused", 2usize);
        assert_eq!(figures.names().collect::<Vec<_>>(), ["missing", "refused"]);
        assert_eq!(serde_json::to_string(&figures).unwrap(), r#"{"missing":4.0,"refused":2.0}"#);
    }
}
