//! The program itself: processes it starts, files it writes, codes it ends with. Its own relay is the server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_contextnexus-loadtest");

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn loadtest(line: &str) -> Output {
    Command::new(PROGRAM).args(line.split(' ')).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A file of this test, gone when it ends.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("loadtest-{}-{name}", std::process::id())))
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl std::fmt::Display for File {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.0.display())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A relay that serves until the test ends.
struct Server(Child, u16);

impl Server {
    fn start() -> Self {
        let port = free_port();
        let mut child = Command::new(PROGRAM)
            .args(["relay", "--listen", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert!(line.contains("ready"), "{line}");
        Self(child, port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_writes_a_table_json_and_a_page_and_ends_by_its_thresholds() {
    let server = Server::start();
    let (json, html) = (File::new("fanout.json"), File::new("fanout.html"));
    let base = format!(
        "fanout --url ws://127.0.0.1:{} --readers 40 --rate 200 --warm-up 0.1 --duration 1 --quiet --server-pid {}",
        server.1,
        server.0.id()
    );
    let kept = loadtest(&format!(
        "{base} --relay --runs 2 --json {json} --html {html} --max missing=0 --max-over-relay cpu_us=50"
    ));
    assert_eq!(kept.status.code(), Some(0), "{}", said(&kept));
    let lines = json.lines();
    assert_eq!(lines.len(), 2 + 2 + 2, "two runs each and two summaries");
    let summary = lines.last().unwrap();
    assert_eq!((&summary["against"], &summary["runs"]), (&"server".into(), &2.into()));
    assert!(summary["beside_relay"]["cpu_us"].as_f64().unwrap() > 0.0, "{summary}");
    let table = said(&kept);
    assert!(table.contains("CPU per delivery") && table.contains("server (median of 2)"), "{table}");
    let page = std::fs::read_to_string(&html.0).unwrap();
    assert!(page.contains("<svg") && page.contains("Everything was kept."));

    let broken = loadtest(&format!("{base} --max delivery_p50_ms=0 --html {html}"));
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    assert!(said(&broken).contains("NOT KEPT: delivery_p50_ms"), "{}", said(&broken));
    assert!(std::fs::read_to_string(&html.0).unwrap().contains("Not kept:"));
}

#[test]
fn what_cannot_be_carried_out_is_2_and_one_clear_line() {
    let nobody = loadtest("fanout --url ws://127.0.0.1:9 --quiet");
    assert_eq!(nobody.status.code(), Some(2));
    assert!(said(&nobody).starts_with("error: client 1 of 101 could not open its document"), "{}", said(&nobody));
    let unknown = loadtest("fanout --url ws://127.0.0.1:9 --max colour=3");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("no figure is called colour"), "{}", said(&unknown));
    let alone = loadtest("two-nodes --url ws://127.0.0.1:9 --quiet");
    assert!(said(&alone).contains("--url more than once"), "{}", said(&alone));
    let unstarted = loadtest("storm --url ws://127.0.0.1:9 --quiet");
    assert!(said(&unstarted).contains("--start"), "{}", said(&unstarted));
}

#[test]
fn counters_are_asked_for_only_of_servers_that_have_them() {
    let server = Server::start();
    let line = format!("fanout --url ws://127.0.0.1:{} --readers 1 --warm-up 0 --duration 0.3 --quiet", server.1);
    let unchecked = loadtest(&format!("{line} --check-metrics"));
    assert_eq!(unchecked.status.code(), Some(1), "{}", said(&unchecked));
    assert!(said(&unchecked).contains("no counter of the server could be checked"), "{}", said(&unchecked));
}

#[test]
fn a_relay_that_acknowledges_and_forgets_loses_tokens() {
    let (port, json) = (free_port(), File::new("durability.json"));
    let outcome = Command::new(PROGRAM)
        .args(["durability", "--url", &format!("ws://127.0.0.1:{port}"), "--kills", "2", "--documents", "2"])
        .args(["--rate", "200", "--min-load", "0.3", "--max-load", "0.5", "--quiet", "--json", &json.to_string()])
        .args(["--start", &format!("{PROGRAM} relay --listen 127.0.0.1:{port}")])
        .output()
        .unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{}", said(&outcome));
    let figures = &json.lines()[0]["figures"];
    assert!(figures["lost_acknowledged"].as_f64().unwrap() > 0.0, "{figures}");
    assert_eq!(figures["lost"], figures["owed"], "a relay keeps nothing: {figures}");
}

#[test]
fn a_storm_brings_everybody_back_and_finds_what_is_gone() {
    let (port, json) = (free_port(), File::new("storm.json"));
    let outcome = Command::new(PROGRAM)
        .args(["storm", "--url", &format!("ws://127.0.0.1:{port}"), "--clients", "40", "--documents", "4"])
        .args(["--updates", "5", "--quiet", "--json", &json.to_string()])
        .args(["--start", &format!("{PROGRAM} relay --listen 127.0.0.1:{port}")])
        .output()
        .unwrap();
    assert_eq!(outcome.status.code(), Some(1), "a relay forgets: {}", said(&outcome));
    let figures = &json.lines()[0]["figures"];
    assert_eq!((&figures["connections"], &figures["missing"]), (&40.0.into(), &(40.0 * 5.0).into()), "{figures}");
    assert!(figures["storm_ms"].as_f64().unwrap() > 0.0 && figures["start_ms"].as_f64().unwrap() > 0.0, "{figures}");
}

#[test]
fn a_cold_load_plays_a_trace_and_finds_that_a_relay_has_nothing() {
    let (port, json) = (free_port(), File::new("coldload.json"));
    let outcome = Command::new(PROGRAM)
        .args(["coldload", "--url", &format!("ws://127.0.0.1:{port}"), "--edits", "3000", "--warm", "1"])
        .args(["--quiet", "--json", &json.to_string()])
        .args(["--start", &format!("{PROGRAM} relay --listen 127.0.0.1:{port}")])
        .output()
        .unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{}", said(&outcome));
    assert!(said(&outcome).contains("MADE UP from seed 1"), "{}", said(&outcome));
    let line = &json.lines()[0];
    assert_eq!(line["figures"]["updates"], 3_001.0, "{line}");
    assert!(line["figures"]["feed_s"].as_f64().unwrap() > 0.0, "{line}");
    assert!(line["figures"]["missing"].as_f64().unwrap() > 500.0, "a relay has no text: {line}");
}

#[test]
fn a_server_that_was_started_ends_with_the_program() {
    let port = free_port();
    let mut child = Command::new(PROGRAM)
        .args(["storm", "--url", &format!("ws://127.0.0.1:{port}"), "--updates", "1000", "--quiet"])
        .args(["--start", &format!("{PROGRAM} relay --listen 127.0.0.1:{port}")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let reach = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let wait = |up: bool| {
        let since = std::time::Instant::now();
        while reach() != up {
            assert!(
                since.elapsed() < std::time::Duration::from_secs(120),
                "the relay is {}",
                if up { "down" } else { "up" }
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait(true);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(2));
    wait(false);
}

#[test]
fn a_comparison_runs_every_server_and_names_what_it_skips() {
    let (port, json, html) = (free_port(), File::new("compare.json"), File::new("compare.html"));
    let nowhere = std::env::temp_dir().join("loadtest-no-peers-here");
    let outcome = Command::new(PROGRAM)
        .args(["compare", "--runs", "1", "--relay-runs", "1", "--quiet", "--json", &json.to_string()])
        .args(["--html", &html.to_string(), "--peers-dir", &nowhere.display().to_string()])
        .args([
            "--server",
            &format!("name=first url=ws://127.0.0.1:{port} start={PROGRAM} relay --listen 127.0.0.1:{port}"),
        ])
        .args(["--server", "name=broken url=ws://127.0.0.1:9 start=false"])
        .args(["--server", "y-sweet", "--"])
        .args(["fanout", "--readers", "3", "--warm-up", "0.1", "--duration", "0.5", "--max", "missing=0"])
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let text = said(&outcome);
    assert_eq!(outcome.status.code(), Some(0), "{text}");
    assert!(text.contains("relay") && text.contains("first"), "{text}");
    assert!(text.contains("y-sweet was skipped: no y-sweet in the path"), "{text}");
    assert!(text.contains("broken could not carry it out: the server ended by itself"), "{text}");
    let lines = json.lines();
    let first = lines.iter().find(|line| line["against"] == "first" && line["summary"] == true).unwrap();
    assert!(first["beside_relay"]["deliveries"].as_f64().unwrap() > 0.5, "{first}");
    assert!(std::fs::read_to_string(&html.0).unwrap().contains("first"));
}
