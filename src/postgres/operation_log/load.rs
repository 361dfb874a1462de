//! Loading documents: head, newest sound snapshot, the rows after it and what is in quarantine, all of one instant. Documents that are
//! opened at once are read together, because after a restart round trips are most of what opening them takes.

use super::read::{self, Readable, StoredRow};
use super::{away, row_codec, snapshots};
use crate::commands::chain;
use crate::postgres::batcher::BatchQuery;
use crate::postgres::{Database, TenantTx, begin_snapshot};
use async_trait::async_trait;
use bytes::Bytes;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ids::{DocumentId, Position, TenantId};
use contextnexus_actors::ports::log::{Head, LogError, QuarantineReason, Snapshot, Stored, Tail};
use contextnexus_actors::report;
use uuid::Uuid;

/// Answers documents with what is stored of them.
pub(super) struct Loads(pub Database);

/// What the tables hold of one document.
#[derive(Default)]
struct Found {
    head: Option<Head>,
    snapshot: Option<Snapshot>,
    rows: Vec<StoredRow>,
    quarantined: Vec<Bytes>,
    /// There is a document and no head: whether the document has a tombstone.
    headless: Option<bool>,
}

#[async_trait]
impl BatchQuery for Loads {
    type Question = DocumentId;
    type Answer = Result<Stored, LogError>;

    const WAITING: &'static str = "contextnexus_loads_waiting";
    /// Each is held whole in memory until all are read.
    const QUESTIONS_MAX: usize = 32;
    const EACH_ALONE: bool = true;

    async fn run(&self, tenant: TenantId, documents: &[DocumentId]) -> Option<Vec<Self::Answer>> {
        let found = load(&self.0, tenant, documents).await;
        let found =
            found.inspect_err(|error| report!(Cause::Outage, "documents cannot be loaded: {}", chain(error))).ok()?;
        Some(found.into_iter().zip(documents).map(|(found, document)| found.checked(*document)).collect())
    }
}

/// Where the rows that are needed begin.
fn start(snapshot: &Option<Snapshot>) -> Position {
    snapshot.as_ref().map_or(Position::START, |snapshot| snapshot.position)
}

#[tracing::instrument(name = "pg.log.load", skip_all, fields(tenant.id = %tenant, documents = documents.len()), err(level = "debug"))]
async fn load(database: &Database, tenant: TenantId, documents: &[DocumentId]) -> Result<Vec<Found>, LogError> {
    let mut db = begin_snapshot(database, tenant).await?;
    let heads = read::heads(&mut db.tx, tenant, documents).await?;
    let snapshots = snapshots::newest_sound(&mut db, documents).await?;
    let after: Vec<_> = documents.iter().zip(&snapshots).map(|(document, at)| (*document, start(at).seq)).collect();
    let rows = read::rows_after(&mut db.tx, tenant, &after).await?;
    let mut found: Vec<Found> = heads
        .into_iter()
        .zip(snapshots)
        .zip(rows)
        .map(|((head, snapshot), rows)| Found { head, snapshot, rows, ..Found::default() })
        .collect();
    add_quarantined(&mut db, documents, &mut found).await?;
    if found.iter().any(|found| found.head.is_none()) {
        add_headless(&mut db, documents, &mut found).await?;
    }
    Ok(found)
}

/// Each document is made with a head, so that one without has lost it.
async fn add_headless(db: &mut TenantTx, documents: &[DocumentId], to: &mut [Found]) -> Result<(), LogError> {
    let asked: Vec<Uuid> = documents.iter().map(|document| document.0).collect();
    let there = sqlx::query!(
        r#"select asked.n as "n!", d.deleted_at is not null as "deleted!"
             from unnest($2::uuid[]) with ordinality as asked (document_id, n)
             join content_items d on d.tenant_id = $1 and d.id = asked.document_id"#,
        db.tenant().0,
        &asked
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    for row in there {
        if let Some(found) = read::nth(to, row.n).filter(|found| found.head.is_none()) {
            found.headless = Some(row.deleted);
        }
    }
    Ok(())
}

async fn add_quarantined(db: &mut TenantTx, documents: &[DocumentId], to: &mut [Found]) -> Result<(), LogError> {
    let asked: Vec<Uuid> = documents.iter().map(|document| document.0).collect();
    let kept = sqlx::query!(
        r#"select asked.n as "n!", kept.seq as "seq!", kept.codec as "codec!", kept.raw_bytes as "raw_bytes!",
                  kept.update as "update!"
             from unnest($2::uuid[]) with ordinality as asked (document_id, n)
            cross join lateral (select seq, codec, raw_bytes, update from quarantine
                                 where tenant_id = $1 and document_id = asked.document_id and seq is not null
                                   and reason <> $3
                                 order by seq) as kept"#,
        db.tenant().0,
        &asked,
        QuarantineReason::DoesNotContinue.as_str()
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    for row in kept {
        let Some(found) = read::nth(to, row.n) else { continue };
        let document = usize::try_from(row.n - 1).ok().and_then(|place| documents.get(place));
        match row_codec::decompress(row.codec, row.raw_bytes, row.update) {
            Some(update) => found.quarantined.push(update.into()),
            None => report!(
                Cause::Damage,
                document.id = document.map(tracing::field::display),
                seq = row.seq,
                "the quarantined update {} does not read back: a resend of it would be tried again",
                row.seq
            ),
        }
    }
    Ok(())
}

impl Found {
    /// The same once its checksums, numbers and tips agree.
    fn checked(self, document: DocumentId) -> Result<Stored, LogError> {
        let head = match (self.head, self.headless) {
            (Some(head), _) => head,
            (None, Some(deleted)) => Head { position: Position::START, deleted },
            (None, None) => return Err(LogError::NoSuchDocument),
        };
        let stored_head = self.head.map(|head| head.position);
        let Readable { rows, damage } = read::readable(document, start(&self.snapshot), stored_head, self.rows);
        Ok(Stored { snapshot: self.snapshot, tail: Tail { rows, head }, quarantined: self.quarantined, damage })
    }
}
