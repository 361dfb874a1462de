//! Who may do what.

use crate::ids::{DocumentId, ProjectId, TenantId, UserId, UserSessionId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// What a member may do in a project. Ordered: each may do what the one before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads, and shows a cursor.
    Viewer,
    /// Writes.
    Editor,
    /// Manages members, documents' names and deletion.
    Admin,
}

impl Role {
    /// Whether updates from this role enter the log.
    pub fn may_write(self) -> bool {
        self >= Self::Editor
    }
    /// The name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "editor" => Ok(Self::Editor),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownRole),
        }
    }
}

/// A role that is none of `viewer`, `editor`, `admin`.
#[derive(Debug, thiserror::Error)]
#[error("no such role; there are viewer, editor and admin")]
pub struct UnknownRole;

/// What a bearer presents. Never shown: `Debug` and `Display` are redacted.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Somebody whose token was checked.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant of the token.
    pub tenant: TenantId,
    /// Whose token it is.
    pub user: UserId,
    /// The row that revocation names.
    pub user_session: UserSessionId,
    /// What the session was made for.
    pub scope: Scope,
    /// Administers the whole tenant.
    pub tenant_admin: bool,
    /// When the authority ends by itself.
    pub expires_at: DateTime<Utc>,
}

/// What a session reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything its user may do (a login, an API token).
    User,
    /// One document, at most in this role (a ticket, a document token).
    Document(DocumentId, Role),
}

/// A caller's right in one document, as last looked up. It is looked up again on a change and every second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The document.
    pub document: DocumentId,
    /// The project whose memberships decide.
    pub project: ProjectId,
    /// What the caller may do there.
    pub role: Role,
    /// When the right ends by itself, because the session does; `None`: never.
    pub until: Option<Instant>,
}
