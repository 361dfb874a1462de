//! Where the cluster lives and what has to be remembered about it: its place, port and passwords.

use super::{APPLICATION, Account, DATABASE, EmbeddedError, OWNER, Urls};
use crate::config::Secret;
use crate::data_dir::{self, DataDir, LockError};
use crate::files;
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// In the data directory; mode 0600.
const RECORD: &str = "embedded.json";
/// For clusters whose data directory PostgreSQL's user cannot reach.
const ELSEWHERE: &str = "/var/lib/contextnexus";

/// PostgreSQL's data directory in a home.
pub const CLUSTER: &str = "cluster";

/// The record of the data directory's own cluster.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    /// Names the cluster's directory where that is elsewhere.
    pub id: Uuid,
    /// Holds the cluster, fetched binaries and PostgreSQL's first messages.
    pub home: PathBuf,
    /// The port on 127.0.0.1 that was taken last.
    pub port: u16,
    /// Of the superuser `postgres`: for making roles and the database, nothing else.
    pub superuser_password: String,
    /// Of the role that owns the tables.
    pub owner_password: String,
    /// Of the role that serves.
    pub application_password: String,
    /// Roles and database were made.
    pub prepared: bool,
}

impl Record {
    /// How to connect, while PostgreSQL runs.
    pub fn urls(&self) -> Urls {
        let url = |role: &str, password: &str| {
            Secret(format!("postgres://{role}:{password}@127.0.0.1:{}/{DATABASE}?sslmode=disable", self.port))
        };
        Urls { owner: url(OWNER, &self.owner_password), application: url(APPLICATION, &self.application_password) }
    }
}

/// An open home: recorded, and locked as long as this lives.
pub struct Home {
    pub record: Record,
    file: PathBuf,
    _lock: File,
}

impl Home {
    /// The recorded home, or a new one.
    pub async fn open(data_dir: &DataDir, run_as: &str, fresh_id: Uuid) -> Result<Self, EmbeddedError> {
        let file = data_dir.path().join(RECORD);
        let record = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|_| EmbeddedError::BadRecord { file: file.clone() })
                .and_then(|record| relocate(record, data_dir))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let record = create(data_dir, &Account::choose(run_as)?, fresh_id).await?;
                write(&file, &record)?;
                record
            }
            Err(source) => return Err(EmbeddedError::io(&file, source)),
        };
        // A copied data directory leads to the same home.
        let lock = data_dir::lock(&record.home.join("server.lock")).map_err(|error| match error {
            LockError::Held(pid) => EmbeddedError::HomeInUse { home: record.home.clone(), pid },
            LockError::Io(source) => EmbeddedError::io(&record.home, source),
        })?;
        Ok(Self { record, file, _lock: lock })
    }

    /// PostgreSQL's data directory.
    pub fn cluster(&self) -> PathBuf {
        self.record.home.join(CLUSTER)
    }

    /// Changes the record, durably.
    pub fn update(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), EmbeddedError> {
        change(&mut self.record);
        write(&self.file, &self.record)
    }
}

/// The record of a data directory, where it has one that can be read.
pub fn read(data_dir: &Path) -> Option<Record> {
    serde_json::from_slice(&std::fs::read(data_dir.join(RECORD)).ok()?).ok()
}

/// A data directory that was moved takes the cluster inside it along.
fn relocate(mut record: Record, data_dir: &DataDir) -> Result<Record, EmbeddedError> {
    if !record.home.is_dir() {
        let inside = data_dir.path().join("postgresql");
        if !inside.is_dir() {
            return Err(EmbeddedError::HomeMissing { home: record.home, data_dir: data_dir.path().into() });
        }
        record.home = inside;
    }
    Ok(record)
}

async fn create(data_dir: &DataDir, account: &Account, id: Uuid) -> Result<Record, EmbeddedError> {
    let inside = data_dir.path().join("postgresql");
    account.make_directory(&inside)?;
    let home = if account.reaches(&inside).await {
        inside
    } else {
        std::fs::remove_dir(&inside).map_err(|source| EmbeddedError::io(&inside, source))?;
        let elsewhere = Path::new(ELSEWHERE);
        make_passable(elsewhere)?;
        let home = elsewhere.join(id.to_string());
        account.make_directory(&home)?;
        if !account.reaches(&home).await {
            return Err(EmbeddedError::Unreachable { account: account.name.clone(), home });
        }
        home
    };
    Ok(Record {
        id,
        home,
        port: 0,
        superuser_password: password(),
        owner_password: password(),
        application_password: password(),
        prepared: false,
    })
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
fn password() -> String {
    word(32)
}

/// A random word.
pub fn word(letters: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(letters).map(char::from).collect()
}

fn write(file: &Path, record: &Record) -> Result<(), EmbeddedError> {
    files::write_private_json(file, record).map_err(|source| EmbeddedError::io(file, source))
}
