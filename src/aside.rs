//! The threads for what takes long (`contextnexus_actors::aside`).

use contextnexus_actors::aside::{Aside, Job, Turns};
use contextnexus_actors::counted::Counted;
use contextnexus_actors::ids::TenantId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Where both want a CPU, whoever serves many goes first, nine times to one.
const NICENESS: i32 = 10;

/// Threads that nobody waits for but the document whose work they do.
pub struct AsideThreads {
    shared: Arc<Shared>,
}

struct Shared {
    turns: Mutex<Turns<Waiting>>,
    changed: Condvar,
}

struct Waiting {
    job: Job,
    _counted: Counted,
}

impl AsideThreads {
    /// How many there are for so many workers: one tenant can have half as many busy as there are workers, so that PostgreSQL and the others
    /// have the other half of the machine, and one more is there for another tenant.
    pub fn count(workers: usize) -> usize {
        (workers / 2).max(1) + 1
    }

    /// Starts them, for the rest of the process's life.
    pub fn start(workers: usize) -> std::io::Result<Self> {
        let count = Self::count(workers);
        let shared = Arc::new(Shared { turns: Mutex::new(Turns::new(count)), changed: Condvar::new() });
        for number in 0..count {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("aside-{number}")).spawn(move || shared.work())?;
        }
        Ok(Self { shared })
    }
}

impl Aside for AsideThreads {
    fn run(&self, tenant: TenantId, job: Job) {
        let waiting = Waiting { job, _counted: Counted::in_gauge("contextnexus_aside_waiting") };
        self.shared.turns().push(tenant, waiting);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn work(&self) {
        // What it does not get, it does without.
        let _ = rustix::process::nice(NICENESS);
        loop {
            let (tenant, waiting) = {
                let mut turns = self.turns();
                loop {
                    match turns.take() {
                        Some(next) => break next,
                        None => turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            let Waiting { job, _counted } = waiting;
            // Whoever asked hears of it: its answer was dropped. The thread goes on.
            let _ = catch_unwind(AssertUnwindSafe(job));
            self.turns().over(tenant);
            self.changed.notify_one(); // another job of this tenant may have waited for that
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns<Waiting>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
