//! What `/metrics` says, and that somebody who never saw this server can read it.

use crate::support::raw::Raw;
use crate::support::rest::typing;
use crate::support::world::World;
use contextnexus_gate::lib0::write_var_bytes;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

fn address(world: &World) -> SocketAddr {
    world.base().trim_start_matches("http://").parse().unwrap()
}

/// Samples of a family with their labels.
fn samples<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).collect()
}

fn value(sample: &str) -> f64 {
    sample.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A server that has worked a little.
fn busy_world() -> World {
    let world = World::start();
    let (status, head, mut socket) = Raw::request(address(&world), &format!("/yjs/m?token={}", world.token()), "");
    assert_eq!(status, 101, "{head}");
    socket.send_binary(&[0, 0, 1, 0]);
    let mut update = vec![0, 2];
    write_var_bytes(&mut update, &typing(1, 0, "measured"));
    socket.send_binary(&update);
    while !socket.binary().starts_with(&[0, 2]) {} // its echo: committed
    world
}

#[test]
fn every_family_has_a_type_and_a_help_text() {
    let world = busy_world();
    let page = world.metrics();
    let body = page.split("\r\n\r\n").nth(1).unwrap();
    let (mut described, mut typed) = (BTreeSet::new(), BTreeSet::new());
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap_or((help, ""));
            assert!(text.ends_with('.') && text.len() > 10, "{line}");
            assert!(described.insert(name), "{name} is described twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(kind.split(' ').next().unwrap()), "{line} comes twice");
        } else if !line.is_empty() {
            let name = line.split(['{', ' ']).next().unwrap();
            let parts = ["", "_bucket", "_sum", "_count"];
            let known = parts.iter().any(|part| name.strip_suffix(part).is_some_and(|name| typed.contains(name)));
            assert!(known, "{line} has no type before it");
        }
    }
    assert_eq!(described, typed);
    assert!(typed.len() > 40, "{typed:?}");
}

/// Also those that a short test does not make appear.
#[test]
fn every_metric_of_the_sources_is_described() {
    let families = include_str!("../../src/metrics/families.rs");
    let mut found = BTreeSet::new();
    for part in ["src", "actors/src"] {
        names(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part), &mut found);
    }
    assert!(found.len() > 50, "{found:?}");
    let missing: Vec<_> = found.iter().filter(|name| !families.contains(&format!("\"{name}\""))).collect();
    assert!(missing.is_empty(), "src/metrics/families.rs does not describe {missing:?}");
}

fn names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for opening in ["counter!(", "gauge!(", "histogram!(", "in_gauge("] {
                for call in text.split(opening).skip(1) {
                    let name = call.trim_start().strip_prefix('"').and_then(|name| name.split('"').next());
                    found.extend(name.filter(|name| name.starts_with("contextnexus_")).map(str::to_owned));
                }
            }
        }
    }
}

#[test]
fn the_process_speaks_by_the_names_of_every_dashboard() {
    let world = World::start();
    let page = world.metrics();
    let one = |name: &str| match samples(&page, name)[..] {
        [sample] => value(sample),
        ref other => panic!("{name}: {other:?}"),
    };
    assert!(one("process_cpu_seconds_total") > 0.0);
    assert!(one("process_cpu_seconds_total") <= one("process_cpu_milliseconds_total") / 1000.0 + 0.01);
    assert!(one("process_resident_memory_bytes") > 1e6);
    assert!(one("process_virtual_memory_bytes") >= one("process_resident_memory_bytes"));
    assert!(one("process_open_fds") > 3.0 && one("process_open_fds") < one("process_max_fds"));
    assert!(one("process_threads") >= 1.0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let age = now - one("process_start_time_seconds");
    assert!((-2.0..Duration::from_secs(3600).as_secs_f64()).contains(&age), "started {age} s ago");
}

#[test]
fn the_build_says_its_version_and_revision() {
    let world = World::start();
    let page = world.metrics();
    let [info] = samples(&page, "contextnexus_build_info")[..] else { panic!("{page}") };
    assert!(info.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{info}");
    assert!(info.contains("revision=\""), "{info}");
    assert_eq!(value(info), 1.0);
}

/// Whatever clients ask for, there are as many series as the server has routes.
#[test]
fn requests_are_counted_by_route_and_status_and_nothing_that_a_client_wrote_is_a_label() {
    let world = World::start();
    let ask = |path: &str, headers: &str| Raw::connect(address(&world)).ask(path, headers).0;
    let right = format!("Authorization: Bearer {}\r\n", world.token());
    for number in 0..20 {
        assert_eq!(ask(&format!("/v1/documents/00000000-0000-7000-8000-0000000000{number:02}"), &right), 404);
        assert_eq!(ask(&format!("/v1/nowhere/secret-{number}"), ""), 404);
        assert_eq!(ask(&format!("/d/secret-{number}/as-update"), ""), 401);
    }
    assert_eq!(ask("/ready", ""), 200);
    let page = world.metrics();
    assert!(!page.contains("secret-"), "a path is a label");
    let count = |method: &str, route: &str, status: u16| {
        let labels = [format!("method=\"{method}\""), format!("route=\"{route}\""), format!("status=\"{status}\"")];
        let all = samples(&page, "contextnexus_http_request_seconds_count");
        let found: Vec<_> = all.iter().filter(|sample| labels.iter().all(|label| sample.contains(label))).collect();
        assert!(found.len() < 2, "{found:?}");
        found.first().map_or(0.0, |sample| value(sample))
    };
    assert_eq!(count("GET", "/v1/documents/{id}", 404), 20.0, "{page}");
    assert_eq!(count("GET", "unmatched", 404), 20.0, "{page}");
    assert_eq!(count("GET", "/d/{id}/as-update", 401), 20.0, "{page}");
    assert!(count("GET", "/ready", 200) >= 1.0, "{page}");
    let buckets = samples(&page, "contextnexus_http_request_seconds_bucket");
    assert!(buckets.iter().any(|bucket| bucket.contains("/ready") && bucket.contains("le=\"+Inf\"")), "{page}");
}
