//! fanout, many, ack, cursors, two-nodes: documents, writers and readers at a constant rate. One engine, five presets.

use super::{Common, ScenarioResult, seconds};
use crate::bench::Bench;
use crate::engine::{Engine, Payload, Shape};
use crate::outcome::Outcome;
use crate::probe;

/// Any shape at a constant rate; what is not given has the scenario's default.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How many documents (many 500, ack 50, otherwise 1).
    #[arg(long)]
    pub documents: Option<usize>,
    /// Writing connections per document (cursors 50, many and ack 2, otherwise 1).
    #[arg(long)]
    pub writers: Option<usize>,
    /// Connections per document that only read (fanout and two-nodes 100, otherwise 0).
    #[arg(long)]
    pub readers: Option<usize>,
    /// Updates a second: of each writer (fanout and two-nodes 50, many and cursors 5), of all together in ack (1000).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds of sending before the measured window.
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds to wait after the last send for what is still under way.
    #[arg(long, default_value_t = 10.0)]
    pub drain: f64,
}

/// The defaults of one scenario.
#[derive(Debug)]
pub struct Preset {
    name: &'static str,
    documents: usize,
    writers: usize,
    readers: usize,
    rate: f64,
    /// Whether `rate` is of all writers together.
    total: bool,
    payload: Payload,
    nodes_min: usize,
}

/// One writer, many readers.
pub const FANOUT: Preset = Preset {
    name: "fanout",
    documents: 1,
    writers: 1,
    readers: 100,
    rate: 50.0,
    total: false,
    payload: Payload::Text,
    nodes_min: 1,
};
/// Many documents, two writers each.
pub const MANY: Preset = Preset { name: "many", documents: 500, writers: 2, readers: 0, rate: 5.0, ..FANOUT };
/// A total rate over many documents.
pub const ACK: Preset =
    Preset { name: "ack", documents: 50, writers: 2, readers: 0, rate: 1_000.0, total: true, ..FANOUT };
/// Awareness of many in one document.
pub const CURSORS: Preset =
    Preset { name: "cursors", writers: 50, readers: 0, rate: 5.0, payload: Payload::Cursor, ..FANOUT };
/// One writer on one node, readers on all.
pub const TWO_NODES: Preset = Preset { name: "two-nodes", nodes_min: 2, ..FANOUT };

/// Carries a preset out once.
pub async fn run(preset: &Preset, args: &Args, bench: &Bench) -> ScenarioResult {
    let shape = Shape {
        documents: args.documents.unwrap_or(preset.documents),
        writers: args.writers.unwrap_or(preset.writers),
        readers: args.readers.unwrap_or(preset.readers),
        payload: preset.payload,
    };
    let rate = args.rate.unwrap_or(preset.rate);
    if shape.documents == 0 || shape.writers == 0 || rate.is_nan() || rate <= 0.0 || args.duration <= 0.0 {
        return Err("documents, writers, rate and duration must be above zero".into());
    }
    if bench.server.urls.len() < preset.nodes_min && !bench.is_relay {
        return Err(format!("{} wants the address of every node: give --url more than once", preset.name).into());
    }
    let total = if preset.total { rate } else { rate * (shape.documents * shape.writers) as f64 };
    let mut engine = Engine::open(shape, bench).await?;
    let phase = engine.phase(total, seconds(args.warm_up)?, seconds(args.duration)?, bench).await?;
    let drained = engine.drain(seconds(args.drain)?, |missing| {
        bench.progress.at(|| format!("waiting for {missing} deliveries"));
    });
    let drained = drained.await;
    let words = match preset.total {
        true => format!("{} at {rate}/s together", shape.words()),
        false => format!("{} at {rate}/s each", shape.words()),
    };
    let mut outcome = Outcome::new(preset.name, words);
    phase.report(&engine, &mut outcome);
    engine.finish(drained, &mut outcome, bench).await?;
    if let Some(url) = &bench.server.commit_probe {
        match probe::commit_p50_ms(url, total, bench.server_cpu()).await {
            Ok(commit) => {
                outcome.figures.set("commit_p50_ms", commit);
                let beyond = outcome.figures.get("ack_p50_ms").map(|ack| ack - 3.0 * commit);
                outcome.figures.set("ack_beyond_3_commits_ms", beyond);
            }
            Err(error) => outcome.notes.push(format!("no commit probe: {error}")),
        }
    }
    Ok(outcome)
}
