//! What each thread is folding, where it outlives the process.

use super::page;
use crate::process::is_alive;
use contextnexus_actors::ids::{DocumentId, DocumentKey, TenantId};
use contextnexus_actors::ports::witness::{Fold, Folding, Witness};
use rustix::process::Pid;
use rustix::thread::gettid;
use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// What a record begins with: what it is, and its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"CNXFOLD1");
/// Where the head has the process that writes it.
const PID: usize = 1;
/// Words of the head and of each thread's place: one line of the processor's cache.
const PLACE: usize = 8;
/// How often, and how far apart, a lock is tried whose process has ended.
const ATTEMPTS_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Bound on what is read of a record, whatever its file holds.
const BYTES_MAX: u64 = 1 << 20;

// In a place:
/// The number of the fold, from 1; zero while there is none. Stored last, and cleared first.
const NUMBER: usize = 0;
const TENANT: usize = 1;
const DOCUMENT: usize = 3;
const SEQ: usize = 5;
/// The size of what is folded, and the mark of a snapshot.
const SIZE: usize = 6;
const THREAD: usize = 7;
const IS_SNAPSHOT: u64 = 1 << 63;

/// The record of this process.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    /// Locked, so that others see that this process lives.
    _lock: File,
    words: &'static [AtomicU64],
    places_taken: AtomicUsize,
    /// Tells records of one process apart (tests have many).
    name: usize,
}

/// What a thread was folding when its process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Suspect {
    /// Whose log.
    pub key: DocumentKey,
    /// What of it.
    pub what: Folding,
}

/// What a thread is folding right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnderWay {
    pub number: u64,
    pub thread: u64,
    pub bytes: usize,
    pub suspect: Suspect,
}

thread_local! {
    /// The record and the place in it that this thread writes to.
    static PLACE_OF: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    /// The folds of this thread so far: no two have the same number, for the watchdog.
    static FOLDS: Cell<u64> = const { Cell::new(0) };
}

impl Record {
    /// Makes the file, with places for as many threads. A thread beyond them is not recorded.
    pub fn create(path: &Path, threads: usize) -> io::Result<Self> {
        static NAMES: AtomicUsize = AtomicUsize::new(0);
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.try_lock()?;
        let words = page::map(&mut file, PLACE * (1 + threads))?;
        if let Some(first) = words.first() {
            first.store(MAGIC, Ordering::Release);
        }
        if let Some(pid) = words.get(PID) {
            pid.store(u64::from(std::process::id()), Ordering::Relaxed);
        }
        let name = NAMES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { path: path.to_owned(), _lock: file, words, places_taken: AtomicUsize::new(0), name })
    }

    /// Takes the file away: this process ends in order.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path); // gone already, or the next start finds nothing in it
    }

    /// What is being folded, by any thread.
    pub(super) fn under_way(&self) -> Vec<UnderWay> {
        self.words.chunks_exact(PLACE).skip(1).filter_map(read_place).collect()
    }

    /// This thread's place.
    fn place(&self) -> Option<&'static [AtomicU64]> {
        let at = match PLACE_OF.get() {
            Some((record, at)) if record == self.name => at,
            _ => {
                let at = 1 + self.places_taken.fetch_add(1, Ordering::Relaxed);
                PLACE_OF.set(Some((self.name, at)));
                if let Some(thread) = self.words.get(at * PLACE + THREAD) {
                    thread.store(u64::from(gettid().as_raw_nonzero().get().unsigned_abs()), Ordering::Relaxed);
                }
                at
            }
        };
        self.words.get(at * PLACE..(at + 1) * PLACE)
    }
}

impl Witness for Record {
    fn folding(&self, fold: &Fold<'_>) {
        let Some(place) = self.place() else { return };
        let store = |at: usize, word: u64| {
            if let Some(place) = place.get(at) {
                place.store(word, Ordering::Relaxed);
            }
        };
        let (tenant, document) = (fold.key.tenant.0.as_u64_pair(), fold.key.document.0.as_u64_pair());
        let (seq, mark) = match fold.what {
            Folding::Update(seq) => (seq, 0),
            Folding::Snapshot(seq) => (seq, IS_SNAPSHOT),
        };
        store(TENANT, tenant.0);
        store(TENANT + 1, tenant.1);
        store(DOCUMENT, document.0);
        store(DOCUMENT + 1, document.1);
        store(SEQ, seq);
        store(SIZE, mark | fold.update.len() as u64);
        let number = FOLDS.get() + 1;
        FOLDS.set(number);
        if let Some(word) = place.get(NUMBER) {
            word.store(number, Ordering::Release);
        }
    }

    fn folded(&self) {
        if let Some(word) = self.place().and_then(|place| place.get(NUMBER)) {
            word.store(0, Ordering::Release);
        }
    }
}

fn read_place(place: &[AtomicU64]) -> Option<UnderWay> {
    let word = |at: usize| place.get(at).map_or(0, |word| word.load(Ordering::Relaxed));
    let number = place.get(NUMBER)?.load(Ordering::Acquire);
    if number == 0 {
        return None;
    }
    let uuid = |at: usize| Uuid::from_u64_pair(word(at), word(at + 1));
    let (seq, size) = (word(SEQ), word(SIZE));
    let what = if size & IS_SNAPSHOT == 0 { Folding::Update(seq) } else { Folding::Snapshot(seq) };
    let suspect =
        Suspect { key: DocumentKey { tenant: TenantId(uuid(TENANT)), document: DocumentId(uuid(DOCUMENT)) }, what };
    let bytes = usize::try_from(size & !IS_SNAPSHOT).unwrap_or(usize::MAX);
    Some(UnderWay { number, thread: word(THREAD), bytes, suspect })
}

/// What stands in a record whose process is gone.
#[derive(Debug)]
pub(super) struct Leftover {
    path: PathBuf,
    /// Ours while this lives, so that no other node tries the same.
    _lock: File,
    pub suspects: Vec<Suspect>,
}

impl Leftover {
    /// Reads a record. `None` while its process lives, and after another node has taken it away. Empty for one that its process had only
    /// begun, or whose layout is another.
    pub fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let mut attempts = 0;
        let words = loop {
            match file.try_lock() {
                Ok(()) => break words_of(&file)?,
                Err(TryLockError::Error(error)) => return Err(error),
                // A process that was killed while it started another leaves a child that holds its files until it has become that.
                Err(TryLockError::WouldBlock) if attempts < ATTEMPTS_MAX && !has_living_writer(&words_of(&file)?) => {
                    attempts += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
            }
        };
        if file.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        let is_record = words.first().is_some_and(|first| first.load(Ordering::Relaxed) == MAGIC);
        let places = if is_record { words.as_slice() } else { &[] };
        let suspects = places.chunks_exact(PLACE).skip(1).filter_map(read_place).map(|found| found.suspect).collect();
        Ok(Some(Self { path, _lock: file, suspects }))
    }

    /// All of it was tried.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn words_of(mut file: &File) -> io::Result<Vec<AtomicU64>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect())
}

fn has_living_writer(words: &[AtomicU64]) -> bool {
    let pid = words.get(PID).and_then(|word| i32::try_from(word.load(Ordering::Relaxed)).ok());
    pid.and_then(Pid::from_raw).is_some_and(is_alive)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(number: u128) -> DocumentKey {
        DocumentKey {
            tenant: TenantId(Uuid::from_u128(number << 70 | 1)),
            document: DocumentId(Uuid::from_u128(number)),
        }
    }

    fn update(number: u128, seq: u64) -> Fold<'static> {
        Fold { key: key(number), what: Folding::Update(seq), update: b"update" }
    }

    fn leftover(path: &Path) -> Option<Vec<Suspect>> {
        Leftover::open(path.to_owned()).unwrap().map(|left| left.suspects)
    }

    #[test]
    fn what_each_thread_was_folding_is_there_for_whoever_comes_after_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.record");
        let record = Record::create(&path, 3).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| record.folding(&update(7, 70)));
            scope.spawn(|| {
                record.folding(&update(8, 80));
                record.folded(); // it lived through that
            });
            scope.spawn(|| {
                record.folding(&update(9, 90));
                record.folded();
                record.folding(&Fold { what: Folding::Snapshot(91), ..update(9, 0) });
            });
        });
        std::thread::scope(|scope| {
            scope.spawn(|| record.folding(&update(10, 100))); // a thread too many is no fault
        });
        let mut under_way: Vec<_> = record.under_way().iter().map(|fold| fold.suspect.what).collect();
        under_way.sort_by_key(|what| format!("{what:?}"));
        assert_eq!(under_way, [Folding::Snapshot(91), Folding::Update(70)]);
        assert_eq!(leftover(&path), None, "its process lives");
        // The mapping holds the lock until the process ends: here a copy has to stand for what is left.
        let copy = directory.path().join("copy.record");
        fs::copy(&path, &copy).unwrap();
        let mut found = leftover(&copy).unwrap();
        found.sort_by_key(|suspect| suspect.key);
        let expected = [(7, Folding::Update(70)), (9, Folding::Snapshot(91))];
        assert_eq!(found, expected.map(|(number, what)| Suspect { key: key(number), what }));
    }

    #[test]
    fn rubbish_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.record");
        for rubbish in [&b""[..], b"CNX", &[0xff; 4096], b"CNXFOLD0aaaabbbbccccddddeeeeffffgggg"] {
            fs::write(&path, rubbish).unwrap();
            assert_eq!(leftover(&path), Some(Vec::new()));
        }
        assert_eq!(leftover(&directory.path().join("absent.record")), None);
    }

    #[test]
    fn recording_costs_nanoseconds() {
        let directory = tempfile::tempdir().unwrap();
        let record = Record::create(&directory.path().join("c.record"), 1).unwrap();
        let rounds = 100_000;
        let started = std::time::Instant::now();
        for seq in 0..rounds {
            record.folding(&update(1, seq));
            record.folded();
        }
        let each = started.elapsed() / u32::try_from(rounds).unwrap();
        // Ten times what an unoptimised build takes on a busy machine; a system call for each would be over it.
        assert!(each < Duration::from_nanos(500), "{each:?}");
    }
}
