//! Finished WebSocket frames (RFC 6455) of a server: not masked, so that one encoding serves every receiver.
//!
//! The reading side belongs to the socket pump, which has a library for it; what stands here needs none.

use bytes::{BufMut, Bytes, BytesMut};

const FIN: u8 = 0x80;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The payload of a control frame is not longer than this.
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// A binary message.
pub fn server_frame(payload: &[u8]) -> Bytes {
    server_frame_of(&[payload])
}

/// A binary message whose payload is `parts`, one after the other: an envelope and its content without a copy in between.
pub fn server_frame_of(parts: &[&[u8]]) -> Bytes {
    frame(BINARY, parts)
}

/// A close frame: the last frame of a connection. A reason that does not fit is cut at a character.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_MAX - 2)];
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()])
}

/// A close frame without a code, the answer to one without.
pub fn close_frame_empty() -> Bytes {
    frame(CLOSE, &[])
}

/// A ping; what is longer than a control frame may be is cut.
pub fn ping_frame(payload: &[u8]) -> Bytes {
    frame(PING, &[&payload[..payload.len().min(CONTROL_PAYLOAD_MAX)]])
}

/// The answer to a ping with that payload.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(PONG, &[&payload[..payload.len().min(CONTROL_PAYLOAD_MAX)]])
}

/// Whether a finished frame is a message: stock clients take those for life, and nothing else.
pub fn is_message(frame: &[u8]) -> bool {
    frame.first() == Some(&(FIN | BINARY))
}

fn frame(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(10 + length);
    frame.put_u8(FIN | opcode);
    match length {
        // The three forms of RFC 6455, 5.2: the shortest that fits is the only legal one.
        0..=125 => frame.put_u8(length as u8),
        126..=0xFFFF => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    for part in parts {
        frame.put_slice(part);
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0xFFFF, &[0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![7; length];
            let frame = server_frame(&payload);
            assert_eq!(&frame[..header.len()], header, "{length}");
            assert_eq!(&frame[header.len()..], payload, "{length}");
        }
    }

    #[test]
    fn parts_make_the_same_frame_as_the_whole() {
        assert_eq!(server_frame_of(&[b"ab", b"", b"c"]), server_frame(b"abc"));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = "é".repeat(100);
        let frame = close_frame(4401, &reason);
        assert_eq!(&frame[..4], &[0x88, 124, 0x11, 0x31]); // 123 bytes are allowed and would split the 62nd é
        assert_eq!(std::str::from_utf8(&frame[4..]).ok(), Some(&reason[..122]));
    }

    #[test]
    fn control_frames_are_no_messages() {
        assert!(is_message(&server_frame(b"")));
        for control in [ping_frame(b"x"), pong_frame(b"x"), close_frame(1000, ""), Bytes::new()] {
            assert!(!is_message(&control), "{control:?}");
        }
    }

    #[test]
    fn control_frames_never_exceed_their_limit() {
        for frame in [ping_frame(&[1; 400]), pong_frame(&[1; 400])] {
            assert_eq!(frame.len(), 2 + CONTROL_PAYLOAD_MAX);
        }
        assert_eq!(&close_frame_empty()[..], &[0x88, 0]);
    }
}
