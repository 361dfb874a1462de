//! The schema: brings it to what this build needs, and refuses to serve on any other.

use super::{Database, StoreError, parse};
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migrator};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!();

const TABLE: &str = "_sqlx_migrations";

/// What [`migrate`] tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// So many are to be applied.
    Pending(usize),
    /// This one starts.
    Applying {
        /// Its version.
        version: i64,
        /// Its description.
        description: &'a str,
    },
    /// This one is committed.
    Applied {
        /// Its version.
        version: i64,
        /// How long it took.
        took: Duration,
    },
}

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer server was here.
    #[error(
        "the database is at schema {found}, newer than {known} which this server was built for: start a newer server"
    )]
    Newer {
        /// Version of the database.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The migrations from before the first release were run, which the ones of today replace.
    #[error(
        "the database is at schema {found}, of a ContextNexus from before the first release, which this one cannot \
         migrate: start the ContextNexus that made it, or start this one with an empty database (an embedded one: \
         choose another directory with --data-dir)"
    )]
    BeforeFirstRelease {
        /// Version of the database.
        found: i64,
    },
    /// Migrations were not run.
    #[error("the database is at schema {found}, this server needs {needed}: run `contextnexus migrate`")]
    Behind {
        /// Version of the database; 0 when it was never migrated.
        found: i64,
        /// Version needed.
        needed: i64,
    },
    /// The role that serves is no member of the one that the tables are granted to.
    #[error(
        "the role of DATABASE_URL may not read the schema: as an administrator, grant contextnexus_application to it"
    )]
    NotAMember,
    /// A migration stopped in the middle.
    #[error("migration {version} was applied in part: restore the database from before it")]
    HalfApplied {
        /// Its version.
        version: i64,
    },
    /// The file that was applied is not the file of this build.
    #[error(
        "migration {version} was applied with other contents than this server knows: not a database of this server's history"
    )]
    Changed {
        /// Its version.
        version: i64,
    },
    /// PostgreSQL refused a migration, which was rolled back.
    #[error("migration {version} failed and was rolled back")]
    Failed {
        /// Its version.
        version: i64,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// No answer.
    #[error("the schema cannot be read")]
    Store(#[from] StoreError),
}

impl From<MigrateError> for SchemaError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::ExecuteMigration(source, version) => Self::Failed { version, source },
            MigrateError::Dirty(version) => Self::HalfApplied { version },
            MigrateError::Execute(error) => Self::Store(error.into()),
            other => Self::Store(StoreError::Database(sqlx::Error::Migrate(Box::new(other)))),
        }
    }
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The version that this build needs.
pub fn version_needed() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The oldest version of today's migrations. Lower ones are from before the first release: nothing leads from them to here.
pub fn version_first() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).min().unwrap_or(0)
}

/// Changes with every change of a migration. For tests, which keep a migrated template.
pub fn fingerprint() -> u64 {
    MIGRATIONS
        .iter()
        .flat_map(|migration| migration.checksum.iter())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Applies what is missing, as the owner (`DATABASE_OWNER_URL`), each migration in one transaction. Nodes that call this together
/// take turns. Returns the version reached.
pub async fn migrate(owner_url: &str, mut progress: impl FnMut(Progress<'_>)) -> Result<i64, SchemaError> {
    // A migration that waits for a lock makes everybody wait behind it: it gives up first. So does a node that waits for
    // another one's migrations.
    let options = parse(owner_url)?.options([("lock_timeout", "60000"), ("client_min_messages", "warning")]);
    let mut connection = PgConnection::connect_with(&options).await?;
    connection.lock().await?;
    let outcome = apply_missing(&mut connection, &mut progress).await;
    // The lock ends with the connection in any case.
    connection.close().await.ok();
    outcome
}

async fn apply_missing(
    connection: &mut PgConnection,
    progress: &mut impl FnMut(Progress<'_>),
) -> Result<i64, SchemaError> {
    connection.ensure_migrations_table(TABLE).await?;
    if let Some(version) = connection.dirty_version(TABLE).await? {
        return Err(SchemaError::HalfApplied { version });
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    compare(&applied)?;
    let missing: Vec<_> =
        MIGRATIONS.iter().filter(|known| applied.iter().all(|done| done.version != known.version)).collect();
    progress(Progress::Pending(missing.len()));
    for migration in missing {
        progress(Progress::Applying { version: migration.version, description: &migration.description });
        let took = connection.apply(TABLE, migration).await?;
        progress(Progress::Applied { version: migration.version, took });
    }
    // Whoever serves looks at the version first.
    sqlx::query("grant select on _sqlx_migrations to contextnexus_application").execute(&mut *connection).await?;
    super::roles::restrict_everybody(connection).await?;
    Ok(version_needed())
}

/// Whether the schema is exactly the one that this build needs. For `serve` and `doctor`.
pub async fn check(database: &Database) -> Result<(), SchemaError> {
    compare_with(database).await.map_err(|error| match &error {
        SchemaError::Store(StoreError::Database(sqlx::Error::Database(denied)))
            if denied.code().as_deref() == Some("42501") =>
        {
            SchemaError::NotAMember
        }
        _ => error,
    })
}

async fn compare_with(database: &Database) -> Result<(), SchemaError> {
    let needed = version_needed();
    let exists: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&database.pool).await?;
    if !exists {
        return Err(SchemaError::Behind { found: 0, needed });
    }
    let mut connection = database.pool.acquire().await?;
    if let Some(version) = connection.dirty_version(TABLE).await? {
        return Err(SchemaError::HalfApplied { version });
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    compare(&applied)?;
    if applied.len() < MIGRATIONS.iter().count() {
        let found = applied.iter().map(|done| done.version).max().unwrap_or(0);
        return Err(SchemaError::Behind { found, needed });
    }
    Ok(())
}

/// Every applied migration must be known, with these contents, and none may be missing before it.
fn compare(applied: &[AppliedMigration]) -> Result<(), SchemaError> {
    let known = version_needed();
    let newest = applied.iter().map(|done| done.version).max();
    if let Some(found) = newest.filter(|newest| *newest < version_first()) {
        return Err(SchemaError::BeforeFirstRelease { found });
    }
    for done in applied {
        match MIGRATIONS.iter().find(|migration| migration.version == done.version) {
            None if done.version > known => return Err(SchemaError::Newer { found: done.version, known }),
            None => return Err(SchemaError::Changed { version: done.version }),
            Some(migration) if migration.checksum != done.checksum => {
                return Err(SchemaError::Changed { version: done.version });
            }
            Some(_) => {}
        }
    }
    Ok(())
}
