//! Names of things. Every id is a UUID except where Yjs says otherwise; version 7 where rows are stored by it.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> { Uuid::parse_str(text).map(Self) }
        }
    )+};
}

uuid_id! {
    /// A customer; the border that no data crosses.
    TenantId,
    /// A row of `users`: a person, a service, or an application's own (`external`) user.
    UserId,
    /// A row of `projects`.
    ProjectId,
    /// A row of `content_items` that is a live Yjs document.
    DocumentId,
    /// A row of `user_sessions`: one login, API token, document token or redeemed ticket.
    UserSessionId,
    /// A live WebSocket connection and the actor that speaks for it, as long as it is open.
    SessionId,
    /// One run of one server process.
    NodeId,
    /// One append to one document's log; how its writer finds it again after an unknown outcome.
    AppendId,
}

/// The identity of a log prefix's last change. Nil before the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tip(pub Uuid);

impl fmt::Debug for Tip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.8}", self.0.simple().to_string())
    }
}

/// A place in a document's log: the number of its last update, and which update that was.
///
/// An equal number is not an equal prefix (a promoted replica, a restored backup), hence the tip.
/// Positions are defined at the end of an append; sequence numbers start at 1 and have no gaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Number of the last update, 0 for the empty log.
    pub seq: u64,
    /// Identity of the last change.
    pub tip: Tip,
}

impl Position {
    /// The empty log.
    pub const START: Self = Self { seq: 0, tip: Tip(Uuid::nil()) };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.seq, self.tip)
    }
}

/// A document, named with the tenant in whose transactions alone it can be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DocumentKey {
    /// Its tenant.
    pub tenant: TenantId,
    /// The document.
    pub document: DocumentId,
}
