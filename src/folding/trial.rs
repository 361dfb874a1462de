//! One prefix of a log, folded in a child process that may die of it.
//!
//! Each fold may take the CPU time that the watchdog lets it take in a server, however long the folds before it took: what each of them may
//! do, all of them may.
//!
//! The prefix goes in by the child's stdin and nothing by its arguments, where `ps` would show it. The child says on stderr, one line before
//! each fold, what it is about to fold: the last line is what it died of.

use super::cpu_allowed;
use crate::process::{STACK_BYTES, is_lack_of_memory};
use bytes::Bytes;
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::document::replica::Replica;
use contextnexus_actors::document::state::{DocumentState, Unsound};
use contextnexus_actors::ids::{AppendId, DocumentId, DocumentKey, Position, TenantId, Tip};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::ports::log::{Authorship, Head, LogRow, Quarantine, Snapshot, Stored, Tail};
use contextnexus_actors::ports::witness::{Fold, Folding, Witness};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The hidden subcommand that [`child`] is.
pub const SUBCOMMAND: &str = "try-fold";
/// Rows that a child leaves out at most.
const LEFT_OUT_MAX: usize = 64;
/// A child that is starved of its CPU time is given up when it has said nothing for so many times what all of it might take at once.
const PATIENCE: u32 = 10;

/// What became of the child.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TrialResult {
    /// It lived through all of it.
    Sound,
    /// It died while it folded this.
    Died(Folding),
    /// It took more CPU time than one fold is allowed, while it folded this.
    Overran(Folding),
    /// It says nothing about the log: killed by somebody, out of memory, not started.
    Unknown(String),
}

/// This program, as the child.
pub fn own_program() -> Command {
    let program = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into());
    let mut command = Command::new(program);
    command.arg0("contextnexus").arg(SUBCOMMAND).env_clear();
    command
}

/// Has a child fold this, each part within the CPU time that a server [allows](cpu_allowed) it. Blocks.
pub(super) fn run(mut command: Command, stored: &Stored, cpu_least: Duration) -> TrialResult {
    let patience = cpu_allowed(cpu_least, bytes_of(stored)) * PATIENCE;
    let mut run = || -> io::Result<TrialResult> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let (Some(mut stdin), Some(stderr)) = (stdin, stderr) else {
            return Err(io::Error::other("a child without pipes"));
        };
        let given = encode(stored, cpu_least);
        let lines = AtomicU64::new(0);
        let said = std::thread::scope(|scope| {
            // A child that dies before it has read everything breaks the pipe: its end tells why.
            scope.spawn(move || stdin.write_all(&given));
            let listening = scope.spawn(|| Said::hear(BufReader::new(stderr), &lines));
            let (mut heard, mut deadline) = (0, Instant::now() + patience);
            while !listening.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                let so_far = lines.load(Ordering::Relaxed);
                if std::mem::replace(&mut heard, so_far) != so_far {
                    deadline = Instant::now() + patience;
                }
            }
            if !listening.is_finished() {
                let _ = child.kill(); // then it hears the end
            }
            listening.join().unwrap_or_default()
        });
        Ok(verdict(child.wait()?, &said))
    };
    run().unwrap_or_else(|error| TrialResult::Unknown(error.to_string()))
}

/// What the child said before its end.
#[derive(Default)]
struct Said {
    last: Option<Folding>,
    /// It has not said that it lived through that.
    is_folding: bool,
    lacked_memory: bool,
}

impl Said {
    fn hear(mut lines: impl BufRead, count: &AtomicU64) -> Self {
        let mut said = Self::default();
        let mut line = Vec::new();
        while lines.by_ref().take(4096).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            count.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&line);
            if let Some(folding) = read_line(text.trim_end()) {
                (said.last, said.is_folding) = (Some(folding), true);
            }
            said.is_folding &= text.trim_end() != FOLDED;
            said.lacked_memory |= is_lack_of_memory(&text);
            line.clear();
        }
        said
    }
}

fn verdict(status: ExitStatus, said: &Said) -> TrialResult {
    let Some(signal) = status.signal().and_then(Signal::from_named_raw) else {
        return if status.success() { TrialResult::Sound } else { TrialResult::Unknown(status.to_string()) };
    };
    match (signal, said.last) {
        _ if said.lacked_memory => TrialResult::Unknown("it ran out of memory".into()),
        (Signal::SEGV | Signal::ABORT | Signal::BUS, Some(last)) => TrialResult::Died(last),
        (Signal::XCPU, Some(last)) if said.is_folding => TrialResult::Overran(last),
        _ => TrialResult::Unknown(status.to_string()),
    }
}

/// The child: folds what it is given, and ends well unless that kills it. `through` gets the witness that reports.
pub fn child(through: fn(Arc<dyn Witness>) -> Arc<dyn Witness>) -> ExitCode {
    let mut given = Vec::new();
    if io::stdin().lock().read_to_end(&mut given).is_err() {
        return ExitCode::FAILURE;
    }
    let Some((stored, cpu_least)) = decode(&given) else { return ExitCode::FAILURE };
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }); // documents stay out of core files
    let reporter = Reporter { cpu_least, between: cpu_allowed(cpu_least, bytes_of(&stored)) };
    if reporter.allow(reporter.between).is_err() {
        return ExitCode::FAILURE; // an endless one would have no end
    }
    std::panic::set_hook(Box::new(|_| {})); // a panic is caught, and convicts where the document is used
    // With the stack of the threads that run documents.
    let folding = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let limits = Arc::new(Limits::default());
        let budgets = Budgets::of(&limits);
        let key = DocumentKey { tenant: TenantId(Uuid::nil()), document: DocumentId(Uuid::nil()) };
        let witness = through(Arc::new(reporter));
        let load = |stored| {
            let replica = Replica::witnessed(key, witness.clone());
            DocumentState::load_into(replica, stored, limits.clone(), budgets.clone(), Instant::now())
        };
        // Whatever else is wrong with it is found, and mended, where the document is used: here it is left out.
        let mut stored = stored;
        for _ in 0..LEFT_OUT_MAX {
            match load(stored.clone()) {
                Ok(mut document) => return drop(document.unpack_now()),
                Err(Unsound::Log(all)) => all.iter().for_each(|what| leave_out(&mut stored, what)),
                Err(Unsound::Snapshot { .. }) => return,
            }
        }
    });
    match folding.map(std::thread::JoinHandle::join) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Takes it out of its row, as quarantine does.
fn leave_out(stored: &mut Stored, what: &Quarantine) {
    for row in stored.tail.rows.iter_mut().filter(|row| row.seq_from == what.seq_from) {
        if let Some(left) = what.leave(&row.updates) {
            row.updates = left.updates;
        }
    }
}

fn bytes_of(stored: &Stored) -> usize {
    let snapshot = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len());
    snapshot + stored.tail.rows.iter().flat_map(|row| &row.updates).map(Bytes::len).sum::<usize>()
}

/// What is said after a fold.
const FOLDED: &str = "folded";

/// Says on stderr what is about to be folded, and gives each fold its own time.
#[derive(Debug)]
struct Reporter {
    cpu_least: Duration,
    /// For all that is done between two folds.
    between: Duration,
}

impl Reporter {
    /// From now on this process may take so much CPU time, and up to a second more, because seconds are what the kernel counts.
    fn allow(&self, more: Duration) -> io::Result<()> {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default());
        let until = used + more;
        let seconds = until.as_secs() + u64::from(until.subsec_nanos() > 0);
        // The soft limit ends it, by a signal that tells why; the hard one stays, or it could not be raised again.
        let maximum = getrlimit(Resource::Cpu).maximum;
        let current = maximum.map_or(seconds, |maximum| seconds.min(maximum));
        Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(current), maximum })?)
    }
}

impl Witness for Reporter {
    fn folding(&self, fold: &Fold<'_>) {
        // Where it is refused, what was allowed before is left.
        let _ = self.allow(cpu_allowed(self.cpu_least, fold.update.len()));
        let line = match fold.what {
            Folding::Update(seq) => format!("folding update {seq}\n"),
            Folding::Snapshot(seq) => format!("folding snapshot {seq}\n"),
        };
        let _ = io::stderr().write_all(line.as_bytes()); // whoever listened has given up
    }

    fn folded(&self) {
        let _ = io::stderr().write_all(format!("{FOLDED}\n").as_bytes()); // as above
        let _ = self.allow(self.between);
    }
}

fn read_line(line: &str) -> Option<Folding> {
    let (kind, seq) = line.strip_prefix("folding ")?.split_once(' ')?;
    let seq = seq.parse().ok()?;
    match kind {
        "update" => Some(Folding::Update(seq)),
        "snapshot" => Some(Folding::Snapshot(seq)),
        _ => None,
    }
}

fn encode(stored: &Stored, cpu_least: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
    let bytes = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    number(&mut out, cpu_least.as_secs());
    number(&mut out, stored.snapshot.is_some().into());
    if let Some(snapshot) = &stored.snapshot {
        number(&mut out, snapshot.position.seq);
        bytes(&mut out, &snapshot.state);
    }
    number(&mut out, stored.tail.rows.len() as u64);
    for row in &stored.tail.rows {
        number(&mut out, row.seq_from);
        number(&mut out, row.updates.len() as u64);
        for update in &row.updates {
            bytes(&mut out, update);
        }
    }
    out
}

fn decode(mut given: &[u8]) -> Option<(Stored, Duration)> {
    let mut read = Reader(&mut given);
    let cpu_least = Duration::from_secs(read.number()?);
    let at = |seq| Position { seq, tip: Tip(Uuid::nil()) };
    let snapshot = match read.number()? {
        0 => None,
        _ => {
            let (state_vector, writers) = (Bytes::new(), Bytes::new());
            Some(Snapshot { position: at(read.number()?), state: read.bytes()?, state_vector, writers })
        }
    };
    let mut rows = Vec::new();
    for _ in 0..read.number()? {
        let seq_from = read.number()?;
        let updates = (0..read.number()?).map(|_| read.bytes()).collect::<Option<Vec<Bytes>>>()?;
        let seq_to = (seq_from + updates.len() as u64).saturating_sub(1);
        let (append_id, tip, authorship) = (AppendId(Uuid::nil()), Tip(Uuid::nil()), Authorship::Unknown);
        rows.push(LogRow { seq_from, seq_to, append_id, tip, authorship, updates });
    }
    let head = Head { position: at(rows.last().map_or(0, |row| row.seq_to)), deleted: false };
    Some((Stored { snapshot, tail: Tail { rows, head }, quarantined: Vec::new(), damage: None }, cpu_least))
}

struct Reader<'a, 'b>(&'a mut &'b [u8]);

impl Reader<'_, '_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        *self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        *self.0 = rest;
        Some(Bytes::copy_from_slice(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        let at = |seq| Position { seq, tip: Tip(Uuid::nil()) };
        let row = |seq_from: u64, updates: &[&'static [u8]]| LogRow {
            seq_from,
            seq_to: seq_from + (updates.len() as u64).max(1) - 1,
            append_id: AppendId(Uuid::nil()),
            tip: Tip(Uuid::nil()),
            authorship: Authorship::Unknown,
            updates: updates.iter().map(|update| Bytes::from_static(update)).collect(),
        };
        Stored {
            snapshot: Some(Snapshot {
                position: at(3),
                state: "state".into(),
                state_vector: Bytes::new(),
                writers: Bytes::new(),
            }),
            tail: Tail {
                rows: vec![row(4, &[b"four", b""]), row(6, &[]), row(7, &[b"seven"])],
                head: Head { position: at(7), deleted: false },
            },
            quarantined: Vec::new(),
            damage: None,
        }
    }

    #[test]
    fn the_child_reads_what_it_was_given_and_nothing_else() {
        let given = encode(&stored(), Duration::from_secs(12));
        let (read, cpu) = decode(&given).unwrap();
        assert_eq!(cpu, Duration::from_secs(12));
        assert_eq!(encode(&read, cpu), given);
        let snapshot = read.snapshot.unwrap();
        assert_eq!((snapshot.position.seq, &snapshot.state[..]), (3, &b"state"[..]));
        for cut in 0..given.len() {
            assert!(decode(&given[..cut]).is_none(), "cut at {cut}");
        }
    }

    /// What a child that does this proves.
    fn proves(script: &str) -> TrialResult {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("cat >/dev/null; echo folding snapshot 3 >&2; echo folding update 7 >&2; {script}")]);
        run(command, &stored(), Duration::from_secs(30))
    }

    #[test]
    fn only_a_child_that_dies_of_what_it_folds_convicts() {
        for signal in ["SEGV", "ABRT", "BUS"] {
            assert_eq!(proves(&format!("kill -{signal} $$")), TrialResult::Died(Folding::Update(7)), "{signal}");
        }
        assert_eq!(proves("kill -XCPU $$"), TrialResult::Overran(Folding::Update(7)));
        assert!(matches!(proves("echo folded >&2; kill -XCPU $$"), TrialResult::Unknown(_)), "it lived through that");
        assert_eq!(
            proves("echo folded >&2; kill -SEGV $$"),
            TrialResult::Died(Folding::Update(7)),
            "what it broke showed late"
        );
        assert_eq!(proves("exit 0"), TrialResult::Sound);
        for nothing in [
            "kill -KILL $$",
            "kill -TERM $$",
            "exit 1",
            "echo 'memory allocation of 17179869184 bytes failed' >&2; kill -ABRT $$",
        ] {
            assert!(matches!(proves(nothing), TrialResult::Unknown(_)), "{nothing}");
        }
        let absent = run(Command::new("/nowhere/contextnexus"), &stored(), Duration::from_secs(1));
        assert!(matches!(absent, TrialResult::Unknown(_)));
    }

    #[test]
    fn a_child_that_died_before_it_folded_anything_convicts_nobody() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -SEGV $$"]);
        assert!(matches!(run(command, &stored(), Duration::from_secs(30)), TrialResult::Unknown(_)));
    }

    #[test]
    fn a_child_that_neither_folds_nor_ends_is_given_up() {
        let mut command = Command::new("sh");
        command.args(["-c", "exec sleep 60"]);
        let verdict = run(command, &stored(), Duration::from_millis(20));
        assert!(matches!(verdict, TrialResult::Unknown(_)), "{verdict:?}");
    }
}
