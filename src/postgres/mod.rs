//! PostgreSQL, the system of record. All SQL of the server stands in this folder, one file per aggregate.
//!
//! A tenant's table can only be asked through a [`TenantTx`], which exists only bound to its tenant: [`begin`] opens the transaction
//! and binds it in one round trip, and the binding ends with the transaction. A few functions of the schema bind their own (the log's
//! appends, and what is asked over [`pinned`] ones). The pool itself is private to this folder.
//! Row-level security holds beneath it, for the owner of the tables too.

use contextnexus_actors::ids::TenantId;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Postgres, Transaction};
use std::str::FromStr;
use std::time::Duration;

pub mod authority;
pub mod backup;
mod batcher;
pub mod bus_keys;
pub mod documents;
mod error;
pub mod isolation;
pub mod migrate;
pub mod operation_log;
pub mod pinned;
pub mod probe;
pub mod projects;
pub mod quarantine;
pub mod roles;
pub mod tenants;
pub mod upkeep;
pub mod user_sessions;
pub mod users;

pub use error::{NoWrite, StoreError};

use pinned::PinnedConnections;

/// A pooled connection that nobody used for so long may be broken.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// How connections are made and how long they may take.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// Connections for everything but the log writer, which has its own.
    pub connections_max: u32,
    /// Longest wait for a free connection, or for PostgreSQL to take a new one.
    pub acquire_timeout: Duration,
    /// Longest statement of a request.
    pub statement_timeout: Duration,
    /// Longest wait of a request for a lock.
    pub lock_timeout: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            connections_max: 16,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(3),
        }
    }
}

/// A database as its application role sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    options: PgConnectOptions,
    pinned: PinnedConnections,
}

impl Database {
    /// Prepares a pool for `url` (`DATABASE_URL`). Connects when first asked; PostgreSQL may be away at this moment.
    pub fn new(url: &str, settings: &DatabaseSettings) -> Result<Self, StoreError> {
        let options = parse(url)?;
        let bounded = options.clone().options([
            ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
            ("lock_timeout", settings.lock_timeout.as_millis().to_string()),
            // A request that hangs between two statements must not keep its locks.
            ("idle_in_transaction_session_timeout", "30000".to_owned()),
        ]);
        let pinned = PinnedConnections::new(bounded.clone(), settings.acquire_timeout + settings.statement_timeout);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(settings.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            // A connection that was just in use is not asked whether it is still there: that would be a round trip per request.
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for >= ASK_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(bounded);
        Ok(Self { pool, options, pinned })
    }

    /// Whether PostgreSQL answers at this moment, which it has `within` this time to do. For `/ready`.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        let answer = self.pinned.ask(sqlx::query!("select 1 as one"));
        match tokio::time::timeout(within, answer).await {
            Ok(done) => done.map(drop),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Whether PostgreSQL takes a write at this moment, which it has `within` this time to do. For `/ready`. It commits, and makes
    /// PostgreSQL need room on its disk, and leaves nothing: a message in the write-ahead log that nobody reads, and a file that
    /// ends with the transaction.
    pub async fn try_write(&self, within: Duration) -> Result<(), NoWrite> {
        let write = sqlx::query!(
            r#"select set_config('synchronous_commit', 'on', true) as "a",
                      pg_logical_emit_message(true, 'contextnexus', 'ready')::text as "b", pg_export_snapshot() as "c""#
        );
        match tokio::time::timeout(within, write.fetch_one(&self.pool)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(NoWrite::of(&error)),
            Err(_) => Err(NoWrite::TooSlow(within)),
        }
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        self.pinned.close();
        self.pool.close().await;
    }
}

/// Connection options of a `postgres://` address, in ContextNexus' name.
fn parse(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|_| StoreError::BadAddress)?;
    Ok(options.application_name("contextnexus").disable_statement_logging())
}

/// A transaction that sees one tenant and nothing else. Rolled back when dropped.
#[derive(Debug)]
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    tenant: TenantId,
}

impl TenantTx {
    /// Whose transaction this is.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Makes it durable. After an error it may or may not be.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

/// Opens a transaction of `tenant` (read committed).
pub async fn begin(database: &Database, tenant: TenantId) -> Result<TenantTx, StoreError> {
    begin_as(&database.pool, tenant, "begin").await
}

/// Opens a transaction of `tenant` in which all statements read one instant, and none writes.
pub async fn begin_snapshot(database: &Database, tenant: TenantId) -> Result<TenantTx, StoreError> {
    begin_as(&database.pool, tenant, "begin isolation level repeatable read read only").await
}

/// Opens a transaction of `tenant` for a statement of many tables that finds a few rows of each by key. A connection
/// plans it once for all values: planning it each time takes PostgreSQL ten times as long as finding the rows.
pub(crate) async fn begin_planned_once(database: &Database, tenant: TenantId) -> Result<TenantTx, StoreError> {
    begin_as(&database.pool, tenant, "begin; set local plan_cache_mode = force_generic_plan").await
}

async fn begin_as(pool: &PgPool, tenant: TenantId, begin: &str) -> Result<TenantTx, StoreError> {
    // Several statements in one round trip. Nothing but a UUID is ever formatted into it.
    let statement = format!("{begin}; set local app.current_tenant_id = '{}'", tenant.0);
    let tx = pool.begin_with(AssertSqlSafe(statement)).await?;
    Ok(TenantTx { tx, tenant })
}
