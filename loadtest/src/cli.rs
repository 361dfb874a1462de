//! The command line.

use clap::{Parser, Subcommand};
use contextnexus_loadtest::driver::{self, Verdict};
use contextnexus_loadtest::scenarios::{Scenario, compare};
use contextnexus_loadtest::{process, relay};

/// Load scenarios for any Yjs server (y-websocket, Hocuspocus and Y-Sweet dialects). Knows only the wire.
///
/// Ends with 0 when every threshold was kept, with 1 when one was not or content was lost, with 2 when the scenario
/// could not be carried out.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one is made per process")]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// Several servers back to back on the same cores, beside the relay, in one table.
    Compare(compare::Args),
    /// A bare fan-out server without CRDT and store: the physical reference. Serves y-websocket until it is killed.
    Relay(Relay),
}

/// The relay's own arguments.
#[derive(Debug, clap::Args)]
struct Relay {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:9900")]
    listen: String,
    /// When it writes.
    #[arg(long, value_enum, default_value = "batched")]
    writes: relay::Writes,
    /// Pin the relay to this CPU.
    #[arg(long)]
    cpu: Option<usize>,
}

impl Cli {
    /// Does it.
    pub async fn run(self) -> Verdict {
        match self.command {
            Command::Scenario(scenario) => driver::drive(&scenario).await,
            Command::Compare(args) => compare::run(&args).await,
            Command::Relay(args) => serve_relay(&args).await,
        }
    }
}

async fn serve_relay(args: &Relay) -> Verdict {
    process::raise_file_limit()?;
    if let Some(cpu) = args.cpu {
        process::pin_self(cpu)?;
    }
    let (address, serving) = relay::bind(&args.listen, args.writes).await?;
    println!("relay ready at ws://{address}");
    serving.await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Cli::command().debug_assert();
    }
}
