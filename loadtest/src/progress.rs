//! Tells whoever waits that something happens: one updating line on a terminal, plain lines elsewhere. Goes to standard
//! error and is no part of the result.
#![allow(clippy::print_stderr, reason = "what this module says is its product")]

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Plain lines come no more often than this: a log is read later, a terminal now.
const PLAIN_LINES_APART: Duration = Duration::from_secs(1);

/// Where progress goes.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    /// What stands before each line: the scenario and the run.
    heading: std::cell::RefCell<String>,
    told: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Quiet,
    Plain,
    Terminal,
}

impl Progress {
    /// As the process' standard error allows; nothing at all when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let mode = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Plain,
        };
        Self { mode, heading: std::cell::RefCell::default(), told: Cell::new(None) }
    }

    /// Says nothing.
    pub fn quiet() -> Self {
        Self::new(true)
    }

    /// What the lines to come are about.
    pub fn head(&self, heading: &str) {
        heading.clone_into(&mut self.heading.borrow_mut());
        self.told.set(None);
    }

    /// How far it is: replaces the line before it on a terminal, and comes at most once a second elsewhere.
    pub fn at(&self, line: impl FnOnce() -> String) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Terminal => {
                eprint!("\r\x1b[2K{}", cut(&self.headed(&line()), columns()));
                let _ = std::io::stderr().flush(); // a terminal that is gone shows no progress, and that is all
            }
            Mode::Plain if self.told.get().is_none_or(|told| told.elapsed() >= PLAIN_LINES_APART) => {
                self.told.set(Some(Instant::now()));
                eprintln!("{}", self.headed(&line()));
            }
            Mode::Plain => {}
        }
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Terminal => eprintln!("\r\x1b[2K{}", self.headed(line)),
            Mode::Plain => eprintln!("{}", self.headed(line)),
        }
    }

    /// Leaves the terminal's line free for results.
    pub fn end(&self) {
        if self.mode == Mode::Terminal {
            eprint!("\r\x1b[2K");
        }
    }

    fn headed(&self, line: &str) -> String {
        let heading = self.heading.borrow();
        if heading.is_empty() { line.to_owned() } else { format!("{heading}: {line}") }
    }
}

/// A line that wraps could not be replaced.
fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 20).unwrap_or(120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_within_the_terminal() {
        assert_eq!(cut("12345678", 5), "1234");
        assert_eq!(cut("äöü", 80), "äöü");
    }

    #[test]
    fn nothing_is_even_put_together_when_nobody_listens() {
        Progress::quiet().at(|| unreachable!("a quiet run builds no lines"));
    }
}
