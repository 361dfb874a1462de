//! Holds back every commit to the log: a lock that another session takes on the table, as a slow disk or a long migration would.

use super::world::World;
use sqlx::{Connection, PgConnection};

/// While it lives, nothing is appended. Reading goes on.
pub struct CommitGate {
    runtime: tokio::runtime::Runtime,
    connection: Option<PgConnection>,
}

impl CommitGate {
    pub fn close(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(&world.database.superuser).await.expect("PostgreSQL answers");
            sqlx::raw_sql("begin; lock table operations_log in exclusive mode")
                .execute(&mut connection)
                .await
                .expect("the lock");
            connection
        });
        Self { runtime, connection: Some(connection) }
    }
}

impl Drop for CommitGate {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.runtime.block_on(connection.close());
        }
    }
}
