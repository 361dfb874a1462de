//! A real PostgreSQL for tests: one cluster for a whole run (each test is a process of its own under nextest), one fresh, migrated
//! database per test.
//!
//! The first process that needs the cluster starts it, the others find it. A small watchdog, told by a file lock that every test
//! process holds while it lives, stops the cluster some seconds after the last of them ended, however it ended.
//! `CONTEXTNEXUS_TEST_POSTGRES` (the address of a superuser) names a server to be used instead.

use super::cluster;
use super::process::{free_port, tied_unprivileged};
use contextnexus::postgres::operation_log::{LogSettings, PostgresLog};
use contextnexus::postgres::roles::{self, Login};
use contextnexus::postgres::{self, Database, DatabaseSettings, migrate};
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::ids::{DocumentId, ProjectId, TenantId, UserId};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use uuid::Uuid;

const OWNER: &str = "contextnexus_test_owner";
const APPLICATION: &str = "contextnexus_test_app";

/// A migrated database of one test. Dropped with it.
pub struct TestDatabase {
    pub name: String,
    pub superuser_url: String,
    pub owner_url: String,
    /// As `DATABASE_URL`: the application's role.
    pub url: String,
}

impl TestDatabase {
    /// On the cluster of this run.
    pub async fn create() -> Self {
        Self::create_on(&shared_server()).await
    }

    /// On a cluster of the test's own, which it may kill.
    pub async fn create_on(server: &str) -> Self {
        let template = template(server).await;
        let name = format!("test_{}", fresh().simple());
        let mut connection = connect(&url(server, "postgres", "postgres")).await;
        let create = format!("create database {name} template {template} owner {OWNER}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await.expect("create a test's database");
        connection.close().await.ok();
        Self {
            superuser_url: url(server, "postgres", &name),
            owner_url: url(server, OWNER, &name),
            url: url(server, APPLICATION, &name),
            name,
        }
    }

    /// As the server sees it.
    pub fn database(&self) -> Database {
        Database::new(&self.url, &DatabaseSettings::default()).expect("a valid address")
    }

    /// Its log, which runs.
    pub fn log(&self, settings: LogSettings) -> PostgresLog {
        running_log(self.database(), settings)
    }

    /// Above all rules: to prepare and to look.
    pub async fn superuser(&self) -> PgConnection {
        connect(&self.superuser_url).await
    }

    /// As the application, bypassing the server's code.
    pub async fn application(&self) -> PgConnection {
        connect(&self.url).await
    }

    /// A tenant with a default project in which rooms are created on first connect.
    pub async fn tenant(&self, slug: &str) -> TestTenant {
        let tenant = TestTenant { id: TenantId(fresh()), project: ProjectId(fresh()), url: self.superuser_url.clone() };
        let database = self.database();
        let mut db = postgres::begin(&database, tenant.id).await.expect("begin");
        postgres::tenants::create(&mut db, slug, slug, None).await.expect("create a tenant");
        db.commit().await.expect("commit");
        tenant
            .sql(
                "insert into projects (tenant_id, id, slug, name, auto_create_documents, is_default)
                 values ($1, $2, 'playground', 'Playground', true, true)",
                &[tenant.project.0],
            )
            .await;
        tenant
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (name, server) = (self.name.clone(), self.superuser_url.replace(&format!("/{}", self.name), "/postgres"));
        // On a thread of its own: a runtime may be running, and a test may be panicking.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let connect = PgConnection::connect(&server);
                if let Ok(Ok(mut connection)) = tokio::time::timeout(Duration::from_secs(2), connect).await {
                    let drop = AssertSqlSafe(format!("drop database if exists {name} with (force)"));
                    sqlx::raw_sql(drop).execute(&mut connection).await.ok();
                }
            });
        });
        dropping.join().ok();
    }
}

/// A tenant of a test.
#[derive(Clone)]
pub struct TestTenant {
    pub id: TenantId,
    pub project: ProjectId,
    url: String,
}

impl TestTenant {
    /// Runs one statement above all rules; `$1` is the tenant, the others are `ids`.
    pub async fn sql(&self, statement: &'static str, ids: &[Uuid]) -> u64 {
        let mut connection = connect(&self.url).await;
        let mut query = sqlx::query(statement).bind(self.id.0);
        for id in ids {
            query = query.bind(*id);
        }
        // Triggers ask for the tenant.
        sqlx::query("select set_config('app.current_tenant_id', $1, false)")
            .bind(self.id.0.to_string())
            .execute(&mut connection)
            .await
            .expect("set the tenant");
        let done = query.execute(&mut connection).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        connection.close().await.ok();
        done.rows_affected()
    }

    /// A person who is a member of nothing yet.
    pub async fn user(&self) -> UserId {
        let user = UserId(fresh());
        self.sql(
            "insert into users (tenant_id, id, kind, email, name)
             values ($1, $2, 'person', $2::text || '@example.org', 'Somebody')",
            &[user.0],
        )
        .await;
        user
    }

    /// An empty document of the default project.
    pub async fn document(&self) -> DocumentId {
        let document = DocumentId(fresh());
        self.sql(
            "insert into content_items (tenant_id, id, project_id, name, title) values ($1, $2, $3, $2::text, 'Untitled')",
            &[document.0, self.project.0],
        )
        .await;
        document
    }
}

/// A fresh id.
pub fn fresh() -> Uuid {
    SystemClock.fresh_id()
}

/// `host:port` of the server of this run.
fn shared_server() -> String {
    static SERVER: OnceLock<(String, Option<File>)> = OnceLock::new();
    let (server, _alive) = SERVER.get_or_init(|| {
        if let Ok(url) = std::env::var("CONTEXTNEXUS_TEST_POSTGRES") {
            let authority = url.split('@').next_back().unwrap_or(&url).trim_start_matches("postgres://");
            return (authority.split('/').next().unwrap_or(authority).to_owned(), None);
        }
        let user = fs::metadata("/proc/self").map(|me| me.uid()).unwrap_or(0);
        let home = std::env::temp_dir().join(format!("contextnexus-tests-{user}"));
        // Held while this process lives; the watchdog waits for it. Taken first, so that it cannot stop what is found below.
        let alive = stay_alive(&home);
        let starting = File::create(home.join("starting")).expect("a lock file");
        starting.lock().expect("wait for whoever starts the cluster");
        let port = Shared { home: &home }.running().unwrap_or_else(|| {
            let port = Shared { home: &home }.start();
            watch(&home, 10);
            port
        });
        (format!("127.0.0.1:{port}"), Some(alive))
    });
    server.clone()
}

/// Holds the home, which the watchdog may have been removing a moment ago.
fn stay_alive(home: &Path) -> File {
    loop {
        fs::create_dir_all(home).expect("a directory for the cluster");
        fs::set_permissions(home, fs::Permissions::from_mode(0o755)).ok();
        let path = home.join("alive");
        let Ok(file) = File::options().create(true).append(true).open(&path) else { continue };
        file.lock_shared().expect("lock");
        let is_there = |there: fs::Metadata| file.metadata().is_ok_and(|held| held.ino() == there.ino());
        if fs::metadata(&path).is_ok_and(is_there) {
            return file;
        }
    }
}

/// A shell that outlives the tests: stops the cluster when nobody has held the lock for `grace_s`.
fn watch(home: &Path, grace_s: u32) {
    let script = format!(
        "idle=0
         while [ -d {home}/data ]; do
             if flock -n -x {home}/alive true; then idle=$((idle+1)); else idle=0; fi
             if [ $idle -gt {grace_s} ]; then
                 exec 9>>{home}/alive
                 if flock -n -x 9; then
                     pid=$(head -1 {home}/data/postmaster.pid) && kill -CONT $pid && kill -QUIT $pid
                     rm -rf {home}; exit
                 fi
                 exec 9>&-
             fi
             sleep 1
         done",
        home = home.display()
    );
    // It outlives this process: that is what it is for.
    #[allow(clippy::zombie_processes)]
    Command::new("setsid")
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a watchdog for the cluster");
}

/// The cluster of a run. Without fsync: it outlives its own death, not the machine's.
struct Shared<'a> {
    home: &'a Path,
}

impl Shared<'_> {
    /// Its port, if somebody has started it.
    fn running(&self) -> Option<u16> {
        let port = fs::read_to_string(self.home.join("port")).ok()?.trim().parse().ok()?;
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        Some(port)
    }

    fn start(&self) -> u16 {
        let data = self.home.join("data");
        fs::remove_dir_all(&data).ok();
        cluster::fresh_data(&data);
        let port = free_port();
        let settings = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c full_page_writes=off \
             -c max_connections=300 -c shared_buffers=64MB -c max_wal_size=256MB -c log_min_messages=fatal"
        );
        // It is pg_ctl that ends with this process, not what it starts.
        let mut control = tied_unprivileged(cluster::binaries().join("pg_ctl"));
        control.current_dir("/").arg("-D").arg(&data).args(["start", "-s", "-w", "-t", "60", "-o", &settings]);
        control.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(control.status().expect("pg_ctl runs").success(), "PostgreSQL for the tests does not start");
        fs::write(self.home.join("port"), port.to_string()).expect("note the port");
        port
    }
}

/// Name of the migrated template on that server, made by whoever comes first.
async fn template(server: &str) -> String {
    let template = format!("contextnexus_template_{:016x}", migrate::fingerprint());
    let superuser = url(server, "postgres", "postgres");
    let mut connection = connect(&superuser).await;
    // One at a time, over all test processes.
    sqlx::query("select pg_advisory_lock(7241)").execute(&mut connection).await.expect("lock");
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&template)
        .fetch_one(&mut connection)
        .await
        .expect("look for the template");
    if !exists {
        let making = format!("{template}_making");
        let drop = AssertSqlSafe(format!("drop database if exists {making} with (force)"));
        sqlx::raw_sql(drop).execute(&mut connection).await.expect("drop a half-made template");
        let login = |name| Login { name, password: "test" };
        roles::prepare(&superuser, login(OWNER), login(APPLICATION), &making).await.expect("prepare roles");
        migrate::migrate(&url(server, OWNER, &making), |_| {}).await.expect("migrate");
        let rename = AssertSqlSafe(format!("alter database {making} rename to {template}"));
        sqlx::raw_sql(rename).execute(&mut connection).await.expect("name the template");
    }
    connection.close().await.ok();
    template
}

/// The log of a database, which runs.
pub fn running_log(database: Database, settings: LogSettings) -> PostgresLog {
    let log = PostgresLog::new(database, settings);
    log.run();
    log
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| panic!("connect to {url}: {error}"))
}

fn url(server: &str, role: &str, database: &str) -> String {
    format!("postgres://{role}:test@{server}/{database}")
}
