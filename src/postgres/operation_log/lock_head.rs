//! The one connection that may wait for a lock: for a document that lost its appends to other nodes again and again.

use super::append::{self, Failure};
use super::{away, read};
use crate::postgres::Database;
use async_trait::async_trait;
use contextnexus_actors::ids::{DocumentKey, Position};
use contextnexus_actors::ports::log::{AppendOutcome, AppendRequest, LockedHead, LogError, Tail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Waits for the turn on the connection, over the turns of several documents.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// What `idle_in_transaction_session_timeout` gives: after it PostgreSQL takes the lock away.
const HELD_MAX: Duration = Duration::from_secs(2);

/// Hands out the connection.
#[derive(Debug)]
pub(super) struct HeadLocks {
    options: PgConnectOptions,
    connection: Arc<Mutex<Option<PgConnection>>>,
    answer_timeout: Duration,
}

impl HeadLocks {
    pub fn new(database: &Database, answer_timeout: Duration) -> Self {
        let options = database.options.clone().options([
            ("lock_timeout", "1000".to_owned()),
            ("idle_in_transaction_session_timeout", HELD_MAX.as_millis().to_string()),
            ("statement_timeout", "4000".to_owned()),
        ]);
        Self { options, connection: Arc::default(), answer_timeout }
    }

    pub async fn lock_head(&self, key: DocumentKey, base: Position) -> Result<Box<dyn LockedHead>, LogError> {
        let timed_out = |_| away(sqlx::Error::PoolTimedOut);
        let turn = Arc::clone(&self.connection).lock_owned();
        let mut place = tokio::time::timeout(TURN_TIMEOUT, turn).await.map_err(timed_out)?;
        let locking = self.lock(place.take(), key, base);
        let (connection, tail) = tokio::time::timeout(self.answer_timeout, locking).await.map_err(timed_out)??;
        Ok(Box::new(PostgresHead {
            key,
            connection,
            place,
            head: tail.head.position,
            tail: Some(tail),
            since: Instant::now(),
            answer_timeout: self.answer_timeout,
        }))
    }

    async fn lock(
        &self,
        idle: Option<PgConnection>,
        key: DocumentKey,
        base: Position,
    ) -> Result<(PgConnection, Tail), LogError> {
        let begin =
            format!("begin isolation level read committed; set local app.current_tenant_id = '{}'", key.tenant.0);
        let mut connection = match idle {
            Some(mut connection) => match sqlx::raw_sql(AssertSqlSafe(begin.clone())).execute(&mut connection).await {
                Ok(_) => connection,
                Err(_) => self.begun(begin).await?, // it broke while nobody used it
            },
            None => self.begun(begin).await?,
        };
        sqlx::query!(
            "select seq from document_heads where tenant_id = $1 and document_id = $2 for no key update",
            key.tenant.0,
            key.document.0
        )
        .fetch_optional(&mut connection)
        .await
        .map_err(away)?
        .ok_or(LogError::NoSuchDocument)?;
        let tail = read::tail(&mut connection, key, base).await?;
        Ok((connection, tail))
    }

    async fn begun(&self, begin: String) -> Result<PgConnection, LogError> {
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(away)?;
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(away)?;
        Ok(connection)
    }
}

/// A head under lock. Dropped, it drops its connection, and PostgreSQL the lock with it.
struct PostgresHead {
    key: DocumentKey,
    connection: PgConnection,
    place: OwnedMutexGuard<Option<PgConnection>>,
    head: Position,
    tail: Option<Tail>,
    since: Instant,
    answer_timeout: Duration,
}

#[async_trait]
impl LockedHead for PostgresHead {
    fn take_tail(&mut self) -> Tail {
        self.tail.take().unwrap_or_else(|| Tail {
            rows: Vec::new(),
            head: contextnexus_actors::ports::log::Head { position: self.head, deleted: false },
        })
    }

    #[tracing::instrument(name = "pg.log.append_held", skip_all, fields(document.id = %self.key.document))]
    async fn append(mut self: Box<Self>, request: AppendRequest) -> AppendOutcome {
        if request.key != self.key || request.base != self.head {
            return AppendOutcome::Behind;
        }
        let packed = match append::pack(request) {
            Ok(packed) => packed,
            Err(outcome) => return outcome,
        };
        let alone = [&packed];
        let appending = append::append(&mut self.connection, self.key.tenant, &alone);
        let outcome = match tokio::time::timeout(self.answer_timeout, appending).await {
            Ok(Ok(outcomes)) => outcomes.into_iter().next().unwrap_or(AppendOutcome::Behind),
            Ok(Err(_)) if self.since.elapsed() >= HELD_MAX => return AppendOutcome::Behind, // the lock was taken away
            Ok(Err(error)) => {
                return match append::classify(&error) {
                    Failure::Data(why) => AppendOutcome::Refused(why),
                    Failure::Again => AppendOutcome::Behind,
                    // COMMIT was not sent.
                    Failure::Damaged | Failure::Away | Failure::Unknown => AppendOutcome::Unavailable,
                };
            }
            Err(_) => return AppendOutcome::Unavailable,
        };
        let end = if matches!(outcome, AppendOutcome::Committed(_)) { "commit" } else { "rollback" };
        let ending = sqlx::raw_sql(end).execute(&mut self.connection);
        match tokio::time::timeout(self.answer_timeout, ending).await {
            Ok(Ok(_)) => {
                let Self { connection, mut place, .. } = *self;
                *place = Some(connection);
                outcome
            }
            _ if end == "rollback" => outcome,
            _ => AppendOutcome::Unknown,
        }
    }
}
