//! The three dialects a Yjs client may speak, as one vocabulary.
//!
//! Hocuspocus puts a document name before every message; Y-Sweet is y-websocket and the message type 102.

use std::fmt;

use super::update;
use super::varint::{Reader, put_bytes, put_uint};

/// Which clients the generator plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// An own update's echo is its acknowledgement.
    YWebsocket,
    /// SyncStatus acknowledges updates one by one.
    Hocuspocus,
    /// An echoed 102 acknowledges everything before it.
    YSweet,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::YWebsocket => "y-websocket",
            Self::Hocuspocus => "hocuspocus",
            Self::YSweet => "y-sweet",
        })
    }
}

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;
const AUTH: u64 = 2;
const CLOSE: u64 = 7;
const SYNC_STATUS: u64 = 8;
const VERSION: u64 = 102;
const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;
const AUTHENTICATED: u64 = 2;
const DENIED: u64 = 1;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Sent behind the token, so that a Hocuspocus-compatible server takes us for the present major version.
const PROVIDER_VERSION: &str = "4.8.0";

/// One message from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The server's state vector: it wants what we have beyond it.
    Step1(&'a [u8]),
    /// The answer to our step 1: from here on a client counts as synced.
    Step2(&'a [u8]),
    /// Something new.
    Update(&'a [u8]),
    /// Cursors; an empty one keeps the connection alive.
    Awareness(&'a [u8]),
    /// Hocuspocus: the server accepted the token.
    Authenticated,
    /// y-websocket, Hocuspocus: the server refuses; the text says why.
    Denied(&'a str),
    /// Hocuspocus: one update or step 2 was stored, or refused.
    SyncStatus(bool),
    /// Y-Sweet: the payload of a 102 that we sent.
    Version(u64),
    /// Hocuspocus: the server detached the document.
    Detached(&'a str),
    /// Hocuspocus: wants [`Wire::pong`].
    Ping,
    /// Anything else that a client may ignore.
    Other,
}

/// One document's messages in one dialect.
#[derive(Clone, Debug)]
pub struct Wire {
    dialect: Dialect,
    /// What stands before every message: the document's name in Hocuspocus, nothing otherwise.
    prefix: Vec<u8>,
}

impl Wire {
    /// For `document` in `dialect`.
    pub fn new(dialect: Dialect, document: &str) -> Self {
        let mut prefix = Vec::new();
        if dialect == Dialect::Hocuspocus {
            put_bytes(&mut prefix, document.as_bytes());
        }
        Self { dialect, prefix }
    }

    /// Which one this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What a client sends when its socket opens: in Hocuspocus the token, then always its state vector.
    pub fn hello(&self, token: Option<&str>, state_vector: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        if self.dialect == Dialect::Hocuspocus {
            messages.push(self.message(AUTH, |out| {
                put_uint(out, 0);
                put_bytes(out, token.unwrap_or("none").as_bytes());
                put_bytes(out, PROVIDER_VERSION.as_bytes());
            }));
        }
        messages.push(self.step1(state_vector));
        messages
    }

    /// Asks for what we lack.
    pub fn step1(&self, state_vector: &[u8]) -> Vec<u8> {
        self.sync(STEP_1, state_vector)
    }

    /// Answers a server's step 1.
    pub fn step2(&self, update: &[u8]) -> Vec<u8> {
        self.sync(STEP_2, update)
    }

    /// Brings something new.
    pub fn update(&self, update: &[u8]) -> Vec<u8> {
        self.sync(UPDATE, update)
    }

    /// Shows a cursor: the encoded awareness update.
    pub fn awareness(&self, states: &[u8]) -> Vec<u8> {
        self.message(AWARENESS, |out| put_bytes(out, states))
    }

    /// Y-Sweet: asks to have everything before it acknowledged.
    pub fn version(&self, version: u64) -> Vec<u8> {
        self.message(VERSION, |out| {
            let mut body = Vec::new();
            put_uint(&mut body, version);
            put_bytes(out, &body);
        })
    }

    /// Hocuspocus: answers a ping; the one message without a name.
    pub fn pong(&self) -> Vec<u8> {
        vec![PONG]
    }

    fn sync(&self, step: u64, bytes: &[u8]) -> Vec<u8> {
        self.message(SYNC, |out| {
            put_uint(out, step);
            put_bytes(out, bytes);
        })
    }

    fn message(&self, kind: u64, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.prefix.len() + 64);
        out.extend_from_slice(&self.prefix);
        put_uint(&mut out, kind);
        body(&mut out);
        out
    }

    /// Reads what a server sent; `None` where it is not of this dialect.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Option<Message<'a>> {
        if self.dialect == Dialect::Hocuspocus && matches!(bytes, [PING] | [PONG]) {
            return Some(if bytes == [PING] { Message::Ping } else { Message::Other });
        }
        let mut reader = Reader::new(bytes.strip_prefix(self.prefix.as_slice())?);
        match (reader.uint()?, self.dialect) {
            (SYNC | 4, _) => match reader.uint()? {
                STEP_1 => reader.bytes().map(Message::Step1),
                STEP_2 => reader.bytes().map(Message::Step2),
                UPDATE => reader.bytes().map(Message::Update),
                _ => None,
            },
            (AWARENESS, _) => reader.bytes().map(Message::Awareness),
            (AUTH, Dialect::Hocuspocus) => match reader.uint()? {
                AUTHENTICATED => Some(Message::Authenticated),
                DENIED => reader.string().map(Message::Denied),
                _ => Some(Message::Other),
            },
            (AUTH, _) => match reader.uint()? {
                0 => reader.string().map(Message::Denied),
                _ => Some(Message::Other),
            },
            (SYNC_STATUS, Dialect::Hocuspocus) => reader.uint().map(|stored| Message::SyncStatus(stored == 1)),
            (CLOSE, Dialect::Hocuspocus) => Some(Message::Detached(reader.string().unwrap_or_default())),
            (VERSION, Dialect::YSweet) => Reader::new(reader.bytes()?).uint().map(Message::Version),
            _ => Some(Message::Other),
        }
    }
}

/// An awareness update with one state.
pub fn awareness_state(client: u64, clock: u64, json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 16);
    put_uint(&mut out, 1);
    put_uint(&mut out, client);
    put_uint(&mut out, clock);
    put_bytes(&mut out, json.as_bytes());
    out
}

/// Calls `each` with client, clock and JSON of every state in an awareness update; false where it cannot be read.
pub fn awareness_states(states: &[u8], mut each: impl FnMut(u64, u64, &str)) -> bool {
    let mut reader = Reader::new(states);
    let mut walk = || {
        for _ in 0..reader.uint()? {
            let (client, clock) = (reader.uint()?, reader.uint()?);
            each(client, clock, reader.string()?);
        }
        Some(())
    };
    walk().is_some()
}

/// The answer of a client without content to a server's step 1.
pub fn nothing_to_add(wire: &Wire) -> Vec<u8> {
    wire.step2(&update::EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn a_dialect_has_one_name_in_reports_and_on_the_command_line() {
        use clap::ValueEnum;
        for dialect in Dialect::value_variants() {
            assert_eq!(dialect.to_possible_value().unwrap().get_name(), dialect.to_string());
        }
    }

    #[test]
    fn our_y_websocket_says_what_the_provider_says() {
        let wire = Wire::new(Dialect::YWebsocket, "doc1");
        assert_eq!(wire.hello(Some("tok"), &update::EMPTY_STATE_VECTOR), [hex("00 00 01 00")]);
        assert_eq!(nothing_to_add(&wire), hex("00 01 02 00 00"));
    }

    #[test]
    fn our_hocuspocus_says_what_the_provider_says() {
        let wire = Wire::new(Dialect::Hocuspocus, "doc1");
        let hello = wire.hello(Some("tok"), &update::EMPTY_STATE_VECTOR);
        assert_eq!(hello[0], hex("04 64 6f 63 31 02 00 03 74 6f 6b 05 34 2e 38 2e 30"));
        assert_eq!(hello[1], hex("04 64 6f 63 31 00 00 01 00"));
        assert_eq!(
            wire.awareness(&awareness_state(0, 2, "{}")),
            hex("04 64 6f 63 31 01 06 01 00 02 02 7b 7d"),
            "awareness carries the name too"
        );
    }

    #[test]
    fn every_answer_of_a_server_is_understood() {
        let hocuspocus = Wire::new(Dialect::Hocuspocus, "doc1");
        for (bytes, message) in [
            ("04 64 6f 63 31 02 02 0a 72 65 61 64 2d 77 72 69 74 65", Message::Authenticated),
            ("04 64 6f 63 31 02 01 02 6e 6f", Message::Denied("no")),
            ("04 64 6f 63 31 00 00 01 00", Message::Step1(&[0])),
            ("04 64 6f 63 31 00 01 02 00 00", Message::Step2(&[0, 0])),
            ("04 64 6f 63 31 08 01", Message::SyncStatus(true)),
            ("04 64 6f 63 31 08 00", Message::SyncStatus(false)),
            ("04 64 6f 63 31 07 02 6e 6f", Message::Detached("no")),
            ("04 64 6f 63 31 01 01 00", Message::Awareness(&[0])),
            ("09", Message::Ping),
            ("0a", Message::Other),
        ] {
            assert_eq!(hocuspocus.read(&hex(bytes)), Some(message), "{bytes}");
        }
        let y_websocket = Wire::new(Dialect::YWebsocket, "doc1");
        assert_eq!(y_websocket.read(&hex("02 00 02 6e 6f")), Some(Message::Denied("no")));
        assert_eq!(y_websocket.read(&hex("66 01 05")), Some(Message::Other), "102 is Y-Sweet's alone");
        let y_sweet = Wire::new(Dialect::YSweet, "doc1");
        assert_eq!(y_sweet.read(&y_sweet.version(300)), Some(Message::Version(300)));
        assert_eq!(y_sweet.read(&hex("66 01 05")), Some(Message::Version(5)));
    }

    #[test]
    fn awareness_is_read_as_it_is_written() {
        let mut heard = Vec::new();
        assert!(awareness_states(&awareness_state(1 << 40, 7, "{}"), |client, clock, json| {
            heard.push((client, clock, json.to_owned()));
        }));
        assert_eq!(heard, [(1 << 40, 7, "{}".to_owned())]);
        assert!(!awareness_states(&[1, 5], |_, _, _| ()), "half a state is none");
    }

    #[test]
    fn another_documents_message_is_not_ours() {
        assert_eq!(Wire::new(Dialect::Hocuspocus, "doc1").read(&hex("04 64 6f 63 32 08 01")), None);
        assert_eq!(Wire::new(Dialect::YWebsocket, "x").read(&hex("00 02 09 01")), None, "a length beyond the frame");
    }
}
