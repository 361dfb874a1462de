//! Backups by PostgreSQL's own tools: taken from a running database, restored into an empty one, and verified in a
//! cluster of their own.
//!
//! A backup is a directory. `database.dump` is what `pg_dump` wrote (custom format). Of the same instant are
//! `documents.tsv`, a line for each document's head and log, and `manifest.json`, with the sums of all tables; it is
//! written last, so a directory without it is no backup.

mod manifest;
mod tools;

pub use manifest::{Difference, Manifest};

use crate::config::Config;
use crate::console::progress;
use crate::data_dir::describe;
use crate::embedded::{Account, EmbeddedError, Scratch, Urls, binaries};
use crate::files;
use crate::postgres::backup::{self as store, Occupancy, Reader, Snapshot};
use crate::postgres::{StoreError, migrate};
use manifest::{DOCUMENTS, DUMP, Documents, MANIFEST, hash_file};
use std::fs::{File, Permissions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tools::{ToolFailed, dump, restore_list, run_restore};

/// Why there is no backup, or it was not restored. One line each, with what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the texts are the documentation
pub enum BackupError {
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    #[error("{} is no backup: it has no {MANIFEST}, which is written last; a backup that was broken off leaves none", .0.display())]
    NoBackup(PathBuf),
    #[error("{} cannot be read as a backup's {MANIFEST}: {reason}", path.display())]
    BadManifest { path: PathBuf, reason: String },
    #[error("the backup {} has format {format}, this version reads {known}: use a newer contextnexus", path.display())]
    NewerFormat { path: PathBuf, format: u32, known: u32 },
    #[error("{} is damaged: it is not the file that was backed up ({reason}); use another backup", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "there is no role that may read everything: as a superuser of the database {} and set DATABASE_BACKUP_URL to it",
        store::MAKE_BACKUP_ROLE
    )]
    NoRole,
    #[error(
        "no backup role is recorded for the embedded database: the server that runs is of an earlier version; start it again with this one"
    )]
    NoEmbeddedRole,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("there is no database in {} yet, so there is nothing to back up; name its data directory with --data-dir", .0.display())]
    NoDatabase(PathBuf),
    #[error("the database is at schema 0: it was never migrated, so there is nothing to back up")]
    NoSchema,
    #[error("the role of DATABASE_OWNER_URL is needed, which owns the tables: set it")]
    NoOwner,
    #[error(
        "this backup is at schema {found}, and this contextnexus needs {needed}: restore it with the version that made it ({written_by}), and let this one migrate it"
    )]
    Schema { found: i64, needed: i64, written_by: String },
    #[error(
        "this backup is at schema {found}, of a ContextNexus from before the first release, which this one cannot \
         migrate: restore it with the version that made it"
    )]
    BeforeFirstRelease { found: i64 },
    #[error(
        "the database is not empty ({tables} tables); restore into a new one, or replace what is in it with --replace"
    )]
    NotEmpty { tables: i64 },
    #[error("{sessions} other sessions are open in the database: stop every server on it first")]
    InUse { sessions: i64 },
    #[error(
        "the role contextnexus_application does not exist: as a superuser, create role contextnexus_application nologin"
    )]
    NoApplicationRole,
    #[error("{0}")]
    Differs(Difference),
    #[error(transparent)]
    Tool(#[from] ToolFailed),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error("the database cannot be read")]
    Store(#[from] StoreError),
    #[error("the restored database cannot be used")]
    Restored(#[source] StoreError),
    #[error("{}", describe(path, source))]
    Io { path: PathBuf, source: io::Error },
}

/// A role that would make a backup with holes.
#[derive(Debug, thiserror::Error)]
#[error("the role {} {}; as a superuser, alter role {} bypassrls; grant pg_read_all_data to {};", .0.name, why(.0), .0.name, .0.name)]
pub struct Unreadable(pub Reader);

fn why(reader: &Reader) -> String {
    match &reader.closed_table {
        _ if !reader.reads_all_tenants => {
            "is bound by row-level security, so it would back up no tenant's rows".to_owned()
        }
        Some(table) => format!("may not read the table {table}"),
        None => "does not read everything".to_owned(),
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::Io { path, source }
}

/// Writes a backup of this database into a new directory. The database may be in use; nobody waits for this.
pub async fn back_up(config: &Config, urls: &Urls, directory: &Path) -> Result<Manifest, BackupError> {
    if directory.exists() {
        return Err(BackupError::Exists(directory.into()));
    }
    let url = match urls.backup.get() {
        Some(url) => url,
        None if config.is_embedded() => return Err(BackupError::NoEmbeddedRole),
        None => return Err(BackupError::NoRole),
    };
    let reader = store::reader(url).await?;
    if !reader.reads_all() {
        return Err(Unreadable(reader).into());
    }
    let mut snapshot = Snapshot::take(url).await?;
    if snapshot.schema == 0 {
        return Err(BackupError::NoSchema);
    }
    let account = Account::own();
    let tools = binaries::tools(&config.embedded, &account, &["pg_dump"], major(snapshot.server_version)).await?;

    let parent = match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    // Under another name until it is whole, and gone if it never is.
    let partial = tempfile::Builder::new()
        .prefix(&format!("{}.partial-", directory.file_name().unwrap_or_default().to_string_lossy()))
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(io_error(parent))?;
    progress(format_args!(
        "Backing up a database of {} MB (PostgreSQL {}, schema {}), as it was at {} ...",
        snapshot.bytes >> 20,
        major(snapshot.server_version),
        snapshot.schema,
        snapshot.taken_at.format("%F %T UTC"),
    ));
    let file = partial.path().join(DUMP);
    dump(&tools.program("pg_dump"), url, &snapshot.name, &file).await?;
    progress("Summing up what was backed up ...");
    let tables = snapshot.tables().await?;
    let documents = write_documents(&mut snapshot, &partial.path().join(DOCUMENTS)).await?;
    let manifest = Manifest {
        format: manifest::FORMAT,
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at: snapshot.taken_at,
        server_version: snapshot.server_version,
        tool_version: tools.version,
        schema: snapshot.schema,
        database_bytes: snapshot.bytes,
        dump: hash_file(&file).map_err(io_error(&file))?,
        documents,
        tables,
    };
    snapshot.close().await;
    sync(&file)?;
    manifest.write(partial.path())?;
    // Whoever wrote there meanwhile keeps what he wrote: a directory is renamed over nothing but an empty one.
    std::fs::rename(partial.path(), directory)
        .and_then(|()| files::sync_directory(parent))
        .map_err(io_error(directory))?;
    Ok(manifest)
}

async fn write_documents(snapshot: &mut Snapshot, path: &Path) -> Result<Documents, BackupError> {
    let mut file = BufWriter::new(File::create_new(path).map_err(io_error(path))?);
    let mut documents = Documents::default();
    snapshot
        .documents(|line| {
            documents.add(line);
            writeln!(file, "{line}").map_err(io_error(path))
        })
        .await?;
    file.flush().map_err(io_error(path))?;
    sync(path)?;
    documents.file = hash_file(path).map_err(io_error(path))?;
    Ok(documents)
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(path))
}

/// Restores a backup into an empty database, all or nothing. `replace`: drops what is in it first.
pub async fn restore(
    config: &Config,
    urls: &Urls,
    directory: &Path,
    manifest: &Manifest,
    replace: bool,
) -> Result<(), BackupError> {
    let owner = urls.owner.get().ok_or(BackupError::NoOwner)?;
    let Occupancy { tables, sessions, has_application_role, server_version } = store::occupancy(owner).await?;
    if tables > 0 && !replace {
        return Err(BackupError::NotEmpty { tables });
    }
    if sessions > 0 {
        return Err(BackupError::InUse { sessions });
    }
    if !has_application_role {
        return Err(BackupError::NoApplicationRole);
    }
    let version = manifest.tool_version.max(major(server_version));
    let tools = binaries::tools(&config.embedded, &Account::own(), &["pg_restore"], version).await?;
    if tables > 0 {
        progress(format_args!("Dropping what is in the database ({tables} tables) ..."));
        store::empty(owner).await?;
    }
    restore_into(&tools.program("pg_restore"), owner, directory, manifest, false).await?;
    match urls.backup.get().filter(|url| store::same_database(url, owner)) {
        Some(url) => compare(directory, manifest, url).await,
        None => {
            progress("Not compared with the backup: that needs DATABASE_BACKUP_URL for this database");
            Ok(())
        }
    }
}

/// Restores a backup into a cluster of its own under `scratch`, compares, and removes it again.
pub async fn verify(config: &Config, directory: &Path, scratch: &Path) -> Result<Manifest, BackupError> {
    let manifest = open_of_any_schema(directory)?;
    progress(format_args!("Restoring into a database of its own in {} ...", scratch.display()));
    let bytes = manifest.database_bytes.unsigned_abs();
    let cluster = Scratch::start(config, scratch, manifest.tool_version, bytes).await?;
    let urls = cluster.urls();
    let outcome = async {
        restore_into(&cluster.bin().join("pg_restore"), &urls.owner.0, directory, &manifest, true).await?;
        compare(directory, &manifest, &urls.backup.0).await
    }
    .await;
    cluster.remove().await;
    outcome.map(|()| manifest)
}

/// A backup that is about to be restored: whole, and of the schema that this program works with.
pub fn open(directory: &Path) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(directory)?;
    let needed = migrate::version_needed();
    if manifest.schema < migrate::version_first() {
        return Err(BackupError::BeforeFirstRelease { found: manifest.schema });
    }
    if manifest.schema != needed {
        return Err(BackupError::Schema { found: manifest.schema, needed, written_by: manifest.written_by });
    }
    open_of_any_schema(directory)
}

/// The manifest of a backup whose files are as they were written.
fn open_of_any_schema(directory: &Path) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(directory)?;
    for (name, expected) in [(DUMP, &manifest.dump), (DOCUMENTS, &manifest.documents.file)] {
        let path = directory.join(name);
        let found = hash_file(&path).map_err(io_error(&path))?;
        if found != *expected {
            let reason = if found.bytes == expected.bytes {
                "other contents".to_owned()
            } else {
                format!("{} bytes instead of {}", found.bytes, expected.bytes)
            };
            return Err(BackupError::Damaged { path, reason });
        }
    }
    Ok(manifest)
}

async fn restore_into(
    pg_restore: &Path,
    owner: &str,
    directory: &Path,
    manifest: &Manifest,
    scratch: bool,
) -> Result<(), BackupError> {
    progress(format_args!(
        "Restoring {} documents and {} tables, as they were at {} ...",
        manifest.documents.count,
        manifest.tables.len(),
        manifest.taken_at.format("%F %T UTC"),
    ));
    let file = directory.join(DUMP);
    let list = restore_list(pg_restore, &file).await?;
    run_restore(pg_restore, owner, &file, &list, scratch).await?;
    store::finish(owner).await.map_err(BackupError::Restored)
}

/// Compares a restored database with what its source was when it was backed up.
async fn compare(directory: &Path, manifest: &Manifest, url: &str) -> Result<(), BackupError> {
    progress("Comparing every table, head and log with the source ...");
    let mut snapshot = Snapshot::take(url).await.map_err(BackupError::Restored)?;
    let tables = snapshot.tables().await.map_err(BackupError::Restored)?;
    manifest.compare_tables(&tables).map_err(BackupError::Differs)?;
    let path = directory.join(DOCUMENTS);
    let mut expected = BufReader::new(File::open(&path).map_err(io_error(&path))?).lines();
    let mut next = move || expected.next().transpose().map_err(io_error(&path));
    snapshot
        .documents(|found| {
            let expected = next()?;
            if expected.as_deref() == Some(found) {
                return Ok(());
            }
            Err(BackupError::Differs(Difference::of_document(expected.as_deref(), Some(found))))
        })
        .await?;
    if let Some(missing) = next()? {
        return Err(BackupError::Differs(Difference::of_document(Some(&missing), None)));
    }
    snapshot.close().await;
    Ok(())
}

fn major(server_version: i32) -> u32 {
    u32::try_from(server_version / 10_000).unwrap_or(0)
}
