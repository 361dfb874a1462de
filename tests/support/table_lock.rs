//! A lock on one table, taken by a session of the test's own: a slow disk or a long migration for whoever needs that table, and a way to see
//! that somebody is at that very step.

use super::process::PATIENCE;
use super::world::World;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::time::{Duration, Instant};

/// Held while it lives.
pub struct TableLock {
    table: &'static str,
    runtime: tokio::runtime::Runtime,
    connection: Option<PgConnection>,
}

impl TableLock {
    /// Nothing is appended to any log; reading goes on.
    pub fn on_appends(world: &World) -> Self {
        Self::take(world, "operations_log", "exclusive")
    }

    /// No snapshot is stored; documents load.
    pub fn on_storing_snapshots(world: &World) -> Self {
        Self::take(world, "document_snapshots", "exclusive")
    }

    /// No document loads: each begins with its newest snapshot.
    pub fn on_loading(world: &World) -> Self {
        Self::take(world, "document_snapshots", "access exclusive")
    }

    fn take(world: &World, table: &'static str, mode: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(&world.database.superuser).await.expect("PostgreSQL answers");
            let lock = format!("begin; lock table {table} in {mode} mode");
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.expect("the lock");
            connection
        });
        Self { table, runtime, connection: Some(connection) }
    }

    /// Until the server stands before the lock: that step is under way now, and cannot end.
    pub fn wait_for_somebody(&mut self, within: Duration) {
        let deadline = Instant::now() + within.max(PATIENCE);
        let connection = self.connection.as_mut().expect("the lock is held");
        loop {
            let waiting: i64 = self.runtime.block_on(async {
                let query = "select count(*) from pg_locks where not granted and relation = $1::regclass";
                sqlx::query(query).bind(self.table).fetch_one(&mut *connection).await.expect("pg_locks").get(0)
            });
            if waiting > 0 {
                return;
            }
            assert!(Instant::now() < deadline, "nobody needed {} within {within:?}", self.table);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for TableLock {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.runtime.block_on(connection.close());
        }
    }
}
