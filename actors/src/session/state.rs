//! What a session decides: which document a message belongs to, what may come before a token, and when enough is enough. Pure.

use crate::document::close;
use crate::document::messages::Input;
use crate::limits::Limits;
use crate::ports::authority::{AccessDenied, RoomName};
use crate::protocol::Dialect;
use crate::protocol::codec::{Incoming, decode, name_of};
use crate::room;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// One connection's documents. A and C have one, under the empty address; B has as many as it names.
#[derive(Debug)]
pub struct SessionState {
    dialect: Dialect,
    limits: Arc<Limits>,
    channels: HashMap<Bytes, Channel>,
    /// Bytes and messages that wait for a token to be checked.
    unauthenticated_bytes: usize,
    unauthenticated_messages: usize,
    next_attachment: u32,
    closing: bool,
}

#[derive(Debug)]
enum Channel {
    /// B: no token yet.
    Waiting(Vec<Input>),
    /// The token is being checked.
    Opening(Vec<Input>),
    /// Attached.
    Joined,
    /// Refused; in B a new token opens it again.
    Refused,
}

/// What the session wants done, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check the token (A and C: the one of the upgrade), open the room, join its document.
    Open {
        /// The channel.
        address: Bytes,
        /// B: from the message.
        token: Option<String>,
        /// The room.
        room: RoomName,
        /// Names the attachment.
        attachment: u32,
    },
    /// Hand on to the document.
    Deliver {
        /// The channel.
        address: Bytes,
        /// In order.
        inputs: Vec<Input>,
    },
    /// B: say that the channel is open, and with what right.
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
    /// B: say that the document was detached because the client asked.
    Detached {
        /// The channel.
        address: Bytes,
    },
    /// Refuse for good: in B this channel, in A and C the connection. Slowly, for clients that retry whatever they are told.
    Refuse {
        /// The channel.
        address: Bytes,
        /// Close code.
        code: u16,
        /// Lower case, no content.
        reason: &'static str,
    },
    /// B: answer a ping.
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
            unauthenticated_bytes: 0,
            unauthenticated_messages: 0,
            next_attachment: 0,
            closing: false,
        }
    }

    /// A and C: the path names the room, and the upgrade brought the token.
    pub fn opened(&mut self, room: &str) -> Vec<Effect> {
        let address = Bytes::new();
        let parsed = match self.dialect {
            Dialect::YSweet => room::parse_in_default_project(room),
            _ => room::parse(room),
        };
        match parsed {
            Some(room) => {
                self.channels.insert(address.clone(), Channel::Opening(Vec::new()));
                let attachment = self.fresh_attachment();
                vec![Effect::Open { address, token: None, room, attachment }]
            }
            None => self.refuse(address, &AccessDenied::BadName),
        }
    }

    /// Frames of the peer, in order. Consecutive messages for one document are handed on together.
    pub fn hear(&mut self, frames: impl IntoIterator<Item = Bytes>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for frame in frames {
            if self.closing {
                break;
            }
            self.hear_one(&frame, &mut effects);
        }
        effects
    }

    /// The token was good, and the document let the connection in. What came meanwhile follows.
    pub fn joined(&mut self, address: &Bytes, may_write: bool) -> Vec<Effect> {
        let Some(channel) = self.channels.get_mut(address) else {
            return vec![Effect::Leave { address: address.clone() }]; // the client detached meanwhile
        };
        let early = match std::mem::replace(channel, Channel::Joined) {
            Channel::Opening(early) => early,
            _ => Vec::new(),
        };
        self.release(&early);
        let mut effects = Vec::new();
        if self.dialect == Dialect::Hocuspocus {
            effects.push(Effect::Authenticated { address: address.clone(), may_write });
        }
        if !early.is_empty() {
            effects.push(Effect::Deliver { address: address.clone(), inputs: early });
        }
        effects
    }

    /// The token was not good, or the room not to be had.
    pub fn denied(&mut self, address: &Bytes, why: &AccessDenied) -> Vec<Effect> {
        if let Some(Channel::Opening(early)) = self.channels.remove(address) {
            self.release(&early);
        }
        self.refuse(address.clone(), why)
    }

    /// The document let go of the channel by itself (a right ended, a message was malformed).
    pub fn detached(&mut self, address: &Bytes) {
        self.channels.insert(address.clone(), Channel::Refused);
    }

    /// Nothing was authenticated in time.
    pub fn is_unauthenticated(&self) -> bool {
        !self.channels.values().any(|channel| matches!(channel, Channel::Joined | Channel::Opening(_)))
    }

    /// Bytes that wait for a token to be checked.
    pub fn unauthenticated_bytes(&self) -> usize {
        self.unauthenticated_bytes
    }

    /// The attached channels.
    pub fn joined_channels(&self) -> impl Iterator<Item = &Bytes> {
        self.channels.iter().filter(|(_, channel)| matches!(channel, Channel::Joined)).map(|(address, _)| address)
    }

    fn hear_one(&mut self, frame: &Bytes, effects: &mut Vec<Effect>) {
        let Ok((address, message)) = decode(self.dialect, frame) else {
            self.closing = true;
            let (code, reason) = match frame.is_empty() {
                true => (close::UNAUTHORIZED, "empty message"),
                false => (close::MALFORMED, "malformed message"),
            };
            return effects.push(Effect::Close { code, reason });
        };
        let input = match message {
            Incoming::Step1(state_vector) => Input::Step1(state_vector),
            Incoming::Step2(update) => Input::Step2(update),
            Incoming::Update(update) => Input::Update(update),
            Incoming::Awareness(update) => Input::Awareness(update),
            Incoming::QueryAwareness => Input::QueryAwareness,
            Incoming::Mark(payload) => Input::Mark(payload),
            Incoming::Ping => return effects.push(Effect::Pong),
            Incoming::Token { token, .. } => return effects.extend(self.hear_token(address, token)),
            Incoming::Detach => return effects.extend(self.hear_detach(address)),
            Incoming::Ignored => return,
        };
        self.hear_input(address, input, effects);
    }

    fn hear_input(&mut self, address: Bytes, input: Input, effects: &mut Vec<Effect>) {
        let known = self.channels.contains_key(&address);
        if !known {
            if self.channels.len() >= self.limits.documents_per_connection_max {
                self.closing = true;
                return effects.push(Effect::Close { code: close::LIMIT, reason: "too many documents" });
            }
            self.channels.insert(address.clone(), Channel::Waiting(Vec::new()));
        }
        let size = size_of(&input);
        let Some(channel) = self.channels.get_mut(&address) else { return };
        match channel {
            Channel::Waiting(early) | Channel::Opening(early) => {
                early.push(input);
                self.unauthenticated_bytes += size;
                self.unauthenticated_messages += 1;
                // While a token is being checked the socket is read no further than this either.
                if self.unauthenticated_bytes > self.limits.unauthenticated_bytes_max.max(self.limits.update_bytes_max)
                    || self.unauthenticated_messages > self.limits.unauthenticated_messages_max
                {
                    self.closing = true;
                    effects.push(Effect::Close { code: close::LIMIT, reason: "too much before authentication" });
                }
            }
            Channel::Joined => match effects.last_mut() {
                Some(Effect::Deliver { address: last, inputs }) if *last == address => inputs.push(input),
                _ => effects.push(Effect::Deliver { address, inputs: vec![input] }),
            },
            Channel::Refused => {}
        }
    }

    fn hear_token(&mut self, address: Bytes, token: String) -> Vec<Effect> {
        let early = match self.channels.remove(&address) {
            Some(Channel::Waiting(early)) => early,
            Some(Channel::Refused) | None => Vec::new(),
            Some(attached) => {
                // A token again (it was refreshed): what is open stays open, under the right it was opened with.
                self.channels.insert(address, attached);
                return Vec::new();
            }
        };
        if self.channels.len() >= self.limits.documents_per_connection_max {
            self.closing = true;
            return vec![Effect::Close { code: close::LIMIT, reason: "too many documents" }];
        }
        let Some(room) = name_of(&address).and_then(room::parse) else {
            self.release(&early);
            return self.refuse(address, &AccessDenied::BadName);
        };
        self.channels.insert(address.clone(), Channel::Opening(early));
        let attachment = self.fresh_attachment();
        vec![Effect::Open { address, token: Some(token), room, attachment }]
    }

    fn hear_detach(&mut self, address: Bytes) -> Vec<Effect> {
        match self.channels.remove(&address) {
            Some(Channel::Joined) => {
                vec![Effect::Leave { address: address.clone() }, Effect::Detached { address }]
            }
            Some(Channel::Waiting(early) | Channel::Opening(early)) => {
                self.release(&early);
                vec![Effect::Detached { address }]
            }
            Some(Channel::Refused) | None => vec![Effect::Detached { address }],
        }
    }

    fn refuse(&mut self, address: Bytes, why: &AccessDenied) -> Vec<Effect> {
        self.channels.insert(address.clone(), Channel::Refused);
        let (code, reason) = match why {
            AccessDenied::BadToken => (close::UNAUTHORIZED, "permission-denied"),
            AccessDenied::NoSuchDocument | AccessDenied::Deleted => (close::NOT_FOUND, "no such document"),
            AccessDenied::MayNotCreate => (close::FORBIDDEN, "permission-denied"),
            AccessDenied::BadName => (close::NOT_FOUND, "not a document name"),
            AccessDenied::Full => (close::LIMIT, "too many connections of this document"),
            AccessDenied::Unavailable => {
                self.closing = true; // not a refusal: the client comes back by itself
                return vec![Effect::Close { code: close::TRY_AGAIN_LATER, reason: "try again later" }];
            }
        };
        vec![Effect::Refuse { address, code, reason }]
    }

    fn release(&mut self, early: &[Input]) {
        self.unauthenticated_messages -= early.len();
        self.unauthenticated_bytes -= early.iter().map(size_of).sum::<usize>();
    }

    fn fresh_attachment(&mut self) -> u32 {
        self.next_attachment += 1;
        self.next_attachment
    }
}

fn size_of(input: &Input) -> usize {
    match input {
        Input::Step1(bytes)
        | Input::Step2(bytes)
        | Input::Update(bytes)
        | Input::Awareness(bytes)
        | Input::Mark(bytes) => bytes.len(),
        Input::QueryAwareness => 0,
    }
}
