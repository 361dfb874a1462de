//! What runs say at their end: a table for people, JSON lines for tools, one page to be sent around.
#![allow(clippy::print_stdout, reason = "what this module says is the program's product")]

mod page;
mod svg;
mod table;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::outcome::{Outcome, Summary};

/// The runs against one server.
#[derive(Clone, Debug)]
pub struct Group {
    /// Whose.
    pub name: String,
    /// One by one.
    pub runs: Vec<Outcome>,
    /// All together.
    pub summary: Summary,
}

impl Group {
    /// Sums up `runs`, beside the relay's where there are any.
    pub fn new(name: &str, runs: Vec<Outcome>, relay: Option<&Self>) -> Self {
        let summary = Summary::new(&runs, relay.map(|relay| &relay.summary));
        Self { name: name.to_owned(), runs, summary }
    }

    /// The run whose first figure is closest to the median: the one to look at.
    pub fn typical(&self) -> Option<&Outcome> {
        let name = *self.summary.order.first()?;
        let median = *self.summary.figures.get(name)?;
        let away = |run: &&Outcome| run.figures.get(name).map_or(f64::INFINITY, |value| (value - median).abs());
        self.runs.iter().min_by(|a, b| away(a).total_cmp(&away(b)))
    }
}

/// Everything that is to be reported.
#[derive(Clone, Debug)]
pub struct Report {
    /// The relay first where there is one, then the servers.
    pub groups: Vec<Group>,
    /// What was not kept.
    pub broken: Vec<String>,
    /// What else must be said about the whole: servers that were skipped, CPUs that are not pinned.
    pub warnings: Vec<String>,
}

impl Report {
    /// What was done, in one line.
    pub fn title(&self) -> String {
        let first = self.groups.last().and_then(|group| group.runs.first());
        first.map_or_else(String::new, |run| format!("{}: {}", run.scenario, run.shape))
    }

    /// What is to be said in words, each with the group it is about.
    pub fn words(&self) -> Words<'_> {
        let mut words = Words::default();
        for group in &self.groups {
            for run in &group.runs {
                let add = |to: &mut Vec<(String, String)>, what: &str| {
                    let line = (group.name.clone(), what.to_owned());
                    if !to.contains(&line) {
                        to.push(line);
                    }
                };
                run.notes.iter().for_each(|note| add(&mut words.notes, note));
                run.cautions.iter().for_each(|caution| add(&mut words.cautions, caution));
                run.faults.iter().for_each(|fault| add(&mut words.faults, fault));
                if !run.checks.is_empty() {
                    words.checks.push((format!("{}, run {}", group.name, run.run), &run.checks));
                }
            }
        }
        words
    }

    /// Prints the table and the words to standard output.
    pub fn print(&self) {
        println!("\n{}", self.title());
        println!("{}", table::render(&self.groups));
        let words = self.words();
        for (whose, note) in &words.notes {
            println!("  {whose}: {note}");
        }
        for (whose, checks) in &words.checks {
            for check in *checks {
                let verdict = if check.agrees() { "agree" } else { "DIFFER" };
                println!(
                    "  {whose}: {}: server {}, generator {}: {verdict}",
                    check.what, check.server, check.generator
                );
            }
        }
        for (whose, caution) in &words.cautions {
            println!("  CAUTION, {whose}: {caution}");
        }
        for warning in &self.warnings {
            println!("  CAUTION: {warning}");
        }
        for (whose, fault) in &words.faults {
            println!("  FAULT, {whose}: {fault}");
        }
        for line in &self.broken {
            println!("  NOT KEPT: {line}");
        }
    }

    /// One self-contained HTML page.
    pub fn page(&self) -> String {
        page::render(self)
    }
}

/// What is said beside figures.
#[derive(Debug, Default)]
pub struct Words<'a> {
    /// Worth knowing.
    pub notes: Vec<(String, String)>,
    /// Figures may not be the server's.
    pub cautions: Vec<(String, String)>,
    /// What must not be.
    pub faults: Vec<(String, String)>,
    /// Counters beside each other, by run.
    pub checks: Vec<(String, &'a Vec<crate::metrics::Check>)>,
}

/// Appends one JSON line.
pub fn append_json(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}
