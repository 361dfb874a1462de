//! One enum of messages for all dialects (docs/protocols.md, "Messages"), read and written without a panic.
//!
//! Messages of y-protocols: <https://github.com/yjs/y-protocols/blob/master/PROTOCOL.md>. Hocuspocus puts the
//! document's name before each; Y-Sweet adds type 102.

use super::Dialect;
use super::frame::server_frame_of;
use bytes::Bytes;
use contextnexus_gate::lib0::{Reader, write_var_bytes, write_var_string, write_var_uint};

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;
const AUTH: u64 = 2;
const QUERY_AWARENESS: u64 = 3;
const HOCUSPOCUS_STATELESS: u64 = 5;
const HOCUSPOCUS_CLOSE: u64 = 7;
const HOCUSPOCUS_SYNC_STATUS: u64 = 8;
const HOCUSPOCUS_PING: u8 = 9;
const HOCUSPOCUS_PONG: u8 = 10;
const YSWEET_SYNC_STATUS: u64 = 102;

const STEP1: u64 = 0;
const STEP2: u64 = 1;
const UPDATE: u64 = 2;

const AUTH_TOKEN_OR_YWEBSOCKET_DENIED: u64 = 0;
const AUTH_DENIED: u64 = 1;
const AUTH_GRANTED: u64 = 2;

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Sync step 1.
    Step1(Bytes),
    /// Sync step 2.
    Step2(Bytes),
    /// A sync update.
    Update(Bytes),
    /// Awareness.
    Awareness(Bytes),
    /// Asks for everybody's awareness.
    QueryAwareness,
    /// Hocuspocus: a token for the addressed document.
    Token {
        /// The secret.
        token: String,
        /// The provider tells its version, as majors from 4 on do.
        has_version: bool,
    },
    /// Hocuspocus: detach the addressed document.
    Detach,
    /// Hocuspocus 4: a one-byte frame that wants [`pong_frame`] back.
    Ping,
    /// Y-Sweet: sync status, to be echoed byte for byte.
    Mark(Bytes),
    /// A known message that asks for nothing here, or a type of no dialect: ignored, as the reference servers do.
    Ignored,
}

/// A message that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message")]
pub struct MalformedMessage;

/// Reads one message. In Hocuspocus, the address (the `varString` of the document's name, as it came) stands before it.
pub fn decode(dialect: Dialect, frame: &Bytes) -> Result<(Bytes, Incoming), MalformedMessage> {
    if dialect == Dialect::Hocuspocus {
        match frame.as_ref() {
            [HOCUSPOCUS_PING] => return Ok((Bytes::new(), Incoming::Ping)),
            [HOCUSPOCUS_PONG] => return Ok((Bytes::new(), Incoming::Ignored)),
            _ => {}
        }
    }
    let mut reader = Reader::new(frame);
    if dialect == Dialect::Hocuspocus {
        reader.read_var_string().map_err(|_| MalformedMessage)?;
    }
    let address = frame.slice(..reader.at());
    let message = decode_message(dialect, frame, &mut reader)?;
    Ok((address, message))
}

/// Hocuspocus: the address that a message begins with.
pub fn address_of(message: &Bytes) -> Option<Bytes> {
    let mut reader = Reader::new(message);
    reader.read_var_string().ok()?;
    Some(message.slice(..reader.at()))
}

/// The document's name in an address: what stands before the first NUL (behind it, Hocuspocus 4 puts a session id).
pub fn name_of(address: &Bytes) -> Option<&str> {
    let name = Reader::new(address).read_var_string().ok()?;
    name.split('\0').next()
}

fn decode_message(dialect: Dialect, frame: &Bytes, reader: &mut Reader<'_>) -> Result<Incoming, MalformedMessage> {
    let malformed = |_| MalformedMessage;
    let message = match reader.read_var_uint().map_err(malformed)? {
        SYNC => {
            let step = reader.read_var_uint().map_err(malformed)?;
            let body = frame.slice_ref(reader.read_var_bytes().map_err(malformed)?);
            match step {
                STEP1 => Incoming::Step1(body),
                STEP2 => Incoming::Step2(body),
                UPDATE => Incoming::Update(body),
                _ => return Err(MalformedMessage),
            }
        }
        AWARENESS => Incoming::Awareness(frame.slice_ref(reader.read_var_bytes().map_err(malformed)?)),
        QUERY_AWARENESS => Incoming::QueryAwareness,
        AUTH if dialect == Dialect::Hocuspocus => {
            if reader.read_var_uint().map_err(malformed)? != AUTH_TOKEN_OR_YWEBSOCKET_DENIED {
                return Ok(Incoming::Ignored);
            }
            let token = reader.read_var_string().map_err(malformed)?.to_owned();
            let has_version = !reader.is_empty();
            if has_version {
                reader.read_var_string().map_err(malformed)?;
            }
            Incoming::Token { token, has_version }
        }
        HOCUSPOCUS_CLOSE if dialect == Dialect::Hocuspocus => return Ok(Incoming::Detach),
        HOCUSPOCUS_STATELESS if dialect == Dialect::Hocuspocus => return Ok(Incoming::Ignored),
        YSWEET_SYNC_STATUS if dialect != Dialect::Hocuspocus => {
            Incoming::Mark(frame.slice_ref(reader.read_var_bytes().map_err(malformed)?))
        }
        _ => return Ok(Incoming::Ignored),
    };
    if reader.is_empty() { Ok(message) } else { Err(MalformedMessage) }
}

/// What we send, in every dialect that has it.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// Sync step 1 with a state vector.
    Step1(&'a [u8]),
    /// Sync step 2 with an update.
    Step2(&'a [u8]),
    /// A sync update.
    Update(&'a [u8]),
    /// An awareness update.
    Awareness(&'a [u8]),
    /// y-websocket: permission denied, with a reason; the client logs it.
    Denied(&'a str),
    /// Hocuspocus: permission denied.
    PermissionDenied(&'a str),
    /// Hocuspocus: asks for the token again. Majors from 3 on answer with a fresh one; 2.15 ignores it.
    TokenRequest,
    /// Hocuspocus: text of the server for the page; the provider emits `stateless` with it.
    Stateless(&'a str),
    /// Hocuspocus: authenticated, `read-write` or `readonly`.
    Authenticated(&'a str),
    /// Hocuspocus: sync status.
    Status(bool),
    /// Hocuspocus: the document is detached, with a reason.
    Closed(&'a str),
    /// Y-Sweet: the payload of a 102, echoed.
    Mark(&'a [u8]),
}

/// Finishes a message as a WebSocket frame. `address` is empty but in Hocuspocus.
pub fn encode(address: &[u8], message: Message<'_>) -> Bytes {
    let mut head = Vec::with_capacity(24);
    let body: &[u8] = match message {
        Message::Step1(body) => sync_head(&mut head, STEP1, body),
        Message::Step2(body) => sync_head(&mut head, STEP2, body),
        Message::Update(body) => sync_head(&mut head, UPDATE, body),
        Message::Awareness(body) => {
            write_var_uint(&mut head, AWARENESS);
            write_var_uint(&mut head, body.len() as u64);
            body
        }
        Message::Denied(reason) => auth(&mut head, AUTH_TOKEN_OR_YWEBSOCKET_DENIED, reason),
        Message::PermissionDenied(reason) => auth(&mut head, AUTH_DENIED, reason),
        Message::TokenRequest => {
            write_var_uint(&mut head, AUTH);
            write_var_uint(&mut head, AUTH_TOKEN_OR_YWEBSOCKET_DENIED);
            &[]
        }
        Message::Stateless(payload) => {
            write_var_uint(&mut head, HOCUSPOCUS_STATELESS);
            write_var_string(&mut head, payload);
            &[]
        }
        Message::Authenticated(scope) => auth(&mut head, AUTH_GRANTED, scope),
        Message::Status(stored) => {
            write_var_uint(&mut head, HOCUSPOCUS_SYNC_STATUS);
            write_var_uint(&mut head, u64::from(stored));
            &[]
        }
        Message::Closed(reason) => {
            write_var_uint(&mut head, HOCUSPOCUS_CLOSE);
            write_var_string(&mut head, reason);
            &[]
        }
        Message::Mark(payload) => {
            write_var_uint(&mut head, YSWEET_SYNC_STATUS);
            write_var_bytes(&mut head, payload);
            &[]
        }
    };
    server_frame_of(&[address, &head, body])
}

/// Hocuspocus: the answer to [`Incoming::Ping`].
pub fn pong_frame() -> Bytes {
    server_frame_of(&[&[HOCUSPOCUS_PONG]])
}

/// An empty awareness update: nobody, but data, which is what stock clients take for life.
pub const EMPTY_AWARENESS: &[u8] = &[0];

fn sync_head<'a>(head: &mut Vec<u8>, step: u64, body: &'a [u8]) -> &'a [u8] {
    write_var_uint(head, SYNC);
    write_var_uint(head, step);
    write_var_uint(head, body.len() as u64);
    body
}

fn auth<'a>(head: &mut Vec<u8>, kind: u64, text: &str) -> &'a [u8] {
    write_var_uint(head, AUTH);
    write_var_uint(head, kind);
    write_var_string(head, text);
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Bytes {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn captured_messages_are_read() {
        let read = |dialect, text| decode(dialect, &hex(text)).unwrap().1;
        assert_eq!(read(Dialect::YWebsocket, "00 00 01 00"), Incoming::Step1(hex("00")));
        assert_eq!(read(Dialect::YWebsocket, "00 01 02 00 00"), Incoming::Step2(hex("00 00")));
        let token = "04 646f6331 02 00 03 746f6b 05 342e382e30";
        assert_eq!(read(Dialect::Hocuspocus, token), Incoming::Token { token: "tok".into(), has_version: true });
        assert_eq!(read(Dialect::Hocuspocus, "09"), Incoming::Ping);
        assert_eq!(read(Dialect::YSweet, "66 01 05"), Incoming::Mark(hex("05")));
    }

    #[test]
    fn captured_answers_are_written() {
        let payload = |frame: Bytes| frame.slice(2..);
        let address = hex("04 646f6331");
        assert_eq!(payload(encode(&[], Message::Step1(&[0]))), hex("00 00 01 00"));
        assert_eq!(
            payload(encode(&address, Message::Authenticated("read-write"))),
            hex("04 646f6331 02 02 0a 726561642d7772697465")
        );
        assert_eq!(payload(encode(&address, Message::Status(true))), hex("04 646f6331 08 01"));
        assert_eq!(payload(encode(&address, Message::TokenRequest)), hex("04 646f6331 02 00"));
        assert_eq!(payload(encode(&[], Message::Awareness(EMPTY_AWARENESS))), hex("01 01 00"));
    }

    #[test]
    fn a_truncated_or_overlong_message_is_refused() {
        for text in ["00", "00 00", "00 00 05 00", "00 03 00", "00 00 01 00 00", "01 03 00", ""] {
            assert_eq!(decode(Dialect::YWebsocket, &hex(text)), Err(MalformedMessage), "{text}");
        }
    }

    #[test]
    fn the_name_ends_at_the_first_nul() {
        assert_eq!(name_of(&hex("06 646f6331 00 73")), Some("doc1"));
    }
}
