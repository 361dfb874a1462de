//! Waits for a database that is not there yet: in a composition of containers, after a reboot or during a failover, servers start in
//! any order.

use crate::console::progress;
use crate::embedded::Urls;
use crate::postgres::probe::{self, NoEntry};
use std::time::{Duration, Instant};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two lines that say so.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why nothing is waited for any longer.
#[derive(Debug, thiserror::Error)]
pub enum NotThere {
    /// The time is over.
    #[error(
        "PostgreSQL at {place} cannot be reached ({why}), after {} s: start it, or correct {variable}; how long to wait is database.start_wait_s",
        waited.as_secs()
    )]
    Unreachable {
        /// `host:port`.
        place: String,
        /// Of the last attempt.
        why: String,
        /// How long it was tried.
        waited: Duration,
        /// Which setting names it.
        variable: &'static str,
    },
    /// It answered, and waiting would not change the answer.
    #[error("PostgreSQL at {place} does not let this server in: {why}; correct {variable}")]
    Refused {
        /// `host:port`.
        place: String,
        /// In PostgreSQL's words.
        why: String,
        /// Which setting names it.
        variable: &'static str,
    },
    /// The setting names no database.
    #[error("{0} is not a postgres:// address")]
    NoAddress(&'static str),
}

/// Returns when both roles can sign in, or when waiting is of no use. Says what it waits for, at once and then every ten seconds.
pub async fn of_database(urls: &Urls, at_most: Duration) -> Result<(), NotThere> {
    let started = Instant::now();
    if let Some(owner) = urls.owner.get() {
        reached(owner, "DATABASE_OWNER_URL", started, at_most).await?;
    }
    reached(&urls.application.0, "DATABASE_URL", started, at_most).await
}

/// The same, for the role that migrates alone.
pub async fn of_owner(owner_url: &str, at_most: Duration) -> Result<(), NotThere> {
    reached(owner_url, "DATABASE_OWNER_URL", Instant::now(), at_most).await
}

async fn reached(url: &str, variable: &'static str, started: Instant, at_most: Duration) -> Result<(), NotThere> {
    let place = probe::place(url).map_err(|_| NotThere::NoAddress(variable))?;
    let mut told: Option<Instant> = None;
    loop {
        let why = match probe::reach(url).await {
            Ok(()) => break,
            Err(NoEntry::Refused(why)) => return Err(NotThere::Refused { place, why, variable }),
            Err(NoEntry::Unreachable(why)) => why,
        };
        let waited = started.elapsed();
        if waited >= at_most {
            return Err(NotThere::Unreachable { place, why, waited, variable });
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let left = (at_most - waited).as_secs();
            progress(format_args!("Waiting for PostgreSQL at {place} ({why}), for another {left} s at most ..."));
            told = Some(Instant::now());
        }
        tokio::time::sleep(PAUSE.min(at_most - waited)).await;
    }
    if told.is_some() {
        progress(format_args!("PostgreSQL at {place} is there"));
    }
    Ok(())
}
