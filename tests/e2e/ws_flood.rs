//! The whole server against clients that do what no library does. The pump's own cases are tests of `src/ws`.

use crate::support::process::PATIENCE;
use crate::support::raw::{self, Raw};
use crate::support::world::World;
use contextnexus_gate::lib0::write_var_bytes;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use yrs::{Doc, ReadTxn, Text, Transact, WriteTxn};

const READERS: usize = 100;

fn address(world: &World) -> SocketAddr {
    world.base().trim_start_matches("http://").parse().unwrap()
}

fn connect(world: &World, room: &str) -> Raw {
    let path = format!("/yjs/{room}?token={}", world.token());
    let (status, head, mut client) = Raw::request(address(world), &path, "");
    assert_eq!(status, 101, "{head}");
    client.send_binary(&[0, 0, 1, 0]); // step 1 of an empty document: updates follow the answer
    client
}

/// Rows 31 and 8 of the fault matrix: they are gone within their deadline, cost less than their budget, and nobody else notices.
#[test]
fn readers_that_never_read_are_closed_and_others_do_not_notice() {
    let world = World::start();
    let mut writer = connect(&world, "flood");
    let document = Doc::with_client_id(1);
    let wrote = |writer: &mut Raw, bytes: usize| {
        let update = {
            let mut transaction = document.try_transact_mut().unwrap();
            let before = transaction.state_vector();
            let text = transaction.get_or_insert_text("text");
            let end = text.len(&transaction);
            text.insert(&mut transaction, end, &"x".repeat(bytes));
            transaction.encode_diff_v1(&before)
        };
        let start = Instant::now();
        let mut message = vec![0, 2];
        write_var_bytes(&mut message, &update);
        writer.send_binary(&message);
        // Its echo is its acknowledgement.
        loop {
            assert!(start.elapsed() < PATIENCE, "no acknowledgement");
            match writer.frame().expect("the writer stays connected") {
                (0x82, message) if message.starts_with(&[0, 2]) => return start.elapsed(),
                (0x89, payload) => writer.send(&raw::frame(0x8A, &payload)),
                _ => {}
            }
        }
    };
    wrote(&mut writer, 10);
    let before_kib = world.server.memory_kib();

    let readers: Vec<Raw> = (0..READERS).map(|_| connect(&world, "flood")).collect();
    let start = Instant::now();
    let mut latencies = Vec::new();
    let mut most_kib = 0;
    while world.metric("contextnexus_ws_connections") > 1.0 {
        assert!(start.elapsed() < PATIENCE, "some are still there");
        latencies.push(wrote(&mut writer, 40_000));
        most_kib = most_kib.max(world.server.memory_kib());
        std::thread::sleep(Duration::from_millis(20));
    }
    latencies.sort();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!(
        "{READERS} gone after {:?}, {} writes, p99 {p99:?}, +{} KiB",
        start.elapsed(),
        latencies.len(),
        most_kib - before_kib
    );
    // A writer that waited for them would wait until they are cut off (`outbox_stall_s`).
    assert!(p99 < Duration::from_secs(8), "{p99:?}");
    let text_kib = latencies.len() as u64 * 40;
    let budget_kib = READERS as u64 * 1536 + 8 * text_kib;
    assert!(most_kib < before_kib + budget_kib, "{} KiB more, of {budget_kib}", most_kib - before_kib);
    assert!(world.metric("contextnexus_ws_shut_total") >= READERS as f64);
    drop(readers);
}

/// Check 8 of the security checklist; check 1 is in `ws_origins`.
#[test]
fn oversized_messages_are_refused() {
    let world = World::start();
    let before_kib = world.server.memory_kib();
    let mut client = connect(&world, "a");
    client.send(&[0x82, 0xFF, 0, 0, 0, 0, 0x0C, 0x80, 0, 0]); // 200 MiB are to come
    loop {
        match client.frame().expect("a close frame comes") {
            (0x88, payload) => {
                assert_eq!(payload[..2], 4413_u16.to_be_bytes());
                break;
            }
            (0x82, _) => {} // the server's greeting
            other => panic!("{other:?}"),
        }
    }
    assert!(world.server.memory_kib() < before_kib + 2048);
}
