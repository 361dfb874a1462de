//! From arguments to runs.

mod honesty;
mod steady;

use std::error::Error;

use contextnexus_loadtest::client::Access;
use contextnexus_loadtest::wire::dialect::Dialect;
use contextnexus_loadtest::{process, relay};

use crate::cli::{self, Common, Scenario, Server};

/// What a scenario answers: whether every threshold was kept.
pub type Verdict = Result<bool, Box<dyn Error>>;

/// Carries a scenario out.
pub async fn run(scenario: Scenario) -> Verdict {
    process::raise_file_limit()?;
    match scenario {
        Scenario::Fanout(args) => steady::run(steady::Kind::Fanout, args).await,
        Scenario::Many(args) => steady::run(steady::Kind::Many, args).await,
        Scenario::Ack(args) => steady::run(steady::Kind::Ack, args).await,
        Scenario::Durability(args) => honesty::durability(args).await,
        Scenario::Converge(args) => honesty::converge(args).await,
        Scenario::Relay(args) => serve_relay(args).await,
    }
}

async fn serve_relay(args: cli::Relay) -> Verdict {
    if let Some(cpu) = args.cpu {
        process::pin_self(cpu)?;
    }
    let (address, serving) = relay::bind(&args.listen).await?;
    println!("relay ready at ws://{address}");
    serving.await?;
    Ok(true)
}

fn prepare(common: &Common) -> Result<(), Box<dyn Error>> {
    if let Some(cpu) = common.cpu {
        process::pin_self(cpu)?;
    }
    Ok(())
}

/// One per address.
fn accesses(server: &Server, dialect: Dialect) -> Result<Vec<Access>, Box<dyn Error>> {
    let token = match &server.credentials {
        None => server.token.clone(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let json: serde_json::Value = serde_json::from_str(&text)?;
            let token = json.get("token").and_then(|token| token.as_str());
            Some(token.ok_or_else(|| format!("{}: no token in it", file.display()))?.to_owned())
        }
    };
    let access = |target| Access { target, dialect, token: token.clone(), token_in: server.token_in };
    Ok(server.urls.iter().cloned().map(access).collect())
}
