//! A PostgreSQL of this server's own, for those who bring none: found or fetched, initialised, started, watched, stopped.
//!
//! Read in this order: [`start`] here, then `home` (where it lives, what is remembered), `account` (who runs it), `binaries`
//! (whose programs), `postmaster` (one process), `supervisor` (as long as this server serves).
//!
//! The cluster outlives this process when that is killed: the next start adopts it, or starts it again and PostgreSQL recovers.

mod account;
pub mod binaries;
mod home;
mod postmaster;
mod scratch;
mod supervisor;

pub use account::Account;
pub use scratch::Scratch;
pub use supervisor::EmbeddedPostgres;

use crate::config::{Config, Secret};
use crate::console::progress;
use crate::data_dir::{DataDir, describe};
use crate::postgres::backup::BACKUP_ROLE;
use crate::postgres::pinned::PINNED_CONNECTIONS;
use crate::postgres::{StoreError, roles};
use binaries::{Binaries, Programs};
use home::{Home, Record};
use postmaster::{Plan, Postmaster, free_port};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use uuid::Uuid;

/// Where `initdb` and the first migrations fit, with room to start working: a new cluster takes 55 MB.
const FREE_MB_NEW: u64 = 200;
/// Two segments of PostgreSQL's log: with less it starts, accepts work, and stops at the first checkpoint.
const FREE_MB_MIN: u64 = 32;

/// A clean stop writes everything out; one that takes longer is repaired from the log at the next start.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A cluster that `initdb` has not finished.
const PARTIAL: &str = "cluster.partial.";

const OWNER: &str = "contextnexus_owner";
const APPLICATION: &str = "contextnexus_server";
const DATABASE: &str = "contextnexus";

/// Why there is no database. One line each, with what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the texts are the documentation
pub enum EmbeddedError {
    #[error("{}", describe(path, source))]
    Io { path: PathBuf, source: io::Error },
    #[error("the disk that holds {} is full; free some space, or choose another directory with --data-dir", path.display())]
    DiskFull { path: PathBuf },
    #[error("only {free_mb} MB are free on the disk that holds {}, the database needs {needed_mb} MB: the disk is full; free some space, or choose another directory with --data-dir", path.display())]
    NoRoom { path: PathBuf, free_mb: u64, needed_mb: u64 },
    #[error(
        "PostgreSQL refuses to run as root, and there is none of the users {tried} to run it as; name one with CONTEXTNEXUS_EMBEDDED__RUN_AS"
    )]
    NoAccount { tried: String },
    #[error("no right to the database in {}: it belongs to the user {owner}; start as that user or as root", cluster.display())]
    ForeignCluster { cluster: PathBuf, owner: String },
    #[error("the user {account} can work neither in the data directory nor in {}; name another user with CONTEXTNEXUS_EMBEDDED__RUN_AS", home.display())]
    Unreachable { account: String, home: PathBuf },
    #[error("{} cannot be read as the record of an embedded database; restore it from a backup, or move it away: the next start keeps the database and makes another record", file.display())]
    BadRecord { file: PathBuf },
    #[error("the database of the data directory {} is missing: its files were in {}; bring that directory back, or restore a backup into a new data directory (`contextnexus restore --data-dir DIR FILE`)", data_dir.display(), home.display())]
    HomeMissing { home: PathBuf, data_dir: PathBuf },
    #[error("the data directory {} is a copy of {}, to which the database in {} belongs; for a second server restore a backup into a new data directory (`contextnexus restore --data-dir DIR FILE`), or, to give the database to this copy, move {} away", data_dir.display(), owner.display(), home.display(), owner.display())]
    Copy { data_dir: PathBuf, owner: PathBuf, home: PathBuf },
    #[error("the user {account}, who runs PostgreSQL, cannot pass a directory above {}; let it pass (chmod o+x), or move the data directory elsewhere", home.display())]
    Closed { account: String, home: PathBuf },
    #[error("another ContextNexus server{} runs on the database in {}; stop it first", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), home.display())]
    HomeInUse { home: PathBuf, pid: Option<u32> },
    #[error("{} holds no PostgreSQL server that can be started; correct CONTEXTNEXUS_EMBEDDED__BINARIES", .0.display())]
    NotBinaries(PathBuf),
    #[error(
        "PostgreSQL {needed} is needed, and {found}; install it, or set CONTEXTNEXUS_EMBEDDED__BINARIES=auto, which fetches it"
    )]
    NoFittingBinaries { needed: String, found: String },
    #[error("PostgreSQL {version} cannot be fetched ({reason}); install PostgreSQL 15 or newer, or set DATABASE_URL")]
    Fetch { version: u32, reason: String },
    #[error("the fetched PostgreSQL {version} in {} does not run on this machine; install PostgreSQL, or set DATABASE_URL", home.display())]
    FetchedUnusable { version: u32, home: PathBuf },
    #[error(
        "{programs} of PostgreSQL {needed} or newer: not found; install PostgreSQL's programs of that version, or name their directory with CONTEXTNEXUS_EMBEDDED__BINARIES"
    )]
    NoTools { programs: String, needed: u32 },
    #[error("{} is no PostgreSQL data directory; restore it, or choose another directory with --data-dir", .0.display())]
    NotACluster(PathBuf),
    #[error("initdb failed: {reason}")]
    Initdb { reason: String },
    #[error("no free port on 127.0.0.1: {0}")]
    NoPort(io::Error),
    #[error("another PostgreSQL answers on 127.0.0.1:{port}")]
    Stranger { port: u16 },
    #[error("processes of an earlier PostgreSQL in {} do not end; stop them", cluster.display())]
    LeftOvers { cluster: PathBuf },
    #[error("PostgreSQL ended: {last_words} (its log: {})", log.display())]
    Ended { last_words: String, log: PathBuf },
    #[error(
        "PostgreSQL does not serve after {after_s} s: {words}; give it more with CONTEXTNEXUS_EMBEDDED__START_TIMEOUT_S"
    )]
    StartTimeout { after_s: u64, words: String },
    #[error("the roles of the embedded database cannot be made")]
    Roles(#[source] StoreError),
}

impl EmbeddedError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

fn is_disk_full(text: &str) -> bool {
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

/// Brings the data directory's own database up, whatever state an earlier run left it in.
pub async fn start(config: &Config, data_dir: &DataDir, fresh_id: Uuid) -> Result<EmbeddedPostgres, EmbeddedError> {
    let settings = &config.embedded;
    let mut home = Home::open(data_dir, &settings.run_as, fresh_id).await?;
    let cluster = home.cluster();
    let version = cluster_version(&cluster)?;
    let account = match version {
        Some(_) => Account::owner_of(&cluster)?,
        None => Account::owner_of(&home.record.home)?,
    };
    if !home.record.home.starts_with(data_dir.path()) {
        progress(format_args!(
            "PostgreSQL runs as the user {}, with its files in {}",
            account.name,
            home.record.home.display()
        ));
    }
    if account.is_other() && !account.reaches(&home.record.home).await {
        return Err(EmbeddedError::Closed { account: account.name, home: home.record.home });
    }
    check_room(&home.record.home, if version.is_none() { FREE_MB_NEW } else { FREE_MB_MIN })?;
    let programs = Programs::new(settings, &account, &home.record.home, version);
    if version.is_none() {
        let binaries = programs.get().await?;
        let place = &home.record.home;
        progress(format_args!("Creating a PostgreSQL {} database in {} ...", binaries.version, place.display()));
        initialise(place, &home.record.superuser_password, &account, binaries).await?;
    }

    let plan = Plan {
        account,
        programs,
        first_words: home.record.home.join("start.log"),
        settings: server_settings(config),
        start_timeout: Duration::from_secs(settings.start_timeout_s),
        superuser_password: Secret(home.record.superuser_password.clone()),
        cluster,
    };
    if let Some(original) = postmaster::started_elsewhere(&plan.cluster) {
        progress(format_args!(
            "The files of this database were copied or moved from {} before its PostgreSQL had stopped. A copy that was not taken as one \
             snapshot may be damaged; `contextnexus backup` makes a sound one at any time",
            original.display()
        ));
    }
    if home.record.is_recovered && version.is_some() {
        progress(format_args!(
            "The record of the embedded database (embedded.json) is missing. The database in {} is kept, and its passwords are set anew",
            plan.cluster.display()
        ));
        plan.set_superuser_password().await?;
    }
    if home.record.is_recovered {
        home.update(|record| record.is_recovered = false)?;
    }
    let postmaster = match plan.adopt().await? {
        Some(postmaster) => {
            progress("PostgreSQL is still running from the last time");
            postmaster
        }
        None => start_on_a_free_port(&plan, home.record.port).await?,
    };
    if postmaster.port != home.record.port {
        home.update(|record| record.port = postmaster.port)?;
    }
    if !home.record.prepared || home.record.backup_password.is_empty() {
        if home.record.backup_password.is_empty() {
            home.update(|record| {
                record.backup_password = home::password();
                record.prepared = false;
            })?;
        }
        prepare(&plan, &home.record, postmaster.port).await?;
        home.update(|record| record.prepared = true)?;
    }
    Ok(EmbeddedPostgres::supervise(plan, home, postmaster))
}

/// The two addresses of a database.
#[derive(Clone, Debug)]
pub struct Urls {
    /// As the role that serves.
    pub application: Secret,
    /// As the role that owns the tables and migrates.
    pub owner: Secret,
    /// As the role that reads everything for backups.
    pub backup: Secret,
}

/// How to connect to the database of a data directory whose server runs.
pub fn recorded_urls(data_dir: &Path) -> Option<Urls> {
    let data_dir = data_dir.canonicalize().ok()?;
    home::find(&data_dir).ok().flatten().map(|record| record.urls())
}

/// Where the database of a data directory is, and its major version; `None` before there is one.
pub fn recorded_cluster(data_dir: &Path) -> Result<Option<(PathBuf, Option<u32>)>, EmbeddedError> {
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.into());
    let Some(record) = home::find(&data_dir)? else { return Ok(None) };
    let cluster = record.home.join(home::CLUSTER);
    let version = cluster_version(&cluster).ok().flatten();
    Ok(Some((cluster, version)))
}

/// Where the database of a data directory is that has no record of it any more. The next [`start`] makes another.
pub fn unrecorded_cluster(data_dir: &Path) -> Option<PathBuf> {
    let data_dir = data_dir.canonicalize().ok()?;
    home::unrecorded(&data_dir).map(|(_, home)| home.join(home::CLUSTER))
}

/// Stops what a [`start`] that was broken off left running.
pub async fn stop_leftover(data_dir: &DataDir) {
    if let Ok(Some(record)) = home::find(data_dir.path()) {
        postmaster::stop_running(&record.home.join(home::CLUSTER), STOP_TIMEOUT).await;
    }
}

async fn start_on_a_free_port(plan: &Plan, wanted: u16) -> Result<Postmaster, EmbeddedError> {
    let mut port = free_port(wanted)?;
    for _ in 0..2 {
        match plan.start(port).await {
            // Another program was quicker. It would have to be so three times in a row.
            Err(EmbeddedError::Ended { last_words, .. })
                if last_words.contains("could not create any TCP/IP sockets") =>
            {
                port = free_port(0)?;
            }
            outcome => return outcome,
        }
    }
    plan.start(port).await
}

/// The major version of a cluster that exists.
fn cluster_version(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    let file = cluster.join("PG_VERSION");
    match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| EmbeddedError::NotACluster(cluster.into())),
        // `initialise` renames a whole cluster into place, so there is no half of one.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !cluster.exists() => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(EmbeddedError::NotACluster(cluster.into())),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => match Account::owner_of(cluster) {
            Err(error) => Err(error),
            Ok(_) => Err(EmbeddedError::io(&file, source)),
        },
        Err(source) => Err(EmbeddedError::io(&file, source)),
    }
}

/// What killed starts left. What cannot be removed because somebody still writes there is removed by a later start.
fn remove_partial_clusters(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn check_room(place: &Path, needed_mb: u64) -> Result<(), EmbeddedError> {
    let disk = rustix::fs::statvfs(place).map_err(|error| EmbeddedError::io(place, error.into()))?;
    let free_mb = (disk.f_bavail * disk.f_frsize) >> 20;
    if free_mb < needed_mb {
        return Err(EmbeddedError::NoRoom { path: place.into(), free_mb, needed_mb });
    }
    Ok(())
}

/// Makes a cluster in `place`, whole or not at all.
async fn initialise(
    place: &Path,
    superuser_password: &str,
    account: &Account,
    binaries: &Binaries,
) -> Result<(), EmbeddedError> {
    // A name of its own: the initdb of a start that was killed may still be writing under its name.
    remove_partial_clusters(place);
    let partial = place.join(format!("{PARTIAL}{}", home::word(8)));
    let password = place.join("superuser.password");
    crate::files::write_private(&password, superuser_password.as_bytes())
        .map_err(|source| EmbeddedError::io(&password, source))?;
    account.give(&password)?;

    let mut command = account.command(&binaries.program("initdb"));
    command
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"])
        .arg(format!("--pwfile={}", password.display()))
        .arg(format!("--pgdata={}", partial.display()))
        .stdout(Stdio::null());
    let output = command.output().await.map_err(|source| EmbeddedError::io(&binaries.program("initdb"), source))?;
    std::fs::remove_file(&password).map_err(|source| EmbeddedError::io(&password, source))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        if is_disk_full(&text) {
            return Err(EmbeddedError::DiskFull { path: place.into() });
        }
        let line = text.lines().find(|line| line.contains("error") || line.contains("FATAL")).or(text.lines().last());
        return Err(EmbeddedError::Initdb { reason: line.unwrap_or("it said nothing").trim().to_owned() });
    }
    std::fs::rename(&partial, place.join(home::CLUSTER))
        .and_then(|()| crate::files::sync_directory(place))
        .map_err(|source| EmbeddedError::io(place, source))
}

/// Durable first, modest second. Given on the command line, so nothing in the cluster's files weakens them.
fn server_settings(config: &Config) -> Vec<(&'static str, String)> {
    let ours = config.database.connections_max + config.database.log_writers + PINNED_CONNECTIONS;
    let mut settings: Vec<(&'static str, String)> = [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("max_wal_size", "1GB"),
        ("checkpoint_timeout", "15min"),
        ("wal_compression", "on"),
        ("jit", "off"), // queries here take a millisecond, compiling one takes more
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        // A week of logs, overwritten by weekday. Neither parameters nor statements: they hold what users wrote.
        ("logging_collector", "on"),
        ("log_directory", "log"),
        ("log_filename", "postgresql-%a.log"),
        ("log_truncate_on_rotation", "on"),
        ("log_rotation_age", "1d"),
        ("log_rotation_size", "0"),
        ("log_min_messages", "warning"),
        ("log_min_error_statement", "panic"),
        ("log_parameter_max_length", "0"),
        ("log_parameter_max_length_on_error", "0"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec();
    settings.push(("shared_buffers", format!("{}MB", config.embedded.shared_buffers_mb)));
    // Beside the pools: the blocking append, the probe, migrations, a person with psql.
    settings.push(("max_connections", (ours + 16).to_string()));
    settings
}

async fn prepare(plan: &Plan, record: &Record, port: u16) -> Result<(), EmbeddedError> {
    let login = |name, password| roles::Login { name, password };
    let owner = login(OWNER, &record.owner_password);
    let application = login(APPLICATION, &record.application_password);
    let superuser = plan.superuser_url(port);
    roles::prepare(&superuser, owner, application, DATABASE).await.map_err(EmbeddedError::Roles)?;
    let backup = login(BACKUP_ROLE, &record.backup_password);
    roles::prepare_backup(&superuser, backup).await.map_err(EmbeddedError::Roles)
}
