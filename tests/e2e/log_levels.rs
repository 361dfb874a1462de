//! Who reads ERROR and WARN in the log learns what is wrong with the server, not what clients got wrong.

use crate::support::fleet::interop_dir;
use crate::support::process::eventually;
use crate::support::raw::{Raw, frame};
use crate::support::rest::typing;
use crate::support::server::Options;
use crate::support::world::World;
use crate::support::{Random, seed};
use contextnexus_actors::causes::Cause;
use contextnexus_gate::lib0::{write_var_bytes, write_var_string};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

fn address(world: &World) -> SocketAddr {
    world.base().trim_start_matches("http://").parse().unwrap()
}

/// Sends these bytes on a connection of their own. The status, if there is one, whatever the server thinks of them.
fn send(address: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer);
    head.split(' ').nth(1)?.parse().ok()
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// What ERROR and WARN lines there are beyond the first `from`.
fn grave(world: &World, from: usize) -> Vec<String> {
    let mut lines = world.server.log().split_off(from);
    lines.retain(|line| line.contains(" ERROR ") || line.contains(" WARN "));
    lines
}

#[test]
fn what_clients_do_wrong_is_neither_error_nor_warn_and_an_outage_is() {
    let seed = seed();
    let mut world = World::start_private(Options::default());
    let before = world.server.log().len();
    let mut random = Random(seed);
    bad_requests(&world);
    conflicts(&world);
    no_http(&world, &mut random);
    bad_sockets(&world, &mut random);
    // Lines of what is still under way.
    eventually(Duration::from_secs(60), "all sockets are gone", || world.metric("contextnexus_ws_connections") < 1.0);
    let lines = grave(&world, before);
    assert!(lines.is_empty(), "{} lines (CNX_SEED={seed}), of them\n{}", lines.len(), a_few_of_each(&lines));

    let before = world.server.log().len();
    world.postgres().kill();
    let ask = request("GET", "/v1/projects", &bearer(&world), b"");
    assert_eq!(send(address(&world), &ask), Some(503));
    eventually(Duration::from_secs(60), "the outage is in the log", || !grave(&world, before).is_empty());
}

fn bearer(world: &World) -> String {
    format!("Authorization: Bearer {}\r\n", world.token())
}

/// Every operation of the description with ids, tokens and bodies that do not fit.
fn bad_requests(world: &World) {
    let api = serde_json::to_value(contextnexus::rest::openapi()).unwrap();
    let long = "x".repeat(300);
    let ids = [NOBODY, "nothing", "%FF%00", &long];
    let bodies: [(&str, &[u8]); 6] = [
        ("", b""),
        ("Content-Type: application/json\r\n", b"{"),
        (
            "Content-Type: application/json\r\nIf-Match: \"7\"\r\n",
            br#"{"name":"","title":7,"role":"king","email":"x"}"#,
        ),
        (
            "Content-Type: application/json\r\nIf-Match: *\r\n",
            br#"{"name":"a\u0000b","title":"t","role":"editor","slug":"-"}"#,
        ),
        ("Content-Type: application/octet-stream\r\nIdempotency-Key: k\r\n", b"\x01\x01\xff\xff\xff\xff\xff\xff"),
        ("Content-Type: text/plain\r\nIf-None-Match: ;;\r\nX-Request-Id: \x7f\r\nAccept: image/png\r\n", b"\xff\xfe"),
    ];
    for (number, (path, item)) in api["paths"].as_object().unwrap().iter().enumerate() {
        // Of somebody else each time: some operations end the session.
        let right = world.member(&format!("fuzz-{number}"), "admin").token;
        let wrong = "Authorization: Bearer cnx_0_wrong\r\nCookie: cnx=;=\r\n".to_owned();
        let tokens = [String::new(), wrong, format!("Authorization: Bearer {right}\r\n")];
        for method in item.as_object().unwrap().keys() {
            // Each password takes a good part of a second of CPU time.
            let few = if path.contains("login") { 2 } else { bodies.len() };
            for id in ids {
                let filled = fill(path, id);
                for token in &tokens {
                    for (headers, body) in &bodies[..few] {
                        let bytes = request(&method.to_uppercase(), &filled, &format!("{token}{headers}"), body);
                        let status = send(address(world), &bytes).unwrap_or_default();
                        assert!(status < 500, "{method} {filled} {headers}: {status}");
                    }
                }
                if !path.contains('{') {
                    break;
                }
            }
        }
    }
}

fn fill(path: &str, id: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// What is well-formed and contradicts what is there.
fn conflicts(world: &World) {
    let at = address(world);
    let right = bearer(world);
    let json = |method: &str, path: &str, body: &str| {
        send(at, &request(method, path, &format!("{right}Content-Type: application/json\r\n"), body.as_bytes()))
    };
    let login = format!(r#"{{"tenant":"demo","email":"{}","password":"wrong"}}"#, "demo@demo.local");
    assert_eq!(json("POST", "/v1/auth/login", &login), Some(401));
    assert_eq!(json("POST", "/doc/new", r#"{"docId":"taken"}"#), Some(200));
    let taken = r#"{"slug":"playground","title":"again"}"#;
    assert!(matches!(json("POST", "/v1/projects", taken), Some(400..=499)));
    let update = |bytes: &[u8]| {
        send(
            at,
            &request("POST", "/d/taken/update", &format!("{right}Content-Type: application/octet-stream\r\n"), bytes),
        )
    };
    assert_eq!(update(&typing(1, 0, "a")), Some(200));
    assert!(matches!(update(&typing(1, 7, "gap")), Some(400..=499)));
    assert!(matches!(update(&typing(1, 0, "fork")), Some(200..=499)));
    for name in ["hostile"] {
        for file in std::fs::read_dir(interop_dir().join(name)).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            update(&unhex(text.trim()));
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What is no HTTP, or ends too early.
fn no_http(world: &World, random: &mut Random) {
    let at = address(world);
    let long = format!("GET /{} HTTP/1.1\r\nHost: here\r\n\r\n", "x".repeat(200_000));
    let early = format!("POST /d/taken/update HTTP/1.1\r\nHost: here\r\n{}Content-Length: 900\r\n\r\n", bearer(world));
    let whole: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\nOrigin: null\r\nAccess-Control-Request-Method: \x01\r\n\r\n",
        long.as_bytes(),
        early.as_bytes(),
    ];
    for bytes in whole {
        send(at, bytes);
    }
    for _ in 0..50 {
        let noise: Vec<u8> = (0..random.below(400)).map(|_| random.below(256) as u8).collect();
        send(at, &noise);
    }
}

/// Upgrades that are refused, and messages that no client sends.
fn bad_sockets(world: &World, random: &mut Random) {
    let at = address(world);
    let token = world.token();
    for path in ["/yjs/", "/yjs/%FF", "/d/a/ws/b", "/doc/ws/%00", "/collab", "/yjs/room"] {
        for headers in ["Origin: https://elsewhere.example\r\n", "Origin: null\r\n", "Sec-WebSocket-Protocol: ,,\r\n"] {
            Raw::request(at, path, headers);
        }
        send(at, &request("GET", path, "", b""));
    }
    let rooms = ["/yjs/fuzz", "/yjs/a%00b", "/d/fuzz/ws/fuzz", "/collab", "/yjs/00000000-0000-7000-8000-000000000000"];
    for room in rooms {
        for query in [String::new(), "?token=wrong".into(), format!("?token={token}")] {
            for round in 0..12 {
                let (status, _, mut raw) = Raw::request(at, &format!("{room}{query}"), "");
                if status != 101 {
                    continue;
                }
                for _ in 0..4 {
                    raw.send_or_closed(&bad_message(round, room, &token, random));
                }
                match round % 3 {
                    0 => drop(raw),
                    1 => drop(raw.socket.shutdown(Shutdown::Both)),
                    _ => {
                        raw.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                        let _ = raw.socket.read(&mut [0; 4096]);
                    }
                }
            }
        }
    }
}

fn bad_message(round: u64, room: &str, token: &str, random: &mut Random) -> Vec<u8> {
    let mut noise: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
    let in_dialect = |body: &[u8]| {
        let mut message = Vec::new();
        if room == "/collab" {
            write_var_string(&mut message, "fuzz");
        }
        message.extend(body);
        frame(0x82, &message)
    };
    let carrying = |head: &[u8], payload: &[u8]| {
        let mut body = head.to_vec();
        write_var_bytes(&mut body, payload);
        in_dialect(&body)
    };
    match round {
        0 => frame(0x82, &noise),
        1 => frame(0x82, b""),
        2 => frame(0x81, &noise),
        3 => frame(0x83, &noise),
        4 => [0x82, 0x05, 1, 2, 3, 4, 5].to_vec(), // not masked
        5 => [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4].to_vec(), // too large
        6 => carrying(&[0, 2], &noise),
        7 => carrying(&[0, 2], &typing(9, 9, "gap")),
        8 => carrying(&[1], &noise),
        9 => {
            let mut body = vec![2, 0];
            write_var_string(&mut body, if random.below(2) == 0 { token } else { "wrong" });
            [in_dialect(&body), carrying(&[0, 0], &noise), carrying(&[0, 1], &noise)].concat()
        }
        10 => frame(0x88, &noise),
        _ => {
            noise.truncate(20);
            in_dialect(&noise)
        }
    }
}

/// Up to three lines of each module, so that a failure can be read.
fn a_few_of_each(lines: &[String]) -> String {
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in lines {
        let kind: String = line.chars().skip(27).filter(|c| !c.is_ascii_digit()).take(60).collect();
        kinds.entry(kind).or_default().push(line);
    }
    let few = kinds.values().map(|lines| format!("{} like {}", lines.len(), lines[..lines.len().min(2)].join("\n")));
    few.collect::<Vec<_>>().join("\n")
}

/// The README shows the table by which the server logs.
#[test]
fn the_readme_shows_the_causes_and_their_levels() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    for (cause, level, meaning) in Cause::TABLE {
        let row = format!("| {} | {level} | {meaning} |", format!("{cause:?}").to_lowercase());
        assert!(readme.contains(&row), "README lacks: {row}");
    }
}

/// `#[instrument(err)]` logs at ERROR, also what somebody asked for in vain.
#[test]
fn no_function_logs_its_errors_as_errors_by_default() {
    let sources = [crate::tidy::sources("src"), crate::tidy::sources("actors/src")].concat();
    assert_eq!(crate::tidy::offences(&sources, &[", err)]", "(err)]", ", err,", "(err,"]), Vec::<String>::new());
}
