//! Hostile updates through the gate and yrs, from a seed, and everything that must hold afterwards.
//!
//! yrs runs in child processes, because what it may do with a bad update no `catch_unwind` contains. A child that dies, hangs,
//! panics or finds a promise broken convicts the gate. With one check switched off it must come to that.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

mod documents;
mod flaw;
mod forge;
mod memory;
mod reference;
mod spoil;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use contextnexus_gate::Rule;
use contextnexus_gate::switches::{Check, switch_off};

pub use documents::UPDATES_PER_DOCUMENT;

/// A check that can be switched off: one of the gate's own, or one that its caller makes with what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Gate(Check),
    /// New blocks under a client id that somebody else owns are withheld.
    Ownership,
    /// Two contents at one clock are found.
    Fork,
}

/// Every check. Only `Truncated` has no switch: what is not there cannot be read.
pub const SWITCHES: &[Switch] = {
    const fn rule(rule: Rule) -> Switch {
        Switch::Gate(Check::Malformed(rule))
    }
    &[
        rule(Rule::TooLarge),
        rule(Rule::TrailingBytes),
        rule(Rule::NumberNotCanonical),
        rule(Rule::NumberOutOfRange),
        rule(Rule::ClockOutOfRange),
        rule(Rule::NotUtf8),
        rule(Rule::EmptySection),
        rule(Rule::DuplicateSection),
        rule(Rule::EmptyBlock),
        rule(Rule::UnknownKind),
        rule(Rule::JsonContent),
        rule(Rule::MoveContent),
        rule(Rule::WeakLink),
        rule(Rule::XmlHook),
        rule(Rule::UnknownType),
        rule(Rule::UnknownValue),
        rule(Rule::ValueTooDeep),
        rule(Rule::NotJson),
        rule(Rule::SubDocumentOptions),
        rule(Rule::RootNameTooLong),
        rule(Rule::MapKeyTooLong),
        rule(Rule::UnknownParent),
        rule(Rule::RefersAhead),
        rule(Rule::SameOrigins),
        rule(Rule::DeletesUnsorted),
        rule(Rule::EmptyDelete),
        rule(Rule::DuplicateDeletes),
        rule(Rule::DuplicateClient),
        rule(Rule::AwarenessClock),
        rule(Rule::AwarenessStateTooLarge),
        rule(Rule::TooManyAwarenessEntries),
        Switch::Gate(Check::Known),
        Switch::Gate(Check::Gap),
        Switch::Gate(Check::Reference),
        Switch::Gate(Check::DeleteGap),
        Switch::Gate(Check::Circular),
        Switch::Gate(Check::ParentNotAType),
        Switch::Gate(Check::DifferentPlaces),
        Switch::Gate(Check::UnfitForKey),
        Switch::Gate(Check::RightOriginFirst),
        Switch::Gate(Check::TooCostly),
        Switch::Gate(Check::TypesTooDeep),
        Switch::Gate(Check::TooManyClients),
        Switch::Ownership,
        Switch::Fork,
    ]
};

impl Switch {
    pub fn name(self) -> String {
        match self {
            Self::Gate(Check::Malformed(rule)) => format!("{rule:?}"),
            Self::Gate(check) => format!("{check:?}"),
            other => format!("{other:?}"),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        SWITCHES.iter().copied().find(|switch| switch.name() == name)
    }
}

/// What a child process has to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Of the first document; each further one has the next.
    pub seed: u64,
    pub documents: u64,
    pub off: Option<Switch>,
    /// With a check switched off: whether a broken promise will do, or something worse is looked for.
    pub is_brief: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// Everything held. How often what happened.
    Sound(Counts),
    /// The gate let something pass.
    Convicted { seed: u64, how: String },
}

/// How often what happened.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    pub fn add(&mut self, name: impl Into<String>, count: u64) {
        *self.0.entry(name.into()).or_default() += count;
    }

    /// Takes in another's. Names that begin with `max` are no sums.
    pub fn merge(&mut self, other: &Counts) {
        for (name, count) in &other.0 {
            let ours = self.0.entry(name.clone()).or_default();
            *ours = if name.starts_with("max ") { *count.max(ours) } else { *ours + count };
        }
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What was tried and what passed, in words.
    pub fn verdict(&self) -> String {
        let (tried, passed) = (self.get("tried"), self.get("whole") + self.get("part"));
        format!("{tried} updates, {passed} passed the gate ({:.1} %)", 100.0 * passed as f64 / tried.max(1) as f64)
    }
}

const ORDERS: &str = "GATE_TRIAL";

/// Runs the orders in a child process, which `command` starts, and kills it when it hangs. `progress` hears now and then how
/// many updates were tried.
pub fn run(orders: &Orders, mut command: Command, patience: Duration, progress: &mut dyn FnMut(u64)) -> Outcome {
    let folder = std::env::temp_dir().join(format!("gate-trial-{}-{}", std::process::id(), orders.seed));
    let folder = orders.off.map_or(folder.clone(), |off| folder.join(off.name()));
    std::fs::create_dir_all(&folder).unwrap();
    let off = orders.off.map_or(String::new(), Switch::name);
    let report = Report::in_folder(&folder);
    let stderr = File::create(folder.join("stderr")).unwrap();
    let mut child = command
        .env(ORDERS, format!("{} {} {} {} {off}", folder.display(), orders.seed, orders.documents, orders.is_brief))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let (mut seen, mut since) = (Vec::new(), Instant::now());
    let how = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break if status.success() { None } else { Some(format!("{status}")) };
        }
        let now = report.read();
        if now != seen {
            progress(now.get(1).copied().unwrap_or(0));
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            break Some("hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(25));
    };
    let said = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    let outcome = match how {
        None => Outcome::Sound(
            std::fs::read_to_string(folder.join("counts"))
                .unwrap()
                .lines()
                .filter_map(|line| line.rsplit_once(' '))
                .fold(Counts::default(), |mut counts, (name, count)| {
                    counts.add(name, count.parse().unwrap());
                    counts
                }),
        ),
        Some(how) => {
            let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = said.iter().find(|line| line.contains("convicted") || line.contains("ERROR: AddressSanitizer"));
            let tail = tail.copied().map(str::to_owned).unwrap_or_else(|| said.join(" | ").chars().take(300).collect());
            Outcome::Convicted {
                seed: report.read().first().copied().unwrap_or(orders.seed),
                how: format!("{how}: {tail}"),
            }
        }
    };
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

/// Where a child notes how far it is, so that its last seed is known even when it dies.
struct Report(PathBuf);

impl Report {
    fn in_folder(folder: &std::path::Path) -> Self {
        Self(folder.join("report"))
    }

    fn read(&self) -> Vec<u64> {
        let mut bytes = Vec::new();
        let _ = File::open(&self.0).and_then(|mut file| file.read_to_end(&mut bytes));
        bytes.chunks_exact(8).map(|eight| u64::from_le_bytes(eight.try_into().unwrap())).collect()
    }
}

/// Whether this process is a child with orders.
pub fn is_child() -> bool {
    std::env::var(ORDERS).is_ok()
}

/// Does what the parent ordered. A document that convicts the gate ends the process.
pub fn obey() {
    let orders = std::env::var(ORDERS).unwrap();
    let mut words = orders.split(' ');
    let folder = PathBuf::from(words.next().unwrap());
    let (seed, documents): (u64, u64) =
        (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
    let is_brief = words.next() == Some("true");
    let off = words.next().and_then(Switch::named);
    if let Some(Switch::Gate(check)) = off {
        switch_off(check);
    }
    let mut report = File::create(Report::in_folder(&folder).0).unwrap();
    let mut trial = documents::Trial::new(off);
    let mut broken = None;
    for seed in seed..seed + documents {
        report.seek(SeekFrom::Start(0)).unwrap();
        report.write_all(&[seed.to_le_bytes(), trial.counts.get("tried").to_le_bytes()].concat()).unwrap();
        match trial.play(seed) {
            Ok(()) => {}
            // With a check switched off we go on and look for something worse than a promise.
            Err(documents::Conviction::Promise(what)) if off.is_some() && !is_brief => {
                broken.get_or_insert(format!("seed {seed}: {what}"));
            }
            Err(documents::Conviction::Promise(what)) => panic!("convicted, seed {seed}: a promise is broken: {what}"),
            Err(documents::Conviction::Yrs(what)) => panic!("convicted, seed {seed}: {what}"),
        }
    }
    if let Some(what) = broken {
        panic!("convicted: a promise is broken: {what}");
    }
    let lines: Vec<String> = trial.counts.0.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
    std::fs::write(folder.join("counts"), lines.concat()).unwrap();
}
