//! What a run must keep to for the program to end with 0: bounds on any figure, given on the command line or the
//! project's own goals.

use std::str::FromStr;

use super::{Summary, kind};

/// One bound on one figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The figure's name.
    pub figure: String,
    /// How far it may go.
    pub value: f64,
}

/// Why a bound cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BoundError {
    /// No `=`, or no number behind it.
    #[error("{0}: expected NAME=NUMBER")]
    Malformed(String),
    /// Nobody measures that.
    #[error("no figure is called {0}; the names stand in the JSON lines and in loadtest/README.md")]
    Unknown(String),
}

impl FromStr for Bound {
    type Err = BoundError;

    fn from_str(text: &str) -> Result<Self, BoundError> {
        let malformed = || BoundError::Malformed(text.to_owned());
        let (figure, value) = text.split_once('=').ok_or_else(malformed)?;
        if kind(figure).is_none() {
            return Err(BoundError::Unknown(figure.to_owned()));
        }
        Ok(Self { figure: figure.to_owned(), value: value.parse().map_err(|_| malformed())? })
    }
}

/// Which side of its value a figure must stay on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    AtMost,
    AtLeast,
}

/// The bounds of a command line.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Thresholds (a broken one ends the program with 1)")]
pub struct Thresholds {
    /// A figure must be at most this: delivery_p99_ms=20. Any name of the JSON lines; may be given often.
    #[arg(long, value_name = "NAME=VALUE")]
    pub max: Vec<Bound>,
    /// A figure must be at least this: rate_sent=990.
    #[arg(long, value_name = "NAME=VALUE")]
    pub min: Vec<Bound>,
    /// A figure beside the relay's must be at most this: cpu_us=1.5 is a ratio, delivery_p99_ms=2 milliseconds above.
    #[arg(long, value_name = "NAME=VALUE")]
    pub max_over_relay: Vec<Bound>,
    /// A figure beside the relay's must be at least this: max_rate=8.
    #[arg(long, value_name = "NAME=VALUE")]
    pub min_over_relay: Vec<Bound>,
    /// Hold the run against ContextNexus' own goals for the scenario (loadtest/README.md).
    #[arg(long)]
    pub goals: bool,
    /// Fail when the server's counters in /metrics differ from the generator's own.
    #[arg(long)]
    pub check_metrics: bool,
}

/// ContextNexus' goals for a scenario in its standard shape.
pub fn goals(scenario: &str, documents: f64) -> Thresholds {
    let bound = |(figure, value): &(&str, f64)| Bound { figure: (*figure).to_owned(), value: *value };
    let make = |max: &[(&str, f64)], min: &[(&str, f64)], over: &[(&str, f64)], under: &[(&str, f64)]| Thresholds {
        max: max.iter().map(bound).collect(),
        min: min.iter().map(bound).collect(),
        max_over_relay: over.iter().map(bound).collect(),
        min_over_relay: under.iter().map(bound).collect(),
        ..Thresholds::default()
    };
    let whole = ("missing", 0.0);
    match scenario {
        "fanout" => make(&[whole, ("unacked", 0.0)], &[], &[("cpu_us", 1.5), ("cpu_total_us", 2.6)], &[]),
        "many" => make(&[whole, ("unacked", 0.0)], &[], &[("cpu_total_us", 4.5)], &[]),
        "cursors" => make(&[whole], &[], &[("cpu_us", 1.3), ("delivery_p99_ms", 2.0)], &[]),
        "ack" => {
            make(&[whole, ("unacked", 0.0), ("ack_p99_ms", 30.0), ("ack_beyond_3_commits_ms", 8.0)], &[], &[], &[])
        }
        "ramp" => make(&[whole], &[], &[], &[("max_rate", if documents > 1.0 { 0.25 } else { 8.0 })]),
        "overload" => make(&[whole], &[("of_maximum", 0.9)], &[], &[]),
        "stalled" => make(
            &[whole, ("unacked", 0.0), ("unequal", 0.0), ("growth_of_cap", 1.0), ("p99_over_calm", 2.0)],
            &[],
            &[],
            &[],
        ),
        "attack" => make(
            &[
                whole,
                ("unacked", 0.0),
                ("dropped", 0.0),
                ("refused", 0.0),
                ("p99_over_calm", 3.0),
                ("after_over_before", 1.3),
            ],
            &[],
            &[],
            &[],
        ),
        "idle" => make(&[("kib_each", 14.0), ("open_ms", 1_500.0), ("dropped", 0.0)], &[], &[], &[]),
        "coldload" => make(&[whole, ("feed_s", 6.0), ("cold_server_ms", 25.0), ("warm_server_ms", 2.0)], &[], &[], &[]),
        "storm" => make(&[whole, ("storm_ms", 400.0)], &[], &[], &[]),
        "two-nodes" => make(&[whole, ("unacked", 0.0)], &[], &[("cpu_total_us", 4.0)], &[]),
        "durability" => make(&[("lost", 0.0)], &[], &[], &[]),
        _ => Thresholds::default(),
    }
}

impl Thresholds {
    /// What was not kept, in words. A figure that a bound needs and nobody measured counts as not kept.
    pub fn broken(&self, summary: &Summary) -> Vec<String> {
        let mut broken = Vec::new();
        for (bounds, side, beside) in [
            (&self.max, Side::AtMost, false),
            (&self.min, Side::AtLeast, false),
            (&self.max_over_relay, Side::AtMost, true),
            (&self.min_over_relay, Side::AtLeast, true),
        ] {
            let figures = if beside { &summary.beside_relay } else { &summary.figures };
            let place = if beside { " beside the relay's" } else { "" };
            for Bound { figure, value } in bounds {
                let words = match (figures.get(figure.as_str()), side) {
                    (Some(measured), Side::AtMost) if measured > value => format!("is {measured:.2}, above {value}"),
                    (Some(measured), Side::AtLeast) if measured < value => format!("is {measured:.2}, below {value}"),
                    (Some(_), _) => continue,
                    (None, _) => format!("was not measured, so {value} cannot be checked"),
                };
                broken.push(format!("{figure}{place} {words}"));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn summary(p99: Option<f64>, missing: f64) -> Summary {
        let mut outcome = Outcome::new("fanout", String::new());
        outcome.figures.set("delivery_p99_ms", p99);
        outcome.figures.set("missing", missing);
        Summary::new(&[outcome], None)
    }

    fn bounds(texts: &[&str]) -> Vec<Bound> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_bound_nobody_measured_is_not_kept() {
        let thresholds = Thresholds { max: bounds(&["delivery_p99_ms=5", "missing=0"]), ..Thresholds::default() };
        assert_eq!(thresholds.broken(&summary(None, 0.0)).len(), 1, "no loss is kept, no p99 is not");
        assert_eq!(thresholds.broken(&summary(Some(5.5), 1.0)).len(), 2);
        assert!(thresholds.broken(&summary(Some(5.0), 0.0)).is_empty());
        assert!(Thresholds::default().broken(&summary(Some(5.5), 1.0)).is_empty());
    }

    #[test]
    fn both_sides_and_the_relay_are_bounds() {
        let relay = summary(Some(1.0), 0.0);
        let server = Summary { beside_relay: [("delivery_p99_ms", 3.0)].into(), ..summary(Some(4.0), 0.0) };
        let least = Thresholds { min: bounds(&["delivery_p99_ms=5"]), ..Thresholds::default() };
        assert_eq!(least.broken(&server).len(), 1);
        let over = Thresholds { max_over_relay: bounds(&["delivery_p99_ms=2"]), ..Thresholds::default() };
        assert_eq!(over.broken(&server), ["delivery_p99_ms beside the relay's is 3.00, above 2"]);
        assert_eq!(over.broken(&relay).len(), 1, "without a relay it was not measured");
    }

    #[test]
    fn a_bound_that_cannot_be_used_says_why() {
        assert_eq!("x=1".parse::<Bound>(), Err(BoundError::Unknown("x".to_owned())));
        assert_eq!("missing".parse::<Bound>(), Err(BoundError::Malformed("missing".to_owned())));
        assert_eq!("missing=y".parse::<Bound>(), Err(BoundError::Malformed("missing=y".to_owned())));
    }

    #[test]
    fn every_goal_is_about_a_figure_that_exists() {
        for scenario in [
            "fanout",
            "many",
            "cursors",
            "ack",
            "ramp",
            "overload",
            "stalled",
            "attack",
            "idle",
            "coldload",
            "storm",
            "two-nodes",
            "durability",
        ] {
            let goals = goals(scenario, 1.0);
            let all = [goals.max, goals.min, goals.max_over_relay, goals.min_over_relay].concat();
            assert!(!all.is_empty(), "{scenario} has no goal");
            assert!(all.iter().all(|bound| kind(&bound.figure).is_some()), "{scenario}");
        }
    }
}
