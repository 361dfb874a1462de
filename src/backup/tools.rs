//! `pg_dump` and `pg_restore`, as child processes that end with this one.

use crate::console::progress;
use crate::postgres::backup::without_password;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// Between two lines about something that takes long.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What one of them said last.
#[derive(Debug, thiserror::Error)]
#[error("{program} failed: {reason}")]
pub struct ToolFailed {
    program: String,
    reason: String,
}

impl ToolFailed {
    fn new(program: &Path, reason: impl Into<String>) -> Self {
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { program, reason: reason.into() }
    }
}

/// Dumps the instant of this name into `file`.
pub async fn dump(program: &Path, url: &str, snapshot: &str, file: &Path) -> Result<(), ToolFailed> {
    let mut command = connected(program, url);
    command.args(["--format=custom", "--verbose", "--no-password"]);
    command.arg(format!("--snapshot={snapshot}")).arg("--file").arg(file);
    run(program, command, None, "dumping contents of table", Some(file)).await
}

/// What a dump holds, as `pg_restore` takes it back, without what belongs to the database and not to us: extensions,
/// the schema itself, and default privileges, which name the source's owner.
pub async fn restore_list(program: &Path, file: &Path) -> Result<String, ToolFailed> {
    let output = Command::new(program)
        .arg("--list")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| ToolFailed::new(program, error.to_string()))?;
    if !output.status.success() {
        return Err(ToolFailed::new(program, last_reason(&String::from_utf8_lossy(&output.stderr))));
    }
    let all = String::from_utf8_lossy(&output.stdout);
    Ok(all.lines().filter(|line| is_ours(line)).fold(String::new(), |list, line| list + line + "\n"))
}

/// `215; 1259 16402 TABLE public tenants owner`
fn is_ours(line: &str) -> bool {
    const OTHERS: [&str; 4] = ["EXTENSION ", "DEFAULT ACL ", "SCHEMA - public ", "COMMENT - "];
    let what = line.splitn(4, ' ').nth(3).unwrap_or_default();
    !OTHERS.iter().any(|other| what.starts_with(other))
}

/// Restores what is in the list, all or nothing, and one after the other: beside each other, foreign keys would be
/// checked behind row-level security. In a `scratch` cluster, rights are nobody's.
pub async fn run_restore(program: &Path, url: &str, file: &Path, list: &str, scratch: bool) -> Result<(), ToolFailed> {
    let mut command = connected(program, url);
    command.args(["--verbose", "--no-password", "--exit-on-error", "--no-owner", "--no-publications"]);
    command.args(["--no-subscriptions", "--no-security-labels", "--no-tablespaces", "--use-list=/dev/stdin"]);
    command.arg("--single-transaction").args(scratch.then_some("--no-privileges"));
    command.arg(file);
    run(program, command, Some(list), "processing data for table", None).await
}

/// The password goes by the environment, which only this user may read; a command line anybody may.
fn connected(program: &Path, url: &str) -> Command {
    let (address, password) = without_password(url);
    let mut command = Command::new(program);
    // What else the environment says of the connection, this program's own connections heed, too.
    for name in ["PGOPTIONS", "PGSERVICE", "PGSERVICEFILE"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("PGAPPNAME", "contextnexus");
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command.arg("--dbname").arg(address);
    command
}

/// Runs it to its end. Says at which table it is, and how much `file` has become, now and then.
async fn run(
    program: &Path,
    mut command: Command,
    input: Option<&str>,
    at_table: &str,
    file: Option<&Path>,
) -> Result<(), ToolFailed> {
    let failed = |error: std::io::Error| ToolFailed::new(program, error.to_string());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    let feeding = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // It may end before it has read everything; why is on its stderr.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let stderr = child.stderr.take();
    let reading = async {
        let mut words = String::new();
        let (mut table, mut told) = (String::new(), Instant::now());
        let Some(stderr) = stderr else { return words };
        let mut lines = BufReader::new(stderr).lines();
        loop {
            let line = match tokio::time::timeout(TELL_EVERY, lines.next_line()).await {
                Ok(Ok(Some(line))) => line,
                Ok(_) => return words,
                Err(_) => String::new(),
            };
            if let Some((_, name)) = line.split_once(at_table) {
                table = name.trim().to_owned();
            } else if words.is_empty() && line.contains("error:") {
                words = line; // the first; what follows from it says less
            }
            if told.elapsed() >= TELL_EVERY && !table.is_empty() {
                told = Instant::now();
                let bytes = file.and_then(|file| std::fs::metadata(file).ok()).map(|file| file.len() >> 20);
                let size = bytes.map(|mb| format!(", {mb} MB written")).unwrap_or_default();
                progress(format_args!("... at the table {table}{size}"));
            }
        }
    };
    let (status, words, ()) = tokio::join!(child.wait(), reading, feeding);
    let status = status.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let reason = if words.is_empty() { format!("it ended with {status}") } else { last_reason(&words) };
    Err(ToolFailed::new(program, reason))
}

/// `pg_dump: error: connection to server failed` without the front.
fn last_reason(text: &str) -> String {
    let line = text.lines().rev().find(|line| line.contains("error:")).or_else(|| text.lines().last());
    let line = line.unwrap_or("it said nothing");
    line.split_once("error: ").map_or(line, |(_, reason)| reason).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_database_itself_is_not_restored() {
        assert!(is_ours("215; 1259 16402 TABLE public tenants owner"));
        assert!(is_ours("3412; 0 0 ACL public TABLE tenants owner"));
        assert!(is_ours("3412; 0 0 ACL - SCHEMA public pg_database_owner"));
        assert!(is_ours("; Archive created at 2026"));
        for others in [
            "2; 3079 16390 EXTENSION - pg_stat_statements ",
            "3400; 0 0 COMMENT - EXTENSION pg_stat_statements ",
            "2101; 826 16387 DEFAULT ACL - DEFAULT PRIVILEGES FOR FUNCTIONS owner",
            "5; 2615 2200 SCHEMA - public pg_database_owner",
        ] {
            assert!(!is_ours(others), "{others}");
        }
    }
}
