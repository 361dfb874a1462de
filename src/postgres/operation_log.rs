//! The operation log in PostgreSQL: [`OperationLog`] over `document_heads`, `operations_log`, `document_snapshots` and `quarantine`.
//!
//! Appends go through the [writer](writer), which puts those of many documents of one tenant into one transaction, over
//! connections of its own. [`hold`] has one more, the only one that may wait for a lock. Reads go through the pool, each in one
//! snapshot of the database, and documents that are opened at once share one. Whatever is read is checked before it is believed.

use super::batcher::Batcher;
use super::{Database, StoreError, begin, begin_snapshot};
use async_trait::async_trait;
pub use audit::{Audit, audit, documents};
use contextnexus_actors::ids::{DocumentId, DocumentKey, Position, TenantId};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Damage, Head, LockedHead, LogError, OperationLog, Quarantine, Snapshot, Stored, Tail,
};
use contextnexus_actors::report;
pub use damage::{BROKEN_FOLDS, Mended, reopen};
use load::Loads;
use std::time::Duration;

mod append;
mod audit;
mod damage;
mod load;
mod lock_head;
mod quarantine;
mod read;
pub(super) mod row_codec;
mod snapshots;
mod writer;

/// Bounds of the log writer.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Transactions side by side, each on a connection of its own. PostgreSQL joins their fsyncs.
    pub connections: usize,
    /// Updates per second from which on transactions start `gap` apart, because many small ones are what costs most.
    pub busy_updates_per_s: u32,
    /// At least between the starts of two transactions of a busy tenant; up to five times as much where transactions take long.
    pub gap: Duration,
    /// Waiting documents at which a busy writer starts another transaction at once.
    pub full_documents: usize,
    /// Most documents in one transaction.
    pub batch_documents_max: usize,
    /// Most bytes in one transaction; a larger append goes alone.
    pub batch_bytes_max: usize,
    /// Bytes that wait for a transaction or are in one; whoever comes then waits for room.
    pub waiting_bytes_max: usize,
    /// After so long without an answer an append is [`AppendOutcome::Unknown`] and its connection given up.
    pub answer_timeout: Duration,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            connections: 4,
            busy_updates_per_s: 500,
            gap: Duration::from_millis(8),
            full_documents: 256,
            batch_documents_max: 256,
            batch_bytes_max: 4 << 20,
            waiting_bytes_max: 64 << 20,
            answer_timeout: Duration::from_secs(5),
        }
    }
}

/// The log of every document, in PostgreSQL.
#[derive(Debug)]
pub struct PostgresLog {
    database: Database,
    loads: Batcher<Loads>,
    writer: writer::Writer,
    locks: lock_head::HeadLocks,
}

impl PostgresLog {
    /// Nothing is appended before it [runs](Self::run).
    pub fn new(database: Database, settings: LogSettings) -> Self {
        let holder = lock_head::HeadLocks::new(&database, settings.answer_timeout);
        let writer = writer::Writer::new(&database, settings);
        let loads = Batcher::new(Loads(database.clone()));
        Self { database, loads, writer, locks: holder }
    }

    /// Starts the log writer on the running tokio runtime, with which it ends, or when this is dropped.
    pub fn run(&self) {
        self.writer.run();
    }
}

#[async_trait]
impl OperationLog for PostgresLog {
    async fn load(&self, key: DocumentKey) -> Result<Stored, LogError> {
        self.loads.ask(key.tenant, key.document).await.unwrap_or_else(|| {
            // Why stands in the log, once for all who asked together.
            Err(LogError::Unavailable("PostgreSQL did not answer".into()))
        })
    }

    #[tracing::instrument(name = "pg.log.tail", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn tail(&self, key: DocumentKey, base: Position) -> Result<Tail, LogError> {
        let mut db = begin_snapshot(&self.database, key.tenant).await?;
        read::tail(&mut db.tx, key, base).await
    }

    async fn append(&self, request: AppendRequest) -> AppendOutcome {
        self.writer.append(request).await
    }

    #[tracing::instrument(name = "pg.log.hold", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn lock_head(&self, key: DocumentKey, base: Position) -> Result<Box<dyn LockedHead>, LogError> {
        self.locks.lock_head(key, base).await
    }

    #[tracing::instrument(name = "pg.log.changed_heads", skip_all, fields(tenant.id = %tenant), err(level = "debug"))]
    async fn changed_heads(
        &self,
        tenant: TenantId,
        known: &[(DocumentId, Position)],
    ) -> Result<Vec<(DocumentId, Head)>, LogError> {
        read::changed_heads(&self.database, tenant, known).await
    }

    #[tracing::instrument(name = "pg.log.quarantine", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn quarantine(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        let mut db = begin(&self.database, key.tenant).await?;
        quarantine::row(&mut db, key.document, what).await?;
        Ok(db.commit().await?)
    }

    #[tracing::instrument(name = "pg.log.quarantine_refused", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn quarantine_refused(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        let mut db = begin(&self.database, key.tenant).await?;
        quarantine::refused(&mut db, key.document, what).await?;
        Ok(db.commit().await?)
    }

    #[tracing::instrument(name = "pg.log.discard_snapshots", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn discard_snapshots(&self, key: DocumentKey, from_seq: u64) -> Result<(), LogError> {
        let mut db = begin(&self.database, key.tenant).await?;
        snapshots::discard(&mut db, key.document, from_seq).await?;
        Ok(db.commit().await?)
    }

    #[tracing::instrument(name = "pg.log.close_for_writing", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn close_for_writing(&self, key: DocumentKey, damage: Damage) -> Result<(), LogError> {
        let mut db = begin(&self.database, key.tenant).await?;
        let is_news = damage::close(&mut db, key.document, damage).await?;
        db.commit().await?;
        if is_news {
            damage::say_closed(key.document, damage);
        }
        Ok(())
    }

    #[tracing::instrument(name = "pg.log.save_snapshot", skip_all, fields(tenant.id = %key.tenant, document.id = %key.document), err(level = "debug"))]
    async fn save_snapshot(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError> {
        let packed = snapshots::pack(key.document, snapshot).await?;
        let mut db = begin(&self.database, key.tenant).await?;
        snapshots::save(&mut db, key.document, packed).await?;
        Ok(db.commit().await?)
    }
}

impl From<StoreError> for LogError {
    /// A document waits and asks again, whatever it is: what waiting does not mend is logged here.
    fn from(error: StoreError) -> Self {
        if let StoreError::Database(source) = &error {
            report!(error.cause(), "the log cannot be read or written: {source}");
        }
        Self::Unavailable(Box::new(error))
    }
}

/// For `?` on queries in this folder.
fn away(error: sqlx::Error) -> LogError {
    StoreError::from(error).into()
}

/// Numbers are `bigint` in PostgreSQL and never negative (the functions that append see to it).
fn number(stored: i64) -> u64 {
    stored.unsigned_abs()
}

/// A number of the log as PostgreSQL takes it. Nobody writes 2^63 updates.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
