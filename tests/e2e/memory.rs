//! What clients hold of this server's memory, with a token and without one: bounded, answered by its name when full, and given back.

use crate::support::process::{PATIENCE, eventually};
use crate::support::raw::{self, Raw};
use crate::support::rest::typing;
use crate::support::server::Options;
use crate::support::world::World;
use contextnexus_gate::lib0::write_var_bytes;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn world(settings: &[(&str, &str)]) -> World {
    let environment =
        settings.iter().map(|(name, value)| (format!("CONTEXTNEXUS_LIMITS__{name}"), (*value).to_owned()));
    World::start_with(Options { environment: environment.collect(), ..Options::default() })
}

fn address(world: &World) -> SocketAddr {
    world.base().trim_start_matches("http://").parse().unwrap()
}

/// Somebody who edits a document.
struct Editor {
    raw: Raw,
    clock: u32,
}

impl Editor {
    fn joins(world: &World) -> Self {
        let (status, head, mut raw) = Raw::request(address(world), &format!("/yjs/honest?token={}", world.token()), "");
        assert_eq!(status, 101, "{head}");
        raw.send_binary(&[0, 0, 1, 0]);
        while !raw.binary().starts_with(&[0, 1]) {}
        Self { raw, clock: 0 }
    }

    /// Its edits are committed: it hears their echo.
    fn types(&mut self) {
        let mut message = vec![0, 2];
        write_var_bytes(&mut message, &typing(1, self.clock.into(), "honest"));
        self.clock += 6;
        self.raw.send_binary(&message);
        while !self.raw.binary().starts_with(&[0, 2]) {}
    }
}

/// What the kernel takes of it at once, or in a while.
fn pour(socket: &mut TcpStream, bytes: &[u8]) {
    socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = socket.write_all(bytes); // who is refused takes no more
}

/// Two strangers' ways to hold memory, and those of members who send slowly.
#[test]
fn what_has_not_come_whole_is_bounded_for_strangers_and_for_members() {
    let world = world(&[("NODE_WAITING_BYTES_MAX", "8388608"), ("NODE_UNAUTHENTICATED_BYTES_MAX", "1048576")]);
    let mut honest = Editor::joins(&world);
    honest.types();
    let document = world.document("honest");

    let half = &raw::frame(0x82, &vec![0; 4 * MIB])[..3 * MIB / 2];
    let mut strangers = Vec::new();
    for path in ["/collab", "/yjs/honest", "/d/honest/ws/honest"] {
        for _ in 0..20 {
            let mut raw = Raw::request(address(&world), path, "").2;
            pour(&mut raw.socket, half);
            strangers.push(raw);
        }
    }
    let mut members = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::request(address(&world), &format!("/yjs/honest?token={}", world.token()), "").2;
        pour(&mut raw.socket, half);
        members.push(raw);
    }
    let token = world.token();
    let head = |length: usize| {
        format!(
            "POST /v1/documents/{document}/update HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut requests = Vec::new();
    for _ in 0..10 {
        let mut socket = TcpStream::connect(address(&world)).unwrap();
        socket.write_all(head(4 * MIB).as_bytes()).unwrap();
        pour(&mut socket, &vec![0; 3 * MIB / 2]);
        requests.push(socket);
    }
    let arriving = || world.metric("contextnexus_arriving_bytes");
    eventually(PATIENCE, "members hold what the node has for them", || arriving() > 2.0 * MIB as f64);
    assert!(arriving() <= 4.0 * MIB as f64, "{}", arriving());
    assert!(world.metric("contextnexus_unauthenticated_bytes") <= MIB as f64);
    let refused = requests.iter_mut().filter_map(|socket| {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 4_096];
        let read = socket.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..read]).into_owned())
    });
    let refused: Vec<String> = refused.collect();
    assert!(!refused.is_empty(), "nobody was refused");
    for answer in refused {
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    }
    assert_eq!(members.iter_mut().find_map(closed), Some(1013));
    honest.types(); // and is not disturbed

    drop((strangers, members, requests));
    let all = || arriving() + world.metric("contextnexus_unauthenticated_bytes");
    eventually(PATIENCE, "all of it is given back", || all() == 0.0);
    let mut update = TcpStream::connect(address(&world)).unwrap();
    update.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = typing(2, 0, &"x".repeat(100_000));
    update.write_all(&[head(body.len()).as_bytes(), &body].concat()).unwrap();
    let mut answer = [0; 12];
    update.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200", "and there is room again");
    honest.types();
}

/// The code that it was closed with, if it was.
fn closed(raw: &mut Raw) -> Option<u16> {
    raw.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    while let Some((first, payload)) = raw.try_frame() {
        if first == 0x88 {
            return Some(u16::from_be_bytes([payload[0], payload[1]]));
        }
    }
    None
}

/// What an honest burst took goes back to the system.
#[test]
fn memory_that_was_freed_is_given_back() {
    let world = world(&[]);
    let mut honest = Editor::joins(&world);
    honest.types();
    let before = world.server.memory_kib();
    let half = &raw::frame(0x82, &vec![0; 15 * MIB])[..12 * MIB];
    let bursts: Vec<Raw> = (0..8)
        .map(|_| {
            let path = format!("/yjs/honest?token={}", world.token());
            let mut raw = Raw::request(address(&world), &path, "").2;
            pour(&mut raw.socket, half);
            raw
        })
        .collect();
    let held = world.server.memory_kib() - before;
    assert!(held > 40 * 1024, "{held} KiB are a burst");
    drop(bursts);
    let after = || world.server.memory_kib();
    eventually(2 * PATIENCE, "it is given back", || after() < before + before / 3 + held / 8);
    honest.types();
}
