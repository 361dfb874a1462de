//! What a session hears.

use actix::Message;
use bytes::Bytes;

/// WebSocket messages of the peer, whole and unmasked, in the order in which they came; all that one read brought. Answered once they are under
/// way to their documents, and these have taken what was under way before: until then the pump reads no further. An empty one
/// only asks for that answer.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Inbound(pub Vec<Frame>);

/// One WebSocket message.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Binary: the Yjs dialects.
    Binary(Bytes),
    /// Text: no dialect has it; ignored.
    Text,
}

/// The socket is gone. Nothing follows it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Disconnected;
