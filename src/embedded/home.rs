//! Where the cluster lives and what has to be remembered about it: its place, port and passwords.
//!
//! A data directory runs on its own cluster and on no other. One inside is its own wherever the directory is: a copy
//! has a copy. One outside is known by the id in the record, which a copy of the directory has, too; so the cluster's
//! home names the data directory that it belongs to, and as long as that one is there, no other may use it.

use super::{APPLICATION, Account, DATABASE, EmbeddedError, OWNER, Urls};
use crate::config::Secret;
use crate::data_dir::{self, DataDir, LockError};
use crate::files;
use crate::postgres::backup::BACKUP_ROLE;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// In the data directory; mode 0600.
const RECORD: &str = "embedded.json";
/// The home of a cluster inside the data directory.
const INSIDE: &str = "postgresql";
/// In a home outside: which data directory it belongs to.
const OWNER_FILE: &str = "owner.json";
/// For clusters whose data directory PostgreSQL's user cannot reach.
const ELSEWHERE: &str = "/var/lib/contextnexus";

/// PostgreSQL's data directory in a home.
pub const CLUSTER: &str = "cluster";

/// The record of the data directory's own cluster.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    /// Names the cluster's directory where that is elsewhere.
    pub id: Uuid,
    /// Holds the cluster, fetched binaries and PostgreSQL's first messages. Absolute here; in the file relative to the
    /// data directory where it is inside.
    pub home: PathBuf,
    /// The port on 127.0.0.1 that was taken last.
    pub port: u16,
    /// Of the superuser `postgres`: for making roles and the database, nothing else.
    pub superuser_password: String,
    /// Of the role that owns the tables.
    pub owner_password: String,
    /// Of the role that serves.
    pub application_password: String,
    /// Of the role that reads everything for backups. Empty in the record of a version that made none: the next start
    /// does.
    #[serde(default)]
    pub backup_password: String,
    /// Roles and database were made.
    pub prepared: bool,
    /// An earlier record was lost: the cluster knows other passwords, until they are set anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_recovered: bool,
}

impl Record {
    /// How to connect, while PostgreSQL runs.
    pub fn urls(&self) -> Urls {
        let url = |role: &str, password: &str| {
            Secret(format!("postgres://{role}:{password}@127.0.0.1:{}/{DATABASE}?sslmode=disable", self.port))
        };
        Urls {
            owner: url(OWNER, &self.owner_password),
            application: url(APPLICATION, &self.application_password),
            backup: if self.backup_password.is_empty() {
                Secret::default()
            } else {
                url(BACKUP_ROLE, &self.backup_password)
            },
        }
    }
}

/// An open home: recorded, and locked as long as this lives.
pub struct Home {
    pub record: Record,
    data_dir: PathBuf,
    _lock: File,
}

/// What a home outside of the data directory knows about its owner.
#[derive(Serialize, Deserialize)]
struct Owner {
    data_dir: PathBuf,
}

impl Home {
    /// The recorded home, or a new one.
    pub async fn open(data_dir: &DataDir, run_as: &str, fresh_id: Uuid) -> Result<Self, EmbeddedError> {
        let data_dir = data_dir.path().to_path_buf();
        let record = match find(&data_dir)? {
            Some(record) => record,
            None => {
                let record = match unrecorded(&data_dir) {
                    Some((id, home)) => Record { is_recovered: true, ..fresh(id.unwrap_or(fresh_id), home) },
                    None => create(&data_dir, &Account::choose(run_as)?, fresh_id).await?,
                };
                write(&data_dir, &record)?;
                record
            }
        };
        // The data directory's own lock says nothing about a home outside.
        let lock = data_dir::lock(&record.home.join("server.lock")).map_err(|error| match error {
            LockError::Held(pid) => EmbeddedError::HomeInUse { home: record.home.clone(), pid },
            LockError::Io(source) => EmbeddedError::io(&record.home, source),
        })?;
        claim(&record, &data_dir)?;
        Ok(Self { record, data_dir, _lock: lock })
    }

    /// PostgreSQL's data directory.
    pub fn cluster(&self) -> PathBuf {
        self.record.home.join(CLUSTER)
    }

    /// Changes the record, durably.
    pub fn update(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), EmbeddedError> {
        change(&mut self.record);
        write(&self.data_dir, &self.record)
    }
}

/// The record of a data directory whose home is there and its own; `None` before there is one.
pub fn find(data_dir: &Path) -> Result<Option<Record>, EmbeddedError> {
    let Some(mut record) = read(data_dir)? else { return Ok(None) };
    let inside = data_dir.join(INSIDE);
    if inside.is_dir() {
        record.home = inside;
    } else if record.home != elsewhere(record.id) || !record.home.is_dir() {
        // A recorded place inside another directory is the cluster of the one that this was copied from.
        return Err(EmbeddedError::HomeMissing { home: record.home, data_dir: data_dir.into() });
    }
    check_owner(&record, data_dir)?;
    Ok(Some(record))
}

/// The home of a cluster that belongs to this data directory although it has no record of it (any more), and its id where it
/// has one.
pub fn unrecorded(data_dir: &Path) -> Option<(Option<Uuid>, PathBuf)> {
    let has_cluster = |home: &PathBuf| home.join(CLUSTER).is_dir();
    if data_dir.join(RECORD).exists() {
        return None;
    }
    let inside = Some(data_dir.join(INSIDE)).filter(has_cluster);
    let outside = || {
        let homes = std::fs::read_dir(ELSEWHERE).into_iter().flatten().flatten();
        let mut own = homes.filter_map(|entry| {
            let id = Uuid::try_parse(entry.file_name().to_str()?).ok()?;
            let owner = owner_of(&entry.path()).ok()??;
            let is_own = owner.data_dir == data_dir || is_same_directory(&owner.data_dir, data_dir);
            (is_own && has_cluster(&entry.path())).then(|| (Some(id), entry.path()))
        });
        own.next()
    };
    inside.map(|home| (None, home)).or_else(outside)
}

fn read(data_dir: &Path) -> Result<Option<Record>, EmbeddedError> {
    let file = data_dir.join(RECORD);
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| EmbeddedError::BadRecord { file }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EmbeddedError::io(&file, source)),
    }
}

/// The home of the cluster with this id, where the data directory cannot hold it.
fn elsewhere(id: Uuid) -> PathBuf {
    Path::new(ELSEWHERE).join(id.to_string())
}

/// Refuses a copy: the home belongs to another data directory that is still there.
fn check_owner(record: &Record, data_dir: &Path) -> Result<(), EmbeddedError> {
    let Some(owner) = owner_of(&record.home)? else { return Ok(()) };
    if owner.data_dir == data_dir || is_same_directory(&owner.data_dir, data_dir) {
        return Ok(());
    }
    // Moved, or restored after the other was lost, unless the other has the same record.
    match read(&owner.data_dir) {
        Ok(Some(other)) if other.id == record.id => {
            Err(EmbeddedError::Copy { data_dir: data_dir.into(), owner: owner.data_dir, home: record.home.clone() })
        }
        _ => Ok(()),
    }
}

/// Names this data directory as the owner of its home, which is locked. The check comes again: another may have been
/// quicker.
fn claim(record: &Record, data_dir: &Path) -> Result<(), EmbeddedError> {
    if record.home.starts_with(data_dir) {
        return Ok(());
    }
    check_owner(record, data_dir)?;
    if owner_of(&record.home)?.is_some_and(|owner| owner.data_dir == data_dir) {
        return Ok(());
    }
    let file = record.home.join(OWNER_FILE);
    files::write_private_json(&file, &Owner { data_dir: data_dir.into() })
        .map_err(|source| EmbeddedError::io(&file, source))
}

/// `None`: inside of its data directory, or made before homes knew their owner.
fn owner_of(home: &Path) -> Result<Option<Owner>, EmbeddedError> {
    let file = home.join(OWNER_FILE);
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| EmbeddedError::BadRecord { file }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EmbeddedError::io(&file, source)),
    }
}

/// One directory by two paths, as with a bind mount.
fn is_same_directory(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

async fn create(data_dir: &Path, account: &Account, id: Uuid) -> Result<Record, EmbeddedError> {
    let inside = data_dir.join(INSIDE);
    account.make_directory(&inside)?;
    let home = if account.reaches(&inside).await {
        inside
    } else {
        std::fs::remove_dir(&inside).map_err(|source| EmbeddedError::io(&inside, source))?;
        make_passable(Path::new(ELSEWHERE))?;
        let home = elsewhere(id);
        account.make_directory(&home)?;
        if !account.reaches(&home).await {
            return Err(EmbeddedError::Unreachable { account: account.name.clone(), home });
        }
        home
    };
    Ok(fresh(id, home))
}

/// The record of a home that was just made, with passwords of its own.
pub fn fresh(id: Uuid, home: PathBuf) -> Record {
    Record {
        id,
        home,
        port: 0,
        superuser_password: password(),
        owner_password: password(),
        application_password: password(),
        backup_password: password(),
        prepared: false,
        is_recovered: false,
    }
}

fn make_passable(path: &Path) -> Result<(), EmbeddedError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(|source| EmbeddedError::io(path, source))?;
    let mode = std::fs::metadata(path).map_err(|source| EmbeddedError::io(path, source))?.permissions().mode();
    // A narrow umask took the right to pass away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o111))
        .map_err(|source| EmbeddedError::io(path, source))
}

/// 190 bits, of characters that need no escaping in a URL or in SQL.
pub fn password() -> String {
    word(32)
}

/// A random word.
pub fn word(letters: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(letters).map(char::from).collect()
}

fn write(data_dir: &Path, record: &Record) -> Result<(), EmbeddedError> {
    let file = data_dir.join(RECORD);
    let home = record.home.strip_prefix(data_dir).unwrap_or(&record.home).to_path_buf();
    files::write_private_json(&file, &Record { home, ..record.clone() })
        .map_err(|source| EmbeddedError::io(&file, source))
}
