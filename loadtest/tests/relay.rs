//! The generator against its own relay: what it must measure right, and what it must not believe.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use contextnexus_loadtest::client::{Access, TokenIn};
use contextnexus_loadtest::steady::{Plan, Watch};
use contextnexus_loadtest::wire::dialect::Dialect;
use contextnexus_loadtest::{converge, relay, steady};

/// Runs `scenario` with a relay on a port of its own, on one thread like the program itself.
fn with_relay<T, F: Future<Output = T>>(scenario: impl FnOnce(Access) -> F) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (address, serving) = relay::bind("127.0.0.1:0").await.unwrap();
        tokio::task::spawn_local(serving);
        let target = format!("ws://{address}").parse().unwrap();
        scenario(Access { target, dialect: Dialect::A, token: None, token_in: TokenIn::Header }).await
    })
}

fn plan(scenario: &'static str, documents: usize, writers: usize, readers: usize, rate: f64) -> Plan {
    Plan {
        scenario,
        documents,
        writers,
        readers,
        rate,
        warm_up: Duration::from_millis(100),
        duration: Duration::from_secs(1),
        drain: Duration::from_secs(5),
    }
}

#[test]
fn a_fan_out_reaches_every_reader_and_every_delivery_is_counted() {
    let plan = plan("fanout", 1, 1, 20, 50.0);
    let measured = with_relay(|access| async move { steady::run(&plan, &[access], &Watch::default()).await.unwrap() });
    assert_eq!((measured.missing, measured.unacknowledged, measured.refused, measured.dropped), (0, 0, 0, 0));
    assert_eq!(measured.connections, 21);
    let delivery = measured.delivery.unwrap();
    let sent = measured.acknowledgement.unwrap().count;
    assert!((45..=50).contains(&sent), "50 updates a second for a second, {sent} sent");
    assert_eq!(delivery.count, sent * 20, "each of 20 readers, once");
    assert!(delivery.p50_ms > 0.0 && delivery.p50_ms <= delivery.p99_ms && delivery.p99_ms <= delivery.max_ms);
    assert!(measured.deliveries >= sent * 19, "the window holds nearly all of them, the echo included");
}

#[test]
fn many_documents_do_not_mix() {
    let plan = plan("many", 30, 2, 0, 10.0);
    let measured = with_relay(|access| async move { steady::run(&plan, &[access], &Watch::default()).await.unwrap() });
    assert_eq!((measured.missing, measured.unacknowledged, measured.refused), (0, 0, 0));
    assert_eq!(measured.connections, 60);
    assert_eq!(
        measured.delivery.unwrap().count,
        measured.acknowledgement.unwrap().count,
        "each update goes to one other client and back to its sender"
    );
}

#[test]
fn what_never_arrives_is_missing() {
    // Readers of one address, writers of another: nothing joins the two relays.
    let plan = Plan { drain: Duration::from_millis(300), ..plan("fanout", 1, 1, 1, 50.0) };
    let measured = with_relay(|first| {
        with_second(
            first,
            move |accesses| async move { steady::run(&plan, &accesses, &Watch::default()).await.unwrap() },
        )
    });
    assert!(measured.missing >= 45, "{} missing", measured.missing);
    assert_eq!(measured.unacknowledged, 0, "the writer's own relay echoes");
}

async fn with_second<T, F: Future<Output = T>>(first: Access, scenario: impl FnOnce(Vec<Access>) -> F) -> T {
    let (address, serving) = relay::bind("127.0.0.1:0").await.unwrap();
    tokio::task::spawn_local(serving);
    let second = Access { target: format!("ws://{address}").parse().unwrap(), ..first.clone() };
    scenario(vec![first, second]).await
}

fn edits(disconnect: f64, settle: Duration) -> converge::Plan {
    converge::Plan {
        clients: 4,
        edits: 200,
        rate: 400.0,
        disconnect,
        offline: Duration::from_millis(200),
        settle,
        fresh: false,
        seed: 11,
        progress: false,
    }
}

#[test]
fn editors_who_hear_everything_converge() {
    let verdict =
        with_relay(
            |access| async move { converge::run(&edits(0.0, Duration::from_secs(5)), &[access]).await.unwrap() },
        );
    assert!(verdict.is_sound(), "{verdict:?}");
}

#[test]
fn a_server_that_forgets_what_somebody_missed_is_found_out() {
    let verdict =
        with_relay(
            |access| async move { converge::run(&edits(0.2, Duration::from_millis(500)), &[access]).await.unwrap() },
        );
    assert!(verdict.disconnects > 0 && !verdict.equal, "{verdict:?}");
}

#[test]
fn a_relay_that_acknowledges_and_forgets_loses_tokens() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = env!("CARGO_BIN_EXE_contextnexus-loadtest");
    let report = std::env::temp_dir().join(format!("loadtest-durability-{port}.json"));
    let outcome = Command::new(program)
        .args(["durability", "--url", &format!("ws://127.0.0.1:{port}"), "--kills", "2", "--documents", "2"])
        .args(["--rate", "200", "--min-load", "0.3", "--max-load", "0.5", "--quiet", "--json"])
        .arg(&report)
        .args(["--start", &format!("{program} relay --listen 127.0.0.1:{port}")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout);
    let json = std::fs::read_to_string(&report).unwrap_or_default();
    let _ = std::fs::remove_file(&report);
    assert_eq!(outcome.status.code(), Some(1), "{said}{}", String::from_utf8_lossy(&outcome.stderr));
    let verdict: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(verdict["lost_acknowledged"].as_u64().unwrap() > 50, "{verdict}");
    assert_eq!(verdict["lost"], verdict["owed"], "a relay keeps nothing: {verdict}");
}
