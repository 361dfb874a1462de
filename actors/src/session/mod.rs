//! One actor per connection: decodes the dialect, checks tokens and limits, and hands on to documents.
//!
//! It hears inbound frames only. What goes out, documents write into the connection's [`Outbox`] themselves, so a peer that does
//! not read stops nobody but itself. [`state`] decides, [`actor`] performs.

pub mod actor;
mod keep_alive;
pub mod messages;
mod refusals;
pub mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use actor::{SessionActor, start};

use crate::access::Token;
use crate::document::actor::DocumentActor;
use crate::hosting::Host;
use crate::ids::{SessionId, UserId};
use crate::outbox::Outbox;
use crate::ports::Ports;
use crate::protocol::Dialect;
use actix::Addr;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What the socket pump knows about a new connection.
#[derive(Debug)]
pub struct Opening {
    /// Fresh.
    pub session: SessionId,
    /// By the path of the upgrade.
    pub dialect: Dialect,
    /// y-websocket and Y-Sweet: the room as the path names it, percent-decoded. Hocuspocus names it in each message.
    pub room: Option<String>,
    /// From header, cookie, subprotocol or query; Hocuspocus may bring one per document in its first message
    /// instead.
    pub token: Option<Token>,
    /// Where finished WebSocket frames go.
    pub outbox: Arc<Outbox>,
    /// Told once a token was good: until then the pump takes little.
    pub authentication: Arc<Authentication>,
}

/// Whether a token was good on a connection. Its session says so, its pump waits for it.
#[derive(Debug, Default)]
pub struct Authentication {
    is_done: AtomicBool,
    done: Notify,
}

impl Authentication {
    /// A token was good.
    pub fn succeed(&self) {
        self.is_done.store(true, Ordering::Release);
        self.done.notify_one();
    }

    /// Whether one was.
    pub fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    /// Waits until one is. One waits at a time.
    pub async fn done(&self) {
        while !self.is_done() {
            self.done.notified().await;
        }
    }
}

/// What sessions of a node share.
#[derive(Debug)]
pub struct Services {
    /// The ports.
    pub ports: Ports,
    /// The documents.
    pub documents: Addr<Host<DocumentActor>>,
    /// Connections of one user on this node.
    pub connections_per_user_max: usize,
    draining: AtomicBool,
    users: Mutex<HashMap<UserId, usize>>,
    refusals: refusals::Refusals,
    /// Closes after a join, for what was sent.
    closes: refusals::Refusals,
}

impl Services {
    /// Nobody is connected.
    pub fn new(ports: Ports, documents: Addr<Host<DocumentActor>>, connections_per_user_max: usize) -> Self {
        Self {
            ports,
            documents,
            connections_per_user_max,
            draining: AtomicBool::new(false),
            users: Mutex::default(),
            refusals: refusals::Refusals::default(),
            closes: refusals::Refusals::default(),
        }
    }

    /// The server drains: nobody new is let in.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn admit_user(&self, user: UserId) -> bool {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user).or_default();
        let admitted = *count < self.connections_per_user_max;
        *count += usize::from(admitted);
        admitted
    }

    fn release_user(&self, user: UserId) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&user);
            }
        }
    }
}
