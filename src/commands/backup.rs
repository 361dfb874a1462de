//! `contextnexus backup`, `restore` and `verify`.

use super::Outcome;
use crate::backup;
use crate::config::Config;
use crate::console::say;
use crate::data_dir::{self, Standing};
use crate::open_database::Found;
use crate::wait_for_postgres;
use clap::{Args, Subcommand};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Backups, by PostgreSQL's own tools.
#[derive(Debug, Subcommand)]
pub enum Backups {
    /// Writes a backup of the whole database into a new directory, beside running servers. Nobody waits for it.
    ///
    /// On a database of your own it needs DATABASE_BACKUP_URL: a role that may read every tenant. Embedded mode has
    /// one. An embedded database that does not run is started for it.
    Backup(BackupArguments),
    /// Restores a backup into an empty database, all or nothing, while no server runs on it.
    ///
    /// Without DATABASE_URL into the data directory's own database, which is made where there is none.
    Restore(RestoreArguments),
    /// Restores a backup into a PostgreSQL of its own, compares every row, head and log with what the source was, and
    /// removes it again.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
pub struct BackupArguments {
    /// A directory that does not exist yet. It will hold password hashes and everything that was written.
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// What `contextnexus backup` wrote.
    directory: PathBuf,
    /// Drops what is in the database first.
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// What `contextnexus backup` wrote.
    directory: PathBuf,
    /// Where the PostgreSQL of its own keeps its files meanwhile: room for the whole database [default: the system's
    /// temporary directory].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Runs one of them. Ctrl-C and SIGTERM break it off, and what was begun is removed.
pub async fn run(command: Backups, config: Config) -> Outcome {
    match command {
        Backups::Backup(BackupArguments { directory }) => {
            let found = source(&config).await?;
            let outcome = unless_stopped(backup::back_up(&config, &found.urls, &directory)).await;
            found.close().await;
            let manifest = outcome?;
            say(format_args!(
                "Backed up {} documents and {} tables, as they were at {}, in {} ({} KB)",
                manifest.documents.count,
                manifest.tables.len(),
                manifest.taken_at.format("%F %T%.3f UTC"),
                directory.display(),
                manifest.dump.bytes >> 10,
            ));
        }
        Backups::Restore(RestoreArguments { directory, replace }) => {
            // Before a database is made for it.
            let manifest = backup::open(&directory)?;
            let found = target(&config).await?;
            let restoring = backup::restore(&config, &found.urls, &directory, &manifest, replace);
            let outcome = unless_stopped(restoring).await;
            found.close().await;
            outcome?;
            say(format_args!(
                "Restored {} documents and {} tables, as they were at {}",
                manifest.documents.count,
                manifest.tables.len(),
                manifest.taken_at.format("%F %T%.3f UTC"),
            ));
        }
        Backups::Verify(VerifyArguments { directory, scratch }) => {
            let scratch = scratch.unwrap_or_else(std::env::temp_dir);
            let manifest = unless_stopped(backup::verify(&config, &directory, &scratch)).await?;
            say(format_args!("The backup is whole. Compared with the source as it was: {}", manifest.compared()));
        }
    }
    Ok(())
}

async fn source(config: &Config) -> Result<Found, Box<dyn std::error::Error>> {
    if config.is_embedded() && matches!(data_dir::standing(&config.data_dir)?, Standing::Absent) {
        return Err(backup::BackupError::NoDatabase(config.data_dir.clone()).into());
    }
    Ok(Found::start(config).await?)
}

async fn target(config: &Config) -> Result<Found, Box<dyn std::error::Error>> {
    if let Some(owner) = config.database.owner_url.get().filter(|_| !config.is_embedded()) {
        wait_for_postgres::of_owner(owner, Duration::from_secs(config.database.start_wait_s)).await?;
    }
    Ok(Found::start_alone(config).await?)
}

async fn unless_stopped<T>(
    work: impl Future<Output = Result<T, backup::BackupError>>,
) -> Result<T, Box<dyn std::error::Error>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = work => Ok(done?),
        _ = interrupt.recv() => Err("broken off; what was begun was removed".into()),
        _ = terminate.recv() => Err("broken off; what was begun was removed".into()),
    }
}
