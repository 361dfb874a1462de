//! The Yjs dialects, and the frames that carry them.

pub mod codec;
pub mod frame;

/// How a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// y-websocket: one document a connection, named by the path.
    YWebsocket,
    /// Hocuspocus provider: many documents a connection, each message names its own.
    Hocuspocus,
    /// Y-Sweet client: y-websocket and sync status (type 102).
    YSweet,
}
