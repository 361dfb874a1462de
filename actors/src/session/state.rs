//! What a session decides: which document a message belongs to, what may come before a token, and when enough is enough. Pure.

use crate::document::close;
use crate::document::messages::Input;
use crate::limits::Limits;
use crate::ports::authority::{AccessDenied, RoomName};
use crate::protocol::Dialect;
use crate::protocol::codec::{Incoming, address_of, decode, name_of};
use crate::room::{self, NameRefused};
use crate::session::messages::ClientMessage;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// An empty state vector (v1): whoever sends it lacks everything.
const KNOWS_NOTHING: &[u8] = &[0];
/// A document that could not be opened for a passing reason is tried again after 1, 2, 4 … s, at most this.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(30);

/// One connection's documents. y-websocket and Y-Sweet have one, under the empty address; Hocuspocus has as many as it names.
#[derive(Debug)]
pub struct SessionState {
    dialect: Dialect,
    limits: Arc<Limits>,
    channels: HashMap<Bytes, Channel>,
    /// What waits in channels for a token to be checked.
    early_bytes: usize,
    early_messages: usize,
    /// All that the peer has sent, until a document was open for the first time.
    strange_bytes: usize,
    strange_messages: usize,
    /// A document has been open on this connection.
    is_authenticated: bool,
    next_attachment: u32,
    closing: bool,
}

/// One document on this connection.
#[derive(Debug)]
struct Channel {
    phase: Phase,
    /// What it names; none before a token came, or where the name breaks the rules.
    room: Result<RoomName, NameRefused>,
    /// What came while the document is not open, in order.
    early: Vec<Input>,
    /// Hocuspocus: the token that was presented last, and whether the provider tells its version.
    token: Option<String>,
    has_version: bool,
    /// Hocuspocus: a token that came while the one before it was being checked.
    next_token: Option<String>,
    /// It was open before: the client has said its step 1, and will not say it again.
    was_open: bool,
    /// Attempts that failed for a passing reason.
    attempts: u32,
}

/// Attempts to open a document are numbered: what was decided about one never touches a later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Hocuspocus: no token yet.
    Waiting,
    /// The token is being checked, or will be.
    Opening(u32),
    /// Attached.
    Joined,
    /// Refused; in Hocuspocus a new token opens it again.
    Refused(u32),
}

/// What the session wants done, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check the token (y-websocket and Y-Sweet: the one of the upgrade), open the room, join its document.
    Open {
        /// The channel.
        address: Bytes,
        /// Hocuspocus: from the message.
        token: Option<String>,
        /// The room.
        room: RoomName,
        /// Names the attachment.
        attachment: u32,
        /// Hocuspocus: the provider understands message 7 (CLOSE).
        knows_close: bool,
    },
    /// The same after a pause: call [`SessionState::open_again`].
    OpenLater {
        /// The channel.
        address: Bytes,
        /// The attempt that failed.
        attachment: u32,
        /// How long to wait.
        after: Duration,
    },
    /// Hocuspocus: a fresh token for a document that is open. If it is good, its rights apply from now on and are answered.
    Renew {
        /// The channel.
        address: Bytes,
        /// From the message.
        token: String,
        /// The room.
        room: RoomName,
    },
    /// Hand on to the document.
    Deliver {
        /// The channel.
        address: Bytes,
        /// In order.
        inputs: Vec<Input>,
    },
    /// Hocuspocus: say that the channel is open, and with what right.
    Authenticated {
        /// The channel.
        address: Bytes,
        /// It may write.
        may_write: bool,
    },
    /// Leave the document.
    Leave {
        /// The channel.
        address: Bytes,
    },
    /// Hocuspocus: say that the document was detached because the client asked.
    Detached {
        /// The channel.
        address: Bytes,
    },
    /// Refuse for good: in Hocuspocus this channel, in y-websocket and Y-Sweet the connection. Slowly, for clients that retry whatever
    /// they are told; and only if [`SessionState::is_refused`] still says so then.
    Refuse {
        /// The channel.
        address: Bytes,
        /// The attempt that was refused.
        attachment: u32,
        /// Hocuspocus: the token that was refused.
        token: Option<String>,
        /// Close code.
        code: u16,
        /// Lower case, no content.
        reason: &'static str,
    },
    /// Hocuspocus: answer a ping.
    Pong,
    /// Close the connection.
    Close {
        /// Close code.
        code: u16,
        /// Lower case, no content.
        reason: &'static str,
    },
}

impl SessionState {
    /// A connection that has said nothing.
    pub fn new(dialect: Dialect, limits: Arc<Limits>) -> Self {
        Self {
            dialect,
            limits,
            channels: HashMap::new(),
            early_bytes: 0,
            early_messages: 0,
            strange_bytes: 0,
            strange_messages: 0,
            is_authenticated: false,
            next_attachment: 0,
            closing: false,
        }
    }

    /// y-websocket and Y-Sweet: the path names the room, and the upgrade brought the token.
    pub fn opened(&mut self, room: &str) -> Vec<Effect> {
        let address = Bytes::new();
        let room = self.parse(room);
        self.channels.insert(address.clone(), Channel { room, ..Channel::new() });
        self.open(address)
    }

    /// Frames of the peer, in order. Consecutive messages for one document are handed on together.
    pub fn hear(&mut self, frames: impl IntoIterator<Item = ClientMessage>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for frame in frames {
            let bytes = match &frame {
                ClientMessage::Binary(bytes) => bytes.len(),
                ClientMessage::Text(bytes) => *bytes,
                ClientMessage::TooLarge(_) => self.limits.update_bytes_max,
            };
            if self.closing || !self.may_say(bytes, &mut effects) {
                break;
            }
            match frame {
                ClientMessage::Binary(frame) => self.hear_one(&frame, &mut effects),
                ClientMessage::Text(_) => {} // no dialect has any
                ClientMessage::TooLarge(begins) => self.hear_too_large(&begins, &mut effects),
            }
        }
        effects
    }

    /// The token was good, and the document let the connection in. What came meanwhile follows.
    pub fn joined(&mut self, address: &Bytes, may_write: bool) -> Vec<Effect> {
        let Some(channel) = self.channels.get_mut(address).filter(|channel| matches!(channel.phase, Phase::Opening(_)))
        else {
            return vec![Effect::Leave { address: address.clone() }]; // the client detached meanwhile
        };
        channel.phase = Phase::Joined;
        channel.attempts = 0;
        let mut early = std::mem::take(&mut channel.early);
        let (was_open, next) = (std::mem::replace(&mut channel.was_open, true), channel.next_token.take());
        self.is_authenticated = true;
        self.release(&early);
        let mut effects = Vec::new();
        if self.dialect == Dialect::Hocuspocus {
            effects.push(Effect::Authenticated { address: address.clone(), may_write });
            if was_open && !early.iter().any(|input| matches!(input, Input::Step1(_))) {
                early.insert(0, Input::Step1(Bytes::from_static(KNOWS_NOTHING)));
            }
        }
        if !early.is_empty() {
            effects.push(Effect::Deliver { address: address.clone(), inputs: early });
        }
        if let Some(token) = next {
            effects.extend(self.renew(address.clone(), token));
        }
        effects
    }

    /// The token was not good, or the room not to be had.
    pub fn denied(&mut self, address: &Bytes, why: &AccessDenied) -> Vec<Effect> {
        let Some(channel) = self.channels.get_mut(address) else { return Vec::new() };
        let Phase::Opening(attachment) = channel.phase else { return Vec::new() };
        if let Some(token) = channel.next_token.take() {
            channel.token = Some(token); // the newer one decides
            return self.open_again(address, attachment);
        }
        match why {
            AccessDenied::Full | AccessDenied::Unavailable => self.put_off(address, why),
            why => self.refuse(address.clone(), why),
        }
    }

    /// Opens a channel whose last attempt had this number, unless something has happened to it since.
    pub fn open_again(&mut self, address: &Bytes, attachment: u32) -> Vec<Effect> {
        let is_current = self.channels.get(address).is_some_and(|channel| channel.phase == Phase::Opening(attachment));
        if is_current { self.open(address.clone()) } else { Vec::new() }
    }

    /// Whether what was decided about this attempt still holds: nothing has come of the channel since.
    pub fn is_refused(&self, address: &Bytes, attachment: u32) -> bool {
        self.channels.get(address).is_none_or(|channel| channel.phase == Phase::Refused(attachment))
    }

    /// The document let go of the channel by itself (a right ended, a message was malformed).
    pub fn detached(&mut self, address: &Bytes) {
        let attachment = self.fresh_attachment();
        if let Some(channel) = self.channels.get_mut(address) {
            channel.phase = Phase::Refused(attachment);
        }
    }

    /// Nothing was authenticated in time.
    pub fn is_unauthenticated(&self) -> bool {
        !self.channels.values().any(|channel| matches!(channel.phase, Phase::Joined | Phase::Opening(_)))
    }

    /// Bytes that wait for a token to be checked.
    #[cfg(test)]
    pub fn unauthenticated_bytes(&self) -> usize {
        self.early_bytes
    }

    /// The attached channels.
    pub fn joined_channels(&self) -> impl Iterator<Item = &Bytes> {
        self.channels.iter().filter(|(_, channel)| channel.phase == Phase::Joined).map(|(address, _)| address)
    }

    /// Counts what arrives before a document is open, whatever it is. False: too much, the connection is closed.
    fn may_say(&mut self, bytes: usize, effects: &mut Vec<Effect>) -> bool {
        if self.is_authenticated {
            return true;
        }
        self.strange_bytes += bytes;
        self.strange_messages += 1;
        let fits = self.strange_bytes <= self.limits.unauthenticated_bytes_max
            && self.strange_messages <= self.limits.unauthenticated_messages_max;
        if !fits {
            self.closing = true;
            effects.push(Effect::Close { code: close::LIMIT, reason: "too much before authentication" });
        }
        fits
    }

    fn hear_one(&mut self, frame: &Bytes, effects: &mut Vec<Effect>) {
        let Ok((address, message)) = decode(self.dialect, frame) else {
            self.closing = true;
            let reason = if frame.is_empty() { "empty message" } else { "malformed message" };
            return effects.push(Effect::Close { code: close::MALFORMED, reason });
        };
        let input = match message {
            Incoming::Step1(state_vector) => Input::Step1(state_vector),
            Incoming::Step2(update) => Input::Step2(update),
            Incoming::Update(update) => Input::Update(update),
            Incoming::Awareness(update) => Input::Awareness(update),
            Incoming::QueryAwareness => Input::QueryAwareness,
            Incoming::Mark(payload) => Input::Mark(payload),
            Incoming::Ping => return effects.push(Effect::Pong),
            Incoming::Token { token, has_version } => {
                return effects.extend(self.hear_token(address, token, has_version));
            }
            Incoming::Detach => return effects.extend(self.hear_detach(address)),
            Incoming::Ignored => return,
        };
        self.hear_input(address, input, effects);
    }

    /// Hocuspocus: the document that a message names which is too large is refused, and no other.
    fn hear_too_large(&mut self, begins: &Bytes, effects: &mut Vec<Effect>) {
        let (code, reason) = (close::TOO_LARGE, "message too large (step2_bytes_max)");
        match address_of(begins) {
            Some(address) if self.channels.get(&address).is_some_and(|channel| channel.phase == Phase::Joined) => {
                self.hear_input(address, Input::TooLarge, effects);
            }
            Some(address) => effects.extend(self.refuse_with(address, code, reason)),
            None => {
                self.closing = true;
                effects.push(Effect::Close { code, reason });
            }
        }
    }

    fn hear_input(&mut self, address: Bytes, input: Input, effects: &mut Vec<Effect>) {
        if !self.channels.contains_key(&address) {
            if self.channels.len() >= self.limits.documents_per_connection_max {
                return; // its token is refused, or was
            }
            self.channels.insert(address.clone(), Channel::new());
        }
        let size = size_of(&input);
        let has_open = self.joined_channels().next().is_some();
        let Some(channel) = self.channels.get_mut(&address) else { return };
        if channel.phase == Phase::Joined {
            return match effects.last_mut() {
                Some(Effect::Deliver { address: last, inputs }) if *last == address => inputs.push(input),
                _ => effects.push(Effect::Deliver { address, inputs: vec![input] }),
            };
        }
        let fits = self.early_bytes + size <= self.limits.unauthenticated_bytes_max
            && self.early_messages < self.limits.unauthenticated_messages_max;
        match channel.phase {
            _ if fits => {
                channel.early.push(input);
                self.early_bytes += size;
                self.early_messages += 1;
            }
            // What is refused may go on talking. What does not fit is asked for again, should it be let in.
            Phase::Refused(_) => {}
            // Documents beside it are not disturbed.
            Phase::Waiting | Phase::Opening(_) if has_open => {
                effects.extend(self.refuse_with(address, close::LIMIT, "too much before authentication"));
            }
            _ => {
                self.closing = true;
                effects.push(Effect::Close { code: close::LIMIT, reason: "too much before authentication" });
            }
        }
    }

    fn hear_token(&mut self, address: Bytes, token: String, has_version: bool) -> Vec<Effect> {
        let is_known = self.channels.contains_key(&address);
        if !is_known && self.channels.len() >= self.limits.documents_per_connection_max {
            let (code, reason) = (close::LIMIT, "too many documents on this connection (documents_per_connection_max)");
            return vec![Effect::Refuse { address, attachment: 0, token: Some(token), code, reason }];
        }
        let channel = self.channels.entry(address.clone()).or_insert_with(Channel::new);
        channel.has_version = has_version;
        match channel.phase {
            Phase::Joined => self.renew(address, token),
            Phase::Opening(_) => {
                channel.next_token = Some(token);
                Vec::new()
            }
            Phase::Waiting | Phase::Refused(_) => {
                channel.token = Some(token);
                channel.room = room::parse(name_of(&address).unwrap_or_default());
                self.open(address)
            }
        }
    }

    fn hear_detach(&mut self, address: Bytes) -> Vec<Effect> {
        let Some(channel) = self.channels.remove(&address) else { return Vec::new() };
        self.release(&channel.early);
        let mut effects = Vec::new();
        if channel.phase == Phase::Joined {
            effects.push(Effect::Leave { address: address.clone() });
        }
        if channel.has_version {
            effects.push(Effect::Detached { address });
        }
        effects
    }

    fn open(&mut self, address: Bytes) -> Vec<Effect> {
        let attachment = self.fresh_attachment();
        let Some(channel) = self.channels.get_mut(&address) else { return Vec::new() };
        let room = match channel.room.clone() {
            Ok(room) => room,
            Err(why) => return self.refuse(address, &AccessDenied::BadName(why)),
        };
        channel.phase = Phase::Opening(attachment);
        let (token, knows_close) = (channel.token.clone(), channel.has_version);
        vec![Effect::Open { address, token, room, attachment, knows_close }]
    }

    fn renew(&self, address: Bytes, token: String) -> Vec<Effect> {
        let room = self.channels.get(&address).and_then(|channel| channel.room.clone().ok());
        room.map(|room| Effect::Renew { address, token, room }).into_iter().collect()
    }

    /// What stands in the way passes. Where no other document is open on the connection the client comes back by itself; else the server tries
    /// again, because no message tells a provider to do so for one document.
    fn put_off(&mut self, address: &Bytes, why: &AccessDenied) -> Vec<Effect> {
        if self.dialect != Dialect::Hocuspocus || self.joined_channels().next().is_none() {
            self.closing = true;
            let reason = match why {
                AccessDenied::Full => "too many connections of this document",
                _ => "try again later",
            };
            return vec![Effect::Close { code: close::TRY_AGAIN_LATER, reason }];
        }
        let Some(channel) = self.channels.get_mut(address) else { return Vec::new() };
        let Phase::Opening(attachment) = channel.phase else { return Vec::new() };
        let after = Duration::from_secs(1 << channel.attempts.min(5)).min(TRY_AGAIN_MAX);
        channel.attempts += 1;
        vec![Effect::OpenLater { address: address.clone(), attachment, after }]
    }

    fn refuse(&mut self, address: Bytes, why: &AccessDenied) -> Vec<Effect> {
        let (code, reason) = match why {
            AccessDenied::BadToken => (close::UNAUTHORIZED, "permission-denied"),
            AccessDenied::NoSuchDocument | AccessDenied::Deleted => (close::NOT_FOUND, "no such document"),
            AccessDenied::MayNotCreate => (close::FORBIDDEN, "permission-denied"),
            AccessDenied::NoSuchProject => (close::NOT_FOUND, "no such project"),
            AccessDenied::BadName(why) => (close::NOT_FOUND, why.text()),
            AccessDenied::Full | AccessDenied::Unavailable => (close::TRY_AGAIN_LATER, "try again later"),
        };
        self.refuse_with(address, code, reason)
    }

    fn refuse_with(&mut self, address: Bytes, code: u16, reason: &'static str) -> Vec<Effect> {
        let attachment = self.fresh_attachment();
        let Some(channel) = self.channels.get_mut(&address) else { return Vec::new() };
        channel.phase = Phase::Refused(attachment);
        let token = channel.token.clone();
        vec![Effect::Refuse { address, attachment, token, code, reason }]
    }

    fn parse(&self, room: &str) -> Result<RoomName, NameRefused> {
        match self.dialect {
            Dialect::YSweet => room::parse_in_default_project(room),
            _ => room::parse(room),
        }
    }

    fn release(&mut self, early: &[Input]) {
        self.early_messages -= early.len();
        self.early_bytes -= early.iter().map(size_of).sum::<usize>();
    }

    fn fresh_attachment(&mut self) -> u32 {
        self.next_attachment += 1;
        self.next_attachment
    }
}

impl Channel {
    fn new() -> Self {
        Self {
            phase: Phase::Waiting,
            room: Err(NameRefused::Blank),
            early: Vec::new(),
            token: None,
            has_version: false,
            next_token: None,
            was_open: false,
            attempts: 0,
        }
    }
}

fn size_of(input: &Input) -> usize {
    match input {
        Input::Step1(bytes)
        | Input::Step2(bytes)
        | Input::Update(bytes)
        | Input::Awareness(bytes)
        | Input::Mark(bytes) => bytes.len(),
        Input::QueryAwareness | Input::TooLarge => 0,
    }
}
