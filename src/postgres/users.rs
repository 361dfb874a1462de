//! Users: people, services, and the own users of applications that embed the server.

use super::{StoreError, TenantTx};
use crate::devices::DeviceKey;
use chrono::{DateTime, Utc};
use contextnexus_actors::ids::UserId;
use std::net::IpAddr;

/// A user as other users see one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// `person`, `external` or `service`.
    pub kind: String,
    /// People only.
    pub email: Option<String>,
    /// As the embedding application names it; `external` only.
    pub external_subject: Option<String>,
    /// For people to read.
    pub name: String,
    /// False: signs in nowhere.
    pub is_active: bool,
    /// Administers the tenant, and with it each of its projects.
    pub is_tenant_admin: bool,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
}

/// What a login compares.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub id: UserId,
    /// argon2id, PHC string. `None`: signs in by token only.
    pub password_hash: Option<String>,
    /// Signs the cookies of devices that the user has signed in on.
    pub device_key: DeviceKey,
    /// The user has signed in from this network before, in the last [`NETWORK_KNOWN_DAYS`].
    pub knows_network: bool,
}

/// So long after a login its network is known; it is forgotten earlier where the session's row is removed.
const NETWORK_KNOWN_DAYS: i32 = 90;

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A person to create.
#[derive(Clone)]
pub struct NewPerson<'a> {
    /// Fresh.
    pub id: UserId,
    /// Any case; stored in lower case.
    pub email: &'a str,
    /// For people to read.
    pub name: &'a str,
    /// argon2id, PHC string. `None`: signs in by token only.
    pub password_hash: Option<&'a str>,
    /// Administers the tenant.
    pub is_tenant_admin: bool,
}

/// One user. [`StoreError::NotFound`] for another tenant's too.
#[tracing::instrument(name = "pg.users.get", skip_all, fields(user.id = %id), err(level = "debug"))]
pub async fn get(db: &mut TenantTx, id: UserId) -> Result<User, StoreError> {
    let row = sqlx::query!(
        "select kind, email, external_subject, name, is_active, is_tenant_admin, created_at
           from users where tenant_id = $1 and id = $2",
        db.tenant.0,
        id.0
    )
    .fetch_optional(&mut *db.tx)
    .await?
    .ok_or(StoreError::NotFound { entity: "user" })?;
    Ok(User {
        id,
        kind: row.kind,
        email: row.email,
        external_subject: row.external_subject,
        name: row.name,
        is_active: row.is_active,
        is_tenant_admin: row.is_tenant_admin,
        created_at: row.created_at,
    })
}

/// The user with this e-mail address, in any case.
#[tracing::instrument(name = "pg.users.find_by_email", skip_all, err(level = "debug"))]
pub async fn find_by_email(db: &mut TenantTx, email: &str) -> Result<Option<UserId>, StoreError> {
    let id = sqlx::query_scalar!(
        "select id from users where tenant_id = $1 and email = $2",
        db.tenant.0,
        email.to_lowercase()
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(id.map(UserId))
}

/// What a login with this e-mail address from this network is compared with. `None` for nobody, and for a user that is
/// switched off.
#[tracing::instrument(name = "pg.users.credentials", skip_all, err(level = "debug"))]
pub async fn credentials(db: &mut TenantTx, email: &str, network: IpAddr) -> Result<Option<Credentials>, StoreError> {
    let row = sqlx::query!(
        r#"select u.id, u.password_hash, t.bus_key,
                  exists (select from user_sessions s
                           where s.tenant_id = u.tenant_id and s.user_id = u.id and s.kind = 'login'
                             and s.login_network = sha256(t.bus_key || convert_to($3, 'UTF8'))
                             and s.created_at > now() - make_interval(days => $4)) as "knows_network!"
             from users u join tenants t on t.id = u.tenant_id
            where u.tenant_id = $1 and u.email = $2 and u.is_active"#,
        db.tenant.0,
        email.to_lowercase(),
        network.to_string(),
        NETWORK_KNOWN_DAYS
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(row.map(|row| Credentials {
        id: UserId(row.id),
        password_hash: row.password_hash,
        device_key: DeviceKey::of_tenant(&row.bus_key),
        knows_network: row.knows_network,
    }))
}

/// Notes that the user has signed in.
#[tracing::instrument(name = "pg.users.signed_in", skip_all, fields(user.id = %id), err(level = "debug"))]
pub async fn signed_in(db: &mut TenantTx, id: UserId) -> Result<(), StoreError> {
    sqlx::query!("update users set last_login_at = now() where tenant_id = $1 and id = $2", db.tenant.0, id.0)
        .execute(&mut *db.tx)
        .await?;
    Ok(())
}

/// Gives a person another password (argon2id, PHC string). Sessions that were opened with the old one go on.
#[tracing::instrument(name = "pg.users.set_password", skip_all, fields(user.id = %id), err(level = "debug"))]
pub async fn set_password(db: &mut TenantTx, id: UserId, password_hash: &str) -> Result<(), StoreError> {
    let update = sqlx::query!(
        "update users set password_hash = $3 where tenant_id = $1 and id = $2 and kind = 'person'",
        db.tenant.0,
        id.0,
        password_hash
    );
    if update.execute(&mut *db.tx).await?.rows_affected() == 0 {
        return Err(StoreError::NotFound { entity: "user" });
    }
    Ok(())
}

/// Creates a person. [`StoreError::Taken`] for an address that is in use.
#[tracing::instrument(name = "pg.users.create_person", skip_all, fields(user.id = %person.id), err(level = "debug"))]
pub async fn create_person(db: &mut TenantTx, person: NewPerson<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into users (tenant_id, id, kind, email, name, password_hash, is_tenant_admin)
         values ($1, $2, 'person', $3, $4, $5, $6)",
        db.tenant.0,
        person.id.0,
        person.email.to_lowercase(),
        person.name,
        person.password_hash,
        person.is_tenant_admin
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(())
}

/// The `external` user of this subject: creates one under `fresh`, or gives the one there its newest name. Says whether the
/// user may sign in.
#[tracing::instrument(name = "pg.users.external", skip_all, err(level = "debug"))]
pub async fn external(
    db: &mut TenantTx,
    fresh: UserId,
    subject: &str,
    name: &str,
) -> Result<(UserId, bool), StoreError> {
    let row = sqlx::query!(
        "insert into users (tenant_id, id, kind, external_subject, name) values ($1, $2, 'external', $3, $4)
         on conflict on constraint users_external_subject_key do update set name = excluded.name
         returning id, is_active",
        db.tenant.0,
        fresh.0,
        subject,
        name
    )
    .fetch_one(&mut *db.tx)
    .await?;
    Ok((UserId(row.id), row.is_active))
}
