//! A Yjs client as the wire sees it: opens a document, answers the handshake, sends updates, hears the rest.
//!
//! What it hears goes to a [`Listener`]; what a scenario concludes from it is the scenario's business.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::socket::{self, Incoming, Outgoing, SocketError};
use crate::wire::dialect::{Dialect, Message, Wire};
use crate::wire::http::{self, HttpError};
use crate::wire::target::Target;
use crate::wire::websocket::{Opcode, close_code};

/// Where y-websocket shows its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenIn {
    /// `Authorization: Bearer`.
    Header,
    /// `?token=`, as y-websocket users do.
    Query,
    /// `Sec-WebSocket-Protocol`, as browsers can.
    Subprotocol,
}

/// How to reach documents of a server.
#[derive(Clone, Debug)]
pub struct Access {
    /// The server's address.
    pub target: Target,
    /// The client to play.
    pub dialect: Dialect,
    /// Good for every document of a run.
    pub token: Option<String>,
    /// Where y-websocket puts it.
    pub token_in: TokenIn,
}

/// Why a client has no document.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// One of Y-Sweet's HTTP calls failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server does not want this client.
    #[error("{what} was refused: {why}")]
    Refused {
        /// What the client asked for.
        what: String,
        /// What the server said.
        why: String,
    },
}

/// What a scenario does with what a client hears. Called on the generator's only thread.
pub trait Listener {
    /// The server asks for what it lacks; the answer is an update.
    fn asked(&mut self, state_vector: &[u8]) -> Vec<u8>;
    /// Content arrived, by step 2 or as an update.
    fn content(&mut self, update: &[u8]);
    /// The first step 2 has arrived (after [`content`](Self::content)).
    fn synced(&mut self) {}
    /// Hocuspocus and Y-Sweet: the server has acknowledged so many of this connection's updates in all.
    fn acknowledged(&mut self, _updates: u64) {}
    /// Cursors arrived.
    fn awareness(&mut self, _states: &[u8]) {}
    /// The server refused a write, the token or the document.
    fn refused(&mut self, why: String);
}

/// Makes the document exist and answers the token to open it with. In Y-Sweet that takes two calls with the
/// server's token, as an application's back end makes them; in the other dialects nothing.
pub async fn admit(access: &Access, document: &str) -> Result<Option<String>, ClientError> {
    if access.dialect != Dialect::YSweet {
        return Ok(access.token.clone());
    }
    let authority = &access.target.authority;
    let body = serde_json::json!({ "docId": document }).to_string();
    let made = http::call(authority, "POST", "/doc/new", access.token.as_deref(), Some(&body)).await?;
    let refused = |what: &str, why: String| ClientError::Refused { what: what.to_owned(), why };
    if made.status >= 300 {
        return Err(refused("POST /doc/new", format!("status {}", made.status)));
    }
    let path = format!("/doc/{document}/auth");
    let body = r#"{"authorization":"full"}"#;
    let ticket = http::call(authority, "POST", &path, access.token.as_deref(), Some(body)).await?;
    if ticket.status >= 300 {
        return Err(refused("POST /doc/…/auth", format!("status {}", ticket.status)));
    }
    let answer: serde_json::Value = serde_json::from_slice(&ticket.body)
        .map_err(|error| refused("POST /doc/…/auth", format!("not JSON: {error}")))?;
    Ok(answer.get("token").and_then(|token| token.as_str()).map(str::to_owned))
}

/// Opens `document` with the token that [`admit`] answered. The handshake is under way when this returns;
/// [`listen`] carries it on.
pub async fn connect(
    access: &Access,
    document: &str,
    token: Option<&str>,
    state_vector: &[u8],
) -> Result<(Incoming, Link), ClientError> {
    connect_counted(access, document, token, state_vector, Rc::default()).await
}

/// The same, and what is exchanged is counted in `traffic`.
pub async fn connect_counted(
    access: &Access,
    document: &str,
    token: Option<&str>,
    state_vector: &[u8],
    traffic: Rc<Traffic>,
) -> Result<(Incoming, Link), ClientError> {
    let mut path = access.target.socket_path(access.dialect, document);
    let mut headers = String::new();
    if let Some(token) = token {
        match (access.dialect, access.token_in) {
            (Dialect::YWebsocket, TokenIn::Header) => headers = format!("authorization: Bearer {token}\r\n"),
            (Dialect::YWebsocket, TokenIn::Subprotocol) => {
                headers = format!("sec-websocket-protocol: contextnexus, contextnexus.token.{token}\r\n");
            }
            (Dialect::YWebsocket, TokenIn::Query) | (Dialect::YSweet, _) => path.push_str(&format!("?token={token}")),
            (Dialect::Hocuspocus, _) => {}
        }
    }
    let (incoming, outgoing) = socket::open(&access.target.authority, &path, &headers).await?;
    let wire = Wire::new(access.dialect, document);
    let link = Link { outgoing, session: Rc::new(RefCell::new(Session::new(wire.clone()))), traffic };
    link.send(&wire.hello(token, state_vector));
    Ok((incoming, link))
}

/// Hears until the connection ends; answers why it did.
pub async fn listen(mut incoming: Incoming, link: Link, listener: &mut impl Listener) -> String {
    loop {
        if let Err(why) = listen_once(&mut incoming, &link, listener).await {
            return why;
        }
    }
}

/// Waits for bytes and hears what they bring; why the connection ended, where it did.
pub async fn listen_once(incoming: &mut Incoming, link: &Link, listener: &mut impl Listener) -> Result<(), String> {
    let mut ended = None;
    let heard = incoming.hear(|opcode, payload| match opcode {
        Opcode::Ping => link.outgoing.control(Opcode::Pong, payload),
        Opcode::Close => {
            let code = close_code(payload);
            let reason = payload.get(2..).map(String::from_utf8_lossy).unwrap_or_default();
            ended = Some(format!("closed by the server with {code} {reason}"));
        }
        Opcode::Binary => link.hear(payload, listener),
        Opcode::Text | Opcode::Pong | Opcode::Continuation => {}
    });
    match (heard.await, ended) {
        (_, Some(why)) => Err(why),
        (Ok(true), None) => Ok(()),
        (Ok(false), None) => Err("closed by the server without a word".to_owned()),
        (Err(error), None) => Err(error.to_string()),
    }
}

/// What clients have exchanged with the server; a scenario gives one to all its connections.
#[derive(Debug, Default)]
pub struct Traffic {
    /// WebSocket messages sent, control frames left out.
    pub messages_sent: Cell<u64>,
    /// Messages received that carried an update (no step 2).
    pub update_messages: Cell<u64>,
    /// Updates that the engine's writers did not send.
    pub updates_beside: Cell<u64>,
}

fn add(counter: &Cell<u64>, more: usize) {
    counter.set(counter.get() + more as u64);
}

/// The sending side of a client; clones are the same client.
#[derive(Clone, Debug)]
pub struct Link {
    outgoing: Rc<Outgoing>,
    session: Rc<RefCell<Session>>,
    traffic: Rc<Traffic>,
}

impl Link {
    /// Sends one update.
    pub fn send_update(&self, update: &[u8]) {
        let messages = self.session.borrow_mut().update(update);
        self.send(&messages);
    }

    /// Sends several updates, each a message of its own, in one write.
    pub fn send_updates<'a>(&self, updates: impl IntoIterator<Item = &'a [u8]>) {
        let mut session = self.session.borrow_mut();
        let messages: Vec<Vec<u8>> = updates.into_iter().flat_map(|update| session.update(update)).collect();
        drop(session);
        self.send(&messages);
    }

    fn send(&self, messages: &[Vec<u8>]) {
        add(&self.traffic.messages_sent, messages.len());
        self.outgoing.send(messages);
    }

    /// Sends an awareness update.
    pub fn send_awareness(&self, states: &[u8]) {
        let message = self.session.borrow().wire.awareness(states);
        self.send(&[message]);
    }

    /// Whether the socket is gone.
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed()
    }

    /// Whether the kernel has everything that was sent.
    pub fn is_flushed(&self) -> bool {
        self.outgoing.is_flushed()
    }

    /// Says goodbye; the server ends the connection.
    pub fn close(&self) {
        self.outgoing.control(Opcode::Close, &1000u16.to_be_bytes());
    }

    fn hear(&self, payload: &[u8], listener: &mut impl Listener) {
        let heard = self.session.borrow_mut().hear(payload);
        match heard {
            Heard::Asked(state_vector) => {
                let answer = listener.asked(state_vector);
                let message = self.session.borrow_mut().answer(&answer);
                self.send(&[message]);
            }
            Heard::Content { update, first } => {
                if !self.session.borrow().was_step2 {
                    add(&self.traffic.update_messages, 1);
                }
                listener.content(update);
                if first {
                    listener.synced();
                }
            }
            Heard::Acknowledged(updates) => listener.acknowledged(updates),
            Heard::Awareness(states) => listener.awareness(states),
            Heard::Refused(why) => listener.refused(why),
            Heard::Ping => {
                let pong = self.session.borrow().wire.pong();
                self.send(&[pong]);
            }
            Heard::Nothing => {}
        }
    }
}

/// What one message means to a client.
#[derive(Debug, PartialEq, Eq)]
enum Heard<'a> {
    Asked(&'a [u8]),
    Content { update: &'a [u8], first: bool },
    Acknowledged(u64),
    Awareness(&'a [u8]),
    Refused(String),
    Ping,
    Nothing,
}

/// The handshake and the acknowledgements of one connection; pure.
#[derive(Debug)]
struct Session {
    wire: Wire,
    synced: bool,
    /// Whether the content heard last came as a step 2.
    was_step2: bool,
    sent: u64,
    acknowledged: u64,
    /// Hocuspocus: what the next SyncStatus is for, oldest first; true for an update, false for a step 2.
    owed: VecDeque<bool>,
}

impl Session {
    fn new(wire: Wire) -> Self {
        Self { wire, synced: false, was_step2: false, sent: 0, acknowledged: 0, owed: VecDeque::new() }
    }

    fn update(&mut self, update: &[u8]) -> Vec<Vec<u8>> {
        self.sent += 1;
        let mut messages = vec![self.wire.update(update)];
        match self.wire.dialect() {
            Dialect::YWebsocket => {}
            Dialect::Hocuspocus => self.owed.push_back(true),
            Dialect::YSweet => messages.push(self.wire.version(self.sent)),
        }
        messages
    }

    fn answer(&mut self, update: &[u8]) -> Vec<u8> {
        if self.wire.dialect() == Dialect::Hocuspocus {
            self.owed.push_back(false);
        }
        self.wire.step2(update)
    }

    fn hear<'a>(&mut self, bytes: &'a [u8]) -> Heard<'a> {
        match self.wire.read(bytes) {
            Some(Message::Step1(state_vector)) => Heard::Asked(state_vector),
            Some(Message::Step2(update)) => {
                self.was_step2 = true;
                Heard::Content { update, first: !std::mem::replace(&mut self.synced, true) }
            }
            Some(Message::Update(update)) => {
                self.was_step2 = false;
                Heard::Content { update, first: false }
            }
            Some(Message::SyncStatus(stored)) => match (self.owed.pop_front(), stored) {
                (Some(true), true) => {
                    self.acknowledged += 1;
                    Heard::Acknowledged(self.acknowledged)
                }
                (Some(true), false) => Heard::Refused("an update was answered with SyncStatus 0".to_owned()),
                (Some(false), _) => Heard::Nothing,
                (None, _) => Heard::Refused("a SyncStatus came for nothing".to_owned()),
            },
            Some(Message::Version(version)) if version > self.acknowledged => {
                self.acknowledged = version.min(self.sent);
                Heard::Acknowledged(self.acknowledged)
            }
            Some(Message::Awareness(states)) => Heard::Awareness(states),
            Some(Message::Denied(why) | Message::Detached(why)) => Heard::Refused(why.to_owned()),
            Some(Message::Ping) => Heard::Ping,
            Some(Message::Authenticated | Message::Version(_) | Message::Other) => Heard::Nothing,
            None => Heard::Refused("the server sent what is not of this dialect".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [u8; 2] = [0, 0];

    fn session(dialect: Dialect) -> (Session, Wire) {
        let wire = Wire::new(dialect, "d");
        (Session::new(wire.clone()), wire)
    }

    fn status(stored: u8) -> Vec<u8> {
        vec![1, b'd', 8, stored]
    }

    #[test]
    fn hocuspocus_counts_one_status_per_step_2_and_per_update() {
        let (mut session, _) = session(Dialect::Hocuspocus);
        session.answer(&NOTHING);
        session.update(&NOTHING);
        session.update(&NOTHING);
        assert_eq!(session.hear(&status(1)), Heard::Nothing, "the first is for the step 2");
        assert_eq!(session.hear(&status(1)), Heard::Acknowledged(1));
        assert_eq!(session.hear(&status(1)), Heard::Acknowledged(2));
        assert!(matches!(session.hear(&status(1)), Heard::Refused(_)), "one too many is a fault");
    }

    #[test]
    fn hocuspocus_hears_that_an_update_was_refused() {
        let (mut session, _) = session(Dialect::Hocuspocus);
        session.update(&NOTHING);
        assert!(matches!(session.hear(&status(0)), Heard::Refused(_)));
        assert_eq!(session.acknowledged, 0);
    }

    #[test]
    fn y_sweet_takes_an_echo_for_everything_before_it() {
        let (mut session, wire) = session(Dialect::YSweet);
        for _ in 0..3 {
            assert_eq!(session.update(&NOTHING).len(), 2, "the update and its 102");
        }
        assert_eq!(session.hear(&wire.version(2)), Heard::Acknowledged(2));
        assert_eq!(session.hear(&wire.version(2)), Heard::Nothing);
        assert_eq!(session.hear(&wire.version(9)), Heard::Acknowledged(3), "no more than was sent");
    }

    #[test]
    fn only_the_first_step_2_means_synced() {
        let (mut session, wire) = session(Dialect::YWebsocket);
        let step2 = wire.step2(&NOTHING);
        assert_eq!(session.hear(&step2), Heard::Content { update: &NOTHING, first: true });
        assert_eq!(session.hear(&step2), Heard::Content { update: &NOTHING, first: false });
    }
}
