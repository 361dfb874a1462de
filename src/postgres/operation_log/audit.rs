//! Reading a log again from its first row on, the rows before its snapshots included, which nobody else ever reads again.

use super::read::StoredRow;
use super::{away, number, read, snapshots};
use crate::postgres::{Database, TenantTx, begin, begin_snapshot};
use bytes::Bytes;
use contextnexus_actors::document::refold::Refold;
use contextnexus_actors::ids::{DocumentId, DocumentKey, Position, TenantId, Tip};
use contextnexus_actors::ports::log::LogError;

/// Bytes of rows that are read at once, and one row.
const PAGE_BYTES: i64 = 4 << 20;
/// Rows that are read at once.
const PAGE_ROWS: i64 = 1024;

/// Faults of a document that are told.
const FAULTS_MAX: usize = 100;

/// What was read of one document's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Rows.
    pub rows: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// What is wrong, each a sentence, the first hundred. Empty: all of it reads back and agrees.
    pub faults: Vec<String>,
}

impl Audit {
    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text);
        }
    }
}

/// Documents of a tenant, in order, deleted ones included, those after `after`.
#[tracing::instrument(name = "pg.log.documents", skip_all, fields(tenant.id = %tenant), err(level = "debug"))]
pub async fn documents(
    database: &Database,
    tenant: TenantId,
    after: Option<DocumentId>,
    limit: i64,
) -> Result<Vec<DocumentId>, LogError> {
    let mut db = begin(database, tenant).await?;
    let ids = sqlx::query_scalar!(
        "select id from content_items where tenant_id = $1 and ($2::uuid is null or id > $2) order by id limit $3",
        db.tenant.0,
        after.map(|document| document.0),
        limit
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(ids.into_iter().map(DocumentId).collect())
}

/// Reads one document's whole log, of one instant: the checksum and the numbers of each row, that the head is where the rows end, and that
/// each snapshot is the fold of the rows before it. Holds a few MiB of rows, and the document itself where it has snapshots.
#[tracing::instrument(name = "pg.log.audit", skip_all, fields(document.id = %key.document), err(level = "debug"))]
pub async fn audit(database: &Database, key: DocumentKey) -> Result<Audit, LogError> {
    let mut db = begin_snapshot(database, key.tenant).await?;
    let document = key.document;
    let head = read::heads(&mut db.tx, key.tenant, &[document]).await?.pop().flatten();
    let places = places(&mut db, document).await?;
    let mut snapshots = places.iter().peekable();
    let mut audit = Audit { snapshots: places.len() as u64, ..Audit::default() };
    // Folded as far as there is something to compare it with.
    let mut fold = (!places.is_empty()).then(Refold::default);
    let (mut at, mut after) = (Position::START, 0);
    loop {
        let page = page(&mut db, document, after).await?;
        let Some(last) = page.last().map(|row| row.seq_from) else { break };
        after = last;
        // A row whose numbers are damaged ends before the next one begins.
        let ends: Vec<Option<i64>> = page.iter().skip(1).map(|next| Some(next.seq_from - 1)).chain([None]).collect();
        for (row, end) in page.into_iter().zip(ends) {
            audit.rows += 1;
            let (tip, seq_from, seq_to) = (Tip(row.tip), number(row.seq_from), row.seq_to.max(row.seq_from));
            if seq_from > at.seq + 1 {
                audit.fault(format!("rows are missing from {} to {}", at.seq + 1, seq_from - 1));
                fold = None; // what comes next builds on them
            }
            let mut end = end.unwrap_or(seq_to);
            let updates = match row.sound(document, at.seq.max(seq_from - 1)) {
                Ok(row) => {
                    end = seq_to;
                    (row.seq_from..).zip(row.updates).collect::<Vec<(u64, Bytes)>>()
                }
                Err(_) => {
                    audit.fault(format!("row {seq_from} does not read back"));
                    fold = None;
                    Vec::new()
                }
            };
            for (seq, update) in updates {
                let Some(folding) = &mut fold else { break };
                if let Err(error) = folding.fold(seq, update) {
                    audit.fault(format!("update {seq} cannot be folded: {error}"));
                    fold = None;
                }
            }
            at = Position { seq: number(end).max(at.seq), tip };
            while let Some(place) = snapshots.next_if(|place| place.seq <= at.seq) {
                if *place != at {
                    audit.fault(format!("the snapshot at {} is of another history", place.seq));
                } else if let Some(fault) = compare(&mut db, document, *place, &mut fold).await? {
                    audit.fault(fault);
                }
            }
            if snapshots.peek().is_none() {
                fold = None;
            }
        }
    }
    snapshots.for_each(|place| audit.fault(format!("the snapshot at {} is beyond the rows", place.seq)));
    match head {
        None => audit.fault("its head is missing".to_owned()),
        Some(head) if head.position == at => {}
        Some(head) => audit.fault(format!("its head is at {}, its rows end at {}", head.position, at)),
    }
    Ok(audit)
}

/// Where the snapshots of a document are, the oldest first.
async fn places(db: &mut TenantTx, document: DocumentId) -> Result<Vec<Position>, LogError> {
    let rows = sqlx::query!(
        "select seq, tip from document_snapshots where tenant_id = $1 and document_id = $2 order by seq",
        db.tenant.0,
        document.0
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(rows.into_iter().map(|row| Position { seq: number(row.seq), tip: Tip(row.tip) }).collect())
}

async fn compare(
    db: &mut TenantTx,
    document: DocumentId,
    at: Position,
    fold: &mut Option<Refold>,
) -> Result<Option<String>, LogError> {
    let Some(snapshot) = snapshots::read(db, document, at).await? else {
        return Ok(Some(format!("the snapshot at {} does not read back", at.seq)));
    };
    let differs = fold.as_mut().and_then(|fold| fold.compare(&snapshot).err());
    Ok(differs.map(|error| format!("the snapshot at {} is not the fold of its rows: {error}", at.seq)))
}

/// The next rows after a number.
async fn page(db: &mut TenantTx, document: DocumentId, after: i64) -> Result<Vec<StoredRow>, LogError> {
    let rows = sqlx::query!(
        r#"select seq_from as "seq_from!", seq_to as "seq_to!", append_id as "append_id!", tip as "tip!", codec as "codec!",
                  raw_bytes as "raw_bytes!", updates as "updates!", checksum as "checksum!"
             from (select *, sum(octet_length(updates)) over (order by seq_from) - octet_length(updates) as before
                     from (select * from operations_log
                            where tenant_id = $1 and document_id = $2 and seq_from > $3
                            order by seq_from limit $4) as next) as counted
            where before < $5
            order by seq_from"#,
        db.tenant.0,
        document.0,
        after,
        PAGE_ROWS,
        PAGE_BYTES
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(rows
        .into_iter()
        .map(|row| StoredRow {
            seq_from: row.seq_from,
            seq_to: row.seq_to,
            append_id: row.append_id,
            tip: row.tip,
            author: None, // nothing here depends on it
            relayed_by: None,
            codec: row.codec,
            raw_bytes: row.raw_bytes,
            updates: row.updates,
            checksum: row.checksum,
        })
        .collect())
}
