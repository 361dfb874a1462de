//! The server's own counters, read from its `/metrics` before and after a run.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::wire::http::{self, HttpError};

/// Why counters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address is not `http://HOST:PORT/PATH`.
    #[error("{0}: expected http://HOST:PORT/metrics")]
    Address(String),
    /// The call failed.
    #[error("the server's metrics cannot be read")]
    Http(#[from] HttpError),
    /// The server answered something else.
    #[error("the server answered its metrics with status {0}")]
    Status(u16),
}

/// Every sample of one scrape, by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, f64>);

/// Reads `address`.
pub async fn scrape(address: &str) -> Result<Counters, MetricsError> {
    let (authority, path) = address
        .strip_prefix("http://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "metrics")))
        .ok_or_else(|| MetricsError::Address(address.to_owned()))?;
    let answer = http::call(authority, "GET", &format!("/{path}"), None, None).await?;
    if answer.status != 200 {
        return Err(MetricsError::Status(answer.status));
    }
    Ok(Counters::parse(&String::from_utf8_lossy(&answer.body)))
}

impl Counters {
    /// Prometheus' text format; lines that are no sample are left out.
    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.trim().to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// All samples whose name holds `word`, and no histogram's buckets.
    pub fn sum(&self, word: &str) -> f64 {
        let named =
            |name: &str| name.split('{').next().is_some_and(|name| name.contains(word) && !name.ends_with("_bucket"));
        self.0.iter().filter(|(name, _)| named(name)).map(|(_, value)| value).sum()
    }

    /// What moved since `before`, histogram buckets left out: they are the server's to plot.
    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        self.0
            .iter()
            .filter(|(name, _)| !name.contains("_bucket{"))
            .map(|(name, now)| (name.clone(), now - before.0.get(name).copied().unwrap_or_default()))
            .filter(|(_, moved)| *moved != 0.0)
            .collect()
    }
}

/// One of the server's counters beside the generator's own count of the same thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was counted, in words.
    pub what: &'static str,
    /// The server's counter.
    pub counter: &'static str,
    /// How far it moved.
    pub server: f64,
    /// What the generator counted.
    pub generator: f64,
}

impl Check {
    /// Whether both counted the same.
    pub fn agrees(&self) -> bool {
        self.server == self.generator
    }
}

/// What the generator counted between two scrapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// WebSocket messages sent.
    pub messages_sent: u64,
    /// Updates sent that bring something new.
    pub updates_sent: u64,
    /// Messages received that carried updates, whatever was merged into them.
    pub update_messages_received: u64,
}

/// Holds what moved in `/metrics` against the generator's own counts; nothing for counters the server does not have.
/// A counter of ContextNexus that never
/// counted is not in the scrape and stands for 0.
pub fn checks(moved: &BTreeMap<String, f64>, own: &Own) -> Vec<Check> {
    let known = moved.keys().any(|name| name.starts_with("contextnexus_"));
    let check = |what, counter: &'static str, generator: u64| {
        let of = |name: &str| name.split('{').next() == Some(counter);
        let server: f64 = moved.iter().filter(|(name, _)| of(name)).map(|(_, value)| value).sum();
        known.then_some(Check { what, counter, server: server + 0.0, generator: generator as f64 })
    };
    [
        check("messages received by the server", "contextnexus_ws_received_messages_total", own.messages_sent),
        check("updates committed", "contextnexus_log_updates_total", own.updates_sent),
        check("fan-out, in messages", "contextnexus_fanout_total", own.update_messages_received),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_held_against_own_counts_where_the_server_has_them() {
        let own = Own { messages_sent: 9, updates_sent: 5, update_messages_received: 4 };
        let moved: BTreeMap<String, f64> = [
            ("contextnexus_ws_received_messages_total{dialect=\"y-websocket\"}".to_owned(), 4.0),
            ("contextnexus_ws_received_messages_total{dialect=\"hocuspocus\"}".to_owned(), 5.0),
            ("contextnexus_log_updates_total".to_owned(), 6.0),
        ]
        .into();
        let checks = checks(&moved, &own);
        assert_eq!(checks.iter().map(Check::agrees).collect::<Vec<_>>(), [true, false, false]);
        assert!(super::checks(&[("nodejs_heap".to_owned(), 1.0)].into(), &own).is_empty());
    }

    #[test]
    fn only_what_moved_is_reported() {
        let before = Counters::parse("# HELP a b\na_total{x=\"y z\"} 5\nb 1\n");
        let after = Counters::parse("a_total{x=\"y z\"} 8\nb 1\nc_total 2\nh_bucket{le=\"1\"} 9\n");
        assert_eq!((after.sum("total"), after.sum("h_b")), (10.0, 0.0));
        let moved = after.since(&before);
        assert_eq!(moved, [("a_total{x=\"y z\"}".to_owned(), 3.0), ("c_total".to_owned(), 2.0)].into());
    }
}
