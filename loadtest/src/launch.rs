//! The server under test as a process: started, awaited, killed, started again.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::bench::Bench;
use crate::client::Access;
use crate::process::{self, ProcessError};
use crate::reader;

/// Between two attempts to reach a server that starts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);
/// A server that has not ended this long after SIGTERM is killed.
const FAREWELL: Duration = Duration::from_secs(15);
/// The same where a scenario was broken off.
const HASTY_FAREWELL: Duration = Duration::from_secs(3);

/// How the server is started by the generator itself.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Starting the server")]
pub struct LaunchArgs {
    /// The command that starts the server in the foreground (read by `sh`, run by `exec`: give the binary itself).
    #[arg(long)]
    pub start: Option<String>,
    /// Where the server's output is appended to.
    #[arg(long)]
    pub server_log: Option<PathBuf>,
    /// Seconds that a start may take.
    #[arg(long, default_value_t = 60.0)]
    pub ready: f64,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A scenario that restarts the server was not told how.
    #[error("this scenario starts the server itself: give --start 'COMMAND'")]
    NoCommand,
    /// The command did not lead to a server that syncs a client.
    #[error("the server was not ready within {0:?}: {1}")]
    NotReady(Duration, String),
    /// The server ended by itself.
    #[error("the server ended by itself: {0}")]
    Ended(ExitStatus),
    /// It could not be signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The machine said no.
    #[error("the server's process or its log failed")]
    Io(#[from] std::io::Error),
}

impl LaunchArgs {
    /// How long a start may take.
    pub fn patience(&self) -> Duration {
        Duration::try_from_secs_f64(self.ready).unwrap_or(Duration::from_secs(60))
    }
}

/// A server that the generator started. Killed, with everything it started in its process group, when dropped.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    /// When the process was started.
    pub at: Instant,
}

impl Launched {
    /// Runs the command, on one CPU where given; its children inherit that.
    pub fn spawn(args: &LaunchArgs, cpu: Option<usize>) -> Result<Self, LaunchError> {
        let start = args.start.as_ref().ok_or(LaunchError::NoCommand)?;
        let mut command = match cpu {
            Some(cpu) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &cpu.to_string(), "sh"]);
                command
            }
            None => Command::new("sh"),
        };
        // A group of its own, so that a wrapper such as npx and what it started end together.
        command.arg("-c").arg(format!("exec {start}")).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        match &args.server_log {
            Some(file) => {
                let log = OpenOptions::new().create(true).append(true).open(file)?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            None => drop(command.stdout(Stdio::null()).stderr(Stdio::null())),
        }
        Ok(Self { child: command.spawn()?, at: Instant::now() })
    }

    /// Its process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails where the server has ended by itself.
    pub fn check(&mut self) -> Result<(), LaunchError> {
        match self.child.try_wait()? {
            Some(status) => Err(LaunchError::Ended(status)),
            None => Ok(()),
        }
    }

    /// Waits until the server accepts a TCP connection; answers when it did.
    pub async fn wait_accepting(&mut self, authority: &str, patience: Duration) -> Result<Instant, LaunchError> {
        loop {
            match TcpStream::connect(authority).await {
                Ok(_) => return Ok(Instant::now()),
                Err(error) if self.at.elapsed() >= patience => {
                    return Err(LaunchError::NotReady(patience, error.to_string()));
                }
                Err(_) => tokio::time::sleep(ATTEMPT_PAUSE).await,
            }
            self.check()?;
        }
    }

    /// Waits until a client of every dialect at every address gets `document`; answers the accesses, which may need
    /// what the server writes while it starts.
    pub async fn wait_synced(
        &mut self,
        bench: &Bench,
        document: &str,
        patience: Duration,
    ) -> Result<Vec<Access>, LaunchError> {
        let late = |at: Instant, why: String| match at.elapsed() >= patience {
            true => Err(LaunchError::NotReady(patience, why)),
            false => Ok(()),
        };
        let accesses = loop {
            match bench.accesses() {
                Ok(accesses) => break accesses,
                Err(error) => late(self.at, error.to_string())?,
            }
            self.check()?;
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        };
        for access in &accesses {
            while let Err(why) = reader::read_text(access, document).await {
                late(self.at, why)?;
                self.check()?;
                // The token on disk may be that of an earlier data directory, replaced while the server starts.
                tokio::time::sleep(10 * ATTEMPT_PAUSE).await;
            }
        }
        bench.accesses().map_err(|error| LaunchError::NotReady(patience, error.to_string()))
    }

    /// SIGKILL to the server itself, and to nothing that it started. Does not wait.
    pub fn kill(&mut self) -> Result<(), LaunchError> {
        Ok(self.child.start_kill()?)
    }

    /// Waits for the end of a process that was killed.
    pub async fn wait(&mut self) -> Result<(), LaunchError> {
        self.child.wait().await?;
        Ok(())
    }

    /// Ends the server as an operator would, so that it can end what it started itself.
    pub async fn end(mut self) -> Result<(), LaunchError> {
        let Some(pid) = self.child.id() else { return Ok(()) };
        process::terminate_group(pid)?;
        if tokio::time::timeout(FAREWELL, self.child.wait()).await.is_err() {
            process::kill_group(pid)?;
            self.child.wait().await?;
        }
        Ok(())
    }
}

impl Drop for Launched {
    /// Where a scenario gave up half-way. SIGTERM first, so that the server can end what it started, and a moment for it.
    fn drop(&mut self) {
        let Some(pid) = self.child.id() else { return };
        let asked = process::terminate_group(pid);
        let since = Instant::now();
        while asked.is_ok() && since.elapsed() < HASTY_FAREWELL && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(10 * ATTEMPT_PAUSE);
        }
        let _ = process::kill_group(pid); // a group without members is no error worth a word
    }
}

/// Connects until the server lets somebody in; for clients that meet a server while it starts.
pub async fn connect_patiently<T, E: std::fmt::Display>(
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, LaunchError> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if began.elapsed() >= patience => {
                return Err(LaunchError::NotReady(patience, error.to_string()));
            }
            Err(_) => tokio::time::sleep(10 * ATTEMPT_PAUSE).await,
        }
    }
}
