//! overload: half as much again as the server can do, for a few seconds; then everything must arrive all the same.

use std::time::{Duration, Instant};

use super::ramp::SearchArgs;
use super::{Common, ScenarioResult, seconds};
use crate::bench::Bench;
use crate::engine::{Engine, mib, over_time};
use crate::outcome::Outcome;

/// Beyond the maximum.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How the highest rate is looked for.
    #[command(flatten)]
    pub search: SearchArgs,
    /// The highest rate, in updates a second of all writers together; looked for first (as `ramp` does) where not given.
    #[arg(long)]
    pub maximum: Option<f64>,
    /// How many times the maximum.
    #[arg(long, default_value_t = 1.5)]
    pub times: f64,
    /// Seconds of overload.
    #[arg(long, default_value_t = 4.0)]
    pub duration: f64,
    /// Seconds until everything must have arrived.
    #[arg(long, default_value_t = 60.0)]
    pub patience: f64,
}

/// Carries it out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    let shape = args.search.shape()?;
    let mut engine = Engine::open(shape, bench).await?;
    let mut outcome = Outcome::new("overload", String::new());
    let maximum = match args.maximum {
        Some(maximum) => maximum,
        None => {
            let found = args.search.find(&mut engine, bench).await?;
            found.report(&mut outcome);
            if found.drained.missing > 0 {
                return Err(format!("the search for the maximum ended early: {}", found.why).into());
            }
            found.rate
        }
    };
    let rate = maximum * args.times;
    if rate.is_nan() || rate <= 0.0 {
        return Err("no rate was kept, so there is no maximum to go beyond; give --maximum".into());
    }
    outcome.shape = format!("{}, {} times {maximum:.0} updates/s for {} s", shape.words(), args.times, args.duration);
    outcome.figures.set("max_rate", maximum);

    let memory_before = bench.usage().await?.map(|usage| usage.memory_bytes());
    let sent_before = engine.sent();
    let began = Instant::now();
    let phase = engine.phase(rate, Duration::ZERO, seconds(args.duration)?, bench).await?;
    let sent = (engine.sent() - sent_before) as f64;
    let draining = engine.drain(seconds(args.patience)?, |missing| {
        bench.progress.at(|| format!("overload is over, waiting for {missing} deliveries"));
    });
    let (drained, memory_drain) = bench.watch_memory(draining).await?;
    let memory_after = bench.usage().await?.map(|usage| usage.memory_bytes());

    // What arrived, over the time until the last of it did: a server that falls apart under load shows here.
    let receivers = shape.per_document().saturating_sub(1).max(1) as f64;
    let arrived = sent - drained.missing as f64 / receivers;
    let delivered = arrived / engine.heard_last().saturating_duration_since(began).as_secs_f64();
    let (delivery, _) = engine.latencies();
    let figures = &mut outcome.figures;
    figures.set("overload_rate", sent / args.duration);
    figures.set("delivered_rate", delivered);
    figures.set("of_maximum", delivered / maximum);
    figures.set("drain_ms", drained.took.as_secs_f64() * 1e3);
    figures.set("delivery_p99_ms", delivery.map(|delivery| delivery.p99_ms));
    figures.set("delivery_max_ms", delivery.map(|delivery| delivery.max_ms));
    figures.set("memory_before_mib", memory_before.map(mib));
    if let Some(server) = &phase.server {
        figures.set("memory_mib", server.memory_mib_max.max(mib(memory_drain.bytes)));
        figures.set("cpu_percent", server.cpu_total * 100.0);
        outcome.cpu_by_process.clone_from(&server.cpu);
    }
    figures.set("memory_after_mib", memory_after.map(mib));
    figures.set("generator_percent", phase.generator.cpu * 100.0);
    figures.set("generator_waited_percent", phase.generator.waited * 100.0);
    outcome.cautions.extend(phase.generator.caution());
    outcome.plots.extend(over_time(&phase.ticks));
    engine.finish(drained, &mut outcome, bench).await?;
    Ok(outcome)
}
