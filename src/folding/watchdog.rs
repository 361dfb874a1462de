//! Ends the process when a fold takes more CPU time than any honest one: its thread cannot be stopped otherwise, and serves nobody.
//!
//! CPU time and not time: a machine that is slow, busy or suspended, or a process that was stopped, is no reason.

use super::cpu_allowed;
use super::record::{Record, UnderWay};
use rustix::param::clock_ticks_per_second;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tracing::error;

/// How often it looks; an overrun is noticed so much later.
const INTERVAL: Duration = Duration::from_millis(500);

/// Starts the thread; it ends with the process.
pub(super) fn start(record: Arc<Record>, cpu_least: Duration) -> io::Result<()> {
    thread::Builder::new().name("watchdog".into()).stack_size(256 << 10).spawn(move || watch(&record, cpu_least))?;
    Ok(())
}

fn watch(record: &Record, cpu_least: Duration) {
    // What each thread is folding, and the CPU time that it had taken when it was first seen at it.
    let mut seen: HashMap<u64, (u64, Duration)> = HashMap::new();
    loop {
        thread::sleep(INTERVAL);
        let under_way = record.under_way();
        seen.retain(|thread, _| under_way.iter().any(|fold| fold.thread == *thread));
        for fold in under_way {
            let Some(cpu) = cpu_of(fold.thread) else { continue };
            let (number, since) = seen.entry(fold.thread).or_insert((fold.number, cpu));
            if *number != fold.number {
                (*number, *since) = (fold.number, cpu);
            } else if cpu.saturating_sub(*since) > cpu_allowed(cpu_least, fold.bytes) {
                end(fold);
            }
        }
    }
}

fn end(fold: UnderWay) -> ! {
    let document = fold.suspect.key.document;
    error!(
        document.id = %document, what = ?fold.suspect.what, bytes = fold.bytes,
        "a fold of document {document} does not end: this process does, and the next one tries what it was"
    );
    std::process::abort()
}

/// The CPU time that a thread of this process has taken.
fn cpu_of(thread: u64) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // Behind the name in parentheses: state is field 3, utime 14, stime 15.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second()).ok()?)
}
