//! ramp: the highest rate at which the latest percent of deliveries is still in time, and why there is no higher.
//!
//! Connections stay open over all steps. Rates grow by a factor until one is not kept, then the gap is halved a few
//! times. A step that fails is tried a second time before it is believed: a hiccup of the machine is no limit.

use std::time::Duration;

use super::{Common, ScenarioResult, seconds};
use crate::bench::Bench;
use crate::engine::{Drained, Engine, Payload, Phase, Shape};
use crate::measure::Generator;
use crate::outcome::{Line, Outcome, Plot};

/// What is under way when a step ends may take this much longer than the limit.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// A step that sent less than this share of its rate was not that step.
const SENT_SHARE_MIN: f64 = 0.97;
/// Two rates closer than this are one.
const APART_MIN: f64 = 1.03;

/// How to look for the highest rate.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Search")]
pub struct SearchArgs {
    /// How many documents.
    #[arg(long, default_value_t = 1)]
    pub documents: usize,
    /// Writing connections per document (10 in one document, 2 in several).
    #[arg(long)]
    pub writers: Option<usize>,
    /// Connections per document that only read (100 in one document, none in several).
    #[arg(long)]
    pub readers: Option<usize>,
    /// Delivery p99 must not be above this, in milliseconds.
    #[arg(long, default_value_t = 100.0)]
    pub limit_ms: f64,
    /// Updates a second of all writers together to begin with.
    #[arg(long, default_value_t = 100.0)]
    pub from: f64,
    /// Stop there even if it is kept.
    #[arg(long, default_value_t = 200_000.0)]
    pub to: f64,
    /// The next step is so many times the one before.
    #[arg(long, default_value_t = 1.5)]
    pub factor: f64,
    /// How often to halve the gap between the last kept and the first broken rate.
    #[arg(long, default_value_t = 3)]
    pub refine: usize,
    /// Seconds of each step that count; one more before them does not.
    #[arg(long, default_value_t = 4.0)]
    pub step: f64,
    /// Seconds to wait for what a broken step left behind.
    #[arg(long, default_value_t = 30.0)]
    pub drain: f64,
}

/// The highest rate.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How the highest rate is looked for.
    #[command(flatten)]
    pub search: SearchArgs,
}

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// The highest rate that was kept; 0 where none was.
    pub rate: f64,
    /// Its step.
    pub best: Option<Phase>,
    /// The lowest rate that was not.
    pub stopped_at: Option<f64>,
    /// Why.
    pub why: String,
    /// Whether the generator was why.
    pub own_fault: bool,
    /// Everything that arrived and did not.
    pub drained: Drained,
    /// Rate, p99 and cores of the server of every step, in their order.
    pub steps: Vec<(f64, f64, Option<f64>)>,
}

impl SearchArgs {
    /// The shape to search with.
    pub fn shape(&self) -> Result<Shape, Box<dyn std::error::Error>> {
        let (writers, readers) = if self.documents > 1 { (2, 0) } else { (10, 100) };
        let shape = Shape {
            documents: self.documents,
            writers: self.writers.unwrap_or(writers),
            readers: self.readers.unwrap_or(readers),
            payload: Payload::Text,
        };
        if shape.documents == 0 || shape.writers == 0 || self.from <= 0.0 || self.factor <= 1.0 || self.step <= 0.0 {
            return Err("documents, writers, --from and --step must be above zero, --factor above one".into());
        }
        Ok(shape)
    }

    /// Looks for the highest rate on open connections.
    pub async fn find(&self, engine: &mut Engine, bench: &Bench) -> Result<Found, Box<dyn std::error::Error>> {
        let mut search = Search::new(self.from, self.to, self.factor, self.refine);
        let mut found = Found {
            rate: 0.0,
            best: None,
            stopped_at: None,
            why: format!("{} updates/s, where --to ends the search, were kept", self.to),
            own_fault: false,
            drained: Drained { missing: 0, unacked: 0, took: Duration::ZERO },
            steps: Vec::new(),
        };
        while let Some(rate) = search.next() {
            let mut step = self.step(rate, engine, bench, &mut found).await?;
            if step.broken.as_ref().is_some_and(|broken| !broken.is_final) {
                bench.progress.note(&format!("{rate:.0} updates/s were not kept ({step}); once more"));
                step = self.step(rate, engine, bench, &mut found).await?;
            }
            bench.progress.note(&format!("{rate:.0} updates/s: {step}"));
            search.told(step.broken.is_none());
            match step.broken {
                None => (found.rate, found.best) = (rate, Some(step.phase)),
                Some(broken) => {
                    found.why = broken.words(rate, &step.phase);
                    found.own_fault = broken.own_fault;
                    found.stopped_at = Some(rate);
                    if broken.is_final {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    async fn step(
        &self,
        rate: f64,
        engine: &mut Engine,
        bench: &Bench,
        found: &mut Found,
    ) -> Result<Step, Box<dyn std::error::Error>> {
        let phase = engine.phase(rate, Duration::from_secs(1), seconds(self.step)?, bench).await?;
        let limit = seconds(self.limit_ms / 1e3)?;
        let under_way = engine.drain(limit + UNDER_WAY, |_| ()).await;
        let facts = Facts {
            rate,
            sent: phase.rate_sent,
            p99_ms: engine.latencies().0.map(|quantiles| quantiles.p99_ms),
            limit_ms: self.limit_ms,
            under_way: under_way.missing,
            dropped: engine.dropped(),
            generator: phase.generator,
        };
        let mut broken = judge(&facts);
        found.steps.push((
            rate,
            facts.p99_ms.unwrap_or(f64::NAN),
            phase.server.as_ref().map(|server| server.cpu_total),
        ));
        let draining = engine.drain(seconds(self.drain)?, |missing| {
            bench.progress.at(|| format!("waiting for {missing} deliveries of {rate:.0} updates/s"));
        });
        found.drained = draining.await;
        if found.drained.missing > 0 {
            let words = format!("{} deliveries never came", found.drained.missing);
            broken = Some(Broken { words, own_fault: false, is_final: true });
        }
        Ok(Step { phase, p99_ms: facts.p99_ms, broken })
    }
}

/// Carries the search out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    let shape = args.search.shape()?;
    let mut engine = Engine::open(shape, bench).await?;
    let found = args.search.find(&mut engine, bench).await?;
    let mut outcome = Outcome::new("ramp", format!("{}, p99 at most {} ms", shape.words(), args.search.limit_ms));
    found.report(&mut outcome);
    engine.finish(found.drained, &mut outcome, bench).await?;
    Ok(outcome)
}

impl Found {
    /// The figures of a search.
    pub fn report(&self, outcome: &mut Outcome) {
        outcome.figures.set("max_rate", self.rate);
        outcome.figures.set("stopped_at_rate", self.stopped_at);
        if let Some(best) = &self.best {
            let figures = &mut outcome.figures;
            figures.set("max_deliveries", best.deliveries as f64 / best.elapsed.as_secs_f64());
            figures.set("cpu_us", best.server.as_ref().map(|server| server.cpu_us_per_delivery_own));
            figures.set("cpu_total_us", best.server.as_ref().map(|server| server.cpu_us_per_delivery));
            figures.set("cpu_percent", best.server.as_ref().map(|server| server.cpu_total * 100.0));
            figures.set("memory_mib", best.server.as_ref().map(|server| server.memory_mib_max));
            figures.set("messages", best.messages as f64 / best.elapsed.as_secs_f64());
            figures.set("generator_percent", best.generator.cpu * 100.0);
            figures.set("generator_waited_percent", best.generator.waited * 100.0);
        }
        outcome.notes.push(format!("stopped because {}", self.why));
        if self.own_fault {
            outcome.cautions.push("THE GENERATOR WAS THE LIMIT: the server may do more than this".to_owned());
        }
        let mut steps = self.steps.clone();
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        outcome.plots.push(Plot {
            title: "Delivery p99 by rate",
            x: "updates/s",
            y: "ms",
            log: (true, true),
            lines: vec![Line::new("p99", steps.iter().map(|(rate, p99, _)| (*rate, *p99)).collect())],
        });
        let cpu = steps.iter().filter_map(|(rate, _, cpu)| Some((*rate, (*cpu)? * 100.0))).collect();
        outcome.plots.push(Plot {
            title: "The server's CPU by rate",
            x: "updates/s",
            y: "% of a core",
            log: (true, false),
            lines: vec![Line::new("server", cpu)],
        });
    }
}

/// One step, measured and judged.
struct Step {
    phase: Phase,
    p99_ms: Option<f64>,
    broken: Option<Broken>,
}

impl std::fmt::Display for Step {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.broken, self.p99_ms) {
            (Some(broken), _) => write!(out, "{}", broken.words),
            (None, p99) => write!(out, "kept, p99 {:.1} ms", p99.unwrap_or(f64::NAN)),
        }
    }
}

/// What a step is judged by.
struct Facts {
    rate: f64,
    sent: f64,
    p99_ms: Option<f64>,
    limit_ms: f64,
    under_way: u64,
    dropped: (u64, String),
    generator: Generator,
}

/// Why a rate was not kept.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    words: String,
    own_fault: bool,
    /// Connections or content are gone: what comes after would measure something else.
    is_final: bool,
}

impl Broken {
    fn words(&self, rate: f64, phase: &Phase) -> String {
        let server = phase.server.as_ref().map_or(String::new(), |server| {
            let each: Vec<String> =
                server.cpu.iter().map(|(name, cpu)| format!("{name} {:.0} %", cpu * 100.0)).collect();
            format!("; CPU: {}, generator {:.0} %", each.join(", "), phase.generator.cpu * 100.0)
        });
        format!("{} at {rate:.0} updates/s{server}", self.words)
    }
}

/// `None` where the rate was kept.
fn judge(facts: &Facts) -> Option<Broken> {
    let broken = |words: String, own_fault, is_final| Some(Broken { words, own_fault, is_final });
    let late = facts.p99_ms.is_none_or(|p99| p99 > facts.limit_ms) || facts.under_way > 0;
    if facts.dropped.0 > 0 {
        return broken(format!("{} connections were dropped ({})", facts.dropped.0, facts.dropped.1), false, true);
    }
    if facts.sent < SENT_SHARE_MIN * facts.rate || (late && facts.generator.had_no_time()) {
        let Generator { cpu, waited, .. } = facts.generator;
        let words = format!(
            "the generator itself came to its limit ({:.0} updates/s sent; it used {:.0} % of its core and waited {:.0} % of the time for it)",
            facts.sent,
            cpu * 100.0,
            waited * 100.0
        );
        return broken(words, true, false);
    }
    if facts.under_way > 0 {
        return broken(format!("{} deliveries were still under way after the step", facts.under_way), false, false);
    }
    match facts.p99_ms {
        None => broken("nothing was delivered".to_owned(), false, false),
        Some(p99) if p99 > facts.limit_ms => {
            broken(format!("delivery p99 was {p99:.0} ms, above {} ms,", facts.limit_ms), false, false)
        }
        Some(_) => None,
    }
}

/// Which rate to try next. Pure.
#[derive(Debug)]
struct Search {
    kept: Option<f64>,
    broken: Option<f64>,
    next: Option<f64>,
    to: f64,
    factor: f64,
    refine: usize,
}

impl Search {
    fn new(from: f64, to: f64, factor: f64, refine: usize) -> Self {
        Self { kept: None, broken: None, next: Some(from.min(to)), to, factor, refine }
    }

    fn next(&self) -> Option<f64> {
        self.next
    }

    fn told(&mut self, kept: bool) {
        let Some(rate) = self.next else { return };
        *(if kept { &mut self.kept } else { &mut self.broken }) = Some(rate);
        self.next = match (self.kept, self.broken) {
            (Some(kept), None) => (kept < self.to).then(|| (kept * self.factor).min(self.to)),
            (Some(kept), Some(broken)) if self.refine > 0 && broken / kept > APART_MIN => {
                self.refine -= 1;
                Some((kept * broken).sqrt())
            }
            // Twice down for each way up; below one update a second nothing is worth knowing.
            (None, Some(broken)) => Some(broken / self.factor / self.factor).filter(|next| *next >= 1.0),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Latencies;
    use crate::process::OwnTime;

    fn search(limit: f64) -> (f64, usize) {
        let mut search = Search::new(100.0, 1e6, 1.5, 4);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            steps += 1;
            search.told(rate <= limit);
        }
        (search.kept.unwrap_or(0.0), steps)
    }

    #[test]
    fn the_search_ends_close_below_the_limit() {
        for limit in [30.0, 130.0, 5_000.0, 77_777.0] {
            let (found, steps) = search(limit);
            assert!(found <= limit && found > limit / 1.06, "{found} for {limit}");
            assert!(steps < 25, "{steps} steps for {limit}");
        }
        assert_eq!(search(0.5).0, 0.0, "a server that keeps nothing ends the search too");
        assert_eq!(search(1e9).0, 1e6, "and one that keeps everything");
    }

    fn facts() -> Facts {
        let second = Duration::from_secs(1);
        Facts {
            rate: 1_000.0,
            sent: 1_000.0,
            p99_ms: Some(20.0),
            limit_ms: 100.0,
            under_way: 0,
            dropped: (0, String::new()),
            generator: Generator::new(
                OwnTime { used: second / 2, ..OwnTime::default() },
                second,
                &Latencies::default(),
            ),
        }
    }

    #[test]
    fn a_step_says_why_it_was_not_kept() {
        assert_eq!(judge(&facts()), None);
        let slow = judge(&Facts { p99_ms: Some(101.0), ..facts() }).unwrap();
        assert!(slow.words.contains("101 ms") && !slow.own_fault && !slow.is_final);
        assert!(judge(&Facts { under_way: 3, ..facts() }).unwrap().words.contains("3 deliveries"));
        assert!(judge(&Facts { dropped: (1, "1012".to_owned()), ..facts() }).unwrap().is_final);
        assert!(judge(&Facts { sent: 900.0, ..facts() }).unwrap().own_fault);
        let second = Duration::from_secs(1);
        let busy = Generator::new(OwnTime { used: second, ..OwnTime::default() }, second, &Latencies::default());
        assert_eq!(judge(&Facts { generator: busy, ..facts() }), None, "busy and in time is kept");
        assert!(judge(&Facts { generator: busy, p99_ms: Some(200.0), ..facts() }).unwrap().own_fault);
    }
}
