//! A PostgreSQL of the test's own, which it may kill, stop and promote. With fsync, as in production.

use super::process::{Running, eventually, free_port, is_root, tied_unprivileged};
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

/// Where PostgreSQL's programs are.
pub fn binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path().join("bin"))
                .filter(|path| path.join("initdb").exists())
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.pop().expect("PostgreSQL is installed (.ci/setup)")
}

impl Cluster {
    /// A fresh cluster, running.
    pub fn start() -> Self {
        let directory = own(tempfile::Builder::new().prefix("cnx-pg-").tempdir().expect("a temporary directory"));
        let data = directory.path().join("data");
        let output = tied_unprivileged(binaries().join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut cluster = Self { port: free_port(), directory, postgres: None };
        cluster.restart();
        cluster
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
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

    pub fn freeze(&self) {
        self.postgres.as_ref().expect("PostgreSQL runs").signal("STOP");
    }

    pub fn thaw(&self) {
        self.postgres.as_ref().expect("PostgreSQL runs").signal("CONT");
    }

    fn wait_until_gone(&self) {
        let socket = self.port;
        eventually(Duration::from_secs(20), "PostgreSQL's processes end", || {
            std::net::TcpStream::connect(("127.0.0.1", socket)).is_err() && children_of(&self.data()) == 0
        });
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

/// Makes the directory PostgreSQL's own where tests run as root.
fn own(directory: tempfile::TempDir) -> tempfile::TempDir {
    if is_root() {
        let status = Command::new("chown").arg("postgres:postgres").arg(directory.path()).status().expect("chown runs");
        assert!(status.success(), "chown failed");
    }
    directory
}

/// Processes that still work in a data directory.
fn children_of(data: &Path) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    processes
        .flatten()
        .filter(|process| process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .count()
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
