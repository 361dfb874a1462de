#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use actix_http::ws::{CloseCode, CloseReason, Message};
use contextnexus_actors::protocol::frame;
use tokio_util::codec::Encoder as _;

const LIMIT: usize = 100_000;

/// What a client's library writes for these.
fn client(messages: impl IntoIterator<Item = Message>) -> BytesMut {
    let mut codec = Codec::new().client_mode();
    let mut bytes = BytesMut::new();
    for message in messages {
        codec.encode(message, &mut bytes).unwrap();
    }
    bytes
}

fn binary(of: u8, length: usize) -> Message {
    Message::Binary(vec![of; length].into())
}

fn all(reader: &mut Reader) -> Result<Vec<Event>, Refusal> {
    let mut events = Vec::new();
    while let Some(event) = reader.next()? {
        events.push(event);
    }
    Ok(events)
}

fn read(bytes: &[u8]) -> Result<Vec<Event>, Refusal> {
    let mut reader = Reader::new(LIMIT);
    reader.feed(bytes);
    all(&mut reader)
}

fn payload(event: &Event) -> &[u8] {
    match event {
        Event::Message(ClientMessage::Binary(payload)) => payload,
        other => panic!("expected a binary message, got {other:?}"),
    }
}

#[test]
fn all_that_came_is_read_in_order() {
    let events = read(&client([binary(1, 3), Message::Ping("p".into()), binary(2, 70_000), binary(3, 0)])).unwrap();
    assert_eq!(payload(&events[0]), [1; 3]);
    assert!(matches!(&events[1], Event::Ping(payload) if payload == "p"));
    assert_eq!(payload(&events[2]), [2; 70_000]);
    assert!(payload(&events[3]).is_empty());
    assert_eq!(events.len(), 4);
}

#[test]
fn bytes_may_come_one_by_one() {
    let bytes = client([binary(1, 200), binary(2, 3)]);
    let mut reader = Reader::new(LIMIT);
    let mut lengths = Vec::new();
    for byte in bytes {
        reader.feed(&[byte]);
        lengths.extend(all(&mut reader).unwrap().iter().map(|event| payload(event).len()));
    }
    assert_eq!(lengths, [200, 3]);
    assert!(!reader.is_partial());
}

#[test]
fn a_claim_over_the_limit_is_refused_by_its_header() {
    for header in [
        &[0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0][..], // 2^62
        &[0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0x86, 0xA1], // one over
    ] {
        assert_eq!(read(header).unwrap_err(), Refusal::TooBig, "{header:x?}");
    }
    assert!(read(&client([binary(0, LIMIT)])).is_ok());
}

#[test]
fn an_endless_continuation_ends_at_the_limit() {
    let mut reader = Reader::new(LIMIT);
    reader.feed(&client([Message::Continuation(Item::FirstBinary(vec![0; 1_000].into()))]));
    let next = &client([
        Message::Continuation(Item::FirstBinary("".into())),
        Message::Continuation(Item::Continue(vec![0; 1_000].into())),
    ])[6..]; // without the frame that only the encoder needs
    let mut fed = 1_000;
    let refused = loop {
        reader.feed(next);
        fed += 1_000;
        match all(&mut reader) {
            Ok(events) => assert!(events.is_empty()),
            Err(refusal) => break refusal,
        }
        reader.release();
        assert!(reader.held_bytes() <= LIMIT);
    };
    assert_eq!((refused, fed), (Refusal::TooBig, LIMIT + 1_000));
}

#[test]
fn an_endless_continuation_of_nothing_ends_too() {
    let mut reader = Reader::new(LIMIT);
    reader.feed(&[0x02, 0x80, 0, 0, 0, 0]);
    for _ in 0..FRAGMENTS_MAX {
        reader.feed(&[0x00, 0x80, 0, 0, 0, 0]);
    }
    assert_eq!(all(&mut reader).unwrap_err(), Refusal::TooBig);
}

#[test]
fn pieces_make_one_message_and_a_ping_may_stand_between_them() {
    let events = read(&client([
        Message::Continuation(Item::FirstBinary("ab".into())),
        Message::Ping("".into()),
        Message::Continuation(Item::Continue("".into())),
        Message::Continuation(Item::Last("c".into())),
    ]));
    let events = events.unwrap();
    assert!(matches!(events[0], Event::Ping(_)));
    assert_eq!(payload(&events[1]), b"abc");
}

#[test]
fn what_is_no_websocket_is_refused_at_once() {
    for (what, bytes) in [
        ("unmasked", &[0x82, 0x7E][..]),
        ("reserved bit", &[0xC2, 0xFE]),
        ("unknown opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("a continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
        ("a fragmented ping", &[0x09, 0x80, 0, 0, 0, 0]),
        ("a close of one byte", &[0x88, 0x81, 0, 0, 0, 0, 3]),
    ] {
        assert_eq!(read(bytes).unwrap_err(), Refusal::Invalid, "{what}");
    }
    assert_eq!(read(&[0x89, 0xFE, 0, 126]).unwrap_err(), Refusal::Invalid, "a ping of 126 bytes");
}

#[test]
fn a_ping_stands_between_the_pieces_of_the_largest_message() {
    let events = read(&client([
        Message::Continuation(Item::FirstBinary(vec![0; LIMIT].into())),
        Message::Ping("p".into()),
        Message::Continuation(Item::Last("".into())),
    ]));
    assert_eq!(payload(&events.unwrap()[1]).len(), LIMIT);
}

#[test]
fn text_is_told_without_its_content() {
    let events = read(&client([
        Message::Text("hello".into()),
        Message::Continuation(Item::FirstText("a".into())),
        Message::Continuation(Item::Last("b".into())),
    ]));
    assert!(matches!(
        events.unwrap()[..],
        [Event::Message(ClientMessage::Text(5)), Event::Message(ClientMessage::Text(2))]
    ));
}

#[test]
fn an_idle_reader_holds_no_memory() {
    let mut reader = Reader::new(LIMIT);
    reader.feed(&client([binary(1, 50_000)]));
    let kept = all(&mut reader).unwrap();
    reader.release();
    assert_eq!(reader.buffer.capacity(), 0);
    assert_eq!(payload(&kept[0]).len(), 50_000);
}

/// The frames that the actors make by hand, read by the library in the client's place.
#[test]
fn our_frames_are_what_the_library_reads() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let body = vec![0xA5; length];
        let mut codec = Codec::new().client_mode().max_size(LIMIT);
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&frame::server_frame(&body));
        bytes.extend_from_slice(&frame::server_frame_of(&[&body[..length / 2], &body[length / 2..]]));
        bytes.extend_from_slice(&frame::ping_frame(b"ping"));
        bytes.extend_from_slice(&frame::pong_frame(b"pong"));
        bytes.extend_from_slice(&frame::close_frame_empty());
        bytes.extend_from_slice(&frame::close_frame(4401, "gone"));
        for expected in [
            Decoded::Binary(body.clone().into()),
            Decoded::Binary(body.into()),
            Decoded::Ping("ping".into()),
            Decoded::Pong("pong".into()),
            Decoded::Close(None),
            Decoded::Close(Some(CloseReason { code: CloseCode::Other(4401), description: Some("gone".into()) })),
        ] {
            assert_eq!(codec.decode(&mut bytes).unwrap(), Some(expected), "{length}");
        }
        assert!(bytes.is_empty());
    }
}

#[test]
fn a_message_that_is_too_large_is_read_past_and_told_by_how_it_begins() {
    let one = binary(7, LIMIT + 1);
    let pieces = [
        Message::Continuation(Item::FirstBinary(vec![8; 60_000].into())),
        Message::Ping("p".into()),
        Message::Continuation(Item::Continue(vec![8; 60_000].into())),
        Message::Ping("q".into()),
        Message::Continuation(Item::Last(vec![8; 60_000].into())),
    ];
    let bytes = client([binary(1, 3), one].into_iter().chain(pieces).chain([binary(2, 3)]));
    for step in [1, 1_000, bytes.len()] {
        let mut reader = Reader::new(LIMIT);
        reader.read_past();
        let mut events = Vec::new();
        let mut held = 0;
        for chunk in bytes.chunks(step) {
            reader.feed(chunk);
            events.extend(all(&mut reader).unwrap());
            reader.release();
            held = held.max(reader.held_bytes());
        }
        let told: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Message(ClientMessage::Binary(payload)) => format!("{} x {}", payload.len(), payload[0]),
                Event::Message(ClientMessage::TooLarge(begins)) => {
                    format!("more than {} x {}", begins.len(), begins[0])
                }
                Event::Ping(payload) => String::from_utf8(payload.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, ["3 x 1", "more than 1024 x 7", "p", "q", "more than 1024 x 8", "3 x 2"], "by {step} bytes");
        assert!(held <= LIMIT, "{held} bytes were held");
        assert!(!reader.is_partial());
    }
}
