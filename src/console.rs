//! Lines for the person who started the program. Everything else is a log.

use std::io::Write;

/// One line on stderr: what a start that takes long is doing.
pub fn progress(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// One line on stdout: the answer of a command, and nothing else.
pub fn say(line: impl std::fmt::Display) {
    // A closed stdout is no reason to stop serving.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

/// One line on stderr: why the program ends.
pub fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "contextnexus: {line}");
}
