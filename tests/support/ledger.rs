//! What clients were told and shown, and the checker that holds a server to it.

use super::fleet::Fleet;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The notes of one fleet, written as things happened, each by a system call of its own before the client heard anything else: the kernel has
/// them when the fleet is killed, and the kernel itself nobody kills here, so they are not synchronised with the disk.
pub struct Ledger {
    directory: tempfile::TempDir,
    files: Vec<PathBuf>,
}

/// A token that a client called saved, or that another client received.
#[derive(Default, Debug)]
pub struct Promises {
    pub acked: BTreeSet<String>,
    pub seen: BTreeSet<String>,
}

impl Promises {
    /// Everything that must be there for ever.
    pub fn all(&self) -> BTreeSet<String> {
        self.acked.union(&self.seen).cloned().collect()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        let directory = tempfile::Builder::new().prefix("cnx-ledger-").tempdir().expect("a temporary directory");
        Self { directory, files: Vec::new() }
    }
}

impl Ledger {
    /// A new file for one fleet.
    pub fn file(&mut self) -> PathBuf {
        let path = self.directory.path().join(format!("{}.jsonl", self.files.len()));
        self.files.push(path.clone());
        path
    }

    /// Everything promised so far. A line that a killed fleet did not finish does not count.
    pub fn promises(&self) -> Promises {
        let mut promises = Promises::default();
        for file in &self.files {
            for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
                let Ok(note) = serde_json::from_str::<Value>(line) else { continue };
                if let Some(token) = note["acked"].as_str() {
                    promises.acked.insert(token.to_owned());
                }
                if let Some(token) = note["seen"].as_str() {
                    promises.seen.insert(token.to_owned());
                }
            }
        }
        promises
    }
}

/// What is wrong with a document that was read back: promised tokens that are missing, any token that is there twice.
#[derive(Default, Debug)]
pub struct Verdict {
    pub missing: Vec<String>,
    pub twice: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.twice.is_empty()
    }

    pub fn of(promised: &BTreeSet<String>, held: &[String]) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for token in held {
            *counts.entry(token).or_default() += 1;
        }
        Self {
            missing: promised.iter().filter(|token| !counts.contains_key(token.as_str())).cloned().collect(),
            twice: counts.iter().filter(|(_, count)| **count > 1).map(|(token, _)| (*token).to_owned()).collect(),
        }
    }
}

pub fn strings(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The tokens of a room as a fresh client of `kind` reads them.
pub fn tokens_by_client(fleet: &mut Fleet, kind: &str, base: &str, room: &str, token: &str) -> Vec<String> {
    let name = format!("fresh-{kind}");
    fleet.open(&name, kind, base, room, token);
    fleet.wait(&[&name], "synced", Duration::from_secs(20));
    let tokens = strings(&fleet.call("tokens", json!({ "client": name })));
    fleet.call("close", json!({ "client": name }));
    tokens
}

/// Writers of all kinds in one room, each also a reader of the others, writing at `per_second` each.
pub fn start_load(fleet: &mut Fleet, base: &str, room: &str, token: &str, prefix: &str, per_second: u64, log: &Path) {
    let kinds = super::fleet::KINDS;
    for kind in kinds {
        fleet.open(kind, kind, base, room, token);
    }
    fleet.call("load", json!({ "clients": kinds, "perSecond": per_second, "prefix": prefix, "log": log }));
}
