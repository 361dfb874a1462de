//! What a document hears, and what it wants done.

use super::FollowerId;
use super::pieces::InPieces;
use super::presence::Local;
use super::state::Unsound;
use crate::access::Role;
use crate::budget::Share;
use crate::ids::{Position, UserId, UserSessionId};
use crate::outbox::Outbox;
use crate::ports::documents::{ReadRefused, WriteRefused, Writer, Written};
use crate::ports::log::{Authorship, IdempotencyKey, NewRow, Quarantine};
use crate::protocol::Dialect;
use actix::Message;
use bytes::Bytes;
use contextnexus_gate::AwarenessEntry;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Lets a connection in. Answered when the document is loaded; y-websocket and Y-Sweet clients have their step 1 and
/// presence in the outbox by then.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), JoinRefused>")]
pub struct Join {
    /// Names the attachment from now on.
    pub follower: FollowerId,
    /// Its dialect.
    pub dialect: Dialect,
    /// Hocuspocus: what its frames begin with (`varString` of the document's name as the client wrote it). Empty in the
    /// other dialects.
    pub address: Bytes,
    /// Where its frames go.
    pub outbox: Arc<Outbox>,
    /// Set by the document when it lets the attachment go (Hocuspocus: while the socket stays).
    pub detached: Arc<Detached>,
    /// Whose session.
    pub user: UserId,
    /// The session.
    pub user_session: UserSessionId,
    /// What it may do.
    pub role: Role,
    /// When that right ends by itself.
    pub until: Option<Instant>,
    /// Hocuspocus: the provider understands message 7 (CLOSE); 2.15 throws on it, and only majors from 4 on tell their
    /// version.
    pub knows_close: bool,
}

/// The client presented a fresh token for a document that is open: its rights apply from now on. Answered once they do.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Renew {
    /// Who.
    pub follower: FollowerId,
    /// Whose session the token is.
    pub user: UserId,
    /// The session.
    pub user_session: UserSessionId,
    /// What it may do.
    pub role: Role,
    /// When that right ends by itself.
    pub until: Option<Instant>,
}

/// Said by a document, heard by the session before it handles the next message.
#[derive(Debug, Default)]
pub struct Detached {
    /// The close code; 0 while attached.
    code: AtomicU16,
    connection: Arc<Attachments>,
}

/// What all attachments of one connection share.
#[derive(Debug, Default)]
pub struct Attachments {
    any_detached: AtomicBool,
    count: AtomicUsize,
}

impl Attachments {
    /// So many documents are open on the connection.
    pub fn set_count(&self, count: usize) {
        self.count.store(count, Ordering::Release);
    }

    /// Whether a document let go of one since this was last asked.
    pub fn take_detached(&self) -> bool {
        self.any_detached.swap(false, Ordering::AcqRel)
    }
}

impl Detached {
    /// Of one attachment of this connection.
    pub fn new(connection: Arc<Attachments>) -> Self {
        Self { code: AtomicU16::new(0), connection }
    }

    /// The document let go, with this close code.
    pub fn set(&self, code: u16) {
        self.code.store(code, Ordering::Release);
        self.connection.any_detached.store(true, Ordering::Release);
    }

    /// With which code it let go, if it did.
    pub fn code(&self) -> Option<u16> {
        Some(self.code.load(Ordering::Acquire)).filter(|code| *code != 0)
    }

    /// Whether no other document is open on the connection.
    pub fn is_alone(&self) -> bool {
        self.connection.count.load(Ordering::Acquire) <= 1
    }
}

/// Why a connection was not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinRefused {
    /// It has a tombstone.
    #[error("the document was deleted")]
    Deleted,
    /// It has as many connections as it may.
    #[error("the document has too many connections")]
    Full,
    /// It cannot be read right now.
    #[error("the document cannot be loaded right now")]
    Unavailable,
}

/// What a connection says, in order.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Deliver {
    /// Who.
    pub follower: FollowerId,
    /// What.
    pub inputs: Vec<Input>,
    /// What this takes of the node's budget while nobody has heard it.
    pub share: Option<Arc<Share>>,
    /// Told when it may say more: at once, or, when too much of it waits for its commit, after that. A document that ends lets go of it.
    pub taken: oneshot::Sender<()>,
}

/// One message of a connection, its dialect taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A state vector: answer with what it lacks.
    Step1(Bytes),
    /// The answer to a step 1.
    Step2(Bytes),
    /// An edit.
    Update(Bytes),
    /// Presence.
    Awareness(Bytes),
    /// Hocuspocus: a message that was larger than one may be; it was not kept.
    TooLarge,
    /// A question for everybody's presence.
    QueryAwareness,
    /// Y-Sweet: a sync status to be echoed when all before it has committed.
    Mark(Bytes),
}

impl Input {
    /// Bytes of the update in it.
    pub fn update_bytes(&self) -> usize {
        match self {
            Self::Step2(update) | Self::Update(update) => update.len(),
            Self::Step1(_) | Self::Awareness(_) | Self::TooLarge | Self::QueryAwareness | Self::Mark(_) => 0,
        }
    }

    /// A few bytes to be answered with many.
    pub fn is_question(&self) -> bool {
        matches!(self, Self::Step1(_) | Self::QueryAwareness)
    }
}

/// The attachment is gone.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Leave(pub FollowerId);

/// An HTTP write; answered once committed.
#[derive(Message, Debug)]
#[rtype(result = "Result<Written, WriteRefused>")]
pub struct Write {
    /// Who.
    pub by: Writer,
    /// A v1 update.
    pub update: Bytes,
    /// The request's key.
    pub idempotency: Option<IdempotencyKey>,
}

/// An HTTP read of the whole state.
#[derive(Message, Debug)]
#[rtype(result = "Result<(Position, Bytes), ReadRefused>")]
pub struct Read;

/// What the state wants done, in order.
#[derive(Debug)]
pub enum Effect {
    /// `OperationLog::append`; completion: [`super::state::DocumentState::appended`].
    Append {
        /// Admitted against this.
        base: Position,
        /// In order.
        rows: Vec<NewRow>,
    },
    /// `OperationLog::lock_head`, then [`super::state::DocumentState::head_locked`].
    LockHead(Position),
    /// `OperationLog::tail`; completion: [`super::state::DocumentState::tail_read`].
    ReadTail(Position),
    /// Wait, look at all rights again, read the tail; completion: [`super::state::DocumentState::recovered`].
    Recover {
        /// How long to wait before.
        after: Duration,
    },
    /// Load anew; completion: [`super::state::DocumentState::rebuilt`].
    Rebuild,
    /// Put something into one connection's outbox.
    Send(FollowerId, Outgoing),
    /// Step 2: from now on the connection hears every update.
    Welcome(FollowerId, InPieces),
    /// Say when the state has gone that is on its way to this connection; completion: [`super::state::DocumentState::states_arrived`].
    TellWhenSent(FollowerId),
    /// An update, committed, for everybody who is receiving.
    Show {
        /// Encoded once per dialect.
        update: InPieces,
        /// The log stands here with it.
        through: Position,
        /// Hocuspocus and Y-Sweet: the only sender, who has it already. (A y-websocket client hears it: the echo is the
        /// acknowledgement.)
        sole_sender: Option<FollowerId>,
    },
    /// The document was loaded anew: its whole state, for everybody who is receiving. What they were sent before counts for nothing:
    /// its numbers may stand for other updates now.
    ShowAnew {
        /// Encoded once per dialect.
        state: InPieces,
        /// The log stands here with it.
        through: Position,
    },
    /// Presence for everybody.
    ShowPresence {
        /// Newest states.
        entries: Vec<AwarenessEntry>,
        /// The only one it came from, who need not hear it.
        except: Option<FollowerId>,
    },
    /// Tell the other nodes what was committed.
    Publish {
        /// The position before.
        from: Position,
        /// The position after.
        through: Position,
        /// In order.
        updates: Vec<Bytes>,
        /// Who brought each of them.
        authorship: Vec<Authorship>,
    },
    /// Tell the other nodes who is here.
    PublishPresence(Vec<Local>),
    /// Ask the other nodes who is there.
    QueryPresence,
    /// Answer an HTTP write.
    Answer(oneshot::Sender<Result<Written, WriteRefused>>, Result<Written, WriteRefused>),
    /// Close one connection (y-websocket, Y-Sweet) or its attachment (Hocuspocus).
    Close {
        /// Which.
        follower: FollowerId,
        /// Close code.
        code: u16,
        /// Lower case, names a limit, holds no content.
        reason: Cow<'static, str>,
        /// Hocuspocus: the whole socket, since the session itself ended.
        whole_socket: bool,
    },
    /// Take a [snapshot](super::state::DocumentState::snapshot) of this moment and have it read back; completion:
    /// [`super::state::DocumentState::snapshot_taken`].
    Snapshot {
        /// It is to be stored, too: there is something after the last.
        store: bool,
    },
    /// Mend the log before anybody loads the document anew; [`Die`](Self::Die) follows. Of a snapshot it holds everything itself.
    Mend(Unsound),
    /// Quarantine bytes that never entered the log.
    QuarantineRefused(Quarantine),
    /// End: close everybody and forget everything; whoever comes next loads it anew.
    Die {
        /// Close code for those who are connected.
        code: u16,
        /// Why.
        reason: &'static str,
    },
}

/// A message for one connection, before its dialect is put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Our state vector: send what we lack.
    Step1(Bytes),
    /// An update to this connection alone (the echo of what was known already).
    Update(Bytes),
    /// A large one.
    LargeUpdate(InPieces),
    /// Presence.
    Awareness(Vec<AwarenessEntry>),
    /// Hocuspocus: SyncStatus.
    Status(bool),
    /// Y-Sweet: the payload of its 102.
    Mark(Bytes),
    /// y-websocket: a write on a read-only connection.
    ReadOnly,
    /// Hocuspocus: what it may do has changed: it may write, or only read.
    Scope(bool),
    /// Hocuspocus: the token runs out soon; a fresh one is asked for.
    TokenRequest,
    /// Nothing but a sign of life.
    KeepAlive,
}
