//! The server's own counters, read from its `/metrics` before and after a run.

use std::collections::BTreeMap;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_moved_is_reported() {
        let before = Counters::parse("# HELP a b\na_total{x=\"y z\"} 5\nb 1\n");
        let after = Counters::parse("a_total{x=\"y z\"} 8\nb 1\nc_total 2\nh_bucket{le=\"1\"} 9\n");
        assert_eq!((after.sum("total"), after.sum("h_b")), (10.0, 0.0));
        let moved = after.since(&before);
        assert_eq!(moved, [("a_total{x=\"y z\"}".to_owned(), 3.0), ("c_total".to_owned(), 2.0)].into());
    }
}
