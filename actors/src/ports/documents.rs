//! What an HTTP request asks of a live document.
//!
//! The documents themselves live in their actors; a request reaches them through this port and never around it, so that a
//! write over HTTP is admitted, ordered, committed and shown to others exactly as one over a socket.

use super::log::IdempotencyKey;
use crate::access::Role;
use crate::ids::{DocumentKey, Position, TenantId, UserId, UserSessionId};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Instant;

/// Live documents as HTTP reaches them. Implemented over the documents' host.
#[async_trait]
pub trait LiveDocuments: Send + Sync + 'static {
    /// Writes one v1 update, all or nothing. Answers once PostgreSQL has committed it and the document has folded it.
    ///
    /// The same idempotency key with the same body answers as the first time and writes nothing again; a key is stored
    /// only with a success. An update that repeats what the log has is a success at the position that holds it.
    async fn write(
        &self,
        key: DocumentKey,
        by: Writer,
        update: Bytes,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Written, WriteRefused>;

    /// The whole document as one v1 update, and where in the log that is. Only what is committed.
    async fn state(&self, key: DocumentKey) -> Result<(Position, Bytes), ReadRefused>;

    /// Memberships, sessions or documents of the tenant changed: look at rights in use now, here and on other nodes, rather than
    /// at the next check. A hint, never awaited by a client; losing it costs a second.
    async fn access_changed(&self, tenant: TenantId);
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    /// By which session.
    pub user_session: UserSessionId,
    /// Whose.
    pub user: UserId,
    /// The caller's role in the document, looked up for this request.
    pub role: Role,
    /// When that right ends by itself: what still waits then is not written.
    pub until: Option<Instant>,
}

/// A committed write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The sequence number that holds the update (and everything before it).
    pub seq: u64,
    /// Where the log stood once it was committed; for a write that repeats an idempotency key, where it stands now.
    pub position: Position,
}

/// Why an update was not written. Nothing of it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteRefused {
    /// Not a v1 update that the gate admits; the reason names the rule and holds no content.
    #[error("malformed update: {0}")]
    Malformed(String),
    /// It is an update of the v2 format.
    #[error("the update is in format v2; send format v1 (encodeStateAsUpdate, not encodeStateAsUpdateV2)")]
    FormatV2,
    /// It builds on changes that the document lacks. Send what follows this v1 state vector.
    #[error("the update builds on changes that the document does not have")]
    Gap {
        /// The document's state vector, v1.
        state_vector: Bytes,
    },
    /// The writer may only read.
    #[error("read-only")]
    ReadOnly,
    /// Larger than a single update may be.
    #[error("the update is too large")]
    TooLarge,
    /// The document is at one of its limits; the reason says which.
    #[error("{0}")]
    Full(&'static str),
    /// Other content stands under one of its (client, clock) pairs. It was quarantined.
    #[error("the update contradicts the document's history: write it again under a fresh client id")]
    Fork,
    /// A client id in it belongs to somebody who is connected right now.
    #[error("a client id of the update is in use by somebody else")]
    ClientIdInUse,
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another body")]
    IdempotencyConflict,
    /// The document has a tombstone.
    #[error("the document was deleted")]
    Deleted,
    /// No such document in this tenant.
    #[error("no such document")]
    NoSuchDocument,
    /// PostgreSQL is away or too much waits: try again. Whether this attempt was written is unknown only when the connection
    /// broke in the middle of its commit; repeating it is harmless.
    #[error("documents cannot be written right now")]
    Unavailable {
        /// When to try again, in seconds.
        retry_after_s: u64,
    },
}

/// Why a document was not read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadRefused {
    /// No such document in this tenant.
    #[error("no such document")]
    NoSuchDocument,
    /// The document has a tombstone.
    #[error("the document was deleted")]
    Deleted,
    /// It could not be loaded: try again.
    #[error("documents cannot be read right now")]
    Unavailable {
        /// When to try again, in seconds.
        retry_after_s: u64,
    },
}
