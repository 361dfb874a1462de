//! Keeps PostgreSQL running on its port as long as this server serves, and stops it after that.

use super::home::Home;
use super::postmaster::{Plan, Postmaster, stop_running};
use super::{STOP_TIMEOUT, Urls};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// Waits between restarts; the last one repeats. A server that ran for a minute starts from the first again.
const BACKOFF_MS: [u64; 5] = [0, 200, 1_000, 2_000, 5_000];
const STEADY: Duration = Duration::from_secs(60);

/// The embedded database, running. Dropped without [`stop`](Self::stop), PostgreSQL runs on and is adopted by the next start.
pub struct EmbeddedPostgres {
    urls: Urls,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl EmbeddedPostgres {
    pub(super) fn supervise(plan: Plan, home: Home, postmaster: Postmaster) -> Self {
        let urls = home.record.urls();
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(async move {
            supervise(plan, postmaster, stopped).await;
            drop(home); // the lock is held until PostgreSQL has ended
        });
        Self { urls, stop, supervisor }
    }

    /// How to connect.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// Stops PostgreSQL and returns when it has ended.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.supervisor.await;
    }
}

async fn supervise(plan: Plan, mut postmaster: Postmaster, mut stop: oneshot::Receiver<()>) {
    let port = postmaster.port;
    let mut failures = 0;
    loop {
        let started = Instant::now();
        tokio::select! {
            asked = &mut stop => {
                // Without the word, this server has ended without its farewell: PostgreSQL goes on.
                if asked.is_ok() {
                    postmaster.stop(STOP_TIMEOUT).await;
                }
                return;
            }
            () = postmaster.ended() => {}
        }
        error!(pid = postmaster.pid.as_raw_nonzero().get(), "PostgreSQL ended by itself; starting it again");
        if started.elapsed() > STEADY {
            failures = 0;
        }
        loop {
            let wait = Duration::from_millis(BACKOFF_MS[failures.min(BACKOFF_MS.len() - 1)]);
            failures += 1;
            let outcome = tokio::select! {
                asked = &mut stop => {
                    if asked.is_ok() {
                        stop_running(&plan.cluster, STOP_TIMEOUT).await; // it may be half started
                    }
                    return;
                }
                outcome = async { tokio::time::sleep(wait).await; plan.resume(port).await } => outcome,
            };
            match outcome {
                Ok(again) => {
                    info!(pid = again.pid.as_raw_nonzero().get(), port, "PostgreSQL serves again");
                    postmaster = again;
                    break;
                }
                Err(error) => warn!(%error, "PostgreSQL cannot be started"),
            }
        }
    }
}
