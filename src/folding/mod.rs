//! What no code can catch: a row of a log that kills the process while yrs folds it, or never lets it go.
//!
//! Each thread writes what it is about to fold into a [`record`] in a file that is mapped into memory: a handful of stores, no
//! system call, and they outlive the process. The [`watchdog`] ends the process when a fold takes more CPU time than an honest one can.
//! At the next start, whatever stands in the record of a process that is gone is [tried](trial) on its exact prefix, in a child process, and
//! the document [waits](suspects) for the verdict. Only a child that dies by itself (SIGSEGV, SIGABRT, SIGBUS), or overruns its time twice,
//! convicts: then the row moves into quarantine. A plain kill or a lack of memory convicts nobody.

mod page;
mod record;
mod suspects;
pub mod trial;
mod watchdog;

use crate::data_dir;
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::ports::OperationLog;
use contextnexus_actors::ports::witness::Witness;
use record::{Leftover, Record};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The directory of records inside a data directory.
pub const DIRECTORY: &str = "folding";
/// How records are called there: by the process that writes them.
const EXTENSION: &str = "record";
/// CPU time for each MiB, beside what every fold may take. yrs takes 70 ms for a MiB of an ordinary state here, and 1.8 s for one that
/// deletes every second character of a long text.
const CPU_PER_MIB: Duration = Duration::from_secs(5);

/// The CPU time that folding so many bytes may take.
fn cpu_allowed(least: Duration, bytes: usize) -> Duration {
    least + CPU_PER_MIB.mul_f64(bytes as f64 / f64::from(1 << 20))
}

/// The record of this process, and what others left in theirs.
#[derive(Debug)]
pub struct BlackBox {
    record: Arc<Record>,
    leftovers: Vec<Leftover>,
}

impl BlackBox {
    /// Reads what the processes that are gone have left under this directory, and begins a record for as many threads.
    pub fn open(data_dir: &Path, threads: usize) -> io::Result<Self> {
        let directory = data_dir.join(DIRECTORY);
        data_dir::create(data_dir)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let left = leftovers_in(&directory)?;
        let path = directory.join(format!("{}.{EXTENSION}", SystemClock.fresh_id()));
        Ok(Self { record: Arc::new(Record::create(&path, threads)?), leftovers: left })
    }

    /// Who takes down what is folded.
    pub fn witness(&self) -> Arc<dyn Witness> {
        self.record.clone()
    }

    /// Ends this process when a fold takes more CPU time than this, and [more for large updates](CPU_PER_MIB).
    pub fn watch(&self, cpu_least: Duration) -> io::Result<()> {
        watchdog::start(self.record.clone(), cpu_least)
    }

    /// Tries whatever was left, in child processes that `trial` starts. Documents that are concerned load from the log that this returns
    /// when their verdict is there.
    pub fn try_leftovers(
        &mut self,
        log: Arc<dyn OperationLog>,
        trial: fn() -> Command,
        cpu_least: Duration,
    ) -> Arc<dyn OperationLog> {
        let left = std::mem::take(&mut self.leftovers);
        if left.is_empty() { log } else { suspects::guard(log, left, trial, cpu_least) }
    }
}

impl Drop for BlackBox {
    /// A process that ends in order leaves nothing.
    fn drop(&mut self) {
        self.record.remove();
    }
}

/// The records whose process is gone. Those with nothing in them are removed at once.
fn leftovers_in(directory: &Path) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        match Leftover::open(path)? {
            Some(left) if left.suspects.is_empty() => left.remove(),
            Some(left) => found.push(left),
            None => {}
        }
    }
    Ok(found)
}
