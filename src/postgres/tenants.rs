//! Tenants, and how a login finds its own.

use super::{Database, StoreError, TenantTx};
use contextnexus_actors::ids::TenantId;

/// What anybody may know about a tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The tenant.
    pub id: TenantId,
    /// Its name in addresses.
    pub slug: String,
    /// Its mail or web domain.
    pub domain: Option<String>,
    /// False: nobody signs in.
    pub is_active: bool,
}

/// The tenant of that slug. One of the three questions that are asked without a tenant.
#[tracing::instrument(name = "pg.tenants.find_by_slug", skip_all, err(level = "debug"))]
pub async fn find_by_slug(database: &Database, slug: &str) -> Result<Option<DirectoryEntry>, StoreError> {
    let row = sqlx::query!("select id, slug, domain, is_active from tenant_directory where slug = $1", slug)
        .fetch_optional(&database.pool)
        .await?;
    Ok(row.map(|row| DirectoryEntry {
        id: TenantId(row.id),
        slug: row.slug,
        domain: row.domain,
        is_active: row.is_active,
    }))
}

/// The tenant of that domain (of an email address, or a host). Another question that is asked without a tenant.
#[tracing::instrument(name = "pg.tenants.find_by_domain", skip_all, err(level = "debug"))]
pub async fn find_by_domain(database: &Database, domain: &str) -> Result<Option<DirectoryEntry>, StoreError> {
    let row = sqlx::query!(
        "select id, slug, domain, is_active from tenant_directory where domain = $1",
        domain.to_lowercase()
    )
    .fetch_optional(&database.pool)
    .await?;
    Ok(row.map(|row| DirectoryEntry {
        id: TenantId(row.id),
        slug: row.slug,
        domain: row.domain,
        is_active: row.is_active,
    }))
}

/// Ids of all tenants, in order, those after `after`: for duties that look at each of them. The last question without a tenant.
#[tracing::instrument(name = "pg.tenants.ids", skip_all, err(level = "debug"))]
pub async fn ids(database: &Database, after: Option<TenantId>, limit: i64) -> Result<Vec<TenantId>, StoreError> {
    let ids = sqlx::query_scalar!(
        "select id from tenant_directory where $1::uuid is null or id > $1 order by id limit $2",
        after.map(|tenant| tenant.0),
        limit
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(ids.into_iter().map(TenantId).collect())
}

/// A tenant as its users see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// Its name in addresses.
    pub slug: String,
    /// For people to read.
    pub name: String,
}

/// The tenant that `db` is bound to.
#[tracing::instrument(name = "pg.tenants.get", skip_all, fields(tenant.id = %db.tenant.0), err(level = "debug"))]
pub async fn get(db: &mut TenantTx) -> Result<Tenant, StoreError> {
    let row = sqlx::query!("select slug, name from tenants where id = $1", db.tenant.0)
        .fetch_optional(&mut *db.tx)
        .await?
        .ok_or(StoreError::NotFound { entity: "tenant" })?;
    Ok(Tenant { slug: row.slug, name: row.name })
}

/// Creates the tenant that `db` is bound to. [`StoreError::Taken`] for a slug or domain that is in use.
#[tracing::instrument(name = "pg.tenants.create", skip_all, fields(tenant.id = %db.tenant.0), err(level = "debug"))]
pub async fn create(db: &mut TenantTx, slug: &str, name: &str, domain: Option<&str>) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into tenants (id, slug, name, domain) values ($1, $2, $3, $4)",
        db.tenant.0,
        slug,
        name,
        domain.map(str::to_lowercase),
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(())
}

/// Switches the tenant that `db` is bound to on or off. Its sessions end (or work again) within a second.
#[tracing::instrument(name = "pg.tenants.set_active", skip_all, fields(tenant.id = %db.tenant.0), err(level = "debug"))]
pub async fn set_active(db: &mut TenantTx, is_active: bool) -> Result<(), StoreError> {
    let update = sqlx::query!("update tenants set is_active = $2 where id = $1", db.tenant.0, is_active);
    if update.execute(&mut *db.tx).await?.rows_affected() == 0 {
        return Err(StoreError::NotFound { entity: "tenant" });
    }
    Ok(())
}
