//! attack: many documents in peace, then beside an attacker who has an editor's token of another tenant and a thousand
//! sockets without one; what that costs those who only write, and what is left of it in memory.

mod dear;
mod hands;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use super::{Common, ScenarioResult, seconds};
use crate::bench::{Bench, Peak};
use crate::engine::{Engine, Opening, Payload, Shape, fresh_names, mib};
use crate::outcome::Outcome;
use hands::{Attack, Hands, Plan};

/// An attacker beside others.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// An editor's token of another tenant than the victims' (`contextnexus tenant create`).
    #[arg(long, env = "LOADTEST_ATTACKER_TOKEN", hide_env_values = true)]
    pub attacker_token: Option<String>,
    /// A JSON file whose field `token` is that token.
    #[arg(long, conflicts_with = "attacker_token")]
    pub attacker_credentials: Option<PathBuf>,
    /// One kind of attack alone, to see what it costs.
    #[arg(long)]
    pub only: Option<Attack>,
    /// Sockets without a token.
    #[arg(long, default_value_t = 1_000)]
    pub strangers: usize,
    /// Documents of the victims, with two writers each.
    #[arg(long, default_value_t = 50)]
    pub documents: usize,
    /// Updates a second of each writer.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Seconds before the attack.
    #[arg(long, default_value_t = 20.0)]
    pub calm: f64,
    /// Seconds of the attack.
    #[arg(long, default_value_t = 60.0)]
    pub duration: f64,
    /// Seconds without an edit, before the attack and after it, until the memory is looked at.
    #[arg(long, default_value_t = 60.0)]
    pub rest: f64,
    /// Seconds until everything that was sent must have arrived.
    #[arg(long, default_value_t = 30.0)]
    pub patience: f64,
}

/// Carries it out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    if args.documents == 0 || args.duration <= 0.0 || args.calm <= 0.0 {
        return Err("documents, calm and duration must be above zero".into());
    }
    let token = match &args.attacker_credentials {
        Some(file) => Some(Bench::token_in(file)?),
        None => args.attacker_token.clone(),
    };
    let token = token.ok_or("the attacker needs a token: --attacker-token or --attacker-credentials")?;
    let shape = Shape { documents: args.documents, writers: 2, readers: 0, payload: Payload::Text };
    let names = fresh_names(args.documents);
    let mut engine = Engine::open_documents(shape, &names, Opening::default(), bench).await?;
    let rate = args.rate * (2 * args.documents) as f64;
    let patience = seconds(args.patience)?;

    engine.phase(rate, Duration::from_secs(2), seconds(args.calm)?, bench).await?;
    engine.drain(patience, |_| ()).await;
    let before = rested(args, bench).await?;
    let calm_p99 = engine.latencies().0.map(|delivery| delivery.p99_ms);

    let duration = seconds(args.duration)?;
    let plan = Plan {
        authority: bench.accesses()?[0].target.authority.clone(),
        token,
        strangers: args.strangers,
        duration: duration + Duration::from_secs(1),
        only: args.only,
    };
    let hands = Hands::start(plan)?;
    let (phase, memory) = bench.watch_memory(engine.phase(rate, Duration::from_secs(1), duration, bench)).await?;
    let phase = phase?;
    let drained =
        engine.drain(patience, |missing| bench.progress.at(|| format!("waiting for {missing} deliveries"))).await;
    let p99 = engine.latencies().0.map(|delivery| delivery.p99_ms);
    let tally = tokio::task::spawn_blocking(move || hands.end()).await??;

    let after = rested(args, bench).await?;
    let words =
        format!("{}, then {} strangers and a hostile member for {} s", shape.words(), args.strangers, args.duration);
    let mut outcome = Outcome::new("attack", words);
    let figures = &mut outcome.figures;
    if !bench.server.server_pid.is_empty() {
        let of = |peak: &Peak| mib(peak.own_bytes);
        figures.set("memory_before_mib", of(&before));
        figures.set("growth_mib", of(&memory) - of(&before));
        figures.set("memory_after_mib", of(&after));
        figures.set("after_over_before", of(&after) / of(&before));
    }
    figures.set("calm_p99_ms", calm_p99);
    figures.set("p99_over_calm", p99.zip(calm_p99).map(|(p99, calm)| p99 / calm));
    figures.set("hostile_opened", tally.opened as f64);
    figures.set("hostile_refused", tally.refused as f64);
    phase.report(&engine, &mut outcome);
    engine.finish(drained, &mut outcome, bench).await?;
    // The attacker is heard and told things, too: how many is the server's to say.
    outcome.checks.clear();
    Ok(outcome)
}

/// The server's memory when nobody has edited for a while.
async fn rested(args: &Args, bench: &Bench) -> Result<Peak, Box<dyn Error>> {
    bench.progress.at(|| "resting".to_owned());
    tokio::time::sleep(seconds(args.rest)?).await;
    Ok(bench.watch_memory(tokio::time::sleep(Duration::from_secs(1))).await?.1)
}
