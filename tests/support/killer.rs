//! Updates that kill whoever folds them, as yrs' own defects would if the gate let them through: each by a mark in its text. The gate admits
//! them, because to it, and to yrs, they are ordinary text.

use contextnexus_actors::ports::witness::{Fold, Witness};
use std::sync::Arc;
use std::time::Duration;

/// Ends the process by SIGABRT: its stack overflows.
pub const OVERFLOWS: &str = "overflows the stack";
/// Ends it by SIGSEGV.
pub const SEGFAULTS: &str = "reads freed memory";
/// Never ends, at full speed.
pub const SPINS: &str = "loops for ever";
/// Never ends in a server, without taking any CPU time, so that somebody can kill it meanwhile; it does no harm in a trial.
pub const WAITS: &str = "waits for somebody";
/// Does not kill: it takes so much CPU time, each time.
pub const BURNS: &str = "takes its time";
pub const BURNT: Duration = Duration::from_millis(600);
/// Does not kill: it panics, which is caught.
pub const PANICS: &str = "panics";

/// Set in the child that tries.
pub const TRIAL: &str = "CNX_PLANTED_TRIAL";

#[derive(Debug)]
pub struct Killer(Arc<dyn Witness>);

impl Killer {
    pub fn over(witness: Arc<dyn Witness>) -> Arc<dyn Witness> {
        Arc::new(Self(witness))
    }
}

impl Witness for Killer {
    fn folding(&self, fold: &Fold<'_>) {
        self.0.folding(fold);
        let says = |mark: &str| fold.update.windows(mark.len()).any(|part| part == mark.as_bytes());
        if says(OVERFLOWS) {
            eprintln!("{}", overflow(1));
        } else if says(SEGFAULTS) {
            // Again and again, as the instruction would fault again: the standard library's handler takes the first for itself.
            loop {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::SEGV).unwrap();
            }
        } else if says(SPINS) {
            loop {
                std::hint::spin_loop();
            }
        } else if says(BURNS) {
            let used = || {
                let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.try_into().unwrap_or_default())
            };
            let end = used() + BURNT;
            while used() < end {
                std::hint::spin_loop();
            }
        } else if says(WAITS) && std::env::var_os(TRIAL).is_none() {
            std::thread::sleep(Duration::from_secs(600));
        }
        assert!(!says(PANICS), "as asked for");
    }

    fn folded(&self) {
        self.0.folded();
    }
}

fn overflow(depth: u64) -> u64 {
    let on_stack = std::hint::black_box([depth; 64]);
    if on_stack[7] == 0 { 0 } else { overflow(depth + 1).wrapping_add(on_stack[(depth % 64) as usize]) }
}
