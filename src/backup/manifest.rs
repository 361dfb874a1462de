//! What a backup says about itself, and how a restored database is compared with it.

use super::BackupError;
use crate::files;
use crate::postgres::backup::TableSum;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

pub const MANIFEST: &str = "manifest.json";
pub const DUMP: &str = "database.dump";
pub const DOCUMENTS: &str = "documents.tsv";

/// Of this file and the two beside it.
pub const FORMAT: u32 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the backup.
    pub format: u32,
    /// The version of ContextNexus that made it.
    pub written_by: String,
    /// The instant of all of it.
    pub taken_at: DateTime<Utc>,
    /// PostgreSQL's, as it counts: 150004 is 15.4.
    pub server_version: i32,
    /// The major version of the `pg_dump` that wrote the dump: an older `pg_restore` may not read it.
    pub tool_version: u32,
    /// The newest migration.
    pub schema: i64,
    /// Size of the source's files.
    pub database_bytes: i64,
    /// `database.dump`.
    pub dump: FileSum,
    /// `documents.tsv`.
    pub documents: Documents,
    /// All tables.
    pub tables: Vec<TableSum>,
}

/// A file of the backup.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileSum {
    /// Its length.
    pub bytes: u64,
    /// Of its contents.
    pub blake3: String,
}

/// What `documents.tsv` holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Documents {
    /// Lines.
    pub count: u64,
    /// Rows of all logs.
    pub log_rows: u64,
    /// Bytes of all logs.
    pub log_bytes: u64,
    /// The file.
    pub file: FileSum,
}

impl Documents {
    pub fn add(&mut self, line: &str) {
        let mut numbers = line.split('\t').skip(5).map(|field| field.parse::<u64>().unwrap_or(0));
        self.count += 1;
        self.log_rows += numbers.next().unwrap_or(0);
        self.log_bytes += numbers.next().unwrap_or(0);
    }
}

impl Manifest {
    pub(super) fn write(&self, directory: &Path) -> Result<(), BackupError> {
        let path = directory.join(MANIFEST);
        files::write_private_json(&path, self).map_err(|source| BackupError::Io { path, source })
    }

    pub(super) fn read(directory: &Path) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Front {
            format: u32,
        }
        let path = directory.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(BackupError::NoBackup(directory.into()));
            }
            Err(source) => return Err(BackupError::Io { path, source }),
        };
        let bad = |error: serde_json::Error| BackupError::BadManifest { path: path.clone(), reason: error.to_string() };
        let Front { format } = serde_json::from_slice(&text).map_err(bad)?;
        if format > FORMAT {
            return Err(BackupError::NewerFormat { path: directory.into(), format, known: FORMAT });
        }
        serde_json::from_slice(&text).map_err(bad)
    }

    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// What was compared with the source, for people.
    #[must_use]
    pub fn compared(&self) -> String {
        format!(
            "{} tables with {} rows (every row), {} document heads, and the logs of all documents ({} rows, {} bytes)",
            self.tables.len(),
            self.rows(),
            self.documents.count,
            self.documents.log_rows,
            self.documents.log_bytes,
        )
    }

    /// The first table that is another one.
    pub(super) fn compare_tables(&self, found: &[TableSum]) -> Result<(), Difference> {
        for expected in &self.tables {
            match found.iter().find(|found| found.name == expected.name) {
                None => return Err(Difference(format!("the table {} is missing", expected.name))),
                Some(found) if found.rows != expected.rows => {
                    return Err(Difference(format!(
                        "the table {} has {} rows, the source had {}",
                        expected.name, found.rows, expected.rows
                    )));
                }
                Some(found) if found != expected => {
                    return Err(Difference(format!(
                        "the table {} has as many rows as the source had ({}), with other contents",
                        expected.name, expected.rows
                    )));
                }
                Some(_) => {}
            }
        }
        match found.iter().find(|found| self.tables.iter().all(|expected| expected.name != found.name)) {
            Some(more) => Err(Difference(format!("the table {} was not in the source", more.name))),
            None => Ok(()),
        }
    }
}

/// Where a restored database is not what was backed up.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference(String);

impl Difference {
    /// Two lines of `documents.tsv`, of which one may be missing.
    pub(super) fn of_document(expected: Option<&str>, found: Option<&str>) -> Self {
        let field = |line: Option<&str>, at: usize| {
            line.and_then(|line| line.split('\t').nth(at)).unwrap_or("nothing").to_owned()
        };
        let id = field(expected.or(found), 1);
        if expected.is_none() || found.is_none() || field(expected, 1) != field(found, 1) {
            return Self(format!(
                "the document {id} is only in the {}",
                if expected.is_some() { "source" } else { "restored database" }
            ));
        }
        const FIELDS: [(&str, usize); 6] = [
            ("its number", 2),
            ("its tip", 3),
            ("whether it is deleted", 4),
            ("the rows of its log", 5),
            ("the bytes of its log", 6),
            ("the contents of its log", 7),
        ];
        let differing = FIELDS.iter().find(|(_, at)| field(expected, *at) != field(found, *at));
        let (what, at) = differing.copied().unwrap_or(("its tenant", 0));
        Self(format!(
            "the document {id} differs: {what} is {}, in the source {}",
            field(found, at),
            field(expected, at)
        ))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what was restored is not what was backed up: {}; do not rely on this backup", self.0)
    }
}

/// Reads a file whole, in pieces.
pub fn hash_file(path: &Path) -> io::Result<FileSum> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(FileSum { bytes, blake3: hasher.finalize().to_hex().to_string() }),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: i64, sum: &str) -> TableSum {
        TableSum { name: name.into(), rows, sum: Some(sum.into()) }
    }

    #[test]
    fn a_difference_names_the_table_or_the_document() {
        let manifest = Manifest {
            format: FORMAT,
            written_by: String::new(),
            taken_at: DateTime::UNIX_EPOCH,
            server_version: 150_004,
            tool_version: 15,
            schema: 17,
            database_bytes: 0,
            dump: FileSum::default(),
            documents: Documents::default(),
            tables: vec![table("tenants", 1, "5"), table("users", 2, "7")],
        };
        let found = |tables: &[TableSum]| manifest.compare_tables(tables).map_err(|difference| difference.0);
        assert_eq!(found(&[table("users", 2, "7"), table("tenants", 1, "5")]), Ok(()));
        assert_eq!(found(&[table("tenants", 1, "5")]), Err("the table users is missing".into()));
        let fewer = found(&[table("tenants", 1, "5"), table("users", 1, "7")]);
        assert_eq!(fewer, Err("the table users has 1 rows, the source had 2".into()));
        let other = found(&[table("tenants", 1, "5"), table("users", 2, "8")]);
        assert_eq!(other, Err("the table users has as many rows as the source had (2), with other contents".into()));

        let of = |expected: Option<&str>, found: Option<&str>| Difference::of_document(expected, found).0;
        let (source, shorter) = ("t\td\t9\ttip\tf\t3\t90\t1", "t\td\t9\ttip\tf\t2\t60\t1");
        assert_eq!(
            of(Some(source), Some(shorter)),
            "the document d differs: the rows of its log is 2, in the source 3"
        );
        assert_eq!(of(Some(source), None), "the document d is only in the source");
        assert_eq!(of(None, Some(source)), "the document d is only in the restored database");
    }
}
