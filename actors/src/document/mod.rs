//! One actor per open document.
//!
//! **Invariant: the document in memory is the fold of its log up to `position`, and nothing else ever enters it.** So an update
//! waits, is admitted by the gate against exactly that prefix and what stands before it in its batch, is committed, and only
//! then is it folded, acknowledged, shown and published, in this order. One append is in flight; what arrives meanwhile is the
//! next batch.
//!
//! Read [`messages`] (what it hears), [`state`] (what it decides), [`actor`] (what it does). [`follower`] keeps what is owed to one
//! connection, [`batch`] one append, [`pieces`] a large update, [`presence`] who is here, [`writers`] whose client ids they are, [`replica`] the yrs
//! document, [`weight`] what it takes in memory, [`follower_output`] and [`follower_outputs`] the way out, `storage` loads, mends and snapshots.
//! The document never knows a database, a socket library or a clock.

pub mod actor;
pub mod batch;
pub mod follower;
pub mod follower_output;
pub mod follower_outputs;
pub mod live;
pub mod messages;
pub mod pieces;
pub mod presence;
pub mod refold;
pub mod replica;
pub mod state;
mod storage;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
pub mod weight;
pub mod writers;

use crate::ids::SessionId;

/// One document on one connection: a Hocuspocus socket carries many, and even one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FollowerId {
    /// The connection.
    pub session: SessionId,
    /// Counts the attachments of the connection.
    pub attachment: u32,
}

/// Close codes. 4400 to 4499 are final for clients that heed codes (y-websocket 3.1); after every other code clients come back.
/// ARCHITECTURE.md, "Refusals", says which is used when, and what each dialect makes of it.
pub mod close {
    /// The update or message is malformed or breaks a rule of the gate.
    pub const MALFORMED: u16 = 4400;
    /// The token is not valid, or was revoked.
    pub const UNAUTHORIZED: u16 = 4401;
    /// Not (any more) a follower.
    pub const FORBIDDEN: u16 = 4403;
    /// The document was deleted, or never was.
    pub const NOT_FOUND: u16 = 4404;
    /// Not authenticated in time.
    pub const TIMEOUT: u16 = 4408;
    /// The client's history and the document's have different content at one place.
    pub const FORK: u16 = 4409;
    /// The message or update is larger than it may be. Not 1009 (RFC 6455): y-websocket would send it again for ever, and Hocuspocus 2.15
    /// would never connect again.
    pub const TOO_LARGE: u16 = 4413;
    /// Over a limit.
    pub const LIMIT: u16 = 4429;
    /// Come back with a fresh token: this one ran out.
    pub const EXPIRED: u16 = 4501;
    /// Come back: the document is rebuilt, or the server drains.
    pub const SERVICE_RESTART: u16 = 1012;
    /// Come back later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
    /// Whether what was sent is at fault, and not a right: it would be refused again.
    pub const fn is_about_content(code: u16) -> bool {
        matches!(code, MALFORMED | FORK | TOO_LARGE | LIMIT)
    }
    /// All of them: what a counter by code may say.
    pub const ALL: [u16; 11] = [
        MALFORMED,
        UNAUTHORIZED,
        FORBIDDEN,
        NOT_FOUND,
        TIMEOUT,
        FORK,
        TOO_LARGE,
        LIMIT,
        EXPIRED,
        SERVICE_RESTART,
        TRY_AGAIN_LATER,
    ];
}
