//! The pump between raw sockets and a session of these tests: no document, no token check.

#![allow(clippy::unwrap_used, clippy::panic)]

mod raw;
mod server;

use super::Settings;
use super::pump::ALWAYS_HELD_BYTES;
use contextnexus_actors::limits::Limits;
use contextnexus_actors::outbox::{Outbox, Pushed};
use contextnexus_actors::protocol::frame::server_frame;
use raw::Raw;
use server::{Behaviour, Node};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Far longer than anything takes here, however slow the machine is. A deadline that a test is not about is longer still.
const LONG: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(600);

#[test]
fn a_message_reaches_its_session_and_the_answer_comes_back() {
    let node = Node::start(|_| {});
    let mut client = node.connect("/yjs/org/room%201?token=cnx_a");
    client.send_binary(b"hello");
    assert_eq!(client.binary(), b"hello");
    let opening = node.openings().pop().unwrap();
    assert_eq!(opening.room.as_deref(), Some("org/room 1"));
    assert_eq!(opening.token.as_deref(), Some("cnx_a"));
}

#[test]
fn all_that_one_read_brings_is_handed_over_together() {
    let node = Node::start(|_| {});
    let mut client = node.connect("/collab");
    let mut burst = Vec::new();
    for n in 0..200_u8 {
        burst.extend(raw::frame(0x82, &[n; 20]));
    }
    client.send(&burst);
    for n in 0..200_u8 {
        assert_eq!(client.binary(), [n; 20]);
    }
    let batches = node.batches();
    assert!(batches.len() <= 3, "one segment (the kernel may have cut it) came as {batches:?}");
    assert_eq!(batches.iter().sum::<usize>(), 200);
}

#[test]
fn a_session_that_does_not_answer_slows_its_client_down() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Hold);
    let mut client = node.connect("/collab");
    client.socket.set_nonblocking(true).unwrap();
    let message = raw::frame(0x82, &[7; 60_000]);
    let (mut sent, mut refused_at) = (0, None);
    while sent < 400 << 20 && refused_at.is_none_or(|at: Instant| at.elapsed() < SECOND) {
        match client.try_send(&message) {
            Ok(()) => (sent, refused_at) = (sent + message.len(), None),
            Err(()) => refused_at = refused_at.or(Some(Instant::now())),
        }
    }
    assert!(refused_at.is_some(), "{sent} bytes were taken of a client whose session takes nothing");
    assert!(sent < 32 << 20, "{sent} bytes wait in this machine");
    assert_eq!(node.batches().len(), 1);

    node.behave(Behaviour::Count);
    node.release();
    let taken = node.wait(|| node.batches().iter().sum::<usize>() * message.len() >= sent - message.len());
    assert!(taken, "what waited was lost");
}

#[test]
fn a_close_is_answered_with_its_code_and_the_stream_ends() {
    for (payload, answer) in [(&[0x0F, 0xA0, b'x'][..], &[0x0F, 0xA0][..]), (&[], &[])] {
        let node = Node::start(|settings| settings.deadlines.end = NEVER);
        let mut client = node.connect("/yjs/a");
        client.send(&raw::frame(0x82, b"last"));
        client.send(&raw::frame(0x88, payload));
        assert_eq!(client.binary(), b"last");
        assert_eq!(client.frame(), Some((0x88, answer.to_vec())));
        client.socket.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(client.frame(), None, "the client waits for our end of the stream");
        assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
    }
}

#[test]
fn a_session_closes_and_a_client_that_answers_is_gone_at_once() {
    let node = Node::start(|settings| settings.deadlines.end = NEVER);
    let mut client = node.connect("/yjs/a");
    node.outbox(0).close(contextnexus_actors::protocol::frame::close_frame(4401, "revoked"));
    assert_eq!(client.close_code(), 4401);
    client.send(&raw::frame(0x82, b"crossed the close frame"));
    client.send(&raw::frame(0x88, &[0x11, 0x31]));
    client.socket.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.frame(), None, "nothing else is waited for");
    assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
    assert!(node.batches().is_empty(), "nothing is handed on after the close frame");
}

#[test]
fn a_closed_client_that_does_not_answer_is_gone() {
    let node = Node::start(|settings| settings.deadlines.ping = NEVER);
    let mut client = node.connect("/yjs/a");
    node.outbox(0).close(contextnexus_actors::protocol::frame::close_frame(4403, "left"));
    client.socket.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.close_code(), 4403);
    assert_eq!(client.frame(), None);
    assert!(node.wait(|| node.sockets.open() == 0));
}

#[test]
fn a_client_that_vanishes_is_told_to_its_session() {
    let node = Node::start(|_| {});
    drop(node.connect("/yjs/a"));
    assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
}

#[test]
fn a_client_that_vanishes_while_its_session_is_busy_is_told_too() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Hold);
    let mut client = node.connect("/yjs/a");
    client.send(&raw::frame(0x82, b"waits"));
    assert!(node.wait(|| node.batches().len() == 1));
    drop(client);
    assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
}

#[test]
fn a_close_while_the_session_is_busy_is_answered_and_what_came_before_it_is_not_lost() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Hold);
    let mut client = node.connect("/yjs/a");
    client.send(&raw::frame(0x82, b"first"));
    assert!(node.wait(|| node.batches().len() == 1));
    client.send(&raw::frame(0x82, b"second"));
    client.send(&raw::frame(0x88, &[0x03, 0xE8]));
    client.socket.set_read_timeout(Some(SECOND / 2)).unwrap();
    assert_eq!(client.try_frame(), None, "the second message waits for the session, and the close frame behind it");
    node.release();
    client.socket.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.close_code(), 1000);
    assert_eq!(node.batches(), [1, 1]);

    let mut other = node.connect("/yjs/a");
    other.send(&raw::frame(0x82, b"only"));
    assert!(node.wait(|| node.batches().len() == 3));
    other.send(&raw::frame(0x88, &[0x03, 0xE8]));
    assert_eq!(other.close_code(), 1000, "nothing stands before the close frame");

    let mut third = node.connect("/yjs/a");
    third.send(&[raw::frame(0x82, b"and go"), raw::frame(0x88, &[0x03, 0xE8])].concat());
    assert_eq!(third.close_code(), 1000, "the message before it is with the session");
    assert!(node.wait(|| node.disconnected() == 3 && node.batches().len() == 4));
}

#[test]
fn what_is_said_right_before_a_close_reaches_a_session_however_long_it_is_deaf() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Deaf);
    let mut client = node.connect("/yjs/room");
    let last = [raw::frame(0x82, b"last words"), raw::frame(0x88, &1000_u16.to_be_bytes())].concat();
    client.send(&last);
    assert_eq!(client.close_code(), 1000);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(node.batches(), [0; 0]);
    node.release();
    assert!(node.wait(|| node.disconnected() == 1));
    assert_eq!(node.batches(), [1]);
}

#[test]
fn a_session_that_died_closes_its_client() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Die);
    let mut client = node.connect("/yjs/a");
    client.send(&raw::frame(0x82, b"x"));
    assert_eq!(client.close_code(), 1011);
}

#[test]
fn what_is_no_message_of_ours_is_refused_by_code() {
    let node = Node::start(|settings| settings.message_bytes_max = 100_000);
    for (what, bytes, code) in [
        ("unmasked", vec![0x82, 0x01, 0x00], 1002),
        ("reserved bit", raw::frame(0xC2, b"x"), 1002),
        ("unknown opcode", raw::frame(0x83, b"x"), 1002),
        ("too long by its header", vec![0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0], 4413),
        ("too long in pieces", [raw::frame(0x02, &[0; 60_000]), raw::frame(0x00, &[0; 60_000])].concat(), 4413),
    ] {
        let mut client = node.connect("/yjs/a");
        client.send(&raw::frame(0x82, b"good"));
        client.send(&bytes);
        assert_eq!(client.binary(), b"good", "{what}");
        assert_eq!(client.close_code(), code, "{what}");
        assert_eq!(client.frame(), None, "{what}");
    }
    assert!(node.wait(|| node.sockets.open() == 0));
}

#[test]
fn an_endless_continuation_is_closed_at_the_cap() {
    let node = Node::start(|settings| settings.message_bytes_max = 1 << 20);
    let mut client = node.connect("/yjs/a");
    let start = Instant::now();
    let mut most = 0;
    let mut next = raw::frame(0x02, &[0; 10_000]);
    while start.elapsed() < LONG && client.send_or_closed(&next) {
        std::thread::sleep(SECOND / 1000);
        most = most.max(node.sockets.budgets.arriving.used());
        next = raw::frame(0x00, &[0; 10_000]);
    }
    assert!(start.elapsed() < LONG, "what still comes after the refusal is discarded for a while, not for ever");
    assert!(most > 0 && most <= 2 << 20, "{most} bytes were held");
    assert!(node.wait(|| node.sockets.open() == 0));
    assert!(node.batches().is_empty());
}

#[test]
fn unfinished_messages_of_all_clients_have_one_budget() {
    let node = Node::start_within(&Limits { node_waiting_bytes_max: 8 << 20, ..Limits::default() });
    let half = &raw::frame(0x82, &[0; 3_900_000])[..3_000_000];
    let mut first = node.connect("/yjs/a");
    first.send(half);
    let held = || node.sockets.budgets.arriving.used();
    assert!(node.wait(|| held() > 3_000_000 - 2 * ALWAYS_HELD_BYTES));
    assert!(held() <= 3_900_014, "{}: more than the message will ever take", held());
    let mut second = node.connect("/yjs/b");
    second.send_or_closed(half);
    assert_eq!(second.close_code(), 1013);
    let mut small = node.connect("/yjs/c");
    small.send_binary(&[7; 5_000]);
    assert_eq!(small.binary(), [7; 5_000], "what is small always comes through");
    assert_eq!(node.sockets.open(), 2);
    drop(first);
    assert!(node.wait(|| held() == 0));
}

#[test]
fn a_large_message_is_counted_until_its_session_lets_go_of_it() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Hold);
    let mut client = node.connect("/yjs/a");
    client.send_binary(&vec![7; 3_000_000]);
    assert!(node.wait(|| node.batches() == [1]));
    let held = || node.sockets.budgets.arriving.used();
    assert!((3_000_000 - 2 * ALWAYS_HELD_BYTES..3_200_000).contains(&held()), "{}", held());
    drop(client);
    assert!(node.wait(|| held() == 0));
}

#[test]
fn strangers_hold_what_the_setting_says_and_together_what_the_node_has_for_them() {
    const STRANGERS: usize = 100;
    let limits = Limits { node_unauthenticated_bytes_max: 1 << 20, ..Limits::default() };
    let node = Node::start_within(&limits);
    let mut known = node.connect("/yjs/known");
    known.send_binary(b"hello");
    assert_eq!(known.binary(), b"hello");

    node.behave(Behaviour::Deaf); // their tokens are being checked, or have not come
    let claims = raw::frame(0x82, &[0; 3_900_000]);
    let mut strangers: Vec<Raw> = (0..STRANGERS)
        .map(|number| {
            let mut raw = node.connect(if number % 2 == 0 { "/yjs/room" } else { "/collab" });
            raw.socket.set_nonblocking(true).unwrap();
            let _ = std::io::Write::write(&mut raw.socket, &claims); // what the kernel takes of it
            raw
        })
        .collect();
    let held = || node.sockets.budgets.strangers.used();
    assert!(node.wait(|| held() > 512 << 10), "{}", held());
    assert!(held() <= 1 << 20, "{}", held());
    let is_refused = |raw: &mut Raw| {
        raw.socket.set_nonblocking(false).unwrap();
        raw.socket.set_read_timeout(Some(SECOND / 5)).unwrap();
        matches!(raw.try_frame(), Some((0x88, payload)) if payload.starts_with(&1013_u16.to_be_bytes()))
    };
    let refused = strangers.iter_mut().filter_map(|raw| is_refused(raw).then_some(())).count();
    assert!(refused > STRANGERS / 2, "{refused}: who finds no room is closed");
    node.behave(Behaviour::Echo);
    known.send_binary(b"again");
    assert_eq!(known.binary(), b"again", "those who were let in do not suffer");
    drop(strangers);
    node.release();
    assert!(node.wait(|| held() == 0 && node.sockets.open() == 1));
}

#[test]
fn a_large_first_message_waits_for_its_token_and_a_stranger_with_one_is_closed() {
    let node = Node::start(|_| {});
    node.behave(Behaviour::Deaf);
    let large = raw::frame(0x82, &[7; 200_000]);
    let mut early = node.connect("/yjs/room");
    early.send(&large);
    assert!(node.wait(|| node.sockets.budgets.strangers.used() > 0));
    assert!(node.sockets.budgets.strangers.used() <= 64 << 10);
    node.release();
    assert!(node.wait(|| node.batches() == [1]), "it was taken once its token was good");

    node.behave(Behaviour::Ask);
    let mut known = node.connect("/collab");
    known.send(&[raw::frame(0x82, b"token"), large.clone()].concat());
    assert_eq!(known.binary(), b"token");
    assert_eq!(known.binary(), [7; 200_000]);
    let mut stranger = node.connect("/collab");
    stranger.send_or_closed(&[raw::frame(0x82, b"hello"), large].concat());
    assert_eq!(stranger.binary(), b"hello");
    assert_eq!(stranger.close_code(), 4429);
}

#[test]
fn a_hundred_thousand_pings_are_answered_a_few_times_and_read_slowly() {
    let node = Node::start(|_| {});
    let mut client = node.connect("/yjs/a");
    let pings = raw::frame(0x89, b"ping").repeat(1_000);
    client.socket.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let mut pongs = 0;
    for _ in 0..100 {
        let _ = client.try_send(&pings); // what the kernel takes no more was not read: that is the limit at work
    }
    client.socket.set_nonblocking(false).unwrap();
    client.socket.set_read_timeout(Some(SECOND)).unwrap();
    while start.elapsed() < 2 * SECOND || (pongs == 0 && start.elapsed() < LONG) {
        match client.try_frame() {
            Some((0x8A, payload)) => {
                assert_eq!(payload, b"ping");
                pongs += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    assert!((1..100).contains(&pongs), "{pongs} pongs");
    assert_eq!(node.sockets.open(), 1, "a fast writer is slowed, not closed");
}

#[test]
fn half_a_frame_and_silence_is_closed() {
    let node = Node::start(|settings| {
        settings.deadlines.message = SECOND / 2;
        settings.deadlines.ping = NEVER;
    });
    let mut client = node.connect("/yjs/a");
    client.send(&raw::frame(0x82, &[0; 100])[..50]);
    client.socket.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.close_code(), 1008);
}

#[test]
fn a_frame_byte_by_byte_is_closed_too() {
    let node = Node::start(|settings| {
        settings.deadlines.message = SECOND / 2;
        settings.deadlines.ping = NEVER;
    });
    let mut client = node.connect("/yjs/a");
    let mut bytes = raw::frame(0x82, &[0; 1000]).into_iter();
    while bytes.next().is_some_and(|byte| client.send_or_closed(&[byte])) {
        std::thread::sleep(SECOND / 50);
    }
    assert!(bytes.len() > 0, "it took the whole frame");
    assert!(node.wait(|| node.sockets.open() == 0));
}

/// Slower than any fixed rate that one might expect, and as long as it takes.
#[test]
fn a_large_message_over_a_slow_line_arrives() {
    let node = Node::start(|settings| {
        settings.deadlines.message = 4 * SECOND;
        settings.deadlines.message_progress_bytes = 1_024;
    });
    let mut client = node.connect("/yjs/a");
    let frame = raw::frame(0x82, &vec![7; 160_000]);
    for piece in frame.chunks(2_000) {
        assert!(client.send_or_closed(piece), "it makes progress");
        std::thread::sleep(SECOND / 10);
    }
    assert_eq!(client.binary().len(), 160_000);
}

#[test]
fn a_client_that_answers_pings_stays_and_one_that_does_not_goes() {
    let node = Node::start(|settings| {
        settings.deadlines.ping = 3 * SECOND;
        settings.deadlines.pong = 3 * SECOND;
    });
    let mut alive = node.connect("/yjs/a");
    let mut dead = node.connect("/yjs/b");
    let start = Instant::now();
    while node.sockets.open() == 2 && start.elapsed() < LONG {
        let (opcode, payload) = alive.frame().unwrap();
        assert_eq!(opcode, 0x89);
        alive.send(&raw::frame(0x8A, &payload));
    }
    assert_eq!(dead.frame(), Some((0x89, Vec::new())));
    assert_eq!(dead.frame(), None, "shut down without a word that it would not read");
    assert_eq!(node.sockets.open(), 1);
}

#[test]
fn a_client_that_never_reads_is_shut_down_and_costs_its_budget() {
    let node = Node::start(|settings| {
        settings.deadlines.stall = SECOND;
        settings.deadlines.ping = NEVER;
    });
    let client = node.connect("/yjs/a");
    let outbox = node.outbox(0);
    let frame = contextnexus_actors::protocol::frame::server_frame(&[0; 10_000]);
    let start = Instant::now();
    let mut taken = 0;
    let mut most = 0;
    while node.sockets.open() == 1 && start.elapsed() < LONG {
        match outbox.push(frame.clone()) {
            contextnexus_actors::outbox::Pushed::Taken => taken += 10_000,
            _ => std::thread::sleep(SECOND / 100),
        }
        most = most.max(outbox.waiting());
    }
    assert!(node.sockets.open() == 0, "still there after {:?}", start.elapsed());
    assert!(most <= (1 << 20) + 2 * frame.len(), "{most} bytes waited");
    assert!(taken < 16 << 20, "{taken} bytes went to a client that reads nothing");
    assert!(node.wait(|| node.disconnected() == 1));
    drop(client);
}

#[test]
fn a_revoked_client_that_stopped_reading_is_gone() {
    let node = Node::start(only_its_end);
    let _client = node.connect("/yjs/a");
    let outbox = node.outbox(0);
    let frame = contextnexus_actors::protocol::frame::server_frame(&[0; 10_000]);
    let mut full_since = None;
    while full_since.is_none_or(|since: Instant| since.elapsed() < SECOND / 5) {
        match outbox.push(frame.clone()) {
            contextnexus_actors::outbox::Pushed::Taken => full_since = None,
            _ => full_since = full_since.or(Some(Instant::now())),
        }
    }
    outbox.close(contextnexus_actors::protocol::frame::close_frame(4401, "revoked"));
    assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
}

/// No other deadline ends a connection that should end at once.
fn only_its_end(settings: &mut Settings) {
    settings.deadlines.stall = NEVER;
    settings.deadlines.ping = NEVER;
    settings.deadlines.close = NEVER;
}

/// A client that takes nothing, and a frame larger than what the kernel holds: all of it is out of the outbox, and none of it through.
fn blocked_writer(node: &Node) -> (Raw, Arc<Outbox>) {
    let client = node.connect("/yjs/a");
    let outbox = node.outbox(0);
    assert_eq!(outbox.push(server_frame(&vec![0; 12 << 20])), Pushed::Taken);
    assert!(node.wait(|| outbox.waiting() == 0));
    std::thread::sleep(SECOND / 4);
    (client, outbox)
}

#[test]
fn a_revoked_client_in_the_middle_of_a_large_frame_is_gone() {
    let node = Node::start(only_its_end);
    let (_client, outbox) = blocked_writer(&node);
    outbox.close_now(contextnexus_actors::protocol::frame::close_frame(4401, "revoked"));
    assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
}

#[test]
fn a_client_that_half_closes_in_the_middle_of_a_large_frame_is_gone() {
    let node = Node::start(only_its_end);
    let (client, _) = blocked_writer(&node);
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(node.wait(|| node.disconnected() == 1 && node.sockets.open() == 0));
}

#[test]
fn a_client_that_reads_a_large_frame_slowly_is_no_slow_consumer() {
    let node = Node::start(|settings| settings.deadlines.stall = 3 * SECOND);
    let (mut client, outbox) = blocked_writer(&node);
    assert_eq!(outbox.push(server_frame(b"behind it")), Pushed::Taken);
    let mut part = vec![0; 256 << 10];
    for _ in 0..36 {
        std::io::Read::read_exact(&mut client.socket, &mut part).unwrap();
        std::thread::sleep(SECOND / 8);
    }
    assert_eq!(node.sockets.open(), 1, "it reads two megabytes a second, and nothing else can be asked of it");
}

#[test]
fn what_is_no_upgrade_costs_the_next_request_nothing() {
    let node = Node::start(|_| {});
    let mut client = Raw::connect(node.address);
    assert_eq!(client.ask("/collab", "").0, 426);
    assert_eq!(client.ask("/collab", raw::UPGRADE).0, 101, "on the same connection, as behind a proxy that shares it");
}

#[test]
fn a_page_of_any_origin_connects_with_a_token_of_its_own() {
    let node = Node::start(|_| {});
    let paths =
        ["/yjs/a?token=cnx_a", "/collab", "/d/a/ws/a?token=cnx_a", "/doc/ws/a?token=cnx_a", "/yjs/a?ticket=cnx_a"];
    for path in paths {
        for origin in ["https://site.example", "https://elsewhere.example", "null", "\u{e9}"] {
            assert_eq!(node.request(path, &format!("Origin: {origin}\r\n")).0, 101, "{path} from {origin}");
        }
    }
    for header in ["Authorization: Bearer cnx_a", "Sec-WebSocket-Protocol: contextnexus, contextnexus.token.cnx_a"] {
        let (status, ..) = node.request("/yjs/a", &format!("Origin: https://elsewhere.example\r\n{header}\r\n"));
        assert_eq!(status, 101, "{header}");
    }
    let tokens = node.openings().into_iter().filter(|opening| opening.token.as_deref() == Some("cnx_a")).count();
    assert_eq!(tokens, 4 * 4 + 2, "only Hocuspocus sends its token later");
}

#[test]
fn an_operator_may_have_the_origins_of_tokens_checked() {
    let node = Node::start_checking_tokens();
    let status = |origin: &str| node.request("/yjs/a?token=cnx_a", &format!("Origin: {origin}\r\n")).0;
    assert_eq!(status("https://evil.example"), 403);
    assert_eq!(status("null"), 403);
    assert_eq!(status("\u{e9}"), 403);
    assert_eq!(status("https://app.example.org"), 101);
    assert_eq!(status("https://site.example"), 101, "listed for CORS: with a token of its own");
    assert_eq!(status(&format!("http://{}", node.address)), 101);
    assert_eq!(node.request("/yjs/a", "").0, 101, "no browser: the token decides");
}

#[test]
fn a_cookie_is_a_token_only_from_pages_of_ours() {
    let node = Node::start(|_| {});
    let with = |origin: &str| node.request("/yjs/a", &format!("Cookie: contextnexus=cnx_a\r\n{origin}"));
    let _none = with("");
    let _own = with(&format!("Origin: http://{}\r\n", node.address));
    let _listed = with("Origin: https://app.example.org\r\n");
    let _of_a_site_with_tokens = with("Origin: https://site.example\r\n");
    let _of_anybody = with("Origin: https://evil.example\r\n");
    let tokens: Vec<_> = node.openings().into_iter().map(|opening| opening.token).collect();
    assert_eq!(tokens, [None, Some("cnx_a".into()), Some("cnx_a".into()), None, None]);
}

#[test]
fn the_subprotocol_is_selected_and_the_token_in_it_never_repeated() {
    let node = Node::start(|_| {});
    let offer = "Sec-WebSocket-Protocol: contextnexus.token.cnx_secret, contextnexus\r\n";
    let (status, head, _client) = node.request("/yjs/a", offer);
    assert_eq!(status, 101);
    assert!(head.to_ascii_lowercase().contains("sec-websocket-protocol: contextnexus\r\n"), "{head}");
    assert!(!head.contains("cnx_secret"));
    assert_eq!(node.openings()[0].token.as_deref(), Some("cnx_secret"));
}

#[test]
fn a_full_node_and_a_draining_one_send_away_with_a_time_to_come_back() {
    let node = Node::start(|settings| settings.seats.address = 2);
    let first = node.connect("/yjs/a");
    let _second = node.connect("/yjs/a");
    let (status, head, _) = node.request("/yjs/a", "");
    assert_eq!(status, 503);
    assert!(head.to_ascii_lowercase().contains("retry-after: 5"), "{head}");
    drop(first);
    assert!(node.wait(|| node.sockets.open() == 1));
    assert_eq!(node.request("/yjs/a", "").0, 101);
    node.sockets.accept(false);
    assert_eq!(node.request("/yjs/a", "").0, 503);
}

#[test]
fn addresses_that_name_no_document_are_refused() {
    let node = Node::start(|_| {});
    assert_eq!(node.request("/d/a/ws/b", "").0, 400);
    assert_eq!(node.request("/yjs/%FF", "").0, 400);
    assert_eq!(node.request("/d/a%20b/ws/a%20b", "").0, 101);
    assert_eq!(node.request("/doc/ws/old", "").0, 101);
    assert_eq!(node.request("/collab/", "").0, 101);
    let rooms: Vec<_> = node.openings().into_iter().map(|opening| opening.room).collect();
    assert_eq!(rooms, [Some("a b".into()), Some("old".into()), None]);
}

#[test]
fn a_node_that_goes_down_closes_everybody_in_waves() {
    let node = Node::start(|_| {});
    let clients: Vec<Raw> = (0..30).map(|_| node.connect("/yjs/a")).collect();
    node.sockets.close_all(4 * SECOND);
    let start = Instant::now();
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| std::thread::spawn(move || (client.close_code(), start.elapsed())))
        .collect();
    let ends = threads.into_iter().map(|thread| thread.join().unwrap());
    let mut ends: Vec<Duration> = ends.map(|(code, after)| (code == 1012).then_some(after).unwrap()).collect();
    ends.sort();
    assert!(ends[29] < LONG && ends[29] - ends[0] > SECOND / 2, "{ends:?}");
    assert!(node.wait(|| node.sockets.open() == 0));
}
