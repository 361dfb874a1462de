//! Pages of other origins: a token that the page sends counts, a cookie that the browser sends does not, and what is
//! refused is logged.

use crate::support::fleet::{Fleet, KINDS};
use crate::support::process::eventually;
use crate::support::raw::Raw;
use crate::support::server::Options;
use crate::support::world::World;
use serde_json::json;
use std::time::Duration;

const PAGE: &str = "https://app.example.org";

/// Lines arrive a little later than answers.
fn hears_of_the_refusal(world: &World) {
    eventually(Duration::from_secs(30), "the log is heard", || {
        world.server.log().iter().any(|line| line.contains(PAGE))
    });
}

/// Check 1 of the security checklist, as issue 11 has it. All clients, each as on a page of another origin.
#[test]
fn every_client_works_on_a_page_of_another_origin_with_its_token() {
    let world = World::start();
    let mut fleet = Fleet::start();
    for kind in KINDS {
        fleet.open_with(kind, kind, &world.base(), "elsewhere", &world.token(), json!({ "origin": PAGE }));
    }
    fleet.wait(&KINDS, "synced", Duration::from_secs(30));
    for kind in KINDS {
        fleet.call("write", json!({ "client": kind, "token": format!("tok-{kind}") }));
    }
    fleet.wait(&KINDS, "saved", Duration::from_secs(30));
    let log = world.server.log().join("\n");
    assert!(!log.contains("refused a page"), "nothing was refused, and no line says so:\n{log}");
}

#[test]
fn a_cookie_from_a_page_of_another_origin_opens_nothing_and_the_log_says_what_would() {
    let world = World::start();
    let cookie = format!("Cookie: contextnexus={}", world.token());
    // The session would read the document by its cookie. From elsewhere it hears what one without a token hears.
    let own = format!("Origin: {}", world.base());
    assert!(closed_with(&world, &format!("{own}\r\n{cookie}")).is_none(), "its own page is let in");
    for _ in 0..3 {
        assert_eq!(closed_with(&world, &format!("Origin: {PAGE}\r\n{cookie}")), Some(4401));
    }
    hears_of_the_refusal(&world);
    let log = world.server.log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains(PAGE)).collect();
    assert_eq!(lines.len(), 1, "one line a minute:\n{}", log.join("\n"));
    assert!(lines[0].contains("WARN") && lines[0].contains("server.allowed_origins"), "{}", lines[0]);
    assert!(!log.join("\n").contains(&world.token()), "the token is in no log");
}

#[test]
fn where_origins_of_tokens_are_checked_the_refusal_names_the_setting() {
    let environment = vec![("CONTEXTNEXUS_SERVER__CHECK_TOKEN_ORIGINS".to_owned(), "true".to_owned())];
    let world = World::start_with(Options { environment, ..Options::default() });
    for path in ["/yjs/a", "/collab", "/d/a/ws/a"] {
        let headers = format!("Origin: {PAGE}");
        let (status, head, _) = request(&world, &format!("{path}?token={}", world.token()), &headers);
        assert_eq!(status, 403, "{path}: {head}");
    }
    hears_of_the_refusal(&world);
    let log = world.server.log().join("\n");
    assert!(log.contains("server.check_token_origins") && log.contains("server.cors_origins"), "{log}");
    assert!(log.contains(PAGE), "{log}");
}

/// A browser brings a new cookie with a new socket: whoever signs in again when told to come back goes on.
#[test]
fn a_cookie_that_runs_out_ends_its_socket_with_come_back_and_the_next_one_opens() {
    let world = World::start();
    let member = world.member_for("frank", "editor", "4 seconds");
    let cookie = |token: &str| format!("Origin: {}\r\nCookie: contextnexus={token}", world.base());
    let (status, head, mut client) = request(&world, "/yjs/cookies", &cookie(&member.token));
    assert_eq!(status, 101, "{head}");
    let mut greeted = false;
    let code = loop {
        match client.frame().expect("a frame comes") {
            (0x88, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            (0x82, payload) => greeted |= payload.first() == Some(&0),
            _ => {}
        }
    };
    assert_eq!((greeted, code), (true, 4501));
    assert_eq!(closed_with(&world, &cookie(&world.fresh_token(&member))), None);
}

/// The code with which the server closes, or nothing where it greets.
fn closed_with(world: &World, headers: &str) -> Option<u16> {
    let (status, head, mut client) = request(world, "/yjs/cookies", headers);
    assert_eq!(status, 101, "{head}");
    loop {
        match client.frame().expect("a frame comes") {
            (0x88, payload) => return Some(u16::from_be_bytes([payload[0], payload[1]])),
            (0x82, payload) if payload.first() == Some(&0) => return None, // sync: it greets
            _ => {}
        }
    }
}

fn request(world: &World, path: &str, headers: &str) -> (u16, String, Raw) {
    let address = world.base().trim_start_matches("http://").parse().unwrap();
    Raw::request(address, path, &format!("{headers}\r\n"))
}
