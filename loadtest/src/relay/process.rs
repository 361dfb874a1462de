//! The relay as a process of its own, so that its CPU time is its own.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Writes;
use crate::bench::{Bench, ServerArgs};
use crate::client::TokenIn;
use crate::progress::Progress;
use crate::wire::dialect::Dialect;
use crate::wire::target::Target;

/// A relay that runs until this is dropped.
#[derive(Debug)]
pub struct Relay {
    target: Target,
    pid: Option<u32>,
    cpu: Option<usize>,
    /// Killed when dropped.
    _process: Child,
}

impl Relay {
    /// Starts one, on one CPU where given.
    pub async fn start(cpu: Option<usize>, writes: Writes) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", "--listen", "127.0.0.1:0"]);
        if writes == Writes::Each {
            command.args(["--writes", "each"]);
        }
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().ok_or("the relay has no output")?;
        let line = BufReader::new(stdout).lines().next_line().await?.ok_or("the relay did not start")?;
        let url = line.split(' ').next_back().ok_or("the relay named no address")?;
        Ok(Self { target: url.parse()?, pid: process.id(), cpu, _process: process })
    }

    /// To run a scenario against it.
    pub fn bench(&self, progress: Progress) -> Bench {
        let server = ServerArgs {
            urls: vec![self.target.clone()],
            dialect: vec![Dialect::YWebsocket],
            token: None,
            credentials: None,
            token_in: TokenIn::Header,
            server_pid: self.pid.into_iter().collect(),
            server_cpu: self.cpu,
            metrics: None,
            commit_probe: None,
        };
        Bench { is_relay: true, ..Bench::new(server, progress) }
    }
}
