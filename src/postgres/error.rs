//! What a repository answers when it does not answer.

use contextnexus_actors::causes::Cause;
use sqlx::error::ErrorKind;
use std::time::Duration;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of that name in this tenant.
    #[error("no such {entity}")]
    NotFound {
        /// What was looked for.
        entity: &'static str,
    },
    /// Somebody changed it since the caller read it.
    #[error("{entity} is at version {actual}, not {expected}")]
    VersionConflict {
        /// What was to be changed.
        entity: &'static str,
        /// The caller's version.
        expected: i64,
        /// The stored version.
        actual: i64,
    },
    /// A unique key is in use.
    #[error("{constraint} is taken")]
    Taken {
        /// Name of the constraint, as in the migrations.
        constraint: String,
    },
    /// It refers to something that is not there.
    #[error("{constraint} refers to nothing")]
    RefersToNothing {
        /// Name of the foreign key, as in the migrations.
        constraint: String,
    },
    /// A value breaks a rule of its table.
    #[error("{constraint} does not hold")]
    Invalid {
        /// Name of the check (or, for a missing value, of the column).
        constraint: String,
    },
    /// PostgreSQL is away, or gave up (a timeout, a deadlock): try again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// Not the address of a PostgreSQL database. The address is not shown: it holds a password.
    #[error("not a postgres:// address")]
    BadAddress,
    /// Anything else: a defect.
    #[error("database failure")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// Why it is logged, where nobody can do anything about it any more.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotFound { .. }
            | Self::VersionConflict { .. }
            | Self::Taken { .. }
            | Self::RefersToNothing { .. }
            | Self::Invalid { .. } => Cause::Client,
            Self::Unavailable(_) => Cause::Outage,
            Self::BadAddress => Cause::Setup,
            Self::Database(_) => Cause::Defect,
        }
    }
}

/// Why PostgreSQL took no write.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoWrite {
    /// There is no room for it.
    #[error("the disk of PostgreSQL is full ({0}); free some space there")]
    DiskFull(String),
    /// Another reason, in PostgreSQL's words: a standby, say.
    #[error("PostgreSQL takes no writes: {0}")]
    Refused(String),
    /// No answer in this time.
    #[error("PostgreSQL does not commit within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// PostgreSQL was not reached at all.
    #[error("PostgreSQL does not answer")]
    Unreachable,
}

impl NoWrite {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(error) if error.code().as_deref() == Some("53100") => Self::DiskFull(error.message().to_owned()),
            // 08 and 57P: no connection, or a server that stops.
            Some(error) if error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P")) => {
                Self::Unreachable
            }
            Some(error) => Self::Refused(error.message().to_owned()),
            None => Self::Unreachable,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return if is_away(&error) { Self::Unavailable(error) } else { Self::Database(error) };
        };
        let constraint = || database.constraint().unwrap_or("a constraint").to_owned();
        match database.kind() {
            ErrorKind::UniqueViolation => Self::Taken { constraint: constraint() },
            ErrorKind::ForeignKeyViolation => Self::RefersToNothing { constraint: constraint() },
            ErrorKind::CheckViolation | ErrorKind::NotNullViolation => Self::Invalid { constraint: constraint() },
            _ if is_away(&error) => Self::Unavailable(error),
            _ => Self::Database(error),
        }
    }
}

/// Whether waiting may help: no connection, a server that starts or stops, a lack of resources, a timeout, a deadlock.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            // 08 connection, 40 rollback, 53 resources, 55P03 lock timeout, 57 operator and timeouts, 58 system,
            // 25006 a standby, 25P03 idle in transaction
            matches!(code.get(..2), Some("08" | "40" | "53" | "57" | "58"))
                || matches!(&*code, "55P03" | "25006" | "25P03" | "3D000" | "28P01" | "28000")
        }),
        _ => false,
    }
}
