//! One PostgreSQL server process: looking at one that is there, starting one, waiting for it, stopping it.

use super::binaries::Programs;
use super::{Account, EmbeddedError};
use crate::console::progress;
use crate::postgres::probe::{self, Answer};
use crate::process::{exists, is_alive};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::sleep;

const POLL: Duration = Duration::from_millis(50);
/// How long the processes of a killed postmaster take to notice, with a wide margin.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(20);

/// What is needed to start and to recognise the server of one cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    pub account: Account,
    pub programs: Programs,
    /// PostgreSQL's data directory, absolute.
    pub cluster: PathBuf,
    /// Receives what PostgreSQL says before it opens its own log.
    pub first_words: PathBuf,
    /// `name=value`, given on the command line so that nothing in the cluster overrides them.
    pub settings: Vec<(&'static str, String)>,
    /// Longest start, recovery included.
    pub start_timeout: Duration,
    /// Asks whether it serves, as the superuser: a URL without port.
    pub superuser_password: crate::config::Secret,
}

/// A running server.
#[derive(Debug)]
pub struct Postmaster {
    pub pid: Pid,
    pub port: u16,
    /// `None` for an orphan of an earlier run of ours, which is nobody's child to wait for.
    child: Option<Child>,
}

/// What `postmaster.pid` says.
struct PidFile {
    pid: Pid,
    cluster: PathBuf,
    port: u16,
}

impl Plan {
    /// The superuser's URL.
    pub fn superuser_url(&self, port: u16) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{port}/postgres?sslmode=disable", self.superuser_password.0)
    }

    /// A server of this cluster that still runs and is as this plan wants it. One that is otherwise is stopped.
    pub async fn adopt(&self) -> Result<Option<Postmaster>, EmbeddedError> {
        let Some(file) = read_pid_file(&self.cluster) else { return Ok(None) };
        if !file.is_running_in(&self.cluster) {
            self.clear_stale_pid_file(&file).await?;
            return Ok(None);
        }
        let mut postmaster = Postmaster { pid: file.pid, port: file.port, child: None };
        let as_wanted = std::fs::read_to_string(self.cluster.join("postmaster.opts")).is_ok_and(|line| {
            self.arguments(file.port).iter().all(|argument| line.contains(&format!("\"{argument}\"")))
        });
        if !as_wanted {
            postmaster.stop(self.start_timeout).await;
            return Ok(None);
        }
        match self.wait_until_serving(&mut postmaster).await {
            Ok(()) => Ok(Some(postmaster)),
            // It went away, or is on its way out: start one.
            Err(EmbeddedError::Ended { .. }) => {
                self.clear_stale_pid_file(&file).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// [`adopt`](Self::adopt), else [`start`](Self::start).
    pub async fn resume(&self, port: u16) -> Result<Postmaster, EmbeddedError> {
        match self.adopt().await? {
            Some(postmaster) => Ok(postmaster),
            None => self.start(port).await,
        }
    }

    /// Starts a server on `port` and waits until it serves.
    pub async fn start(&self, port: u16) -> Result<Postmaster, EmbeddedError> {
        let deadline = Instant::now() + ORPHANS_TIMEOUT;
        loop {
            let child = self.spawn(port).await?;
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            let pid = pid.ok_or_else(|| self.ended())?;
            let mut postmaster = Postmaster { pid, port, child: Some(child) };
            match self.wait_until_serving(&mut postmaster).await {
                Ok(()) => return Ok(postmaster),
                // Processes of a killed postmaster hold its shared memory until they notice.
                Err(EmbeddedError::Ended { last_words, .. })
                    if last_words.contains("shared memory block") && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(200)).await;
                }
                Err(error) => {
                    postmaster.stop(Duration::from_secs(10)).await;
                    return Err(error);
                }
            }
        }
    }

    /// Gives the superuser of this cluster, whose password nobody knows any more, the one of this plan: as the user whose files
    /// they are, and without a server (PostgreSQL's single-user mode). A server that runs is stopped first.
    pub async fn set_superuser_password(&self) -> Result<(), EmbeddedError> {
        stop_running(&self.cluster, self.start_timeout).await;
        if let Some(file) = read_pid_file(&self.cluster) {
            self.clear_stale_pid_file(&file).await?;
        }
        let program = self.programs.get().await?.program("postgres");
        let statement = format!("alter role postgres login password '{}'\n", self.superuser_password.0);
        let mut command = self.account.command(&program);
        command.arg("--single").arg("-D").arg(&self.cluster);
        // Nothing of the statement is for a log.
        command.args([
            "-c",
            "logging_collector=off",
            "-c",
            "log_statement=none",
            "-c",
            "log_min_error_statement=panic",
        ]);
        command.arg("postgres").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |source| EmbeddedError::io(&program, source);
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that has ended says why below.
            let _ = stdin.write_all(statement.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        let words = String::from_utf8_lossy(&output.stderr);
        let complaint =
            words.lines().find(|line| ["ERROR:", "FATAL:", "PANIC:"].iter().any(|kind| line.contains(kind)));
        match complaint {
            None if output.status.success() => Ok(()),
            _ if super::is_disk_full(&words) => Err(EmbeddedError::DiskFull { path: self.cluster.clone() }),
            _ => {
                let last_words = complaint.or(words.lines().last()).unwrap_or("it said nothing").trim().to_owned();
                Err(EmbeddedError::Ended { last_words, log: self.cluster.join("log") })
            }
        }
    }

    fn arguments(&self, port: u16) -> Vec<String> {
        let mut arguments =
            vec!["-D".to_owned(), self.cluster.display().to_string(), "-p".to_owned(), port.to_string()];
        for (name, value) in &self.settings {
            arguments.push("-c".to_owned());
            arguments.push(format!("{name}={value}"));
        }
        arguments
    }

    async fn spawn(&self, port: u16) -> Result<Child, EmbeddedError> {
        let program = self.programs.get().await?.program("postgres");
        let _ = std::fs::remove_file(&self.first_words);
        let words = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.first_words)
            .map_err(|source| EmbeddedError::io(&self.first_words, source))?;
        let mut command: Command = self.account.command(&program);
        command.args(self.arguments(port)).stdout(Stdio::null()).stderr(words);
        command.spawn().map_err(|source| EmbeddedError::io(&program, source))
    }

    /// Waits until it takes connections and is what it should be, or has ended.
    async fn wait_until_serving(&self, postmaster: &mut Postmaster) -> Result<(), EmbeddedError> {
        let started = Instant::now();
        let mut told = started;
        let url = self.superuser_url(postmaster.port);
        loop {
            match probe::data_directory(&url).await {
                Answer::Serving(directory) if same_place(&directory, &self.cluster) => return Ok(()),
                Answer::Serving(_) | Answer::Stranger
                    if read_pid_file(&self.cluster).is_some_and(|file| file.pid == postmaster.pid) =>
                {
                    return Err(EmbeddedError::Stranger { port: postmaster.port });
                }
                // Another server may sit on the port while ours finds out that it cannot have it.
                _ => {}
            }
            if postmaster.has_ended() {
                return Err(self.ended());
            }
            if started.elapsed() > self.start_timeout {
                return Err(EmbeddedError::StartTimeout {
                    after_s: self.start_timeout.as_secs(),
                    words: self.last_words(),
                });
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                progress(format_args!("PostgreSQL is recovering ({} s) ...", started.elapsed().as_secs()));
            }
            sleep(POLL).await;
        }
    }

    fn ended(&self) -> EmbeddedError {
        let last_words = self.last_words();
        if super::is_disk_full(&last_words) {
            return EmbeddedError::DiskFull { path: self.cluster.clone() };
        }
        EmbeddedError::Ended { last_words, log: self.cluster.join("log") }
    }

    /// The reason that PostgreSQL gave last, as one line.
    fn last_words(&self) -> String {
        let first_words = std::fs::read_to_string(&self.first_words).unwrap_or_default();
        let log = newest_log(&self.cluster).unwrap_or_default();
        // What it says before it opens its log is about this start; in the log, refusals of clients that came too early are not
        // why it ended.
        let reason = |line: &&str| {
            (line.contains("FATAL:") || line.contains("PANIC:")) && !line.contains("the database system is")
        };
        let line = first_words.lines().rev().find(reason).or_else(|| log.lines().rev().find(reason));
        let line = line.or_else(|| first_words.lines().last()).unwrap_or("it said nothing");
        line.split_once("FATAL: ").or(line.split_once("PANIC: ")).map_or(line, |(_, reason)| reason).trim().to_owned()
    }

    /// Waits until no process of a dead server is left, and removes a pid file whose number some process has:
    /// PostgreSQL would take that process for its server.
    async fn clear_stale_pid_file(&self, file: &PidFile) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + ORPHANS_TIMEOUT;
        while processes().any(|pid| works_in(pid, &self.cluster)) {
            if Instant::now() > deadline {
                return Err(EmbeddedError::LeftOvers { cluster: self.cluster.clone() });
            }
            sleep(POLL).await;
        }
        if exists(file.pid) {
            let path = self.cluster.join("postmaster.pid");
            std::fs::remove_file(&path).map_err(|source| EmbeddedError::io(&path, source))?;
        }
        Ok(())
    }
}

impl Postmaster {
    /// Returns when it has ended.
    pub async fn ended(&mut self) {
        match &mut self.child {
            Some(child) => {
                // An error means that somebody else has waited for it: it is gone as well.
                let _ = child.wait().await;
            }
            None => {
                while is_alive(self.pid) {
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    pub fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => !is_alive(self.pid),
        }
    }

    /// Stops it cleanly; after `within` at once, which its next start repairs from the log.
    pub async fn stop(&mut self, within: Duration) {
        for (signal, within) in [(Signal::INT, within), (Signal::QUIT, Duration::from_secs(5))] {
            if self.has_ended() {
                return;
            }
            let _ = kill_process(self.pid, signal);
            if tokio::time::timeout(within, self.ended()).await.is_ok() {
                return;
            }
        }
    }
}

/// Stops whatever server runs in this cluster: one that a start was broken off over.
pub async fn stop_running(cluster: &Path, within: Duration) {
    if let Some(file) = read_pid_file(cluster).filter(|file| file.is_running_in(cluster)) {
        Postmaster { pid: file.pid, port: file.port, child: None }.stop(within).await;
    }
}

/// Where the server of these files was started that never stopped, if that was another place.
pub fn started_elsewhere(cluster: &Path) -> Option<PathBuf> {
    let file = read_pid_file(cluster)?;
    (!same_place(&file.cluster, cluster) && !file.is_running_in(cluster)).then_some(file.cluster)
}

fn read_pid_file(cluster: &Path) -> Option<PidFile> {
    let text = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pid = Pid::from_raw(lines.first()?.parse().ok()?)?;
    let port = lines.get(3).and_then(|line| line.parse().ok()).unwrap_or(0);
    Some(PidFile { pid, cluster: lines.get(1).map(PathBuf::from).unwrap_or_default(), port })
}

impl PidFile {
    /// Whether that process is still the server of this cluster, and not another program that was given its number.
    fn is_running_in(&self, cluster: &Path) -> bool {
        is_alive(self.pid) && works_in(self.pid, cluster)
    }
}

/// Whether this process is one of PostgreSQL's in this cluster: each of them works in the cluster's directory.
fn works_in(pid: Pid, cluster: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    if !Path::new("/proc/self").exists() {
        return true; // no /proc here: the answer to `show data_directory` decides
    }
    let is_postgres = std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "postgres");
    is_postgres && std::fs::read_link(process.join("cwd")).is_ok_and(|directory| same_place(&directory, cluster))
}

/// A port of 127.0.0.1: `wanted` where it is free (and not 0), else any.
pub fn free_port(wanted: u16) -> Result<u16, EmbeddedError> {
    let probe = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    probe(wanted).or_else(|_| probe(0)).map(|address| address.port()).map_err(EmbeddedError::NoPort)
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn same_place(a: &Path, b: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    canonical(a) == canonical(b)
}

fn newest_log(cluster: &Path) -> Option<String> {
    let entries = std::fs::read_dir(cluster.join("log")).ok()?.flatten();
    let newest = entries.max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok())?;
    // The end of it is what counts, and it may be long.
    let text = std::fs::read(newest.path()).ok()?;
    let end = text.len().saturating_sub(16 * 1024);
    Some(String::from_utf8_lossy(&text[end..]).into_owned())
}
