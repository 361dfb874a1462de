//! Asks a server whether it is there and which one it is, outside any pool.

use super::{Database, StoreError, parse};
use sqlx::{Connection, PgConnection};
use std::path::PathBuf;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
/// Of one attempt to reach a server that may be on another continent.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server does not take us in.
#[derive(Debug, thiserror::Error)]
pub enum NoEntry {
    /// Nobody answers there at this moment: refused, an unknown host, silence, or a server that starts or stops. Waiting may help.
    #[error("{0}")]
    Unreachable(String),
    /// It answers, and does not know this role, password or database, or wants another kind of connection. Waiting does not help.
    #[error("{0}")]
    Refused(String),
}

/// Signs in at this address and leaves again. Answers within five seconds.
pub async fn reach(url: &str) -> Result<(), NoEntry> {
    let options = parse(url).map_err(|error| NoEntry::Refused(error.to_string()))?;
    let entry = async { PgConnection::connect_with(&options).await?.close().await };
    match tokio::time::timeout(REACH_TIMEOUT, entry).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(no_entry(&error)),
        Err(_) => Err(NoEntry::Unreachable(format!("no answer within {} s", REACH_TIMEOUT.as_secs()))),
    }
}

fn no_entry(error: &sqlx::Error) -> NoEntry {
    match error {
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            NoEntry::Refused(error.to_string())
        }
        sqlx::Error::Io(error) => NoEntry::Unreachable(error.to_string()),
        sqlx::Error::Database(error) => {
            // 57P01 to 57P03: it stops, has crashed, or is starting up. 08: a pooler that does not reach it. 53300: it is full.
            let passes = error
                .code()
                .is_some_and(|code| matches!(&*code, "57P01" | "57P02" | "57P03" | "53300") || code.starts_with("08"));
            let text = error.message().to_owned();
            if passes { NoEntry::Unreachable(text) } else { NoEntry::Refused(text) }
        }
        other => NoEntry::Refused(other.to_string()),
    }
}

/// `host:port` or the socket's directory of a `postgres://` address: what may be shown of it.
pub fn place(url: &str) -> Result<String, StoreError> {
    let options = parse(url)?;
    Ok(match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    })
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// It serves, and keeps its files here.
    Serving(PathBuf),
    /// Nobody listens, or it is starting, recovering or shutting down.
    NotYet,
    /// Somebody listens who does not know this user or password.
    Stranger,
}

/// Asks for the data directory, as a superuser. Answers within two seconds.
pub async fn data_directory(superuser_url: &str) -> Answer {
    let ask = async {
        let mut connection =
            PgConnection::connect_with(&parse(superuser_url).map_err(|_| None)?).await.map_err(Some)?;
        let directory: Result<String, sqlx::Error> =
            sqlx::query_scalar("show data_directory").fetch_one(&mut connection).await;
        connection.close().await.ok();
        directory.map_err(Some)
    };
    match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(Ok(directory)) => Answer::Serving(directory.into()),
        // 28: no such user, or another password. Anything else passes: connection refused, 57P03 (starting up) ...
        Ok(Err(Some(sqlx::Error::Database(error)))) if error.code().is_some_and(|code| code.starts_with("28")) => {
            Answer::Stranger
        }
        _ => Answer::NotYet,
    }
}

/// What [`examine`] found beside what `roles::inspect` finds.
#[derive(Clone, Debug)]
pub struct Examination {
    /// `synchronous_commit` of a new session. The log sets its own.
    pub synchronous_commit: String,
    /// Connections that the server takes.
    pub connections_max: i32,
}

/// Looks at what durability and capacity stand on.
#[tracing::instrument(name = "pg.probe.examine", skip_all, err(level = "debug"))]
pub async fn examine(database: &Database) -> Result<Examination, StoreError> {
    let facts = sqlx::query!(
        r#"select current_setting('synchronous_commit') as "synchronous_commit!",
                  current_setting('max_connections')::int as "connections_max!""#
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(Examination { synchronous_commit: facts.synchronous_commit, connections_max: facts.connections_max })
}

/// Who this address signs in as. Answers within two seconds.
pub async fn current_user(url: &str) -> Result<String, StoreError> {
    let ask = async {
        let mut connection = PgConnection::connect_with(&parse(url)?).await?;
        let user: String = sqlx::query_scalar("select current_user::text").fetch_one(&mut connection).await?;
        connection.close().await.ok();
        Ok(user)
    };
    tokio::time::timeout(TIMEOUT, ask).await.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}
