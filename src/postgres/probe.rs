//! Asks a server whether it is there and which one it is, outside any pool.

use super::parse;
use sqlx::{Connection, PgConnection};
use std::path::PathBuf;
use std::time::Duration;

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
        let mut connection = PgConnection::connect_with(&parse(superuser_url).map_err(|_| None)?).await.map_err(Some)?;
        let directory: Result<String, sqlx::Error> = sqlx::query_scalar("show data_directory").fetch_one(&mut connection).await;
        connection.close().await.ok();
        directory.map_err(Some)
    };
    match tokio::time::timeout(Duration::from_secs(2), ask).await {
        Ok(Ok(directory)) => Answer::Serving(directory.into()),
        // 28: no such user, or another password. Anything else passes: connection refused, 57P03 (starting up) ...
        Ok(Err(Some(sqlx::Error::Database(error)))) if error.code().is_some_and(|code| code.starts_with("28")) => Answer::Stranger,
        _ => Answer::NotYet,
    }
}
