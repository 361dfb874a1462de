//! One open socket: what can be measured of it, and what ends it.
//!
//! A connection whose client stopped reading cannot be ended from within: the task that writes waits for the client. What ends it is
//! `shutdown` of its descriptor, by whoever looks at it from outside.

use super::admission::Seat;
use super::socket::Socket;
use super::watch::Watch;
use super::{SessionHandle, Sockets};
use crate::net::{Io, Stream};
use crate::proxies::Transport;
use actix::Recipient;
use actix_web::dev::Extensions;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ids::SessionId;
use contextnexus_actors::outbox::Outbox;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::report;
use contextnexus_actors::session::Authentication;
use contextnexus_actors::session::messages::Disconnected;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that the kernel holds unsent. More would be more memory for each client that does not read, and staleness for one
/// that reads slowly: what waits with us can still be merged.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A connection's stream, among actix's data of that connection until an upgrade takes it.
pub struct Slot(RefCell<Option<Arc<Stream>>>);

/// For [`net::serve`](crate::net::serve).
pub fn on_connect(connection: &Io, data: &mut Extensions) {
    let stream = connection.stream();
    data.insert(Transport { is_encrypted: stream.is_encrypted() });
    data.insert(Slot(RefCell::new(Some(stream))));
}

impl Slot {
    /// The connection is to become a WebSocket. `None` where it is one already.
    pub fn take(&self) -> Option<Arc<Stream>> {
        self.0.borrow_mut().take()
    }
}

/// One WebSocket connection. Lives on one thread, held by the task that reads and the task that writes.
pub struct Link {
    /// Its name in logs.
    pub session: SessionId,
    /// What waits to be written.
    pub outbox: Arc<Outbox>,
    /// The session says here that a token was good.
    pub authentication: Arc<Authentication>,
    /// The connection is over, or its close frame is written: the reading half hands nothing more on.
    pub over: Notify,
    dialect: Dialect,
    /// Shared with the outbox, and because it may outlive the link.
    socket: Arc<Socket>,
    sockets: Arc<Sockets>,
    watch: Watch,
    actor: OnceCell<Recipient<Disconnected>>,
    facts: Cell<Facts>,
    peer: Cell<Peer>,
    /// The writing half, when it waits for the reading half's end.
    writer: RefCell<Option<Waker>>,
    _seat: Seat,
}

/// Where the peer's side of the stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// More may come.
    Open,
    /// It said that it closes: nothing follows.
    Closed,
    /// It is gone, or what follows is not read as messages.
    Lost,
}

/// What is known of a connection; [`super::watch::judge`] decides by it.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The reading half waits for the peer. Otherwise the session lets it wait, and the peer's silence means nothing.
    pub reading: bool,
    /// Since when an unfinished message is waited for.
    pub partial_since: Option<Instant>,
    /// Since when its progress is measured …
    pub progress_since: Instant,
    /// … and how many bytes of it have come since.
    pub progress_bytes: usize,
    /// Y-Sweet: when its client was last told that we are there, while it sends a long message.
    pub reassured_at: Instant,
    /// When the peer last sent anything.
    pub heard_at: Instant,
    /// When it was last asked whether it lives.
    pub asked_at: Instant,
    /// It was asked and has sent nothing since.
    pub unanswered: bool,
    /// [`Socket::written`] as last seen.
    pub written: u64,
    /// Since when it stands there, with more to write.
    pub stuck_since: Option<Instant>,
    /// Since when the outbox takes nothing more: what it holds is the last, the close frame behind it.
    pub closing_since: Option<Instant>,
    /// Since when the close frame is on its way, the last thing that is written.
    pub ending_since: Option<Instant>,
    /// The descriptor is shut down: all that can be done was done.
    pub is_shut: bool,
}

impl Facts {
    /// A connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            reading: true,
            partial_since: None,
            progress_since: now,
            progress_bytes: 0,
            reassured_at: now,
            heard_at: now,
            asked_at: now,
            unanswered: false,
            written: 0,
            stuck_since: None,
            closing_since: None,
            ending_since: None,
            is_shut: false,
        }
    }
}

impl Link {
    /// Takes the connection over, and has it watched.
    pub fn new(
        (session, dialect): (SessionId, Dialect),
        outbox: Arc<Outbox>,
        (socket, seat): (Socket, Seat),
        sockets: Arc<Sockets>,
        watch: &Watch,
    ) -> Rc<Self> {
        // Neither is more than an improvement, and neither fails on a healthy socket. There is no TCP_USER_TIMEOUT: Linux counts all
        // the time in which the window of a reader is too small for what is next, so it resets one that reads slowly and steadily
        // (tcp_probe_timer). The watch ends whoever has vanished.
        let _ = socket.options().set_tcp_nodelay(true);
        let _ = socket.options().set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        metrics::gauge!("contextnexus_ws_connections", "dialect" => label(dialect)).increment(1.0);
        let link = Rc::new(Self {
            session,
            outbox,
            authentication: Arc::default(),
            over: Notify::new(),
            dialect,
            socket: Arc::new(socket),
            sockets,
            watch: watch.clone(),
            actor: OnceCell::new(),
            facts: Cell::new(Facts::new(Instant::now())),
            peer: Cell::new(Peer::Open),
            writer: RefCell::default(),
            _seat: seat,
        });
        watch.add(&link);
        link
    }

    /// Its dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What is shared by all connections of the node.
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// This session answers for it.
    pub fn belongs_to(&self, session: &SessionHandle) {
        let _ = self.actor.set(session.disconnected.clone()); // set once, at the upgrade
    }

    /// Its session is gone: it ended by itself, or panicked.
    pub fn is_orphaned(&self) -> bool {
        self.actor.get().is_some_and(|actor| !actor.connected())
    }

    /// Counts what was written since this was called last. Not frame by frame: a counter that all threads share costs as much as the rest
    /// of a delivery.
    pub fn count_written(&self) {
        let written = self.socket.written();
        self.sockets.traffic.sent_bytes.increment(written.saturating_sub(self.facts.get().written));
        self.note(|facts| facts.written = written);
    }

    /// What is known of it.
    pub fn facts(&self) -> Facts {
        self.facts.get()
    }

    /// Notes something.
    pub fn note(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts.get();
        change(&mut facts);
        self.facts.set(facts);
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The close frame is written: the last that this side says. Whether it may end the stream now: it waits for the peer's close
    /// frame first, so that the peer is not reset by what it still sends, but not for long.
    pub fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        self.note(|facts| facts.ending_since = facts.ending_since.or(Some(Instant::now())));
        match self.peer.get() {
            Peer::Open => {
                *self.writer.borrow_mut() = Some(context.waker().clone());
                self.over.notify_one();
                Poll::Pending
            }
            Peer::Closed | Peer::Lost => Poll::Ready(()),
        }
    }

    /// The reading half has come to its end.
    pub fn read_over(&self, peer: Peer) {
        self.peer.set(peer);
        if let Some(writer) = self.writer.borrow_mut().take() {
            writer.wake();
        }
    }

    /// Ends the connection now, whatever its client does.
    pub fn shut(&self, why: &'static str) {
        metrics::counter!("contextnexus_ws_shut_total", "reason" => why).increment(1);
        report!(Cause::Ended, session.id = %self.session, reason = why, "connection shut down: {why}");
        self.note(|facts| facts.is_shut = true);
        if self.socket().is_writing() {
            // What the kernel holds for a client that takes nothing would stay until it takes it, and behind it the client would not see
            // that it was closed.
            let _ = self.socket().options().set_linger(Some(Duration::ZERO));
        }
        self.socket().shut_down(Shutdown::Both);
        self.outbox.abandon();
        self.read_over(Peer::Lost);
        self.over.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.count_written();
        metrics::gauge!("contextnexus_ws_connections", "dialect" => label(self.dialect)).decrement(1.0);
        if !self.facts.get().is_shut {
            // Closing a socket with unread bytes resets it, and the client may lose the close frame. Our end of the stream is sent
            // by now; the socket is closed only after the client had time to read.
            self.watch.linger(Arc::clone(&self.socket));
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("session", &self.session).field("facts", &self.facts.get()).finish_non_exhaustive()
    }
}

/// The dialect's name in metrics.
pub fn label(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::YWebsocket => "y-websocket",
        Dialect::Hocuspocus => "hocuspocus",
        Dialect::YSweet => "y-sweet",
    }
}
