//! Who a token belongs to, and what it may do.

use crate::access::{Caller, Grant, Token};
use crate::ids::{DocumentId, SessionId, TenantId, UserId};
use async_trait::async_trait;

/// Checks tokens, opens rooms by name, and looks again at rights that are in use.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// Whose token this is. A ticket is consumed by this call. [`AccessDenied::BadToken`] for unknown, expired,
    /// revoked and consumed ones alike.
    async fn authenticate(&self, token: &Token) -> Result<Caller, AccessDenied>;

    /// The document of that name and the caller's right in it. Creates it where the project allows that and the caller
    /// may write; two nodes that create one name at once get one document.
    async fn open(&self, caller: &Caller, room: &RoomName) -> Result<Grant, AccessDenied>;

    /// Of the rights in use in one tenant, those that changed or ended. Reads nothing but a counter when no membership,
    /// session, user, project or document of the tenant changed since the last call with the same `since`.
    async fn recheck(&self, tenant: TenantId, since: Option<u64>, held: &[Held]) -> Result<Rechecked, AccessDenied>;
}

/// A right in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Held {
    /// By which session.
    pub session: SessionId,
    /// Whose session.
    pub user: UserId,
    /// In which document.
    pub document: DocumentId,
}

/// The answer of [`Authority::recheck`].
#[derive(Clone, Debug)]
pub struct Rechecked {
    /// Pass it as `since` next time.
    pub epoch: u64,
    /// Where every held right stands now; empty when the epoch did not move.
    pub standings: Vec<(Held, Standing)>,
}

/// Where a right stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// In force, with this grant.
    Granted(Grant),
    /// The session expired or was revoked, or its user is inactive: close with 4401.
    SessionEnded,
    /// No longer a member: close with 4403.
    Forbidden,
    /// The document was deleted: close with 4404.
    Deleted,
    /// There is no such document, although one was open: the database has lost it. Close with 1012.
    Gone,
}

/// A room as clients name it: a document's UUID, `{project-slug}/{name}`, or `{name}` in the tenant's default project.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RoomName {
    /// By id.
    Id(DocumentId),
    /// By name; NFC, 1–200 bytes, no control characters.
    Named {
        /// `None`: the tenant's default project.
        project: Option<String>,
        /// The document's name.
        name: String,
    },
}

/// Why somebody may not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccessDenied {
    /// Unknown, expired, revoked or consumed.
    #[error("the token is not valid")]
    BadToken,
    /// A member of nothing that holds this document; said alike of what is missing and what is another tenant's.
    #[error("no such document")]
    NoSuchDocument,
    /// May read there, may not create there.
    #[error("this document does not exist and may not be created by you")]
    MayNotCreate,
    /// The document was deleted; its name is reserved.
    #[error("this document was deleted")]
    Deleted,
    /// The name breaks the grammar.
    #[error("not a document name")]
    BadName,
    /// The document has as many connections as it may.
    #[error("this document has too many connections")]
    Full,
    /// PostgreSQL is away: not a refusal, try again.
    #[error("access cannot be checked right now")]
    Unavailable,
}
