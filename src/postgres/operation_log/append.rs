//! One call of `append_operations`: what goes in, what comes out, and what an error means.

use super::row_codec::{self, Compressed, TooLarge};
use super::{number, stored};
use contextnexus_actors::ids::{Position, TenantId};
use contextnexus_actors::ports::log::{AppendOutcome, AppendRequest};
use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::collections::HashMap;
use uuid::Uuid;

/// A document's append, ready to be sent.
#[derive(Debug)]
pub(super) struct EncodedAppend {
    pub tenant: TenantId,
    pub document: Uuid,
    base: Position,
    after: Position,
    append_id: Uuid,
    rows: Vec<EncodedRow>,
    keys: Vec<EncodedKey>,
    /// As PostgreSQL gets them, roughly.
    pub bytes: usize,
    /// How many it adds.
    pub updates: usize,
}

#[derive(Debug)]
struct EncodedRow {
    seq_from: i64,
    seq_to: i64,
    session: Uuid,
    author: Option<Uuid>,
    relayed_by: Option<Uuid>,
    seen_seq: i64,
    compressed: Compressed,
    checksum: i64,
}

#[derive(Debug)]
struct EncodedKey {
    subject: Uuid,
    key: String,
    body_hash: [u8; 32],
    seq: i64,
}

/// Frames, compresses and sums up a request. An error is the outcome: nobody needs PostgreSQL to know it.
pub(super) fn pack(request: AppendRequest) -> Result<EncodedAppend, AppendOutcome> {
    let after = request.position_after();
    if request.rows.is_empty() || request.rows.iter().any(|row| row.updates.is_empty()) {
        return Err(AppendOutcome::Refused("an append without updates".to_owned()));
    }
    let mut append = EncodedAppend {
        tenant: request.key.tenant,
        document: request.key.document.0,
        base: request.base,
        after,
        append_id: request.append_id.0,
        rows: Vec::with_capacity(request.rows.len()),
        keys: Vec::new(),
        bytes: 0,
        updates: 0,
    };
    let mut keys: HashMap<(Uuid, String), [u8; 32]> = HashMap::new();
    let mut seq = stored(request.base.seq);
    for row in request.rows {
        let (seq_from, seq_to) = (seq + 1, seq + stored(row.updates.len() as u64));
        let refused = |error: TooLarge| AppendOutcome::Refused(error.to_string());
        let framed = row_codec::encode(&row.updates).map_err(refused)?;
        let checksum = row_codec::row_checksum(request.key.document, seq_from, seq_to, &framed);
        let packed = row_codec::compress(framed).map_err(refused)?;
        // Keys are their sender's, so that nobody meets another's.
        let subject = row.relayed_by.or(row.author).map_or(row.user_session.0, |user| user.0);
        if let Some(key) = row.idempotency {
            match keys.insert((subject, key.key.clone()), key.body_hash) {
                None => append.keys.push(EncodedKey { subject, key: key.key, body_hash: key.body_hash, seq: seq_to }),
                Some(body_hash) if body_hash == key.body_hash => {}
                Some(_) => return Err(AppendOutcome::IdempotencyConflict),
            }
        }
        append.bytes += packed.bytes.len() + 160;
        append.updates += row.updates.len();
        append.rows.push(EncodedRow {
            seq_from,
            seq_to,
            session: row.user_session.0,
            author: row.author.map(|user| user.0),
            relayed_by: row.relayed_by.map(|user| user.0),
            seen_seq: stored(row.seen_seq),
            compressed: packed,
            checksum,
        });
        seq = seq_to;
    }
    Ok(append)
}

/// Appends documents of one tenant, each at most once and in the order of their ids, in the running transaction or else in one of
/// its own, which is committed when this returns. The outcomes are in the order of `batch`.
pub(super) async fn append(
    connection: &mut PgConnection,
    tenant: TenantId,
    batch: &[&EncodedAppend],
) -> Result<Vec<AppendOutcome>, sqlx::Error> {
    if let [append] = batch
        && let [row] = &*append.rows
        && append.keys.is_empty()
    {
        return Ok(vec![append_one(connection, tenant, append, row).await?]);
    }
    let mut documents = Vec::with_capacity(batch.len());
    let (mut base_seqs, mut base_tips, mut new_seqs, mut append_ids) = (vec![], vec![], vec![], vec![]);
    let (mut row_documents, mut seq_froms, mut seq_tos, mut user_session_ids) = (vec![], vec![], vec![], vec![]);
    let (mut author_ids, mut relayed_by, mut seen_seqs) = (vec![], vec![], vec![]);
    let (mut codecs, mut raw_bytes, mut checksums) = (vec![], vec![], vec![]);
    let mut updates: Vec<&[u8]> = vec![];
    let (mut key_documents, mut key_subjects, mut key_seqs) = (vec![], vec![], vec![]);
    let (mut keys, mut key_hashes): (Vec<&str>, Vec<&[u8]>) = (vec![], vec![]);
    for (place, append) in (1_i64..).zip(batch) {
        documents.push(append.document);
        base_seqs.push(stored(append.base.seq));
        base_tips.push(append.base.tip.0);
        new_seqs.push(stored(append.after.seq));
        append_ids.push(append.append_id);
        for row in &append.rows {
            row_documents.push(place);
            seq_froms.push(row.seq_from);
            seq_tos.push(row.seq_to);
            user_session_ids.push(row.session);
            author_ids.push(row.author);
            relayed_by.push(row.relayed_by);
            seen_seqs.push(row.seen_seq);
            codecs.push(row.compressed.codec);
            raw_bytes.push(row.compressed.raw_bytes);
            updates.push(&row.compressed.bytes);
            checksums.push(row.checksum);
        }
        for key in &append.keys {
            key_documents.push(place);
            key_subjects.push(key.subject);
            keys.push(&key.key);
            key_hashes.push(&key.body_hash);
            key_seqs.push(key.seq);
        }
    }
    let rows = sqlx::query!(
        r#"select document as "document!", outcome as "outcome!", seq as "seq!"
             from append_operations($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"#,
        tenant.0,
        &documents,
        &base_seqs,
        &base_tips,
        &new_seqs,
        &append_ids,
        &row_documents,
        &seq_froms,
        &seq_tos,
        &user_session_ids,
        &author_ids as &[Option<Uuid>],
        &relayed_by as &[Option<Uuid>],
        &seen_seqs,
        &codecs,
        &raw_bytes,
        &updates as &[&[u8]],
        &checksums,
        &key_documents,
        &key_subjects,
        &keys as &[&str],
        &key_hashes as &[&[u8]],
        &key_seqs,
    )
    // To the end: the last message comes after COMMIT.
    .fetch_all(connection)
    .await?;

    let mut outcomes: Vec<AppendOutcome> = batch.iter().map(|_| AppendOutcome::Behind).collect();
    for row in rows {
        let place = usize::try_from(row.document - 1).unwrap_or(usize::MAX);
        let (Some(outcome), Some(append)) = (outcomes.get_mut(place), batch.get(place)) else { continue };
        *outcome = match &*row.outcome {
            "committed" => AppendOutcome::Committed(append.after),
            "deleted" => AppendOutcome::Deleted,
            "conflict" => AppendOutcome::IdempotencyConflict,
            // Two keys in one append, one of them of another body: that is what its sender has to hear.
            "done" if !matches!(outcome, AppendOutcome::IdempotencyConflict) => {
                AppendOutcome::AlreadyDone(number(row.seq))
            }
            _ => continue,
        };
    }
    Ok(outcomes)
}

/// [`append`] of one document's only row.
async fn append_one(
    connection: &mut PgConnection,
    tenant: TenantId,
    append: &EncodedAppend,
    row: &EncodedRow,
) -> Result<AppendOutcome, sqlx::Error> {
    let outcomes = sqlx::query_scalar!(
        r#"select append_operation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) as "outcome!""#,
        tenant.0,
        append.document,
        stored(append.base.seq),
        append.base.tip.0,
        append.append_id,
        row.seq_to,
        row.session,
        row.author,
        row.relayed_by,
        row.seen_seq,
        row.compressed.codec,
        row.compressed.raw_bytes,
        &row.compressed.bytes,
        row.checksum,
    )
    // To the end: the last message comes after COMMIT.
    .fetch_all(connection)
    .await?;
    Ok(match outcomes.first().map(String::as_str) {
        Some("committed") => AppendOutcome::Committed(append.after),
        Some("deleted") => AppendOutcome::Deleted,
        _ => AppendOutcome::Behind,
    })
}

/// What an error of [`append`] in a transaction of its own says about the data.
#[derive(Debug)]
pub(super) enum Failure {
    /// Rolled back; the same again may pass at once (a deadlock, a serialisation failure).
    Again,
    /// Rolled back, because of the data of at least one document.
    Data(String),
    /// Rolled back, because of something that is wrong with at least one document's rows or pages.
    Damaged,
    /// Rolled back; later it may pass.
    Away,
    /// Committed, or not.
    Unknown,
}

/// Reads an error. Nothing of its detail is kept, which may quote a row.
pub(super) fn classify(error: &sqlx::Error) -> Failure {
    let database = match error {
        sqlx::Error::Database(database) => database,
        // Never sent.
        sqlx::Error::Encode(_) => return Failure::Data("cannot be encoded".to_owned()),
        _ => return Failure::Unknown,
    };
    let severity = database.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    if matches!(severity, None | Some(PgSeverity::Fatal | PgSeverity::Panic)) {
        return Failure::Unknown; // the connection ended, perhaps after COMMIT
    }
    let code = database.code().unwrap_or_default();
    match (code.get(..2).unwrap_or_default(), &*code) {
        (_, "40001" | "40P01") => Failure::Again,
        // Data exceptions, broken constraints, limits of the program.
        ("21" | "22" | "23" | "54", _) => Failure::Data(format!("{code}: {}", database.message())),
        ("XX", _) => Failure::Damaged,
        ("08", _) => Failure::Unknown,
        _ => Failure::Away,
    }
}
