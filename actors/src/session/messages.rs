//! What a session hears.

use crate::budget::Share;
use actix::Message;
use bytes::Bytes;
use std::sync::Arc;

/// WebSocket messages of the peer, whole and unmasked, in the order in which they came; all that one read brought. Answered once they are under
/// way to their documents, and these have taken what was under way before: until then the pump reads no further. An empty one
/// only asks for that answer.
#[derive(Message, Debug, Default)]
#[rtype(result = "()")]
pub struct Inbound {
    /// In order.
    pub messages: Vec<ClientMessage>,
    /// What they take of the node's budget, where they are large: until the documents that they are for have heard them.
    pub share: Option<Arc<Share>>,
}

/// One WebSocket message.
#[derive(Clone, Debug)]
pub enum ClientMessage {
    /// Binary: the Yjs dialects.
    Binary(Bytes),
    /// Text, of so many bytes: no dialect has it; ignored.
    Text(usize),
    /// Larger than a message may be (`update_bytes_max`), and not kept: how it begins. Only in Hocuspocus, where a socket carries many
    /// documents; otherwise the connection ends.
    TooLarge(Bytes),
}

impl ClientMessage {
    /// Bytes of its content that are kept.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Binary(bytes) | Self::TooLarge(bytes) => bytes.len(),
            Self::Text(_) => 0,
        }
    }
}

/// The socket is gone. Nothing follows it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Disconnected;
