//! A WebSocket client's frames (RFC 6455), and the server's side that the relay needs.
//!
//! Written by hand because a generator with 4,000 connections and 50,000 frames a second on one core can afford
//! neither a buffer per connection nor a copy per frame. Masks are zero: a legal key that costs neither side anything
//! to write, and the server the same work to remove. No extension is offered, so no frame is compressed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message before it.
    Continuation,
    /// A message of text.
    Text,
    /// A message of bytes.
    Binary,
    /// The end, with an optional code.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// Who writes a frame: clients mask, servers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Masked, with a key of zeroes.
    Client,
    /// Bare.
    Server,
}

/// Appends one complete frame.
pub fn put_frame(out: &mut Vec<u8>, side: Side, opcode: Opcode, payload: &[u8]) {
    let mask_bit = if side == Side::Client { 0x80 } else { 0 };
    out.push(0x80 | opcode.bits());
    match payload.len() {
        length @ 0..=125 => out.push(mask_bit | length as u8),
        length @ 126..=0xffff => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if side == Side::Client {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

/// Why a peer's bytes are not WebSocket.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Reserved bits are set: an extension that nobody agreed to, or not a frame at all.
    #[error("the peer set reserved bits or an unknown opcode in a frame")]
    Unknown,
    /// Larger than anything a scenario expects.
    #[error("the peer announced a message of {0} bytes")]
    TooLarge(u64),
}

/// The largest message taken: a document of a durability run fits many times.
const MESSAGE_BYTES_MAX: u64 = 256 << 20;

/// Cuts a byte stream into frames. Keeps only what is incomplete.
#[derive(Default, Debug)]
pub struct Frames {
    partial: Vec<u8>,
    message: Vec<u8>,
    message_opcode: Option<Opcode>,
}

impl Frames {
    /// Takes what arrived and calls `each` once per whole message or control frame.
    pub fn feed(&mut self, arrived: &[u8], mut each: impl FnMut(Opcode, &[u8])) -> Result<(), FrameError> {
        if self.partial.is_empty() {
            let used = self.cut(arrived, &mut each)?;
            self.partial.extend_from_slice(&arrived[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(arrived);
        let used = self.cut(&joined, &mut each)?;
        joined.drain(..used);
        // An idle connection owns no buffer: 4,000 of them would otherwise be the generator's memory.
        if !joined.is_empty() {
            self.partial = joined;
        }
        Ok(())
    }

    fn cut(&mut self, bytes: &[u8], each: &mut impl FnMut(Opcode, &[u8])) -> Result<usize, FrameError> {
        let mut used = 0;
        while let Some(header) = Header::parse(&bytes[used..])? {
            let start = used + header.length;
            let Some(body) = bytes.get(start..start + header.payload) else { break };
            used = start + header.payload;
            match header.mask {
                Some(key) if key != [0; 4] => {
                    let plain: Vec<u8> = body.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
                    self.hand_over(&header, &plain, each)?;
                }
                _ => self.hand_over(&header, body, each)?,
            }
        }
        Ok(used)
    }

    fn hand_over(
        &mut self,
        header: &Header,
        body: &[u8],
        each: &mut impl FnMut(Opcode, &[u8]),
    ) -> Result<(), FrameError> {
        match (header.opcode, header.last) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => each(header.opcode, body),
            (Opcode::Continuation, last) => {
                let whole = (self.message.len() + body.len()) as u64;
                if whole > MESSAGE_BYTES_MAX {
                    return Err(FrameError::TooLarge(whole));
                }
                self.message.extend_from_slice(body);
                if last {
                    let message = std::mem::take(&mut self.message);
                    each(self.message_opcode.take().unwrap_or(Opcode::Binary), &message);
                }
            }
            (opcode, true) => each(opcode, body),
            (opcode, false) => {
                self.message_opcode = Some(opcode);
                self.message = body.to_vec();
            }
        }
        Ok(())
    }
}

struct Header {
    opcode: Opcode,
    last: bool,
    mask: Option<[u8; 4]>,
    /// Of the header itself, in bytes.
    length: usize,
    payload: usize,
}

impl Header {
    /// `None` while the header is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Unknown);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::Unknown)?;
        let (payload, mut length) = match second & 0x7f {
            126 => match bytes.get(2..4) {
                Some(size) => (u64::from(u16::from_be_bytes([size[0], size[1]])), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|size| size.try_into().ok()) {
                Some(size) => (u64::from_be_bytes(size), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if payload > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLarge(payload));
        }
        let mask = if second & 0x80 != 0 {
            let Some(key) = bytes.get(length..length + 4).and_then(|key| key.try_into().ok()) else { return Ok(None) };
            length += 4;
            Some(key)
        } else {
            None
        };
        Ok(Some(Self { opcode, last: first & 0x80 != 0, mask, length, payload: payload as usize }))
    }
}

/// The code of a close frame's payload; 1005 where there is none.
pub fn close_code(payload: &[u8]) -> u16 {
    match payload {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 1005,
    }
}

/// `Sec-WebSocket-Accept` for a key.
pub fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(frames: &mut Frames, bytes: &[u8]) -> Vec<(Opcode, Vec<u8>)> {
        let mut heard = Vec::new();
        frames.feed(bytes, |opcode, payload| heard.push((opcode, payload.to_vec()))).unwrap();
        heard
    }

    #[test]
    fn the_accept_key_is_that_of_the_standard() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_of_every_size_arrive_whole_however_they_are_cut() {
        for side in [Side::Client, Side::Server] {
            let mut stream = Vec::new();
            let sizes = [0, 1, 125, 126, 65_535, 65_536];
            for size in sizes {
                put_frame(&mut stream, side, Opcode::Binary, &vec![7; size]);
            }
            for cut in [1, 3, 1000, stream.len()] {
                let mut frames = Frames::default();
                let heard: Vec<_> = stream.chunks(cut).flat_map(|part| messages(&mut frames, part)).collect();
                assert_eq!(heard.iter().map(|(_, body)| body.len()).collect::<Vec<_>>(), sizes, "cut at {cut}");
                assert!(frames.partial.is_empty());
            }
        }
    }

    #[test]
    fn a_mask_is_taken_off_and_a_fragmented_message_joined() {
        let mut frames = Frames::default();
        let masked = [0x82, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3];
        assert_eq!(messages(&mut frames, &masked), [(Opcode::Binary, b"abc".to_vec())]);
        let parts = [0x02, 2, b'a', b'b', 0x89, 1, b'!', 0x80, 1, b'c'];
        assert_eq!(
            messages(&mut frames, &parts),
            [(Opcode::Ping, b"!".to_vec()), (Opcode::Binary, b"abc".to_vec())],
            "a ping between two fragments belongs to neither"
        );
    }

    #[test]
    fn what_nobody_agreed_to_is_refused() {
        let refused = |bytes: &[u8]| Frames::default().feed(bytes, |_, _| {}).unwrap_err();
        assert_eq!(refused(&[0xc2, 0]), FrameError::Unknown);
        assert_eq!(refused(&[0x83, 0]), FrameError::Unknown);
        assert_eq!(refused(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]), FrameError::TooLarge(1 << 40));
    }
}
