//! The generator against its own relay: what it must measure right, and what it must not believe.
//!
//! Counts are exact. Rates and latencies are the machine's, and no verdict depends on them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::time::Duration;

use clap::Parser;
use contextnexus_loadtest::bench::Bench;
use contextnexus_loadtest::outcome::Outcome;
use contextnexus_loadtest::progress::Progress;
use contextnexus_loadtest::relay::{self, Writes};
use contextnexus_loadtest::scenarios::Scenario;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

/// Carries `line` out against `relays` relays on ports of their own, on one thread like the program itself.
fn run(line: &str, relays: usize) -> Outcome {
    run_with(line, relays, Writes::Batched)
}

fn run_with(line: &str, relays: usize, writes: Writes) -> Outcome {
    on_one_thread(async {
        let mut words: Vec<String> = std::iter::once("loadtest").chain(line.split(' ')).map(str::to_owned).collect();
        for _ in 0..relays {
            let (address, serving) = relay::bind("127.0.0.1:0", writes).await.unwrap();
            tokio::task::spawn_local(serving);
            words.extend(["--url".to_owned(), format!("ws://{address}")]);
        }
        let scenario = Line::try_parse_from(words).map_err(|error| error.to_string()).unwrap().scenario;
        let bench = Bench::new(scenario.common().server.clone(), Progress::quiet());
        scenario.run(&bench).await.unwrap()
    })
}

fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn figure(outcome: &Outcome, name: &str) -> f64 {
    outcome.figures.get(name).unwrap_or_else(|| panic!("{name} was not measured: {outcome:?}"))
}

#[test]
fn a_fan_out_reaches_every_reader_and_every_delivery_is_counted() {
    let measured = run("fanout --readers 20 --warm-up 0.1 --duration 1", 1);
    assert!(measured.is_sound(), "{:?}", measured.faults);
    assert_eq!((figure(&measured, "missing"), figure(&measured, "unacked")), (0.0, 0.0));
    assert_eq!(figure(&measured, "connections"), 21.0);
    let (sent, delivered) = (figure(&measured, "rate_sent"), figure(&measured, "deliveries"));
    assert!(delivered > sent && sent > 0.0, "to each of 20 readers and back to the sender, {delivered} of {sent}");
    let quantiles = ["delivery_p50_ms", "delivery_p90_ms", "delivery_p99_ms", "delivery_max_ms"];
    let values = quantiles.map(|name| figure(&measured, name));
    assert!(values[0] > 0.0 && values.is_sorted(), "{values:?}");
    assert!(measured.plots.iter().any(|plot| plot.title == "Delivery over time"));
}

#[test]
fn a_relay_that_writes_each_message_delivers_the_same() {
    let measured = run_with("fanout --readers 20 --warm-up 0.1 --duration 0.5", 1, Writes::Each);
    assert!(measured.is_sound(), "{:?}", measured.faults);
}

#[test]
fn many_documents_do_not_mix() {
    let measured = run("many --documents 30 --rate 10 --warm-up 0.1 --duration 1", 1);
    assert!(measured.is_sound(), "{:?}", measured.faults);
    assert_eq!(figure(&measured, "connections"), 60.0);
    let share = figure(&measured, "deliveries") / figure(&measured, "rate_sent");
    assert!((0.2..=20.0).contains(&share), "each update goes to one other client and back to its sender: {share}");
}

#[test]
fn acknowledgements_are_counted_at_a_total_rate() {
    let measured = run("ack --documents 5 --rate 200 --warm-up 0.1 --duration 1", 1);
    assert!(measured.is_sound(), "{:?}", measured.faults);
    assert!(figure(&measured, "rate_sent") > 0.0);
    assert!(figure(&measured, "ack_p99_ms") >= figure(&measured, "ack_p50_ms"));
}

#[test]
fn cursors_reach_everybody_else() {
    let measured = run("cursors --writers 10 --rate 5 --warm-up 0.1 --duration 1", 1);
    assert!(measured.is_sound(), "{:?}", measured.faults);
    let share = figure(&measured, "deliveries") / figure(&measured, "rate_sent");
    assert!((1.0..=90.0).contains(&share), "nine others, {share}");
    assert_eq!(measured.figures.get("ack_p50_ms"), None, "nobody acknowledges a cursor");
}

#[test]
fn what_never_arrives_is_missing() {
    // Readers of one address, writers of another: nothing joins the two relays.
    let measured = run("fanout --readers 1 --warm-up 0.1 --duration 1 --drain 0.3", 2);
    assert!(figure(&measured, "missing") > 0.0, "{measured:?}");
    assert_eq!(figure(&measured, "unacked"), 0.0, "the writer's own relay echoes");
    assert!(!measured.is_sound());
    let cursors = run("cursors --writers 2 --rate 20 --warm-up 0.1 --duration 1 --drain 0.3", 2);
    assert!(figure(&cursors, "missing") > 0.0, "{cursors:?}");
}

#[test]
fn two_nodes_that_are_not_joined_are_found_out() {
    let measured = run("two-nodes --readers 10 --warm-up 0.1 --duration 0.5 --drain 0.3", 2);
    assert!(figure(&measured, "missing") > 0.0, "{measured:?}");
}

#[test]
fn a_ramp_ends_and_says_why() {
    let measured = run("ramp --documents 2 --from 50 --to 100 --factor 2 --step 0.5 --refine 0 --limit-ms 60000", 1);
    assert!(measured.is_sound(), "{:?}", measured.faults);
    let why = measured.notes.join(" ");
    assert!(why.contains("stopped because"), "{why}");
    assert!(figure(&measured, "max_rate") > 0.0, "{why}");
    let limited = run("ramp --documents 2 --from 50 --factor 50 --step 0.5 --refine 0 --limit-ms 0.001", 1);
    assert_eq!(figure(&limited, "max_rate"), 0.0, "no delivery takes a microsecond");
    assert!(limited.notes.join(" ").contains("above 0.001 ms"), "{:?}", limited.notes);
}

#[test]
fn an_overload_is_over_when_everything_has_arrived() {
    let measured = run("overload --documents 5 --maximum 400 --duration 1 --patience 60", 1);
    assert!(measured.is_sound(), "{:?}", measured.faults);
    assert!(figure(&measured, "overload_rate") > 0.0 && figure(&measured, "of_maximum") > 0.0, "{measured:?}");
}

#[test]
fn idle_connections_open_and_stay() {
    let measured = run("idle --connections 60 --documents 3 --hold 0.2 --settle 0.2 --patience 0.3", 1);
    // The relay has no store: the documents that were there are not, and that is found out.
    assert_eq!(figure(&measured, "connections"), 60.0);
    assert_eq!(figure(&measured, "missing"), 60.0 * 20.0, "{measured:?}");
    assert!(figure(&measured, "open_ms") > 0.0);
}

#[test]
fn editors_who_hear_everything_converge() {
    let verdict = run("converge --clients 4 --edits 200 --rate 400 --disconnect 0 --no-fresh --seed 11", 1);
    assert!(verdict.is_sound(), "{verdict:?}");
}

#[test]
fn a_server_that_forgets_what_somebody_missed_is_found_out() {
    let line =
        "converge --clients 4 --edits 200 --rate 400 --disconnect 0.2 --offline 0.2 --settle 0.5 --no-fresh --seed 11";
    let verdict = run(line, 1);
    assert!(figure(&verdict, "disconnects") > 0.0 && !verdict.is_sound(), "{verdict:?}");
}

#[test]
fn a_relay_is_not_taken_for_a_server_that_waits() {
    // Guards the other tests: without a server nothing is measured, and that is an error rather than zeroes.
    let refused = on_one_thread(async {
        let line = Line::try_parse_from(["loadtest", "fanout", "--url", "ws://127.0.0.1:9"]).ok().unwrap();
        let bench = Bench::new(line.scenario.common().server.clone(), Progress::quiet());
        tokio::time::timeout(Duration::from_secs(20), line.scenario.run(&bench)).await.unwrap().is_err()
    });
    assert!(refused);
}
