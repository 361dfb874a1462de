//! The keys that authenticate what nodes tell each other about a tenant.

use super::{Database, StoreError, begin};
use crate::commands::chain;
use crate::redis::{BusKey, BusKeys};
use async_trait::async_trait;
use contextnexus_actors::ids::TenantId;
use contextnexus_actors::report;

/// The keys of `tenants.bus_key`. They never change.
#[derive(Clone, Debug)]
pub struct TenantBusKeys {
    database: Database,
}

impl TenantBusKeys {
    /// Of this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    #[tracing::instrument(name = "pg.bus_keys.get", skip_all, fields(tenant.id = %tenant), err(level = "debug"))]
    async fn get(&self, tenant: TenantId) -> Result<Option<BusKey>, StoreError> {
        let mut db = begin(&self.database, tenant).await?;
        let key = sqlx::query_scalar!("select bus_key from tenants where id = $1", tenant.0)
            .fetch_optional(&mut *db.tx)
            .await?;
        Ok(key.and_then(|key| key.try_into().ok())) // the schema allows no other length
    }
}

#[async_trait]
impl BusKeys for TenantBusKeys {
    async fn key(&self, tenant: TenantId) -> Option<BusKey> {
        let key = self.get(tenant).await;
        key.inspect_err(|error| report!(error.cause(), "no bus key: {}", chain(error))).ok().flatten() // the bus asks again
    }
}
