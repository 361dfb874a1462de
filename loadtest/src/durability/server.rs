//! The server under test as a process: started, awaited, killed, started again.

use std::fs::{self, OpenOptions};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::{DurabilityError, Plan, Victim, read_text};
use crate::client::Access;
use crate::process;

/// Between two attempts to reach a server that starts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// A server that has not ended this long after SIGTERM is killed.
const FAREWELL: Duration = Duration::from_secs(15);

/// A server that syncs clients.
pub struct Server {
    process: Child,
    /// From its start to the first synced client.
    pub ready_ms: f64,
}

impl Server {
    /// The first start: the accesses may need what the server writes while it starts.
    pub async fn first(
        plan: &Plan,
        accesses: impl Fn() -> Result<Vec<Access>, String>,
        document: &str,
    ) -> Result<(Self, Vec<Access>), DurabilityError> {
        let mut server = Self::spawn(plan)?;
        let began = Instant::now();
        let accesses = loop {
            match accesses() {
                Ok(accesses) => break accesses,
                Err(why) if began.elapsed() >= plan.ready => return Err(DurabilityError::NotReady(plan.ready, why)),
                Err(_) => tokio::time::sleep(ATTEMPT_PAUSE).await,
            }
        };
        server.wait_ready(plan, &accesses, document).await?;
        Ok((server, accesses))
    }

    /// Runs the start command and waits until a client of every dialect gets `document`.
    pub async fn start(plan: &Plan, accesses: &[Access], document: &str) -> Result<Self, DurabilityError> {
        let mut server = Self::spawn(plan)?;
        server.wait_ready(plan, accesses, document).await?;
        Ok(server)
    }

    fn spawn(plan: &Plan) -> Result<Self, DurabilityError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {}", plan.start)).stdin(Stdio::null()).kill_on_drop(true);
        match &plan.log {
            Some(file) => {
                let log = OpenOptions::new().create(true).append(true).open(file)?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            None => drop(command.stdout(Stdio::null()).stderr(Stdio::null())),
        }
        Ok(Self { process: command.spawn()?, ready_ms: 0.0 })
    }

    async fn wait_ready(&mut self, plan: &Plan, accesses: &[Access], document: &str) -> Result<(), DurabilityError> {
        let began = Instant::now();
        for access in accesses {
            loop {
                if let Some(status) = self.process.try_wait()? {
                    return Err(DurabilityError::Ended(status));
                }
                match read_text(access, document).await {
                    Ok(_) => break,
                    Err(why) if began.elapsed() >= plan.ready => {
                        return Err(DurabilityError::NotReady(plan.ready, why));
                    }
                    Err(_) => tokio::time::sleep(ATTEMPT_PAUSE).await,
                }
            }
        }
        self.ready_ms = began.elapsed().as_secs_f64() * 1e3;
        Ok(())
    }

    /// SIGKILL to whom the plan names. Does not wait.
    pub fn kill(&mut self, plan: &Plan) -> Result<(), DurabilityError> {
        if plan.victim != Victim::Server {
            process::kill(database_pid(plan)?)?;
        }
        if plan.victim != Victim::Database {
            self.process.start_kill()?;
        }
        Ok(())
    }

    /// Ends the server as an operator would, so that it can end what it started itself.
    pub async fn end(mut self) -> Result<(), DurabilityError> {
        if let Some(pid) = self.process.id() {
            process::terminate(pid)?;
        }
        if tokio::time::timeout(FAREWELL, self.process.wait()).await.is_err() {
            self.process.start_kill()?;
        }
        Ok(())
    }

    /// Brings back what was killed and waits until it serves again.
    pub async fn revive(mut self, plan: &Plan, accesses: &[Access], document: &str) -> Result<Self, DurabilityError> {
        if plan.victim != Victim::Server
            && let Some(start) = &plan.database_start
        {
            let status = Command::new("sh").arg("-c").arg(start).stdin(Stdio::null()).status().await?;
            if !status.success() {
                return Err(DurabilityError::NotReady(plan.ready, format!("the database's start ended with {status}")));
            }
        }
        if plan.victim == Victim::Database {
            self.wait_ready(plan, accesses, document).await?;
            return Ok(self);
        }
        self.process.wait().await?;
        Self::start(plan, accesses, document).await
    }
}

fn database_pid(plan: &Plan) -> Result<u32, DurabilityError> {
    let file = plan.database_pid_file.as_ref().ok_or(DurabilityError::NoPidFile)?;
    let text = fs::read_to_string(file)?;
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    pid.ok_or_else(|| DurabilityError::NoDatabase(file.clone()))
}
