//! Opening the database of a configuration, for the server and for commands: migrated where that is needed, and refused where it must not be
//! relied on.

use crate::config::Config;
use crate::console::progress;
use crate::data_dir::{DataDir, DataDirError};
use crate::embedded::{self, EmbeddedError, EmbeddedPostgres, Urls};
use crate::postgres::isolation::{self, Weakness};
use crate::postgres::migrate::{self, Progress, SchemaError};
use crate::postgres::{Database, DatabaseSettings, StoreError, roles};
use contextnexus_actors::clock::{Clock as _, SystemClock};
use std::time::Duration;
use tracing::{debug, info, warn};

/// Why there is no database. One line each, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no embedded database.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The schema cannot be used.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// Tenants would not be safe from each other.
    #[error("refusing to serve: {0}; `contextnexus doctor` says what to do")]
    Unsafe(String),
    /// Tenants are not safe from each other.
    #[error("refusing to serve: {}", sentence(.0))]
    Isolation(Vec<Weakness>),
    /// What users were shown could be lost.
    #[error("refusing to serve: {0}; switch it on, or allow it with --allow-weak-durability (tests only)")]
    Weakened(String),
}

fn sentence(weak: &[Weakness]) -> String {
    weak.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// How to connect: to what runs, or to what was brought.
pub fn urls(config: &Config, postgres: Option<&EmbeddedPostgres>) -> Urls {
    match postgres {
        Some(postgres) => postgres.urls().clone(),
        None => Urls {
            application: config.database.url.clone(),
            owner: config.database.owner_url.clone(),
            backup: config.database.backup_url.clone(),
        },
    }
}

/// Migrates where that is needed and this node may, and refuses a database that it must not serve.
pub async fn open(config: &Config, urls: &Urls) -> Result<Database, OpenError> {
    let database = Database::new(&urls.application.0, &settings(config))?;
    match (migrate::check(&database).await, urls.owner.get()) {
        (Ok(()), _) => {}
        (Err(_), Some(owner)) => {
            migrate(owner).await?;
            migrate::check(&database).await?;
        }
        (Err(error), None) => return Err(error.into()),
    }
    let found = roles::inspect(&database).await?;
    if !found.unsafe_role.is_empty() {
        return Err(OpenError::Unsafe(found.unsafe_role.join("; ")));
    }
    if !found.weakened.is_empty() && !config.database.allow_weak_durability {
        return Err(OpenError::Weakened(found.weakened.join("; ")));
    }
    for weakness in &found.weakened {
        warn!("durability: weakened: {weakness}");
    }
    for excess in &found.excess {
        warn!("{excess}");
    }
    let weak = isolation::weaknesses(&database).await?;
    if !weak.is_empty() {
        return Err(OpenError::Isolation(weak));
    }
    Ok(database)
}

/// Applies what is missing of the schema, and says so in one line before and one after.
pub async fn migrate(owner_url: &str) -> Result<i64, SchemaError> {
    let (mut count, mut took_in_all) = (0, Duration::ZERO);
    let version = migrate::migrate(owner_url, |step| match step {
        Progress::Pending(0) => {}
        Progress::Pending(pending) => {
            count = pending;
            progress(format_args!("Applying {pending} migrations ..."));
        }
        Progress::Applying { version, description } => debug!(version, "applying migration {version}: {description}"),
        Progress::Applied { version, took } => {
            took_in_all += took;
            debug!(version, "applied migration {version} in {took:?}");
        }
    })
    .await?;
    if count > 0 {
        info!(count, version, "applied {count} migrations in {took_in_all:.1?}; the schema is at version {version}");
    }
    Ok(version)
}

/// Of the pool.
pub fn settings(config: &Config) -> DatabaseSettings {
    DatabaseSettings {
        connections_max: config.database.connections_max,
        acquire_timeout: Duration::from_secs(config.database.acquire_timeout_s),
        statement_timeout: Duration::from_secs(config.database.statement_timeout_s),
        lock_timeout: Duration::from_secs(config.database.lock_timeout_s),
    }
}

/// A database for one command: a running server's embedded one, this command's own, or the one that was brought.
pub struct Session {
    /// The database, migrated and checked.
    pub database: Database,
    found: Found,
}

impl Session {
    /// Opens it. An embedded database that does not run is started.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        let found = Found::start(config).await?;
        match open(config, &found.urls).await {
            Ok(database) => Ok(Self { database, found }),
            Err(error) => {
                found.close().await;
                Err(error)
            }
        }
    }

    /// Closes it, and stops PostgreSQL where [`open`](Self::open) has started it.
    pub async fn close(self) {
        self.database.close().await;
        self.found.close().await;
    }
}

/// The same, as it was found: neither migrated nor looked at.
pub struct Found {
    /// How to connect.
    pub urls: Urls,
    postgres: Option<EmbeddedPostgres>,
    _data_dir: Option<DataDir>,
}

impl Found {
    /// An embedded database that does not run is started, and made where there is none.
    pub async fn start(config: &Config) -> Result<Self, OpenError> {
        match Self::start_alone(config).await {
            Err(OpenError::DataDir(DataDirError::InUse { path, pid })) => match embedded::recorded_urls(&path) {
                Some(urls) => Ok(Self { urls, postgres: None, _data_dir: None }),
                None => Err(DataDirError::InUse { path, pid }.into()),
            },
            found => found,
        }
    }

    /// The same, but an embedded database that runs is in use, and refused.
    pub async fn start_alone(config: &Config) -> Result<Self, OpenError> {
        if !config.is_embedded() {
            return Ok(Self { urls: urls(config, None), postgres: None, _data_dir: None });
        }
        let data_dir = DataDir::open(&config.data_dir)?;
        let postgres = embedded::start(config, &data_dir, SystemClock.fresh_id()).await?;
        Ok(Self { urls: postgres.urls().clone(), postgres: Some(postgres), _data_dir: Some(data_dir) })
    }

    /// Stops PostgreSQL where it was started for this.
    pub async fn close(self) {
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
    }
}
