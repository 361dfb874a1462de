//! `contextnexus doctor`: every part that is missing, unreachable or weaker than it should be, a line each, with what to do.
//! Looks only: it starts and changes nothing.

use super::{chain, deep};
use crate::backup::Unreadable;
use crate::config::{Binaries, Config};
use crate::console::say;
use crate::data_dir::{self, Standing};
use crate::embedded::{self, Account, Urls, binaries};
use crate::open_database;
use crate::postgres::pinned::PINNED_CONNECTIONS;
use crate::postgres::{Database, DatabaseSettings, backup, isolation, migrate, probe, roles};
use crate::process;
use clap::Args;
use std::net::TcpListener;
use std::time::Duration;

/// Below it a database cannot be made, or will soon stop.
const FREE_BYTES_MIN: u64 = 200 << 20;
/// Below it somebody should look.
const FREE_BYTES_ENOUGH: u64 = 1 << 30;
/// PostgreSQL connections, files, listeners: what is open beside sockets.
const FILES_BESIDE_SOCKETS: u64 = 500;
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// How a part is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// Prints as it looks, and remembers whether anything failed.
#[derive(Default)]
pub(super) struct Report {
    failed: bool,
}

impl Report {
    fn line(&mut self, level: Level, part: &str, text: impl std::fmt::Display) {
        self.failed |= level == Level::Fail;
        let level = match level {
            Level::Ok => "OK  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        say(format_args!("{level} {part:<18} {text}"));
    }
    pub(super) fn ok(&mut self, part: &str, text: impl std::fmt::Display) {
        self.line(Level::Ok, part, text);
    }
    fn warn(&mut self, part: &str, text: impl std::fmt::Display) {
        self.line(Level::Warn, part, text);
    }
    pub(super) fn fail(&mut self, part: &str, text: impl std::fmt::Display) {
        self.line(Level::Fail, part, text);
    }
}

/// How to look.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// Also reads every row and snapshot of every document. Beside a running server; nobody waits for it.
    #[arg(long)]
    deep: bool,
    /// With --deep: of this tenant only.
    #[arg(long, value_name = "SLUG", requires = "deep")]
    tenant: Option<String>,
}

/// Looks at everything. True when nothing failed.
pub async fn run(doctor: &Doctor, config: &Config) -> bool {
    let mut report = Report::default();
    let standing = data_dir::standing(&config.data_dir);
    let running = matches!(standing, Ok(Standing::InUse { .. }));
    directory(&mut report, config, &standing);
    let urls = if config.is_embedded() {
        embedded_parts(&mut report, config, running).await
    } else {
        Some(open_database::urls(config, None))
    };
    if let Some(urls) = &urls {
        database(&mut report, config, urls).await;
    }
    match &urls {
        Some(urls) if doctor.deep => deep::run(&mut report, urls, doctor.tenant.as_deref()).await,
        None if doctor.deep => report.fail(deep::PART, "the database does not run; start the server first"),
        _ => {}
    }
    redis(&mut report, config).await;
    machine(&mut report, config, running);
    !report.failed
}

fn directory(report: &mut Report, config: &Config, standing: &Result<Standing, data_dir::DataDirError>) {
    let part = "data directory";
    let path = config.data_dir.display();
    match standing {
        Ok(Standing::Absent) => report.ok(part, format_args!("{path} does not exist yet; the first start makes it")),
        Ok(Standing::Ours) => report.ok(part, format_args!("{path}")),
        Ok(Standing::InUse { pid: Some(pid) }) => {
            report.ok(part, format_args!("{path}, in use by a server (pid {pid})"))
        }
        Ok(Standing::InUse { pid: None }) => report.ok(part, format_args!("{path}, in use by a server")),
        Err(error) => report.fail(part, error),
    }
    let place = if config.data_dir.exists() { config.data_dir.as_path() } else { std::path::Path::new(".") };
    match rustix::fs::statvfs(place) {
        Ok(disk) => {
            let free = disk.f_bavail * disk.f_frsize;
            let text = format!("{} MB free", free >> 20);
            match free {
                0..FREE_BYTES_MIN => report.fail("disk", format_args!("{text}: full, or nearly; free some space")),
                FREE_BYTES_MIN..FREE_BYTES_ENOUGH => report.warn("disk", format_args!("{text}; free some space soon")),
                _ => report.ok("disk", text),
            }
        }
        Err(error) => report.fail("disk", format_args!("cannot be asked: {error}")),
    }
}

/// The parts of embedded mode; the addresses of its database where that can be asked.
async fn embedded_parts(report: &mut Report, config: &Config, running: bool) -> Option<Urls> {
    let account = match Account::choose(&config.embedded.run_as) {
        Ok(account) => {
            report.ok("PostgreSQL's user", &account.name);
            account
        }
        Err(error) => {
            report.fail("PostgreSQL's user", error);
            return None;
        }
    };
    let recorded = match embedded::recorded_cluster(&config.data_dir) {
        Ok(recorded) => recorded,
        Err(error) => {
            report.fail("embedded database", error);
            return None;
        }
    };
    let version = recorded.as_ref().and_then(|(_, version)| *version);
    let fitting = binaries::installed(&account).await.into_iter().rev();
    let fitting =
        fitting.filter(|found| version.map_or(found.version >= binaries::OLDEST, |version| found.version == version));
    let best = fitting.max_by_key(|found| found.version);
    let wanted = version.map_or_else(|| format!("{} or newer", binaries::OLDEST), |version| version.to_string());
    match (&config.embedded.binaries, best) {
        (Binaries::Path(path), _) => report.ok("binaries", format_args!("{} (set)", path.display())),
        (Binaries::Fetch, _) => report.ok("binaries", "fetched ones (set)"),
        (_, Some(found)) => {
            report.ok("binaries", format_args!("PostgreSQL {} in {}", found.version, found.directory.display()))
        }
        (Binaries::Installed, None) => {
            report.fail(
                "binaries",
                format_args!(
                    "no PostgreSQL {wanted} is installed; install it, or set CONTEXTNEXUS_EMBEDDED__BINARIES=auto"
                ),
            );
        }
        (Binaries::Auto, None) => report
            .warn("binaries", format_args!("no PostgreSQL {wanted} is installed; it is fetched at the first start")),
    }
    match recorded {
        Some((cluster, _)) if running => {
            report.ok("embedded database", cluster.display());
            embedded::recorded_urls(&config.data_dir)
        }
        Some((cluster, _)) => {
            report.ok(
                "embedded database",
                format_args!("{}, not running; `contextnexus serve` starts it", cluster.display()),
            );
            None
        }
        None => {
            match embedded::unrecorded_cluster(&config.data_dir) {
                Some(cluster) => report.warn(
                    "embedded database",
                    format_args!(
                        "embedded.json is missing; the next start keeps the database in {} and sets its passwords anew",
                        cluster.display()
                    ),
                ),
                None => report.ok("embedded database", "none yet; `contextnexus serve` makes it"),
            }
            None
        }
    }
}

async fn database(report: &mut Report, config: &Config, urls: &Urls) {
    let settings =
        DatabaseSettings { connections_max: 1, acquire_timeout: Duration::from_secs(3), ..DatabaseSettings::default() };
    let database = match Database::new(&urls.application.0, &settings) {
        Ok(database) => database,
        Err(error) => return report.fail("PostgreSQL", format_args!("DATABASE_URL is {}", chain(&error))),
    };
    let found = match roles::inspect(&database).await {
        Ok(found) => found,
        Err(error) => {
            return report.fail("PostgreSQL", format_args!("{}; start it, or correct DATABASE_URL", chain(&error)));
        }
    };
    let version = found.server_version;
    let text = format!("version {}.{}", version / 10_000, version % 10_000);
    if version / 10_000 < i32::try_from(binaries::OLDEST).unwrap_or(i32::MAX) {
        report.fail("PostgreSQL", format_args!("{text}; {} or newer is needed", binaries::OLDEST));
    } else {
        report.ok("PostgreSQL", text);
    }
    if found.read_only {
        report.fail("PostgreSQL", "takes no writes (a standby?); correct DATABASE_URL");
    }
    if found.unsafe_role.is_empty() {
        report.ok("application role", "is bound by row-level security and owns nothing");
    }
    for reason in &found.unsafe_role {
        report.fail(
            "application role",
            format_args!("{reason}; serve as a role of its own, a member of {}", roles::APPLICATION_ROLE),
        );
    }
    for excess in &found.excess {
        report.warn("application role", excess);
    }
    for weakness in &found.weakened {
        report.fail("durability", format_args!("weakened: {weakness}; switch it on in postgresql.conf"));
    }
    owner(report, urls).await;
    backup_role(report, config, urls).await;
    match migrate::check(&database).await {
        Ok(()) => report.ok("schema", format_args!("version {}", migrate::version_needed())),
        Err(error) => return report.fail("schema", chain(&error)),
    }
    match isolation::weaknesses(&database).await {
        Ok(weak) if weak.is_empty() => report.ok("tenancy", "row-level security is forced on every tenant's table"),
        Ok(weak) => weak.iter().for_each(|weakness| report.fail("tenancy", weakness)),
        Err(error) => report.fail("tenancy", chain(&error)),
    }
    match probe::examine(&database).await {
        Ok(facts) => {
            match facts.synchronous_commit.as_str() {
                "off" | "local" | "remote_write" => report.warn(
                    "durability",
                    format_args!(
                        "synchronous_commit is {}; the log sets its own, other writes may be lost in a crash",
                        facts.synchronous_commit
                    ),
                ),
                _ if found.weakened.is_empty() => report.ok("durability", "full"),
                _ => {}
            }
            let needed = config.database.connections_max + config.database.log_writers + PINNED_CONNECTIONS + 4;
            if i64::from(facts.connections_max) < i64::from(needed) {
                let max = facts.connections_max;
                report.warn(
                    "connections",
                    format_args!("PostgreSQL takes {max}, this node may open {needed}; raise max_connections"),
                );
            }
        }
        Err(error) => report.fail("PostgreSQL", chain(&error)),
    }
}

async fn owner(report: &mut Report, urls: &Urls) {
    let Some(owner_url) = urls.owner.get() else {
        return report.ok("owner role", "DATABASE_OWNER_URL is not set; this node does not migrate");
    };
    let (owner, application) = (probe::current_user(owner_url).await, probe::current_user(&urls.application.0).await);
    match (owner, application) {
        (Ok(owner), Ok(application)) if owner == application => {
            report.fail(
                "owner role",
                format_args!("{owner} both owns and serves; give DATABASE_OWNER_URL a role of its own"),
            );
        }
        (Ok(owner), _) => report.ok("owner role", owner),
        (Err(error), _) => report.fail("owner role", format_args!("{}; correct DATABASE_OWNER_URL", chain(&error))),
    }
}

async fn backup_role(report: &mut Report, config: &Config, urls: &Urls) {
    let part = "backup role";
    if config.is_embedded() && urls.backup.get().is_none() {
        return report.warn(part, "none yet; the next start of the server makes it");
    }
    let Some(url) = urls.backup.get() else {
        return report.warn(
            part,
            format_args!(
                "none; `contextnexus backup` needs one that reads all tenants: as a superuser {} and set DATABASE_BACKUP_URL",
                backup::MAKE_BACKUP_ROLE
            ),
        );
    };
    match backup::reader(url).await {
        Ok(reader) if reader.reads_all() => report.ok(part, format_args!("{} reads everything", reader.name)),
        Ok(reader) => report.fail(part, Unreadable(reader)),
        Err(error) => report.fail(part, format_args!("{}; correct DATABASE_BACKUP_URL", chain(&error))),
    }
}

async fn redis(report: &mut Report, config: &Config) {
    let Some(url) = config.redis.url.get() else {
        return report.ok("Redis", "not set: this is the only node");
    };
    let connect = async {
        // Connecting includes a greeting that Redis answers.
        redis::Client::open(url)?.get_multiplexed_async_connection().await
    };
    match tokio::time::timeout(REDIS_TIMEOUT, connect).await {
        Ok(Ok(_)) => report.ok("Redis", "answers"),
        // An address may hold a password: only the kind of failure is told.
        Ok(Err(error)) => {
            report.fail("Redis", format_args!("does not answer ({}); start it, or correct REDIS_URL", error.category()))
        }
        Err(_) => report.fail("Redis", "does not answer within 2 s; start it, or correct REDIS_URL"),
    }
}

fn machine(report: &mut Report, config: &Config, running: bool) {
    let address = config.server.listen;
    match TcpListener::bind(address) {
        Ok(_) => report.ok("address", format_args!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && running => {
            report.ok("address", format_args!("{address} is served"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            report.fail(
                "address",
                format_args!("{address} is in use; stop what listens there, or choose another with --listen"),
            );
        }
        Err(error) => report.fail("address", format_args!("cannot listen on {address}: {error}")),
    }
    let files = process::raise_open_files();
    let needed = config.server.connections_per_node_max as u64 + FILES_BESIDE_SOCKETS;
    if files < needed {
        report.warn(
            "open files",
            format_args!("{files} allowed, {needed} needed for all connections; raise the limit (ulimit -Hn)"),
        );
    } else {
        report.ok("open files", format_args!("{files} allowed"));
    }
    if process::has_large_stacks() {
        report.ok("stacks", "16 MiB");
    } else {
        report.warn("stacks", "threads have small stacks; set RUST_MIN_STACK=16777216");
    }
}
