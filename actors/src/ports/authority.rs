//! Who a token belongs to, and what it may do.

use crate::access::{Caller, Grant, Token};
use crate::ids::{DocumentId, TenantId, UserId, UserSessionId};
use crate::room::NameRefused;
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
    async fn recheck(
        &self,
        tenant: TenantId,
        since: Option<u64>,
        rights: &[RightInUse],
    ) -> Result<Rechecked, AccessDenied>;
}

/// A right in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RightInUse {
    /// By which session.
    pub user_session: UserSessionId,
    /// Whose session.
    pub user: UserId,
    /// Where it holds.
    pub place: Place,
}

/// What a right is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// A document.
    Document(DocumentId),
}

/// The answer of [`Authority::recheck`].
#[derive(Clone, Debug)]
pub struct Rechecked {
    /// Pass it as `since` next time.
    pub epoch: u64,
    /// Where every held right stands now; empty when the epoch did not move.
    pub standings: Vec<(RightInUse, Standing)>,
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

/// Which document is meant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RoomName {
    /// The document of this id, and no other; it is never created.
    Id(DocumentId),
    /// A room as clients name it. Where the name is a UUID ([`crate::room::id_in`]): the document of this id that the
    /// caller may see (in the project, where one is named), else the document of this name, else a new document that
    /// gets the name as its id too.
    Named {
        /// `None`: the tenant's default project.
        project: Option<String>,
        /// As [`crate::room::normal_name`] gives it.
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
    /// There is no such project, or the caller is no member of it; said alike.
    #[error("no such project")]
    NoSuchProject,
    /// May read there, may not create there.
    #[error("this document does not exist and may not be created by you")]
    MayNotCreate,
    /// The document was deleted; its name is reserved.
    #[error("this document was deleted")]
    Deleted,
    /// The name breaks the grammar.
    #[error("{0}")]
    BadName(NameRefused),
    /// The document has as many connections as it may.
    #[error("this document has too many connections")]
    Full,
    /// PostgreSQL is away: not a refusal, try again.
    #[error("access cannot be checked right now")]
    Unavailable,
}
