//! durability and converge: the two scenarios that end in a verdict rather than in figures.

use std::error::Error;
use std::time::Duration;

use contextnexus_loadtest::client::Access;
use contextnexus_loadtest::wire::dialect::Dialect;
use contextnexus_loadtest::{converge as edits, durability as kills, report};

use super::{Verdict, accesses, prepare};
use crate::cli::{Converge, Durability, Server};

/// Kill and count.
pub async fn durability(args: Durability) -> Verdict {
    prepare(&args.common)?;
    let plan = kills::Plan {
        start: args.start,
        log: args.server_log,
        victim: args.kill,
        database_pid_file: args.database_pid_file,
        database_start: args.database_start,
        kills: args.kills,
        load: (Duration::try_from_secs_f64(args.min_load)?, Duration::try_from_secs_f64(args.max_load)?),
        ready: Duration::try_from_secs_f64(args.ready)?,
        documents: args.documents,
        writers: args.writers,
        rate: args.rate,
        metrics: args.metrics,
        seed: args.seed.unwrap_or_else(rand::random),
        progress: !args.common.quiet,
    };
    // The first start may be what writes the credentials.
    let verdict =
        kills::run(&plan, || by_dialect(&args.server, &args.dialect).map_err(|error| error.to_string())).await?;
    println!(
        "\ndurability: {} kills of {:?}, {} tokens sent, {} owed: {} lost ({} of them acknowledged), {} duplicated, \
         {} torn characters, {} documents read differently by dialect (seed {})",
        verdict.kills,
        verdict.victim,
        verdict.sent,
        verdict.owed,
        verdict.lost,
        verdict.lost_acknowledged,
        verdict.duplicated,
        verdict.torn,
        verdict.differing,
        verdict.seed
    );
    println!(
        "restart to the first synced client: p50 {:.0} ms, at most {:.0} ms",
        verdict.restart_ms_p50, verdict.restart_ms_max
    );
    if let Some(quarantined) = verdict.quarantined {
        println!("quarantined, by the server's own count: {quarantined}");
    }
    for fault in &verdict.faults {
        println!("  refused to a writer: {fault}");
    }
    for example in &verdict.examples {
        println!("  lost at {example}");
    }
    if let Some(file) = &args.common.json {
        report::append_json(file, &verdict)?;
    }
    let sound = verdict.duplicated == 0 && verdict.torn == 0 && verdict.differing == 0;
    Ok(sound && verdict.lost <= args.max_loss && verdict.quarantined.is_none_or(|count| count == 0.0))
}

/// Random edits.
pub async fn converge(args: Converge) -> Verdict {
    prepare(&args.common)?;
    let plan = edits::Plan {
        clients: args.clients,
        edits: args.edits,
        rate: args.rate,
        disconnect: args.disconnect,
        offline: Duration::try_from_secs_f64(args.offline)?,
        settle: Duration::try_from_secs_f64(args.settle)?,
        fresh: !args.no_fresh,
        seed: args.seed.unwrap_or_else(rand::random),
        progress: !args.common.quiet,
    };
    let verdict = edits::run(&plan, &by_dialect(&args.server, &args.dialect)?).await?;
    println!(
        "\nconverge: {} edits by {} clients, {} disconnects: {} after {:.0} ms{} (seed {})",
        verdict.edits,
        verdict.clients,
        verdict.disconnects,
        if verdict.equal { "equal" } else { "NOT EQUAL" },
        verdict.settle_ms,
        match verdict.fresh_equal {
            Some(true) => ", fresh clients too",
            Some(false) => ", FRESH CLIENTS NOT",
            None => "",
        },
        verdict.seed
    );
    for fault in &verdict.faults {
        println!("  {fault}");
    }
    if let Some(file) = &args.common.json {
        report::append_json(file, &verdict)?;
    }
    Ok(verdict.is_sound())
}

/// Every dialect at every address.
fn by_dialect(server: &Server, dialects: &[Dialect]) -> Result<Vec<Access>, Box<dyn Error>> {
    let mut all = Vec::new();
    for dialect in dialects {
        all.extend(accesses(server, *dialect)?);
    }
    Ok(all)
}
