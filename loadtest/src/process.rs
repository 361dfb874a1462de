//! What the kernel knows of processes: CPU time and memory of a tree, pinning, limits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

/// Why a process cannot be looked at or moved.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No such process, or not ours to see.
    #[error("process {0} cannot be read from /proc")]
    Gone(u32),
    /// The kernel refused.
    #[error("{what} failed")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// CPU time and memory of a set of processes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// CPU time ever used, by process name; that of ended and awaited children included.
    pub cpu: BTreeMap<String, Duration>,
    /// Proportional set size in bytes by process name (shared memory counted once), resident size where the kernel
    /// hides that.
    pub memory: BTreeMap<String, u64>,
}

/// Whether a process is a service beside the server rather than the server.
pub fn is_beside(name: &str) -> bool {
    name.starts_with("postgres") || name.starts_with("redis")
}

impl Usage {
    /// CPU time of all together.
    pub fn cpu_total(&self) -> Duration {
        self.cpu.values().sum()
    }

    /// Memory of all together, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.values().sum()
    }

    /// The same without databases and buses.
    pub fn memory_bytes_own(&self) -> u64 {
        self.memory.iter().filter(|(name, _)| !is_beside(name)).map(|(_, bytes)| bytes).sum()
    }

    /// CPU time by process name since `before`, names without any left out.
    pub fn cpu_since(&self, before: &Self) -> BTreeMap<String, Duration> {
        self.cpu
            .iter()
            .map(|(name, now)| (name.clone(), now.saturating_sub(before.cpu.get(name).copied().unwrap_or_default())))
            .filter(|(_, used)| !used.is_zero())
            .collect()
    }
}

/// One line of /proc/PID/stat, as far as it is needed.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    ticks: u64,
}

/// Parses /proc/PID/stat. The name stands in parentheses and may hold anything, parentheses included.
fn parse_stat(text: &str) -> Option<Stat> {
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let fields: Vec<&str> = text.get(close + 2..)?.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        name: text.get(open + 1..close)?.to_owned(),
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?, // own user and system, then the children's
    })
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The processes `roots` and everything under them.
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut open = roots.to_vec();
    while let Some(pid) = open.pop() {
        if seen.insert(pid) {
            found.push(pid);
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Usage of `roots` and everything under them now. Every root must exist.
pub fn usage(roots: &[u32]) -> Result<Usage, ProcessError> {
    if let Some(gone) = roots.iter().find(|root| stat(**root).is_none()) {
        return Err(ProcessError::Gone(*gone));
    }
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut usage = Usage::default();
    for pid in tree(roots) {
        let Some(stat) = stat(pid) else { continue }; // ended meanwhile; its parent holds its time
        *usage.memory.entry(stat.name.clone()).or_default() += memory_bytes(pid);
        *usage.cpu.entry(stat.name).or_default() += Duration::from_millis(stat.ticks * 1000 / ticks_per_second);
    }
    Ok(usage)
}

fn memory_bytes(pid: u32) -> u64 {
    let kib = |file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    kib("smaps_rollup", "Pss:").or_else(|| kib("status", "VmRSS:")).unwrap_or(0) * 1024
}

/// What this process has had of its CPU so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnTime {
    /// CPU time used.
    pub used: Duration,
    /// Time in which the calling thread could have run and something else did; zero where the kernel does not say.
    pub waited: Duration,
}

impl OwnTime {
    /// As of now.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let used = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
        let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let waited = schedstat.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        Self { used, waited: Duration::from_nanos(waited) }
    }

    /// What came since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self { used: self.used.saturating_sub(before.used), waited: self.waited.saturating_sub(before.waited) }
    }
}

/// The machine's load average over the last minute; disturbed measurements show here.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Pins this process to one CPU.
pub fn pin_self(cpu: usize) -> Result<(), ProcessError> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|source| ProcessError::Kernel { what: "pinning to a CPU", source: source.into() })
}

/// The one CPU that a process is pinned to, where it is pinned to one.
pub fn pinned_to(pid: u32) -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(Some(pid_of(pid)?)).ok()?;
    if set.count() != 1 {
        return None;
    }
    (0..CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu))
}

/// As many open files as the kernel lets this process have.
pub fn raise_file_limit() -> Result<(), ProcessError> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    rustix::process::setrlimit(Resource::Nofile, wanted)
        .map_err(|source| ProcessError::Kernel { what: "raising the limit of open files", source: source.into() })
}

/// SIGKILL to one process, and to no other.
pub fn kill(pid: u32) -> Result<(), ProcessError> {
    signal(pid, Signal::KILL)
}

/// SIGTERM to one process.
pub fn terminate(pid: u32) -> Result<(), ProcessError> {
    signal(pid, Signal::TERM)
}

/// SIGTERM to a process group, by its leader.
pub fn terminate_group(leader: u32) -> Result<(), ProcessError> {
    signal_group(leader, Signal::TERM)
}

/// SIGKILL to a process group, by its leader.
pub fn kill_group(leader: u32) -> Result<(), ProcessError> {
    signal_group(leader, Signal::KILL)
}

fn signal_group(leader: u32, signal: Signal) -> Result<(), ProcessError> {
    let group = pid_of(leader).ok_or(ProcessError::Gone(leader))?;
    rustix::process::kill_process_group(group, signal)
        .map_err(|source| ProcessError::Kernel { what: "sending a signal to a group", source: source.into() })
}

fn signal(pid: u32, signal: Signal) -> Result<(), ProcessError> {
    let pid = pid_of(pid).ok_or(ProcessError::Gone(pid))?;
    rustix::process::kill_process(pid, signal)
        .map_err(|source| ProcessError::Kernel { what: "sending a signal", source: source.into() })
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some(Stat { name: "a) b (c)".to_owned(), parent: 7, ticks: 110 }));
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn a_child_and_what_it_burns_belong_to_the_tree() {
        let me = std::process::id();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 5"])
            .spawn()
            .unwrap();
        assert!(tree(&[me]).contains(&child.id()));
        let waited = std::time::Instant::now();
        while usage(&[child.id()]).unwrap().cpu_total().is_zero() {
            assert!(waited.elapsed() < Duration::from_secs(120), "a busy loop used no CPU");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(usage(&[child.id()]).unwrap().memory_bytes() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(usage(&[child.id()]), Err(ProcessError::Gone(_))));
    }
}
