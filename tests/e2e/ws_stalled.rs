//! Readers that stop reading, in the short form of the load scenario `stalled`: they cost no more than their caps, nobody else notices, and in
//! the end all have the same. The long form and its figures stand in `loadtest/README.md`.

use crate::support::server::Options;
use crate::support::world::World;
use crate::support::{long, scaled};
use clap::Parser as _;
use contextnexus_loadtest::bench::Bench;
use contextnexus_loadtest::outcome::Outcome;
use contextnexus_loadtest::progress::Progress;
use contextnexus_loadtest::scenarios::Scenario;

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

fn run(world: &World, more: &str) -> Outcome {
    let base = world.base();
    let line = format!(
        "loadtest stalled --url {} --token {} --metrics {base}/metrics --server-pid {} \
         --dialect y-websocket,hocuspocus,y-sweet --stalled 100 {more}",
        world.server.socket_base(),
        world.token(),
        world.server.pid()
    );
    let scenario = Line::parse_from(line.split_whitespace()).scenario;
    let bench = Bench::new(scenario.common().server.clone(), Progress::quiet());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(scenario.run(&bench))).unwrap()
}

#[test]
fn a_hundred_stalled_readers_cost_no_more_than_their_caps_and_all_are_equal_in_the_end() {
    // At this rate their buffers and their megabyte are full within seconds, and on a slow machine a few seconds later.
    let environment =
        vec![("CONTEXTNEXUS_LIMITS__OUTBOX_STALL_S".to_owned(), if long() { "10" } else { "4" }.to_owned())];
    let world = World::start_with(Options { environment, ..Options::default() });
    let seconds = scaled(20, 60);
    let outcome = run(&world, &format!("--bulk-kib 256 --calm {} --duration {seconds}", scaled(5, 20)));
    let figure = |name: &str| outcome.figures.get(name).unwrap_or_else(|| panic!("{name} was not measured"));
    println!("{:?}", outcome.figures);
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(outcome.checks.len() >= 2 && outcome.checks.iter().all(|check| check.agrees()), "{:?}", outcome.checks);
    for nothing in ["missing", "unacked", "unequal", "dropped", "refused"] {
        assert_eq!(figure(nothing), 0.0, "{nothing}");
    }
    assert!(figure("growth_of_cap") < 1.0, "{} MiB", figure("growth_mib"));
    assert!(figure("cut_off") >= 100.0, "who takes nothing for so long is cut off");
    assert!(world.metric("contextnexus_behind_total") >= 100.0, "they were never behind: this tested nothing");
    // Other tests run next to this one, and their load is in every latency; the long form has the machine to itself.
    if long() {
        assert!(figure("p99_over_calm") < 2.0 || figure("delivery_p99_ms") < 250.0, "{:?}", outcome.figures);
    }
}
