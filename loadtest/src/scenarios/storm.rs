//! storm: the server is killed under many clients and started again; all of them come back at once.

use std::time::{Duration, Instant};

use super::{Common, ScenarioResult};
use crate::bench::Bench;
use crate::engine::{Engine, Opening, Payload, Shape, fresh_names};
use crate::launch::{LaunchArgs, Launched};
use crate::outcome::Outcome;
use crate::process;

/// Kill, restart, everybody returns.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How the server is started.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// How many clients.
    #[arg(long, default_value_t = 500)]
    pub clients: usize,
    /// On how many documents.
    #[arg(long, default_value_t = 50)]
    pub documents: usize,
    /// Updates that each document has, every one of them acknowledged before the kill.
    #[arg(long, default_value_t = 20)]
    pub updates: usize,
    /// Handshakes under way at once when all come back.
    #[arg(long, default_value_t = 500)]
    pub at_once: usize,
}

/// Carries it out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    if args.documents == 0 || args.updates == 0 || args.clients < args.documents || args.at_once == 0 {
        return Err("there must be documents with updates, and at least one client per document".into());
    }
    let patience = args.launch.patience();
    let names = fresh_names(args.documents);
    let mut server = Launched::spawn(&args.launch, bench.server_cpu())?;
    let accesses = server.wait_synced(bench, &names[0], patience).await?;

    let each = args.clients / args.documents;
    let writers = Shape { documents: args.documents, writers: 1, readers: each - 1, payload: Payload::Text };
    let mut before = Engine::open_documents(writers, &names, Opening::default(), bench).await?;
    let rate = 10.0 * args.documents as f64;
    before.phase(rate, Duration::ZERO, Duration::from_secs_f64(args.updates as f64 / 10.0), bench).await?;
    let written = before.drain(patience, |missing| {
        bench.progress.at(|| format!("waiting for {missing} deliveries before the kill"));
    });
    let written = written.await;
    if written.unacked > 0 {
        return Err(format!("{} updates were never acknowledged, even before the kill", written.unacked).into());
    }
    let known = before.known();
    before.expect_end();
    server.kill()?;
    server.wait().await?;
    drop(before);

    let mut server = Launched::spawn(&args.launch, bench.server_cpu())?;
    let accepting = server.wait_accepting(&accesses[0].target.authority, patience).await?;
    let readers = Shape { writers: 0, readers: each, ..writers };
    let opening = Opening { known: Some(&known), at_once: Some(args.at_once), patience: Some(patience) };
    let engine = Engine::open_documents(readers, &names, opening, bench).await?;
    let synced = Instant::now();
    let drained = engine.drain(Duration::from_secs(5), |_| ()).await;

    let mut outcome = Outcome::new(
        "storm",
        format!("SIGKILL, restart, {} clients on {} documents", readers.connections(), args.documents),
    );
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
    outcome.figures.set("storm_ms", ms(server.at, synced));
    outcome.figures.set("start_ms", ms(server.at, accepting));
    outcome.figures.set("load_average", process::load_average());
    engine.finish(drained, &mut outcome, bench).await?;
    outcome.checks.clear(); // counted by a process that was killed
    outcome.moved.clear();
    server.end().await?;
    Ok(outcome)
}
