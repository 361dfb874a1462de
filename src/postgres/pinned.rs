//! Connections for what is asked several times a second, whether anything happens or not.
//!
//! The pool asks a connection whether it is still there before it gives it out, and again when it takes it back: more work than such a
//! question. These few are kept between the questions instead, and given up at the first error. What is asked over them is one statement
//! that binds itself to its tenant (`access_epoch`, `changed_heads`).

use super::{ASK_AFTER, StoreError};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::query::Map;
use sqlx::{Connection as _, IntoArguments, PgConnection, Postgres};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Questions that are asked side by side. Each takes a moment; who waits are the next look, and documents that recover from an outage.
pub const PINNED_CONNECTIONS: u32 = 2;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PinnedConnections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: PgConnectOptions,
    answer_timeout: Duration,
    turns: Semaphore,
    /// With the time of the last answer.
    kept: Mutex<Vec<(PgConnection, Instant)>>,
}

impl PinnedConnections {
    /// Connects when first asked. After `answer_timeout`, the wait for a turn included, there is no answer.
    pub fn new(options: PgConnectOptions, answer_timeout: Duration) -> Self {
        let options = options.options([
            // As for the log writer: the plan must not depend on how small the tables were when it was made.
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        let turns = Semaphore::new(PINNED_CONNECTIONS as usize);
        Self(Arc::new(Inner { options, answer_timeout, turns, kept: Mutex::default() }))
    }

    /// Asks, and answers with all rows.
    pub async fn ask<T, F, A>(&self, question: Map<'_, Postgres, F, A>) -> Result<Vec<T>, StoreError>
    where
        T: Send + Unpin,
        F: FnMut(PgRow) -> Result<T, sqlx::Error> + Send,
        A: IntoArguments<Postgres> + Send,
    {
        let answer = async {
            let _turn = self.0.turns.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let mut connection = self.connection().await?;
            let rows = question.fetch_all(&mut connection).await?;
            self.kept().push((connection, Instant::now()));
            Ok::<_, sqlx::Error>(rows)
        };
        match tokio::time::timeout(self.0.answer_timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    async fn connection(&self) -> Result<PgConnection, sqlx::Error> {
        let kept = self.kept().pop();
        if let Some((mut connection, since)) = kept
            && (since.elapsed() < ASK_AFTER || connection.ping().await.is_ok())
        {
            return Ok(connection);
        }
        PgConnection::connect_with(&self.0.options).await
    }

    /// Closes the connections. Whoever asks after it is told that there is nobody to ask.
    pub fn close(&self) {
        self.0.turns.close();
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
