//! A cluster for a moment: a backup is restored into it and looked at, and then it goes. It shares nothing with any
//! other.

use super::home::{self, Record};
use super::postmaster::{Plan, Postmaster};
use super::{Account, EmbeddedError, STOP_TIMEOUT, Urls, binaries, check_room, initialise, prepare, server_settings};
use super::{Programs, start_on_a_free_port};
use crate::config::{Config, Secret};
use rustix::process::{Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

/// What has to be found to look at a backup.
const PROGRAMS: [&str; 4] = ["pg_restore", "postgres", "initdb", "pg_dump"];

/// Running. PostgreSQL ends and its files go when this does.
pub struct Scratch {
    record: Record,
    bin: PathBuf,
    // Dropped in this order: the server first.
    postmaster: Running,
    _directory: TempDir,
}

/// Ended at the latest when it is dropped.
struct Running(Postmaster);

impl Drop for Running {
    fn drop(&mut self) {
        // An immediate stop; what it would write back goes anyway. After a stop the number may be another process's.
        if self.0.has_ended() {
            return;
        }
        let _ = kill_process(self.0.pid, Signal::QUIT);
        for _ in 0..100 {
            if self.0.has_ended() {
                return; // and so nobody writes where files are about to be removed
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Scratch {
    /// Makes and starts one under `parent`, of PostgreSQL `version` or the next newer one that is installed, with room
    /// for `bytes`.
    pub async fn start(config: &Config, parent: &Path, version: u32, bytes: u64) -> Result<Self, EmbeddedError> {
        let account = Account::choose(&config.embedded.run_as)?;
        let found = binaries::tools(&config.embedded, &account, &PROGRAMS, version).await?;
        let failed = |source| EmbeddedError::io(parent, source);
        let directory = tempfile::Builder::new().prefix("contextnexus-verify-").tempdir_in(parent).map_err(failed)?;
        // PostgreSQL's user has to pass, and need not look around.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
        let place = directory.path().join("home");
        account.make_directory(&place)?;
        if account.is_other() && !account.reaches(&place).await {
            return Err(EmbeddedError::Closed { account: account.name, home: place });
        }
        // The tables, their indexes, and PostgreSQL's own log of making them.
        check_room(&place, super::FREE_MB_NEW + (bytes >> 19))?;
        let record = home::fresh(Uuid::nil(), place.clone());
        initialise(&place, &record.superuser_password, &account, &found).await?;
        let mut settings = server_settings(config);
        // Nothing in it has to survive anything.
        for (name, value) in [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")] {
            settings.push((name, value.to_owned()));
        }
        let plan = Plan {
            account,
            first_words: place.join("start.log"),
            settings,
            start_timeout: Duration::from_secs(config.embedded.start_timeout_s),
            superuser_password: Secret(record.superuser_password.clone()),
            cluster: place.join(home::CLUSTER),
            programs: Programs::known(&config.embedded, found.clone()),
        };
        let postmaster = Running(start_on_a_free_port(&plan, 0).await?);
        let record = Record { port: postmaster.0.port, ..record };
        prepare(&plan, &record, record.port).await?;
        Ok(Self { record, bin: found.directory, postmaster, _directory: directory })
    }

    /// How to connect.
    pub fn urls(&self) -> Urls {
        self.record.urls()
    }

    /// Where the programs are that it was made with.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Stops it and removes its files.
    pub async fn remove(mut self) {
        self.postmaster.0.stop(STOP_TIMEOUT).await;
    }
}
