//! What goes over the wire: WebSocket frames, HTTP calls, the three dialects, and Yjs updates made by hand.
//!
//! Nothing here knows a scenario, a clock or a socket's owner.

pub mod dialect;
pub mod http;
pub mod target;
pub mod update;
pub mod varint;
pub mod websocket;
