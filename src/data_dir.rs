//! The data directory: ours, of a format we know, and held by one server at a time.

use crate::process::is_alive;
use crate::{files, folding};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often, and how far apart, a lock is tried whose holder has ended.
const ATTEMPTS_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Says that a directory is ours, and how it is laid out.
const MARKER: &str = "contextnexus.json";
/// Locked while a server runs; holds its pid, for the message that names it.
const LOCK: &str = "server.lock";
/// The layout that this program reads and writes.
const FORMAT: u32 = 1;

/// An open data directory. It stays locked as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why the data directory cannot be used: one line each, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Something else is in there.
    #[error("{0} is not empty and not a ContextNexus data directory; choose another with --data-dir")]
    Foreign(PathBuf),
    /// A later version wrote it.
    #[error(
        "the data directory {path} has format {format}, this version knows {FORMAT}: start the ContextNexus that wrote it, or a newer one"
    )]
    Newer {
        /// Which directory.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Another server runs on it.
    #[error("another ContextNexus server{} runs on the data directory {path}; stop it, or choose another directory with --data-dir", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// The other one, where it is known.
        pid: Option<u32>,
    },
    /// A file or directory cannot be written.
    #[error("{}", describe(path, source))]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    written_by: String,
}

impl DataDir {
    /// Opens the directory and locks it; makes it first where it does not exist.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create(path).map_err(|source| io_error(path, source))?;
        let path = path.canonicalize().map_err(|source| io_error(path, source))?;
        check_marker(&path)?;
        let lock = lock(&path.join(LOCK)).map_err(|error| match error {
            LockError::Held(pid) => DataDirError::InUse { path: path.clone(), pid },
            LockError::Io(source) => io_error(&path.join(LOCK), source),
        })?;
        write_marker(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Absolute, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory where it does not exist.
pub fn create(path: &Path) -> io::Result<()> {
    // Root's PostgreSQL runs as another user, who has to pass through but need not look around.
    let mode = if crate::process::is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// How a data directory stands, seen from outside.
#[derive(Debug)]
pub enum Standing {
    /// Not there, or empty.
    Absent,
    /// Ours, and free.
    Ours,
    /// Ours, and a server runs on it.
    InUse {
        /// Its process, where it is known.
        pid: Option<u32>,
    },
}

/// Looks at a data directory without changing it.
pub fn standing(path: &Path) -> Result<Standing, DataDirError> {
    if !path.exists() {
        return Ok(Standing::Absent);
    }
    check_marker(path)?;
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(io_error(path, ErrorKind::PermissionDenied.into()));
    }
    let Ok(mut file) = File::open(path.join(LOCK)) else { return Ok(Standing::Absent) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Ok(Standing::InUse { pid: text.trim().parse().ok() })
        }
        _ => Ok(Standing::Ours),
    }
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// By this process, where it said so.
    Held(Option<u32>),
    /// The lock file cannot be used.
    Io(io::Error),
}

/// Takes the lock that the kernel gives back when this process ends, however it ends.
pub fn lock(path: &Path) -> Result<File, LockError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LockError::Io)?;
    let mut attempts = 0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
                let holder: Option<i32> = text.trim().parse().ok();
                // A server that was killed while it started a process leaves a child that holds its files until it has become that.
                let has_ended = holder.and_then(Pid::from_raw).is_none_or(|pid| !is_alive(pid));
                attempts += 1;
                if !has_ended || attempts > ATTEMPTS_MAX {
                    return Err(LockError::Held(holder.map(i32::unsigned_abs)));
                }
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
    }
    let pid = std::process::id().to_string();
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(LockError::Io)?;
    Ok(file)
}

fn check_marker(path: &Path) -> Result<(), DataDirError> {
    let marker = path.join(MARKER);
    let text = match std::fs::read(&marker) {
        // Written in one go right after the directory was made; empty means that a crash came between.
        Ok(text) if text.is_empty() => return Ok(()),
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return check_empty(path),
        Err(source) => return Err(io_error(&marker, source)),
    };
    match serde_json::from_slice::<Marker>(&text) {
        Ok(Marker { format, .. }) if format > FORMAT => Err(DataDirError::Newer { path: path.into(), format }),
        Ok(_) => Ok(()),
        Err(_) => Err(DataDirError::Foreign(path.into())),
    }
}

fn check_empty(path: &Path) -> Result<(), DataDirError> {
    for entry in std::fs::read_dir(path).map_err(|source| io_error(path, source))? {
        let name = entry.map_err(|source| io_error(path, source))?.file_name();
        // The root of a file system has the first; the second is a first start that crashed before the marker; the third is all that a
        // node without an embedded database keeps.
        if name != "lost+found" && name != LOCK && name != folding::DIRECTORY {
            return Err(DataDirError::Foreign(path.into()));
        }
    }
    Ok(())
}

fn write_marker(path: &Path) -> Result<(), DataDirError> {
    let marker = path.join(MARKER);
    if std::fs::metadata(&marker).is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(());
    }
    let text = serde_json::json!(Marker { format: FORMAT, written_by: env!("CARGO_PKG_VERSION").into() }).to_string();
    std::fs::write(&marker, text).and_then(|()| files::sync_directory(path)).map_err(|source| io_error(&marker, source))
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io { path: path.into(), source }
}

/// One line that says what is wrong with a path and what to do.
pub fn describe(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("no right to write {path}; start as a user who may, or choose another directory with --data-dir")
        }
        ErrorKind::ReadOnlyFilesystem => {
            format!("{path} is on a read-only file system; choose another directory with --data-dir")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("the disk that holds {path} is full; free some space, or choose another directory with --data-dir")
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            format!("{path} is not a directory; choose another with --data-dir")
        }
        _ => format!("cannot use {path}: {error}"),
    }
}
