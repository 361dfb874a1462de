//! A PostgreSQL of the test's own, which it may kill, stop and promote. With fsync, as in production.

use super::process::{PATIENCE, Running, cpu_of, eventually, free_port, is_root, signal_pid, tied_unprivileged};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub struct Cluster {
    pub port: u16,
    directory: tempfile::TempDir,
    postgres: Option<Running>,
}

/// The addresses of one database, by role.
#[derive(Clone, Debug)]
pub struct DatabaseUrls {
    pub application: String,
    pub owner: String,
    pub superuser: String,
}

/// Programs of the newest PostgreSQL that is installed, 15 or later; or those in `PG_BIN`.
pub fn binaries() -> PathBuf {
    if let Ok(given) = std::env::var("PG_BIN") {
        return given.into();
    }
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = installed
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(version, bin)| *version >= 15 && bin.join("initdb").exists())
        .max();
    found.expect("PostgreSQL 15 or newer is installed under /usr/lib/postgresql, or named by PG_BIN").1
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Frozen children would outlive the postmaster.
        self.thaw_all();
        if let Some(mut postgres) = self.postgres.take() {
            postgres.kill();
            self.wait_until_gone();
        }
    }
}

impl Cluster {
    /// A fresh cluster, running.
    pub fn start() -> Self {
        let directory = temporary_home();
        fresh_data(&directory.path().join("data"));
        let mut cluster = Self { port: free_port(), directory, postgres: None };
        cluster.restart();
        cluster
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What PostgreSQL has logged since it was started.
    pub fn log(&self) -> Vec<String> {
        self.postgres.as_ref().expect("PostgreSQL runs").lines()
    }

    /// Starts PostgreSQL again, after [`kill`](Self::kill) or [`stop`](Self::stop).
    pub fn restart(&mut self) {
        assert!(self.postgres.is_none(), "PostgreSQL runs");
        let mut command = tied_unprivileged(binaries().join("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100"]);
        command.args(["-c", "shared_buffers=64MB", "-c", "max_wal_senders=4", "-c", "wal_level=replica"]);
        let mut postgres = Running::start("postgres", command);
        postgres.wait_for_line("ready to accept", Duration::from_secs(60));
        self.postgres = Some(postgres);
    }

    /// SIGKILL to the postmaster; its children see that and end.
    pub fn kill(&mut self) {
        let mut postgres = self.postgres.take().expect("PostgreSQL runs");
        postgres.kill();
        self.wait_until_gone();
    }

    /// An immediate but orderly stop: connections end.
    pub fn stop(&mut self) {
        let mut postgres = self.postgres.take().expect("PostgreSQL runs");
        postgres.signal("INT");
        postgres.wait(Duration::from_secs(30));
        self.wait_until_gone();
    }

    /// SIGSTOP to the postmaster and all its children: connections hang, none is reset.
    pub fn freeze_all(&self) {
        for pid in workers_in(&self.data()) {
            signal_pid(pid, "STOP");
        }
    }

    pub fn thaw_all(&self) {
        for pid in workers_in(&self.data()) {
            // One that ends at this moment needs no thawing.
            let _ = Command::new("kill").args(["-CONT", &pid.to_string()]).stderr(std::process::Stdio::null()).status();
        }
    }

    /// A streaming replica, asynchronous, that has caught up. It has `wal_level` and everything else of its primary.
    pub fn replica(&self) -> Self {
        let directory = temporary_home();
        let output = tied_unprivileged(binaries().join("pg_basebackup"))
            .args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync", "--dbname"])
            .arg(self.superuser_url("postgres"))
            .arg("--pgdata")
            .arg(directory.path().join("data"))
            .output()
            .expect("pg_basebackup runs");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let mut replica = Self { port: free_port(), directory, postgres: None };
        replica.restart();
        let position = "select (pg_current_wal_insert_lsn() - '0/0')::int8";
        let sent = number(&self.superuser_url("postgres"), position);
        let replayed = "select (pg_last_wal_replay_lsn() - '0/0')::int8";
        eventually(PATIENCE, "the replica catches up", || number(&replica.superuser_url("postgres"), replayed) >= sent);
        replica
    }

    /// Cuts replication: a replica stays as it is, and its primary does not notice.
    pub fn stop_replicating(&self) {
        let url = self.superuser_url("postgres");
        execute(&url, "alter system set primary_conninfo = ''");
        execute(&url, "select pg_reload_conf()");
        eventually(PATIENCE, "the replica receives no more", || {
            number(&url, "select count(*) from pg_stat_wal_receiver") == 0
        });
    }

    /// A dead primary's address leads here now. Still a standby: whoever writes is refused until [`promote`](Self::promote).
    pub fn take_address_of(&mut self, primary: &Self) {
        assert!(primary.postgres.is_none(), "the primary runs");
        self.stop();
        self.port = primary.port;
        self.restart();
    }

    /// Makes a replica a primary.
    pub fn promote(&self) {
        execute(&self.superuser_url("postgres"), "select pg_promote()");
    }

    fn wait_until_gone(&self) {
        let socket = self.port;
        eventually(PATIENCE, "PostgreSQL's processes end", || {
            std::net::TcpStream::connect(("127.0.0.1", socket)).is_err() && workers_in(&self.data()).is_empty()
        });
    }

    /// `host:port`.
    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// CPU seconds of its processes, those that ended included.
    pub fn cpu(&self) -> f64 {
        let postmaster = self.postgres.as_ref().expect("PostgreSQL runs").pid();
        let children = workers_in(&self.data()).into_iter().filter(|pid| *pid != postmaster);
        cpu_of(&postmaster.to_string(), true) + children.map(|pid| cpu_of(&pid.to_string(), false)).sum::<f64>()
    }

    pub fn superuser_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A database with its two roles, empty.
    pub fn database(&self, name: &str) -> DatabaseUrls {
        let login = |role, password| contextnexus::postgres::roles::Login { name: role, password };
        let url = self.superuser_url("postgres");
        block_on(contextnexus::postgres::roles::prepare(
            &url,
            login("cnx_owner", "owner"),
            login("cnx_app", "app"),
            name,
        ))
        .expect("the roles and the database can be made");
        DatabaseUrls {
            application: format!("postgres://cnx_app:app@127.0.0.1:{}/{name}", self.port),
            owner: format!("postgres://cnx_owner:owner@127.0.0.1:{}/{name}", self.port),
            superuser: self.superuser_url(name),
        }
    }
}

/// A cluster that was never started, as a template: made once per build directory, because `initdb` takes seconds and a copy does not.
pub fn fresh_data(to: &Path) {
    let version = Command::new(binaries().join("postgres")).arg("--version").output().expect("postgres runs").stdout;
    let name: String = String::from_utf8_lossy(&version).chars().filter(char::is_ascii_alphanumeric).collect();
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{name}-{}", is_root()));
    fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
    let lock = fs::File::create(template.with_extension("lock")).expect("the lock file can be made");
    lock.lock().expect("the lock can be taken");
    if !template.exists() {
        let place = temporary_home();
        let data = place.path().join("data");
        let output = tied_unprivileged(binaries().join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let copying = template.with_extension("copying");
        let _ = fs::remove_dir_all(&copying);
        copy(&data, &copying);
        fs::rename(copying, &template).expect("the template can be named");
    }
    copy(&template, to);
}

/// Copies a directory with its owners and modes.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "cp failed");
}

/// A temporary directory that is PostgreSQL's own where tests run as root.
fn temporary_home() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("cnx-pg-").tempdir().expect("a temporary directory");
    if is_root() {
        let status = Command::new("chown").arg("postgres:postgres").arg(directory.path()).status().expect("chown runs");
        assert!(status.success(), "chown failed");
    }
    directory
}

/// Processes that work in a data directory: the postmaster and its children.
fn workers_in(data: &Path) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}

/// Runs database work of a test that is otherwise synchronous.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Runs statements as superuser.
pub fn execute(url: &str, sql: &str) {
    block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL answers");
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the statement runs");
    });
}

/// One number, as superuser.
pub fn number(url: &str, sql: &str) -> i64 {
    block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL answers");
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.expect("the query runs");
        row.get(0)
    })
}

/// A document's log, as it stands in the table: every update, in order. Fails on a gap in the numbers.
///
/// Read past the server's own code, so that a fault there shows.
pub fn logged_updates(url: &str, document: uuid::Uuid) -> Vec<Vec<u8>> {
    let rows = block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL answers");
        sqlx::query("select seq_from, seq_to, codec, raw_bytes, updates from operations_log where document_id = $1 order by seq_from")
            .bind(document)
            .fetch_all(&mut connection)
            .await
            .expect("the log can be read")
    });
    let mut updates = Vec::new();
    for row in rows {
        let (from, to): (i64, i64) = (row.get("seq_from"), row.get("seq_to"));
        assert_eq!(from as usize, updates.len() + 1, "the log has a gap before {from}");
        let (codec, raw_bytes, stored): (i16, i32, Vec<u8>) =
            (row.get("codec"), row.get("raw_bytes"), row.get("updates"));
        let framed = match codec {
            0 => stored,
            _ => lz4_flex::block::decompress(&stored, raw_bytes as usize).expect("the row decompresses"),
        };
        let mut rest = framed.as_slice();
        let before = updates.len();
        while let Some((length, body)) = rest.split_first_chunk::<4>() {
            let (update, tail) = body.split_at(u32::from_le_bytes(*length) as usize);
            updates.push(update.to_vec());
            rest = tail;
        }
        assert_eq!(updates.len() - before, (to - from + 1) as usize, "row {from} holds as many updates as it says");
    }
    updates
}
