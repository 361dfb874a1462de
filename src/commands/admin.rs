//! Commands for those who bring their own database, and for an operator of an embedded one: schema, tenants, users, projects, tokens.

use super::Outcome;
use crate::app;
use crate::config::Config;
use crate::console::say;
use clap::Subcommand;

/// What an operator administers without the REST API.
#[derive(Debug, Subcommand)]
pub enum Admin {}

/// `contextnexus migrate`
pub async fn migrate(config: Config) -> Outcome {
    let owner = config.database.owner_url.get().ok_or("`migrate` needs DATABASE_OWNER_URL; embedded mode migrates by itself when it starts")?;
    let version = app::migrate(owner).await?;
    say(format_args!("The schema is at version {version}"));
    Ok(())
}

/// Any other.
pub async fn run(command: Admin, _config: Config) -> Outcome {
    match command {}
}
