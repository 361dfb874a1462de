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
    /// Text, of so many bytes: no dialect has it; ignored.
    Text(usize),
    /// Larger than a message may be (`update_bytes_max`), and not kept: how it begins. Only in Hocuspocus, where a socket carries many
    /// documents; otherwise the connection ends.
    TooLarge(Bytes),
}

/// The socket is gone. Nothing follows it.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Disconnected;
