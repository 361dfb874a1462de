//! One actor per connection: decodes the dialect, checks rights and limits, hands on to documents.

pub mod messages;

use crate::access::Token;
use crate::ids::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::Dialect;
use std::sync::Arc;

/// What the socket pump knows about a new connection.
#[derive(Debug)]
pub struct Opening {
    /// Fresh.
    pub connection: ConnectionId,
    /// By the path of the upgrade.
    pub dialect: Dialect,
    /// A and C: the room as the path names it, percent-decoded. B names it in each message.
    pub room: Option<String>,
    /// From header, cookie, subprotocol or query; B may bring one per document in its first message instead.
    pub token: Option<Token>,
    /// Where finished WebSocket frames go.
    pub outbox: Arc<Outbox>,
}
