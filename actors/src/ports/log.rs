//! The durable, ordered log of each document.

use crate::ids::{AppendId, DocumentId, DocumentKey, Position, TenantId, Tip, UserId, UserSessionId};
use async_trait::async_trait;
use bytes::Bytes;

/// Durable, ordered storage of document updates. PostgreSQL, or memory in simulations.
///
/// The log of a document is a sequence of updates numbered 1, 2, 3 … without gaps; its head names the last. A row holds
/// the consecutive updates of one session in one append. Whoever appends states the position it holds, so each row was
/// admitted against exactly the prefix before it, whichever node wrote. Rows are never changed, except by [`quarantine`].
///
/// [`quarantine`]: OperationLog::quarantine
#[async_trait]
pub trait OperationLog: Send + Sync + 'static {
    /// The newest sound snapshot, every row after it, and the head, all of one instant.
    ///
    /// A snapshot is sound when its checksum holds and the row that ends at its sequence carries its tip. An unsound one
    /// is passed over for the one before (and logged). With none, `rows` is the whole log. Where a row does not read back, or
    /// rows and head do not agree, `rows` ends with the last that does, and `damage` says why.
    async fn load(&self, key: DocumentKey) -> Result<Stored, LogError>;

    /// Every row after `held`, and the head, of one instant. [`LogError::Diverged`] when `held` is not a prefix of the log:
    /// the head is below it, or the row that ends at `held.seq` carries another tip.
    async fn tail(&self, key: DocumentKey, base: Position) -> Result<Tail, LogError>;

    /// Appends if the head is exactly `request.held`, durably and whole, in one transaction (with those of other
    /// documents of the tenant, or alone). Waits for no lock that another node holds.
    ///
    /// Every update gets the next number; the last row's tip, and the head's, is `request.append_id`.
    async fn append(&self, request: AppendRequest) -> AppendOutcome;

    /// Locks the head (waiting at most 1 s for another node), for a document that lost its appends to others three times.
    /// The answer holds every row after `held`; the lock ends when it is used or dropped, and after 2 s at the latest.
    async fn lock_head(&self, key: DocumentKey, base: Position) -> Result<Box<dyn LockedHead>, LogError>;

    /// Of the documents given, those whose head differs from the position given or which are deleted. One query. A document that the log has
    /// never heard of (its database was restored, or a replica promoted) stands at the start, as far as this question goes.
    async fn changed_heads(
        &self,
        tenant: TenantId,
        known: &[(DocumentId, Position)],
    ) -> Result<Vec<(DocumentId, Head)>, LogError>;

    /// Moves the row that starts at `seq_from`, or [so much of it](Extent) as must go, into quarantine, in one transaction under the head's
    /// lock: the row stays, with [what is left](Quarantine::leave); snapshots from it on are deleted; it, every row after it and the head get
    /// the tip `new_tip`, so that nobody who folded it, up to wherever, still stands on a prefix. Repeating it is harmless.
    async fn quarantine(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError>;

    /// Quarantines bytes that never entered the log (a fork).
    async fn quarantine_refused(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError>;

    /// Deletes the snapshots from this sequence on: one of them does not read back. The log alone is the document.
    async fn discard_snapshots(&self, key: DocumentKey, from_seq: u64) -> Result<(), LogError>;

    /// Closes a damaged document for writing, until an administrator opens it again, and says so in the log: both once, however
    /// often and by whomever it is repeated. A document that is closed for another reason stays so.
    async fn close_for_writing(&self, key: DocumentKey, damage: Damage) -> Result<(), LogError>;

    /// Stores a verified snapshot. A snapshot of that sequence that is there already wins; the last two are kept.
    async fn save_snapshot(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError>;
}

/// A head under lock.
#[async_trait]
pub trait LockedHead: Send {
    /// The rows after the position that was given to [`OperationLog::hold`], and the head. Empty the second time.
    fn take_tail(&mut self) -> Tail;
    /// Appends under the lock; `request.held` is the head of [`take_tail`](Self::take_tail).
    async fn append(self: Box<Self>, request: AppendRequest) -> AppendOutcome;
}

/// One document's share of an append.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// The document.
    pub key: DocumentKey,
    /// The position against which everything here was admitted.
    pub base: Position,
    /// Fresh for each batch, the same for each attempt at it; becomes the new tip.
    pub append_id: AppendId,
    /// In order; never empty; each with at least one update.
    pub rows: Vec<NewRow>,
}

impl AppendRequest {
    /// Where the log stands once this is committed.
    pub fn position_after(&self) -> Position {
        let updates: usize = self.rows.iter().map(|row| row.updates.len()).sum();
        Position { seq: self.base.seq + updates as u64, tip: Tip(self.append_id.0) }
    }

    /// Bytes of all updates.
    pub fn bytes(&self) -> usize {
        self.rows.iter().flat_map(|row| &row.updates).map(Bytes::len).sum()
    }
}

/// The consecutive updates of one session in one append.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// The session that delivered them.
    pub user_session: UserSessionId,
    /// Who wrote them; `None` when the client ids in them belong to nobody who is connected.
    pub author: Option<UserId>,
    /// Who delivered them, where that is not known to be the author.
    pub relayed_by: Option<UserId>,
    /// The highest sequence sent to that connection before: what the author had seen.
    pub seen_seq: u64,
    /// Each exactly as admitted.
    pub updates: Vec<Bytes>,
    /// Stored with the append, so that a repeated request is recognised. HTTP writes only.
    pub idempotency: Option<IdempotencyKey>,
}

impl NewRow {
    /// Who brought it, and how.
    pub fn authorship(&self) -> Authorship {
        Authorship::of(self.author, self.relayed_by)
    }
}

/// Who brought a row, and whether as its author.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authorship {
    /// Its author.
    WrittenBy(UserId),
    /// Somebody who is not known to be its author.
    RelayedBy(UserId),
    /// Nobody knows.
    Unknown,
}

impl Authorship {
    /// What the log says of a row.
    pub fn of(author: Option<UserId>, relayed_by: Option<UserId>) -> Self {
        match (author, relayed_by) {
            (Some(author), _) => Self::WrittenBy(author),
            (None, Some(relay)) => Self::RelayedBy(relay),
            (None, None) => Self::Unknown,
        }
    }

    /// Who brought it.
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::WrittenBy(user) | Self::RelayedBy(user) => Some(user),
            Self::Unknown => None,
        }
    }
}

/// A request's key and a hash of its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyKey {
    /// The client's key, 1–255 bytes.
    pub key: String,
    /// BLAKE3 of the body.
    pub body_hash: [u8; 32],
}

/// What became of an append.
#[derive(Debug)]
pub enum AppendOutcome {
    /// Durable. The log stands here.
    Committed(Position),
    /// Another writer was first, or holds the head right now: nothing was written. Read the tail and admit again.
    Behind,
    /// The document has a tombstone: nothing was written.
    Deleted,
    /// The connection broke around COMMIT: it may or may not be written. Compare the head before anything else.
    Unknown,
    /// PostgreSQL is away: nothing was written.
    Unavailable,
    /// PostgreSQL will never take this: nothing was written. Split the batch until the culprit stands alone.
    Refused(String),
    /// The idempotency key stands for another body: nothing was written.
    IdempotencyConflict,
    /// The idempotency key stands for this body, committed up to this sequence: nothing was written again.
    AlreadyDone(u64),
}

/// A row as stored.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// Number of its first update.
    pub seq_from: u64,
    /// Number of its last update. Still true of a quarantined row, whose `updates` is empty.
    pub seq_to: u64,
    /// The append it came with.
    pub append_id: AppendId,
    /// Its tip.
    pub tip: Tip,
    /// Who brought it.
    pub authorship: Authorship,
    /// Its updates, in order.
    pub updates: Vec<Bytes>,
}

/// The end of a document's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Where the log ends.
    pub position: Position,
    /// The document has a tombstone.
    pub deleted: bool,
}

/// Rows after a position, and the head they lead to.
#[derive(Clone, Debug)]
pub struct Tail {
    /// In order, without gaps.
    pub rows: Vec<LogRow>,
    /// The head at that instant.
    pub head: Head,
}

/// What loading a document reads.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The newest sound snapshot.
    pub snapshot: Option<Snapshot>,
    /// Every row after it, and the head.
    pub tail: Tail,
    /// Every update of this document that was in the log and is in quarantine now, but for what only lacked something before it
    /// ([`QuarantineReason::DoesNotContinue`]): their resend is refused before it is appended.
    pub quarantined: Vec<Bytes>,
    /// Why the rows do not lead to the head.
    pub damage: Option<Damage>,
}

/// What is wrong with a stored log, from which number on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{kind} from {seq_from} on")]
pub struct Damage {
    /// What.
    pub kind: DamageKind,
    /// The first number that cannot be relied on; what is before it is sound.
    pub seq_from: u64,
}

/// A way in which a stored log is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// A row fails its checksum.
    CorruptRow,
    /// Rows are missing, in the middle or before the head.
    MissingRows,
    /// The head is missing, or is behind its own rows.
    LostHead,
}

impl DamageKind {
    /// The name in SQL, JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CorruptRow => "corrupt_row",
            Self::MissingRows => "missing_rows",
            Self::LostHead => "lost_head",
        }
    }
}

impl std::fmt::Display for DamageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CorruptRow => "a row of the log does not read back",
            Self::MissingRows => "rows of the log are missing",
            Self::LostHead => "the head of the log is lost",
        })
    }
}

/// A document's whole state at a position.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The log prefix it is the fold of.
    pub position: Position,
    /// The state as one v1 update, uncompressed.
    pub state: Bytes,
    /// Its v1 state vector.
    pub state_vector: Bytes,
    /// Whose client ids they are, as `document::writers` encodes it; empty where that is not known.
    pub writers: Bytes,
}

pub use super::quarantine::{Extent, Quarantine, QuarantineReason, TakenOut};

/// Why the log gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Try again later; nothing changed.
    #[error("the operation log is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No such document in this tenant.
    #[error("no such document")]
    NoSuchDocument,
    /// The held position is not a prefix of the log: drop the instance and rebuild.
    #[error("the base position is not a prefix of the log")]
    Diverged,
    /// What was asked for does not read back. Loading the document says what does.
    #[error("the log cannot be read: {0}")]
    Damaged(Damage),
}
