//! Limits over the wire: each has its name, and a close code or a status of its own. And who is only too fast is slowed down, not closed.

use crate::support::process::{PATIENCE, eventually};
use crate::support::raw::{self, Raw};
use crate::support::server::Options;
use crate::support::world::World;
use contextnexus::config::{Config, Sources};
use contextnexus_gate::lib0::{write_var_bytes, write_var_uint};
use contextnexus_gate::{AwarenessEntry, encode_awareness};
use contextnexus_loadtest::client::{self, Access, Listener, TokenIn};
use contextnexus_loadtest::wire::dialect::Dialect;
use contextnexus_loadtest::wire::update;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

const LIMIT: u16 = 4429;

fn world(settings: &[(&str, &str)]) -> World {
    let environment = settings.iter().map(|(name, value)| (format!("CONTEXTNEXUS_{name}"), (*value).to_owned()));
    World::start_with(Options { environment: environment.collect(), ..Options::default() })
}

fn address(world: &World) -> SocketAddr {
    world.base().trim_start_matches("http://").parse().unwrap()
}

fn connect_from(world: &World, from: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    socket.connect(&address(world).into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.into()
}

fn open(world: &World, from: &str, room: &str) -> (u16, String, Raw) {
    let mut raw = Raw { socket: connect_from(world, from) };
    let (status, head) = raw.ask(&format!("/yjs/{room}?token={}", world.token()), raw::UPGRADE);
    (status, head, raw)
}

fn joined(world: &World, room: &str) -> Raw {
    let (status, head, mut raw) = open(world, "127.0.0.1", room);
    assert_eq!(status, 101, "{head}");
    raw.send_binary(&[0, 0, 1, 0]);
    while !raw.binary().starts_with(&[0, 1]) {}
    raw
}

/// Reads on to the close frame: its code and reason.
fn closed(raw: &mut Raw) -> (u16, String) {
    loop {
        match raw.frame().expect("a close frame") {
            (0x88, payload) => {
                return (
                    u16::from_be_bytes([payload[0], payload[1]]),
                    String::from_utf8(payload[2..].to_vec()).unwrap(),
                );
            }
            (0x82 | 0x89, _) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn limit(reason: &str) -> (u16, String) {
    (LIMIT, reason.to_owned())
}

fn update_message(client: u64, letters: usize) -> Vec<u8> {
    let update = update::append_text(client, 0, &"x".repeat(letters));
    let mut message = vec![0, 2];
    write_var_bytes(&mut message, &update);
    message
}

fn awareness_message(client: u64, letters: usize) -> Vec<u8> {
    let state = format!("\"{}\"", "x".repeat(letters));
    let entry = AwarenessEntry { client, clock: 1, state: state.into(), is_null: false };
    let mut message = vec![1];
    write_var_bytes(&mut message, &encode_awareness(&[entry]));
    message
}

/// Updates of client 1 that nest deeper, or have longer names, than the defaults admit, and the limit that says so.
pub fn beyond_the_shapes() -> Vec<(Vec<u8>, &'static str)> {
    let one = |block: &[u8]| [&[1, 1, 1, 0][..], block, &[0]].concat();
    let named = |info: u8, root: &str, key: Option<&str>| {
        let mut block = vec![info, 1];
        write_var_bytes(&mut block, root.as_bytes());
        if let Some(key) = key {
            write_var_bytes(&mut block, key.as_bytes());
        }
        block.extend([1, 126]);
        one(&block)
    };
    let mut values = vec![8, 1, 1, b'a', 1];
    (0..513).for_each(|_| values.extend([117, 1]));
    values.push(126);
    // Arrays, each in the one before.
    let mut types = vec![1, 0x81, 4, 1, 0, 7, 1, 1, b'a', 0];
    for clock in 0..512_u64 {
        types.extend([7, 0, 1]);
        write_var_uint(&mut types, clock);
        types.push(0);
    }
    types.push(0);
    vec![
        (one(&values), "value_depth_max"),
        (types, "type_depth_max"),
        (named(8, &"r".repeat(4_097), None), "root_name_bytes_max"),
        (named(0x28, "m", Some(&"k".repeat(65_537))), "map_key_bytes_max"),
    ]
}

#[test]
fn what_one_connection_or_document_may_is_closed_by_its_name() {
    let world = world(&[
        ("LIMITS__UPDATE_BYTES_MAX", "70000"),
        ("LIMITS__DOCUMENT_BYTES_MAX", "65536"),
        ("LIMITS__DOCUMENT_CLIENTS_MAX", "100"),
        ("LIMITS__DOCUMENT_CONNECTIONS_MAX", "3"),
        ("LIMITS__AWARENESS_STATE_BYTES_MAX", "256"),
        ("LIMITS__UNAUTHENTICATED_MESSAGES_MAX", "5"),
        ("LIMITS__UNAUTHENTICATED_BYTES_MAX", "1024"),
        ("LIMITS__DOCUMENTS_PER_CONNECTION_MAX", "2"),
        ("LIMITS__AUTHENTICATION_DEADLINE_S", "1"),
    ]);

    let mut large = joined(&world, "update");
    large.send_binary(&update_message(1, 70_500));
    assert_eq!(closed(&mut large), (4413, "update too large (update_bytes_max)".to_owned()));
    let mut larger = joined(&world, "update");
    larger.send_binary(&update_message(1, 75_000));
    assert_eq!(closed(&mut larger).0, 4413);

    let mut full = joined(&world, "document");
    full.send_binary(&update_message(1, 65_000));
    while !full.binary().starts_with(&[0, 2]) {}
    full.send_binary(&update_message(2, 1_000));
    assert_eq!(closed(&mut full), limit("the document is too large (document_bytes_max)"));

    let mut crowd = joined(&world, "clients");
    for client in 1..=101 {
        crowd.send_binary(&update_message(client, 1));
    }
    assert_eq!(closed(&mut crowd), limit("the document has too many client ids (document_clients_max)"));

    // What no retry helps says which limit it was.
    for (update, limit) in beyond_the_shapes() {
        let mut shape = joined(&world, "shapes");
        let mut message = vec![0, 2];
        write_var_bytes(&mut message, &update);
        shape.send_binary(&message);
        let (code, reason) = closed(&mut shape);
        assert_eq!(code, 4400, "{reason}");
        assert!(reason.contains(limit), "{reason}, not {limit}");
    }

    // Presence is no content: too much of it is not shown, and its sender goes on editing.
    let mut cursor = joined(&world, "awareness");
    cursor.send_binary(&awareness_message(1, 300));
    cursor.send_binary(&update_message(1, 10));
    while !cursor.binary().starts_with(&[0, 2]) {}
    eventually(Duration::from_secs(5), "it is counted", || world.metric("contextnexus_presence_dropped_total") == 1.0);

    let _three = [joined(&world, "connections"), joined(&world, "connections"), joined(&world, "connections")];
    let (_, _, mut fourth) = open(&world, "127.0.0.1", "connections");
    assert_eq!(closed(&mut fourth), (1013, "too many connections of this document".to_owned()));

    let (_, _, mut eager) = Raw::request(address(&world), "/collab", "");
    for _ in 0..6 {
        eager.send_binary(b"\x01d\x00\x00\x01\x00");
    }
    assert_eq!(closed(&mut eager), limit("too much before authentication"));
    let (_, _, mut heavy) = Raw::request(address(&world), "/collab", "");
    for _ in 0..2 {
        heavy.send_binary(&[&b"\x01d"[..], &update_message(1, 60_000)].concat());
    }
    assert_eq!(closed(&mut heavy), limit("too much before authentication"));
    let (_, _, mut wide) = Raw::request(address(&world), "/collab", "");
    for name in [b'a', b'b', b'c'] {
        wide.send_binary(&[1, name, 0, 0, 1, 0]);
    }
    wide.send_binary(b"\x01c\x02\x00\x01x");
    let denied = b"\x01c\x02\x01\x44too many documents on this connection (documents_per_connection_max)";
    assert_eq!(wide.binary(), denied, "it is refused alone");
    let (_, _, mut silent) = Raw::request(address(&world), "/collab", "");
    assert_eq!(closed(&mut silent), (4408, "not authenticated in time".to_owned()));
}

/// Some clients come back at once, whatever they are told: each close after a join makes the next join wait longer.
#[test]
fn who_is_closed_again_and_again_joins_more_slowly() {
    let world = world(&[]);
    let start = Instant::now();
    for _ in 0..4 {
        let mut raw = joined(&world, "stubborn");
        raw.send_binary(&[0, 2, 3, 9, 9, 9]);
        assert_eq!(closed(&mut raw).0, 4400);
    }
    // 1 and 2 s at least, however fast the machine is.
    assert!(start.elapsed() > Duration::from_millis(2_900), "four joins within {:?}", start.elapsed());
}

/// Whatever it is: Stateless, CLOSE, pings and wrong tokens as well as what a document would hold. The other dialects bring
/// their token in the address.
#[test]
fn everything_before_authentication_counts_by_messages_and_by_bytes() {
    let world = world(&[
        ("LIMITS__UNAUTHENTICATED_MESSAGES_MAX", "5"),
        ("LIMITS__UNAUTHENTICATED_BYTES_MAX", "1024"),
        ("LIMITS__AUTHENTICATION_DEADLINE_S", "15"),
    ]);
    let few: [(&str, &[u8]); 4] = [
        ("Stateless", b"\x01d\x05\x01x"),
        ("CLOSE", b"\x01d\x07"),
        ("a ping", b"\x09"),
        ("a wrong token", b"\x01d\x02\x00\x01x"),
    ];
    for (what, message) in few {
        let (_, _, mut raw) = Raw::request(address(&world), "/collab", "");
        for _ in 0..6 {
            raw.send_or_closed(&raw::frame(0x82, message));
        }
        assert_eq!(closed(&mut raw), limit("too much before authentication"), "six times {what}");
    }
    let (_, _, mut raw) = Raw::request(address(&world), "/collab", "");
    let mut large = b"\x01d\x05".to_vec();
    write_var_bytes(&mut large, &[b'x'; 1_500]);
    raw.send_binary(&large);
    assert_eq!(closed(&mut raw), limit("too much before authentication"), "one large Stateless");
}

#[test]
fn who_is_one_too_many_is_turned_away_by_its_name() {
    let world = world(&[
        ("SERVER__CONNECTIONS_PER_NODE_MAX", "5"),
        ("SERVER__CONNECTIONS_PER_ADDRESS_MAX", "3"),
        ("SERVER__CONNECTIONS_PER_USER_MAX", "2"),
        ("LIMITS__DOCUMENT_CONNECTIONS_MAX", "3"),
    ]);
    let refused = |from: &str| {
        let (status, head, _) = open(&world, from, "a");
        assert!(status == 503 && head.contains("retry-after: 5"), "{head}");
        let page = world.metrics();
        let counted = page.lines().filter(|line| line.starts_with("contextnexus_ws_refused_upgrades_total"));
        counted.map(|line| line.to_owned() + "\n").collect::<String>()
    };
    let mut open_ones = vec![joined(&world, "a"), joined(&world, "a")];
    // Again and again: whoever is turned away leaves the document, too, which has room for one more.
    for _ in 0..3 {
        let (_, _, mut third) = open(&world, "127.0.0.1", "a");
        assert_eq!(closed(&mut third), (1013, "too many connections of this user".to_owned()));
        drop(third);
        eventually(PATIENCE, "the third is gone", || world.metric("contextnexus_ws_connections") == 2.0);
    }
    open_ones.push(Raw::request(address(&world), "/collab", "").2);
    assert!(refused("127.0.0.1").contains("address_full"));
    for from in ["127.0.0.2", "127.0.0.3"] {
        let mut raw = Raw { socket: connect_from(&world, from) };
        assert_eq!(raw.ask("/collab", raw::UPGRADE).0, 101);
        open_ones.push(raw);
    }
    assert!(refused("127.0.0.4").contains("node_full"));
}

/// A head that never ends, a body that never comes, an answer that is never read: each ends, and holds up nobody else.
#[test]
fn slow_clients_hold_nothing_for_long() {
    let world = world(&[("SERVER__HEADER_TIMEOUT_S", "1"), ("SERVER__HTTP_CONNECTIONS_PER_ADDRESS_MAX", "40")]);
    let start = Instant::now();
    let half_heads: Vec<TcpStream> =
        ["GET / HTTP/1.1\r\nHost: x\r\n", "", "GET /yjs/a HTTP/1.1\r\nUpgrade: websocket\r\n"]
            .iter()
            .cycle()
            .take(30)
            .map(|head| {
                let mut socket = connect_from(&world, "127.0.0.1");
                socket.write_all(head.as_bytes()).unwrap();
                socket
            })
            .collect();
    let mut body = connect_from(&world, "127.0.0.1");
    body.write_all(
        b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    )
    .unwrap();
    let mut deaf = connect_from(&world, "127.0.0.1");
    deaf.set_nonblocking(true).unwrap();
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let _ = deaf.write(ask.as_bytes());

    // Others are served meanwhile, from this address and with sockets that count no more.
    let sockets: Vec<Raw> = (0..50).map(|_| joined(&world, "a")).collect();
    assert_eq!(world.metric("contextnexus_ws_connections"), 50.0);
    for mut socket in half_heads {
        let _ = socket.read_to_end(&mut Vec::new()); // 408, or the end
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    let mut answer = String::new();
    body.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    // This one is the page of the metrics themselves.
    eventually(PATIENCE, "the deaf one is gone", || world.metric("contextnexus_http_connections") <= 1.0);
    assert_eq!(world.metric("contextnexus_http_stalled_total"), 1.0);

    let held: Vec<TcpStream> = (0..40).map(|_| connect_from(&world, "127.0.0.1")).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut refused = String::new();
    connect_from(&world, "127.0.0.1").read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let mut elsewhere = Raw { socket: connect_from(&world, "127.0.0.2") };
    assert_eq!(elsewhere.ask("/live", "").0, 200);
    drop((held, sockets));
}

#[derive(Debug, Default)]
struct Heard {
    synced: bool,
    acknowledged: u64,
    echoed: u64,
    refused: Option<String>,
}

struct Ears(Rc<RefCell<Heard>>);

impl Listener for Ears {
    fn asked(&mut self, _: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, bytes: &[u8]) {
        update::ranges(bytes, |range| self.0.borrow_mut().echoed += u64::from(range.len));
    }

    fn synced(&mut self) {
        self.0.borrow_mut().synced = true;
    }

    fn acknowledged(&mut self, updates: u64) {
        self.0.borrow_mut().acknowledged = updates;
    }

    fn refused(&mut self, why: String) {
        self.0.borrow_mut().refused = Some(why);
    }
}

/// In each dialect: 13 MiB at once are more than the window and the kernel take, so the writer waits, and all of it is acknowledged.
#[test]
fn a_writer_that_is_too_fast_is_slowed_down_and_not_closed() {
    const UPDATES: u32 = 200;
    const LETTERS: u32 = 64 * 1024;
    let world = world(&[("LIMITS__CONNECTION_WINDOW_BYTES", "65536")]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for dialect in [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet] {
        let target = world.server.socket_base().parse().unwrap();
        let access = Access { target, dialect, token: Some(world.token()), token_in: TokenIn::Header };
        let work = async {
            let name = format!("fast-{dialect}");
            let token = client::admit(&access, &name).await.unwrap();
            let opened = client::connect(&access, &name, token.as_deref(), &update::EMPTY_STATE_VECTOR).await;
            let (incoming, link) = opened.unwrap();
            let heard = Rc::new(RefCell::new(Heard::default()));
            let (ears, hears) = (Rc::clone(&heard), link.clone());
            let listening =
                tokio::task::spawn_local(async move { client::listen(incoming, hears, &mut Ears(ears)).await });
            let until = async |done: &dyn Fn(&Heard) -> bool| {
                let start = Instant::now();
                while !done(&heard.borrow()) {
                    assert!(!listening.is_finished(), "{dialect}: closed");
                    assert!(start.elapsed() < PATIENCE, "{dialect}: {:?}", heard.borrow());
                    assert_eq!(heard.borrow().refused, None, "{dialect}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            until(&|heard| heard.synced).await;
            let text = "x".repeat(LETTERS as usize);
            let updates: Vec<Vec<u8>> =
                (0..UPDATES).map(|number| update::append_text(7, number * LETTERS, &text)).collect();
            link.send_updates(updates.iter().map(Vec::as_slice));
            assert!(!link.is_flushed(), "{dialect}: nobody slowed it down");
            match dialect {
                Dialect::YWebsocket => until(&|heard| heard.echoed == u64::from(UPDATES * LETTERS)).await,
                _ => until(&|heard| heard.acknowledged == u64::from(UPDATES)).await,
            }
            link.close();
        };
        runtime.block_on(tokio::task::LocalSet::new().run_until(work));
    }
    assert_eq!(world.metric("contextnexus_ws_shut_total"), 0.0);
}

/// The table of ARCHITECTURE.md is what operators set alarms by.
#[test]
fn every_queue_of_the_table_is_measured_from_the_start() {
    let page = world(&[]).metrics();
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).unwrap();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("| queue |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let rows: Vec<&str> = rows.collect();
    assert!(rows.len() >= 20, "{rows:?}");
    for row in rows {
        let measured = row.trim_end_matches('|').rsplit('|').next().unwrap();
        // A gauge by dialect comes with the first of its kind.
        let labelled = ["contextnexus_ws_connections"];
        let names: Vec<&str> = measured.split('`').filter(|word| word.starts_with("contextnexus_")).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names.into_iter().filter(|name| !labelled.contains(name)) {
            let line = page.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
            assert!(line.is_some(), "{name} of {row}");
        }
    }
}

/// The block of the README is what an operator copies: the server takes it, and it is tighter in every line.
#[test]
fn the_tighter_profile_of_the_readme_starts_a_server_that_works() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let profile = readme.split("```toml\n# tighter.toml\n").nth(1).unwrap().split("```").next().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), profile).unwrap();
    let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    let flat = |config: &str| {
        let sections: toml::Table = config.parse().unwrap();
        let all = sections.into_iter().filter_map(|(section, keys)| Some((section, keys.as_table()?.clone())));
        all.flat_map(|(section, keys)| keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value)))
            .filter_map(|(key, value)| Some((key, value.as_integer()?)))
            .collect::<BTreeMap<String, i64>>()
    };
    let (tighter, defaults) = (flat(profile), flat(include_str!("../../src/config/default.toml")));
    assert!(tighter.len() >= 20);
    for (name, value) in &tighter {
        let slower = name == "auth.attempt_per_address_s"; // seconds for one more
        assert!((*value < defaults[name]) != slower, "{name} = {value} is no tighter than {}", defaults[name]);
    }
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.limits.outbox_stall_s, 5);

    let path = file.path().display().to_string();
    let environment = vec![("CONTEXTNEXUS_CONFIG".to_owned(), path)];
    let world = World::start_with(Options { environment, ..Options::default() });
    let mut ann = joined(&world, "tight");
    ann.send_binary(&update_message(1, 100_000));
    while !ann.binary().starts_with(&[0, 2]) {}
    ann.send_binary(&awareness_message(1, 17_000));
    ann.send_binary(&update_message(1, 100_010));
    eventually(Duration::from_secs(5), "it is counted", || world.metric("contextnexus_presence_dropped_total") == 1.0);
}
