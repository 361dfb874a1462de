//! WebSockets: the one place that knows their library. Bytes of a socket become messages for its session actor, and what
//! waits in the connection's outbox becomes bytes; what the messages say is not known here.
//!
//! A connection is made of five parts that live on one thread:
//!
//! * [`socket`], the descriptor, taken over from actix-http when the upgrade is granted;
//! * [`pump`], a task, reads and hands on, and waits for the session before it reads further: that is the back-pressure;
//! * [`writer`], a task, writes what waits in the [`Outbox`](contextnexus_actors::outbox::Outbox);
//! * [`link`], what the two tasks share: what is known of the connection, and how it ends;
//! * [`watch`], a task for all connections of the thread, looks at that, and shuts down what nothing else can end.
//!
//! [`upgrade`] stands before them: who may open a socket at all. No `WebsocketContext`: its queue is unbounded, and its actor
//! is only polled while the client reads.

pub mod admission;
mod credentials;
mod link;
mod pump;
mod reader;
mod socket;
mod upgrade;
mod watch;
mod writer;

pub use link::on_connect;
pub use upgrade::configure;
pub use watch::Deadlines;

use crate::config;
use crate::origins::Origins;
use crate::proxies::TrustedProxies;
use actix::Recipient;
use admission::{Admission, Seats};
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::clock::Clock;
use contextnexus_actors::ids::SessionId;
use contextnexus_actors::limits::Limits;
use contextnexus_actors::session::messages::{Disconnected, Inbound};
use contextnexus_actors::session::{self, Opening, Services};
use metrics::{Counter, counter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What there is to set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses or networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Connections of this node, and of one address on it.
    pub seats: Seats,
    /// Largest message: the largest step 2 and its envelope.
    pub message_bytes_max: usize,
    /// All that a connection may send before a token was good.
    pub strange_bytes_max: usize,
    /// What may wait to be written to one connection.
    pub outbox_bytes_max: usize,
    /// When what is overdue.
    pub deadlines: Deadlines,
}

impl Settings {
    /// What the configuration says.
    pub fn of(server: &config::Server, limits: &Limits) -> Self {
        Self {
            trusted_proxies: server.trusted_proxies.clone(),
            seats: Seats { node: server.connections_per_node_max, address: server.connections_per_address_max },
            message_bytes_max: limits.step2_bytes_max.max(limits.update_bytes_max) + ENVELOPE_BYTES_MAX,
            strange_bytes_max: limits.unauthenticated_bytes_max,
            outbox_bytes_max: limits.outbox_bytes_max,
            deadlines: Deadlines { stall: Duration::from_secs(limits.outbox_stall_s), ..Deadlines::default() },
        }
    }
}

/// Largest envelope of an update: a document name and a session id, types and lengths.
pub const ENVELOPE_BYTES_MAX: usize = 1024;

/// Starts the session actor of a new connection, on the thread that asks.
pub trait StartSession: Send + Sync + 'static {
    /// The session hears until it is told `Disconnected`, or has ended by itself.
    fn start(&self, opening: Opening) -> SessionHandle;
}

/// The sessions of documents.
impl StartSession for Arc<Services> {
    fn start(&self, opening: Opening) -> SessionHandle {
        let session = session::start(opening, Arc::clone(self));
        SessionHandle { inbound: session.clone().recipient(), disconnected: session.recipient() }
    }
}

/// A session, as the pump knows it.
///
/// It must hear `Disconnected` while an `Inbound` is not answered yet: a client may go while its documents wait for PostgreSQL.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    /// Messages, in order. The next ones come after the answer.
    pub inbound: Recipient<Inbound>,
    /// The last thing it hears.
    pub disconnected: Recipient<Disconnected>,
}

/// What all WebSockets of the node share.
pub struct Sockets {
    settings: Settings,
    sessions: Box<dyn StartSession>,
    clock: Arc<dyn Clock>,
    origins: Origins,
    admission: Arc<Admission>,
    budgets: Arc<Budgets>,
    is_accepting: AtomicBool,
    wave: OnceLock<Wave>,
    traffic: Traffic,
}

/// What comes and goes over them, counted.
struct Traffic {
    received_bytes: Counter,
    received_messages: Counter,
    sent_bytes: Counter,
}

/// All connections are closed, spread over some time.
#[derive(Clone, Copy, Debug)]
struct Wave {
    since: Instant,
    lasts: Duration,
}

impl Sockets {
    /// Accepts from the start. What is counted later goes to the recorder that is installed now.
    pub fn new(
        settings: Settings,
        budgets: Arc<Budgets>,
        origins: Origins,
        sessions: impl StartSession,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            origins,
            admission: Admission::new(settings.seats),
            settings,
            sessions: Box::new(sessions),
            clock,
            budgets,
            is_accepting: AtomicBool::new(true),
            wave: OnceLock::new(),
            traffic: Traffic {
                received_bytes: counter!("contextnexus_ws_received_bytes_total"),
                received_messages: counter!("contextnexus_ws_received_messages_total"),
                sent_bytes: counter!("contextnexus_ws_sent_bytes_total"),
            },
        })
    }

    /// Turns new connections away from now on, or no longer: the node drains, or cannot serve them.
    pub fn accept(&self, accepting: bool) {
        self.is_accepting.store(accepting, Ordering::Relaxed);
    }

    /// Closes all connections with 1012, evenly spread over `lasts`, so that they do not all reconnect at once. To be called after
    /// what they sent is committed; there is no way back.
    pub fn close_all(&self, lasts: Duration) {
        self.accept(false);
        let _ = self.wave.set(Wave { since: self.clock.instant(), lasts }); // a second call changes nothing
    }

    /// Open connections, those included that are just ending.
    pub fn open(&self) -> usize {
        self.admission.taken()
    }

    /// The closing wave has reached this connection.
    fn must_go(&self, session: SessionId, now: Instant) -> bool {
        self.wave.get().is_some_and(|wave| {
            let share = f64::from(session.0.as_fields().3[7]) / 256.0; // a random byte of the id
            now.saturating_duration_since(wave.since) >= wave.lasts.mul_f64(share)
        })
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets").field("settings", &self.settings).field("open", &self.open()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
