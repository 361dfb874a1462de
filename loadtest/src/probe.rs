//! How long a bare one-row commit takes on the server's database: what a durable acknowledgement cannot go below.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::measure::Latencies;

/// Commits measured, at the scenario's rate.
const COMMITS: u32 = 150;
/// The rate is kept within these bounds, so that a probe takes between half a second and 15 s.
const RATE_MIN: f64 = 10.0;
const RATE_MAX: f64 = 300.0;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `psql` is not installed or not in the path.
    #[error("psql cannot be started")]
    NoPsql(#[source] std::io::Error),
    /// It ended early.
    #[error("psql failed: {0}")]
    Failed(String),
}

/// The median commit of one-row inserts at `rate` a second, in milliseconds, by a `psql` on `cpu` where given.
/// Makes and drops a table of its own; `url` needs the right to.
pub async fn commit_p50_ms(url: &str, rate: f64, cpu: Option<usize>) -> Result<f64, ProbeError> {
    let mut command = match cpu {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string(), "psql"]);
            command
        }
        None => Command::new("psql"),
    };
    let mut psql = command
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ProbeError::NoPsql)?;
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
        (psql.stdin.take(), psql.stdout.take(), psql.stderr.take())
    else {
        return Err(ProbeError::Failed("no pipes".to_owned()));
    };
    let feed = async move {
        let table = "loadtest_commit_probe";
        let head = format!(
            "set client_min_messages = warning;\ndrop table if exists {table};\ncreate table {table} (id bigint primary key, payload bytea);\n\\timing on\n"
        );
        stdin.write_all(head.as_bytes()).await?;
        let pause = Duration::from_secs_f64(1.0 / rate.clamp(RATE_MIN, RATE_MAX));
        let mut tick = tokio::time::interval(pause);
        for id in 0..COMMITS {
            tick.tick().await;
            let row = format!("insert into {table} values ({id}, decode(repeat('ab', 24), 'hex'));\n");
            stdin.write_all(row.as_bytes()).await?;
        }
        stdin.write_all(format!("\\timing off\ndrop table {table};\n").as_bytes()).await?;
        Ok::<(), std::io::Error>(())
    };
    let mut said = String::new();
    let mut complaints = String::new();
    let (fed, read, _) = tokio::join!(feed, stdout.read_to_string(&mut said), stderr.read_to_string(&mut complaints));
    if fed.is_err() || read.is_err() || !complaints.is_empty() {
        return Err(ProbeError::Failed(complaints.lines().next().unwrap_or("the pipe broke").to_owned()));
    }
    let mut commits = Latencies::default();
    timings(&said).for_each(|ms| commits.record((ms * 1e6) as u64));
    commits.quantiles().map(|quantiles| quantiles.p50_ms).ok_or_else(|| ProbeError::Failed("no timings".to_owned()))
}

/// The milliseconds that `\timing` printed.
fn timings(said: &str) -> impl Iterator<Item = f64> {
    said.lines().filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_read_from_psqls_words() {
        let said = "Time: 0.221 ms\n\nTime: 1003.5 ms (00:01.004)\nINSERT 0 1\n";
        assert_eq!(timings(said).collect::<Vec<_>>(), [0.221, 1003.5]);
    }
}
