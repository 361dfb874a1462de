//! idle: what a connection costs while nobody does anything, and how quickly thousands of them open.

use std::time::{Duration, Instant};

use super::{Common, ScenarioResult, seconds};
use crate::bench::Bench;
use crate::engine::{Engine, OPENING_MAX, Opening, Payload, Shape, fresh_names, mib};
use crate::outcome::Outcome;
use crate::process::{self, Usage};

/// Updates that each document has before it is opened.
const UPDATES_EACH: f64 = 20.0;

/// Idle connections.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How many connections.
    #[arg(long, default_value_t = 4_000)]
    pub connections: usize,
    /// On how many documents, which exist and hold something.
    #[arg(long, default_value_t = 100)]
    pub documents: usize,
    /// Seconds until all that the documents hold must have arrived.
    #[arg(long, default_value_t = 10.0)]
    pub patience: f64,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = OPENING_MAX)]
    pub at_once: usize,
    /// Seconds to leave a server alone before its memory is read, so that it puts away what opening needed.
    #[arg(long, default_value_t = 3.0)]
    pub settle: f64,
    /// Seconds to look on while nobody does anything.
    #[arg(long, default_value_t = 5.0)]
    pub hold: f64,
}

/// Carries it out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    if args.documents == 0 || args.connections < args.documents || args.at_once == 0 {
        return Err("there must be a document, a handshake at once, and at least one connection per document".into());
    }
    let settle = seconds(args.settle)?;
    let names = fresh_names(args.documents);
    let writers = Shape { documents: args.documents, writers: 1, readers: 0, payload: Payload::Text };
    let mut author = Engine::open_documents(writers, &names, Opening::default(), bench).await?;
    let rate = 20.0 * args.documents as f64;
    author.phase(rate, Duration::ZERO, Duration::from_secs_f64(UPDATES_EACH / 20.0), bench).await?;
    let written = author.drain(Duration::from_secs(30), |_| ()).await;
    if written.unacked > 0 {
        return Err(format!("{} updates that make the documents were never acknowledged", written.unacked).into());
    }
    let known = author.known();
    drop(author);
    bench.progress.at(|| "the documents are there; waiting for quiet".to_owned());
    tokio::time::sleep(settle).await;

    let before = bench.usage().await?;
    let readers = Shape { writers: 0, readers: args.connections / args.documents, ..writers };
    let known = (!bench.is_relay).then_some(&known); // a relay has no store: it owes nothing
    let opening = Opening { known, at_once: Some(args.at_once), patience: None };
    let engine = Engine::open_documents(readers, &names, opening, bench).await?;
    bench.progress.at(|| format!("{} connections are open", readers.connections()));
    tokio::time::sleep(settle).await;
    let quiet = bench.usage().await?;
    let began = Instant::now();
    tokio::time::sleep(seconds(args.hold)?).await;
    let after = bench.usage().await?;
    let held = began.elapsed();

    let mut outcome =
        Outcome::new("idle", format!("{} connections on {} existing documents", readers.connections(), args.documents));
    let each = |memory: fn(&Usage) -> u64| {
        let (before, after) = before.as_ref().zip(after.as_ref())?;
        Some((memory(after) as f64 - memory(before) as f64) / 1_024.0 / readers.connections() as f64)
    };
    let figures = &mut outcome.figures;
    figures.set("kib_each", each(Usage::memory_bytes));
    figures.set("kib_each_own", each(Usage::memory_bytes_own));
    figures.set("open_ms", engine.open_ms);
    let cpu = quiet.as_ref().zip(after.as_ref()).map(|(quiet, after)| {
        after.cpu_total().saturating_sub(quiet.cpu_total()).as_secs_f64() / held.as_secs_f64() * 100.0
    });
    figures.set("cpu_idle_percent", cpu);
    figures.set("memory_before_mib", before.as_ref().map(|usage| mib(usage.memory_bytes())));
    figures.set("memory_after_mib", after.as_ref().map(|usage| mib(usage.memory_bytes())));
    figures.set("load_average", process::load_average());
    if before.is_none() {
        outcome.notes.push("no --server-pid: memory was not measured".to_owned());
    }
    let drained = engine.drain(seconds(args.patience)?, |_| ()).await;
    engine.finish(drained, &mut outcome, bench).await?;
    outcome.checks.clear(); // nobody sent anything
    Ok(outcome)
}
