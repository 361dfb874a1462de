//! Bytes of a peer into whole messages, under limits. Pure: no socket, no clock.
//!
//! `actix_http::ws::Codec` decodes one frame, but waits for the whole of a frame before it looks at the length that was
//! claimed, and passes continuations on without counting. Both are done here, so that nobody makes the server hold more
//! than one message of the allowed size.

use super::socket::READ_BYTES_MAX;
use actix_http::ws::{Codec, Frame as Decoded, Item};
use bytes::{Buf as _, Bytes, BytesMut};
use contextnexus_actors::causes::Cause;
use contextnexus_actors::document::close;
use contextnexus_actors::protocol::frame::CONTROL_PAYLOAD_MAX;
use contextnexus_actors::session::messages::ClientMessage;
use tokio_util::codec::Decoder as _;

/// The last frame of a message has this bit (RFC 6455, 5.2).
const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0F;
/// Kept of how a message begins that is too large: the name of a document is shorter.
const BEGINS_BYTES: usize = 1_024;
/// A payload up to this is copied out of the read buffer, because a kept slice of it would keep the whole buffer.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// Pieces of one message. Honest clients make one; libraries that stream make one per write.
const FRAGMENTS_MAX: usize = 4_096;

/// What a peer sent.
#[derive(Clone, Debug)]
pub enum Event {
    /// A whole message.
    Message(ClientMessage),
    /// Wants a pong with this payload.
    Ping(Bytes),
    /// Lives.
    Pong,
    /// Goes, with this code if it named one.
    Close(Option<u16>),
}

/// Why a peer is read no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A message larger than allowed.
    #[error("message too large (step2_bytes_max)")]
    TooBig,
    /// Not WebSocket as RFC 6455 has it.
    #[error("protocol error")]
    Invalid,
    /// More than a stranger may send.
    #[error("too much before authentication")]
    Strange,
    /// The node holds as much of what has not come whole as it can.
    #[error("server is busy")]
    Busy,
}

impl Refusal {
    /// The close code: of RFC 6455, but for what is too large, which would be sent again after 1009.
    pub fn code(self) -> u16 {
        match self {
            Self::TooBig => close::TOO_LARGE,
            Self::Invalid => 1002,
            Self::Strange => close::LIMIT,
            Self::Busy => 1013,
        }
    }

    /// At which level it is logged: what anybody without an account can cause fills no log.
    pub fn cause(self) -> Cause {
        match self {
            Self::Invalid | Self::Strange => Cause::Client,
            Self::TooBig => Cause::Ended,
            Self::Busy => Cause::Busy,
        }
    }

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooBig => "too_big",
            Self::Invalid => "invalid",
            Self::Strange => "strange",
            Self::Busy => "busy",
        }
    }
}

/// The incoming half of one connection.
#[derive(Debug)]
pub struct Reader {
    codec: Codec,
    buffer: BytesMut,
    /// Something was taken from the front of the buffer, whose memory is still there, or belongs to a message by now.
    is_worn: bool,
    fragments: Option<Fragments>,
    message_bytes_max: usize,
    /// What a message that is too large begins with is told, and the rest of it is read past; otherwise it is a refusal.
    reads_past: bool,
    past: Option<Past>,
}

/// A message that is too large, and is not kept.
#[derive(Debug)]
struct Past {
    begins: Bytes,
    /// Bytes of its current frame that are still to come.
    remaining: usize,
    is_last: bool,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    bytes: BytesMut,
    count: usize,
    length: usize,
}

impl Reader {
    /// For messages up to that many bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            codec: Codec::new().max_size(message_bytes_max),
            buffer: BytesMut::new(),
            is_worn: false,
            fragments: None,
            message_bytes_max,
            reads_past: false,
            past: None,
        }
    }

    /// From now on messages may have so many bytes.
    pub fn allow(&mut self, message_bytes_max: usize) {
        if self.message_bytes_max != message_bytes_max {
            self.message_bytes_max = message_bytes_max;
            self.codec = std::mem::take(&mut self.codec).max_size(message_bytes_max);
        }
    }

    /// From now on a message that is too large does not end the connection: it is told by how it begins, once all of it has gone by.
    pub fn read_past(&mut self) {
        self.reads_past = true;
    }

    /// Takes bytes in, as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        let needed = self.buffer.len() + bytes.len();
        if self.is_worn || needed > self.buffer.capacity() {
            let mut grown = BytesMut::with_capacity(self.room_for(needed));
            grown.extend_from_slice(&self.buffer);
            self.buffer = grown;
            self.is_worn = false;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Memory for so many bytes: what the first ones take, then twice that, but no more than the frame at the front takes in the end.
    fn room_for(&self, needed: usize) -> usize {
        let whole = match claimed(&self.buffer) {
            _ if self.buffer.is_empty() => return needed,
            Claim::Frame { header, payload, .. } if self.past.is_none() => header.saturating_add(payload),
            _ => 0,
        };
        needed.max((2 * needed).min(whole.max(READ_BYTES_MAX)))
    }

    /// The next thing the peer sent, `None` when more bytes are needed. After a refusal nothing follows, except that a message which was too
    /// large may be asked for again under a [larger limit](Self::allow).
    pub fn next(&mut self) -> Result<Option<Event>, Refusal> {
        loop {
            if self.past.is_some() && !self.pass_by()? {
                return Ok(None);
            }
            if let Some(past) = self.past.take_if(|past| past.remaining == 0 && past.is_last) {
                return Ok(Some(Event::Message(ClientMessage::TooLarge(past.begins))));
            }
            let used: usize = self.fragments.as_ref().map_or(0, |fragments| fragments.length);
            match claimed(&self.buffer) {
                // The codec would wait for all of it, however much that is.
                Claim::Frame { is_control: true, payload, .. } if payload > CONTROL_PAYLOAD_MAX => {
                    return Err(Refusal::Invalid);
                }
                Claim::Frame { is_control: false, header, payload }
                    if payload > self.message_bytes_max.saturating_sub(used) =>
                {
                    if !self.reads_past {
                        return Err(Refusal::TooBig);
                    }
                    if self.buffer.len() < header + payload.min(BEGINS_BYTES) {
                        return Ok(None);
                    }
                    self.give_up(header, payload);
                    continue;
                }
                Claim::Frame { header, payload, .. } if self.buffer.len() < header + payload => return Ok(None),
                Claim::Partial => return Ok(None),
                Claim::Frame { .. } | Claim::Broken => {}
            }
            self.is_worn = true;
            let Some(decoded) = self.codec.decode(&mut self.buffer).map_err(|_| Refusal::Invalid)? else {
                return Ok(None);
            };
            if let Some(event) = self.event(decoded)? {
                return Ok(Some(event));
            }
        }
    }

    /// A message has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        self.fragments.is_some() || self.past.is_some() || !self.buffer.is_empty()
    }

    /// The next frame is a close frame.
    pub fn is_at_close(&self) -> bool {
        self.buffer.first().is_some_and(|first| first & 0x0F == 0x08)
    }

    /// Memory held for what is not whole, after [`release`](Self::release).
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.capacity())
    }

    /// Gives back what is not needed for the bytes that are held: most connections are idle most of the time.
    pub fn release(&mut self) {
        if self.is_worn {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.is_worn = false;
        }
    }

    /// The data frame at the front makes its message too large: keeps how it begins, and nothing else of it.
    fn give_up(&mut self, header: usize, payload: usize) {
        let is_last = self.buffer[0] & FIN != 0;
        let begins = match self.fragments.take() {
            Some(fragments) if !fragments.bytes.is_empty() => {
                Bytes::copy_from_slice(&fragments.bytes[..fragments.bytes.len().min(BEGINS_BYTES)])
            }
            _ => {
                let (mask, content) = (&self.buffer[header - 4..header], &self.buffer[header..]);
                content
                    .iter()
                    .zip(mask.iter().cycle())
                    .take(payload.min(BEGINS_BYTES))
                    .map(|(byte, key)| byte ^ key)
                    .collect()
            }
        };
        self.is_worn = true;
        self.buffer.advance(header);
        self.past = Some(Past { begins, remaining: payload, is_last });
    }

    /// Discards what has come of a message that is too large. True: something else is at the front now, or the message is over.
    fn pass_by(&mut self) -> Result<bool, Refusal> {
        self.is_worn = true;
        while let Some(past) = &mut self.past {
            let here = past.remaining.min(self.buffer.len());
            self.buffer.advance(here);
            past.remaining -= here;
            if past.remaining > 0 {
                return Ok(false);
            }
            if past.is_last {
                // It may have known of a message in pieces.
                self.codec = Codec::new().max_size(self.message_bytes_max);
                return Ok(true);
            }
            match claimed(&self.buffer) {
                Claim::Frame { is_control: false, header, payload } => {
                    if self.buffer.len() < header {
                        return Ok(false);
                    }
                    if self.buffer[0] & OPCODE != 0 {
                        return Err(Refusal::Invalid); // only its next piece, or a control frame, may come
                    }
                    past.is_last = self.buffer[0] & FIN != 0;
                    past.remaining = payload;
                    self.buffer.advance(header);
                }
                Claim::Frame { is_control: true, .. } => return Ok(true),
                Claim::Partial | Claim::Broken => return Ok(true),
            }
        }
        Ok(true)
    }

    fn event(&mut self, decoded: Decoded) -> Result<Option<Event>, Refusal> {
        Ok(Some(match decoded {
            Decoded::Binary(payload) => Event::Message(ClientMessage::Binary(own(payload))),
            Decoded::Text(text) => Event::Message(ClientMessage::Text(text.len())),
            Decoded::Ping(payload) => Event::Ping(own(payload)),
            Decoded::Pong(_) => Event::Pong,
            Decoded::Close(reason) => Event::Close(reason.map(|reason| reason.code.into())),
            Decoded::Continuation(Item::FirstText(piece)) => return self.begin(true, &piece),
            Decoded::Continuation(Item::FirstBinary(piece)) => return self.begin(false, &piece),
            Decoded::Continuation(Item::Continue(piece)) => return self.go_on(&piece).map(|()| None),
            Decoded::Continuation(Item::Last(piece)) => {
                self.go_on(&piece)?;
                match self.fragments.take() {
                    Some(Fragments { is_text: false, bytes, .. }) => {
                        let mut bytes = Vec::from(bytes);
                        bytes.shrink_to_fit();
                        Event::Message(ClientMessage::Binary(bytes.into()))
                    }
                    Some(Fragments { length, .. }) => Event::Message(ClientMessage::Text(length)),
                    None => Event::Message(ClientMessage::Text(0)), // the codec refuses it before
                }
            }
        }))
    }

    fn begin(&mut self, is_text: bool, piece: &[u8]) -> Result<Option<Event>, Refusal> {
        self.fragments = Some(Fragments { is_text, bytes: BytesMut::new(), count: 0, length: 0 });
        self.go_on(piece).map(|()| None)
    }

    fn go_on(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let Some(fragments) = &mut self.fragments else {
            return Err(Refusal::Invalid); // the codec refuses it before
        };
        fragments.count += 1;
        fragments.length += piece.len();
        if fragments.length > self.message_bytes_max || fragments.count > FRAGMENTS_MAX {
            return Err(Refusal::TooBig);
        }
        if !fragments.is_text {
            // No dialect reads text: it is counted, not kept.
            let needed = fragments.length;
            if needed > fragments.bytes.capacity() {
                let more = if fragments.bytes.is_empty() { needed } else { (2 * needed).min(self.message_bytes_max) };
                let mut grown = BytesMut::with_capacity(needed.max(more));
                grown.extend_from_slice(&fragments.bytes);
                fragments.bytes = grown;
            }
            fragments.bytes.extend_from_slice(piece);
        }
        Ok(())
    }
}

enum Claim {
    /// The header is not whole.
    Partial,
    /// The codec refuses it by its first two bytes.
    Broken,
    /// A frame of this size.
    Frame { is_control: bool, header: usize, payload: usize },
}

/// What the header at the front of `bytes` says (RFC 6455, 5.2).
fn claimed(bytes: &[u8]) -> Claim {
    const RESERVED: u8 = 0x70;
    const CONTROL: u8 = 0x08;
    const MASKED: u8 = 0x80;
    const MASK_BYTES: usize = 4;
    let &[first, second, ..] = bytes else {
        return Claim::Partial;
    };
    if first & RESERVED != 0 || second & MASKED == 0 {
        return Claim::Broken;
    }
    let (header, payload) = match second & 0x7F {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Claim::Partial,
        },
        127 => match bytes.get(2..10).and_then(|length| <[u8; 8]>::try_from(length).ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX)),
            None => return Claim::Partial,
        },
        short => (2, usize::from(short)),
    };
    Claim::Frame { is_control: first & CONTROL != 0, header: header + MASK_BYTES, payload }
}

fn own(payload: Bytes) -> Bytes {
    if payload.len() > COPY_BYTES_MAX { payload } else { Bytes::copy_from_slice(&payload) }
}

#[cfg(test)]
mod tests;
