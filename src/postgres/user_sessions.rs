//! Sessions: every token that may be presented, by its hash.

use super::{StoreError, TenantTx};
use crate::tokens::TokenHash;
use chrono::{DateTime, Utc};
use contextnexus_actors::access::Role;
use contextnexus_actors::ids::{DocumentId, UserId, UserSessionId};
use std::net::IpAddr;
use std::time::Duration;

/// What a session was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Somebody signed in.
    Login,
    /// Made for a program, by hand.
    Api,
    /// One document, at most in this role; presented as often as its bearer likes until it expires.
    Document(DocumentId, Role),
    /// One document, at most in this role; presented once, and soon.
    Ticket {
        /// Which.
        document: DocumentId,
        /// At most.
        role: Role,
        /// Worthless so long after it was stored.
        redeem_within: Duration,
    },
}

impl Kind {
    /// The name in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Api => "api",
            Self::Document(..) => "document",
            Self::Ticket { .. } => "ticket",
        }
    }
}

/// When a session ends by itself. The database's clock makes and checks every such time, so a node's own clock, which may
/// be wrong, decides nothing.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// So long after it was stored.
    After(Duration),
    /// At a time that came from the database: the end of the session that asked for this one.
    At(DateTime<Utc>),
}

/// The times of a session that was created, by the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// Tickets: worthless after it, unless presented.
    pub redeem_by: Option<DateTime<Utc>>,
}

/// A session to create.
#[derive(Clone, Copy, Debug)]
pub struct NewUserSession<'a> {
    /// Fresh.
    pub id: UserSessionId,
    /// Whose authority it is.
    pub user: UserId,
    /// What for.
    pub kind: Kind,
    /// For lists of tokens.
    pub name: Option<&'a str>,
    /// Of the token.
    pub token_hash: TokenHash,
    /// Who made it, where that is not the user.
    pub created_by: Option<UserId>,
    /// The session with which this one ends.
    pub parent: Option<UserSessionId>,
    /// When it ends by itself.
    pub end: End,
    /// Logins: the network of the address that signed in, which is known from then on. Only a hash of it is stored.
    pub network: Option<IpAddr>,
}

/// A session as its owner sees it. The token is not in it: nobody has it but its bearer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserSession {
    /// The session.
    pub id: UserSessionId,
    /// Whose.
    pub user: UserId,
    /// `login`, `api`, `document` or `ticket`.
    pub kind: String,
    /// As its maker named it.
    pub name: Option<String>,
    /// `document` and `ticket`.
    pub document: Option<DocumentId>,
    /// `document` and `ticket`.
    pub role: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// When it was last presented or had a document open, to a minute.
    pub last_activity_at: Option<DateTime<Utc>>,
}

/// Stores a session, and says when it ends.
#[tracing::instrument(name = "pg.sessions.create", skip_all, fields(user_session.id = %new.id), err(level = "debug"))]
pub async fn create(db: &mut TenantTx, new: NewUserSession<'_>) -> Result<Times, StoreError> {
    let (document, role, redeem_within) = match new.kind {
        Kind::Login | Kind::Api => (None, None, None),
        Kind::Document(document, role) => (Some(document.0), Some(role.as_str()), None),
        Kind::Ticket { document, role, redeem_within } => (Some(document.0), Some(role.as_str()), Some(redeem_within)),
    };
    let (ends_at, lasts) = match new.end {
        End::At(ends_at) => (Some(ends_at), None),
        End::After(lasts) => (None, Some(lasts)),
    };
    let row = sqlx::query!(
        r#"insert into user_sessions
             (tenant_id, id, user_id, kind, name, token_hash, document_id, role, created_by, parent_id, expires_at,
              redeem_by, login_network)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                 coalesce($11::timestamptz, now() + make_interval(secs => $12::float8)),
                 now() + make_interval(secs => $13::float8),
                 (select sha256(bus_key || convert_to($14::text, 'UTF8')) from tenants where id = $1))
         returning expires_at, redeem_by"#,
        db.tenant.0,
        new.id.0,
        new.user.0,
        new.kind.as_str(),
        new.name,
        &new.token_hash[..],
        document,
        role,
        new.created_by.map(|user| user.0),
        new.parent.map(|session| session.0),
        ends_at,
        lasts.map(|lasts| lasts.as_secs_f64()),
        redeem_within.map(|within| within.as_secs_f64()),
        new.network.map(|network| network.to_string())
    )
    .fetch_one(&mut *db.tx)
    .await?;
    Ok(Times { expires_at: row.expires_at, redeem_by: row.redeem_by })
}

/// Sessions of one user that are in force, newest first, those before `before`.
#[tracing::instrument(name = "pg.sessions.list", skip_all, fields(user.id = %user), err(level = "debug"))]
pub async fn list(
    db: &mut TenantTx,
    user: UserId,
    before: Option<UserSessionId>,
    limit: i64,
) -> Result<Vec<UserSession>, StoreError> {
    let rows = sqlx::query!(
        "select id, kind, name, document_id, role, created_at, expires_at, last_activity_at
           from user_sessions
          where tenant_id = $1 and user_id = $2 and ($3::uuid is null or id < $3)
            and revoked_at is null and expires_at > now() and (redeem_by is null or redeemed_at is not null or redeem_by > now())
          order by id desc limit $4",
        db.tenant.0,
        user.0,
        before.map(|session| session.0),
        limit
    )
    .fetch_all(&mut *db.tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UserSession {
            id: UserSessionId(row.id),
            user,
            kind: row.kind,
            name: row.name,
            document: row.document_id.map(DocumentId),
            role: row.role,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_activity_at: row.last_activity_at,
        })
        .collect())
}

/// API tokens of the whole tenant that are in force, newest first, those before `before`.
#[tracing::instrument(name = "pg.sessions.list_api_tokens", skip_all, err(level = "debug"))]
pub async fn list_api_tokens(
    db: &mut TenantTx,
    before: Option<UserSessionId>,
    limit: i64,
) -> Result<Vec<UserSession>, StoreError> {
    let rows = sqlx::query!(
        "select id, user_id, name, created_at, expires_at, last_activity_at
           from user_sessions
          where tenant_id = $1 and kind = 'api' and ($2::uuid is null or id < $2)
            and revoked_at is null and expires_at > now()
          order by id desc limit $3",
        db.tenant.0,
        before.map(|session| session.0),
        limit
    )
    .fetch_all(&mut *db.tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UserSession {
            id: UserSessionId(row.id),
            user: UserId(row.user_id),
            kind: Kind::Api.as_str().into(),
            name: row.name,
            document: None,
            role: None,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_activity_at: row.last_activity_at,
        })
        .collect())
}

/// The API token with this hash, in force or not.
#[tracing::instrument(name = "pg.sessions.find_api_token", skip_all, err(level = "debug"))]
pub async fn find_api_token(db: &mut TenantTx, hash: &TokenHash) -> Result<Option<UserSessionId>, StoreError> {
    let id = sqlx::query_scalar!(
        "select id from user_sessions where tenant_id = $1 and token_hash = $2 and kind = 'api'",
        db.tenant.0,
        &hash[..]
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(id.map(UserSessionId))
}

/// Whether this user's API token is in force and will be for so many more days.
#[tracing::instrument(name = "pg.sessions.token_lasts", skip_all, fields(user.id = %user), err(level = "debug"))]
pub async fn token_lasts(db: &mut TenantTx, user: UserId, hash: &TokenHash, days: i32) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"select exists (select from user_sessions
                           where tenant_id = $1 and token_hash = $2 and user_id = $3 and kind = 'api'
                             and revoked_at is null and expires_at > now() + make_interval(days => $4)) as "lasts!""#,
        db.tenant.0,
        &hash[..],
        user.0,
        days
    )
    .fetch_one(&mut *db.tx)
    .await?)
}

/// Ends one session of this user, and those that were made with it. Once ended it stays so; repeating it is no error.
#[tracing::instrument(name = "pg.sessions.revoke", skip_all, fields(user_session.id = %id), err(level = "debug"))]
pub async fn revoke(db: &mut TenantTx, user: UserId, id: UserSessionId) -> Result<(), StoreError> {
    let owned = sqlx::query_scalar!(
        "select exists (select from user_sessions where tenant_id = $1 and id = $2 and user_id = $3)",
        db.tenant.0,
        id.0,
        user.0
    )
    .fetch_one(&mut *db.tx)
    .await?;
    if owned != Some(true) {
        return Err(StoreError::NotFound { entity: "session" });
    }
    revoke_with_children(db, id).await
}

/// Ends an API token of anybody in the tenant, and the sessions that were made with it.
#[tracing::instrument(name = "pg.sessions.revoke_api_token", skip_all, fields(user_session.id = %id), err(level = "debug"))]
pub async fn revoke_api_token(db: &mut TenantTx, id: UserSessionId) -> Result<(), StoreError> {
    let exists = sqlx::query_scalar!(
        "select exists (select from user_sessions where tenant_id = $1 and id = $2 and kind = 'api')",
        db.tenant.0,
        id.0
    )
    .fetch_one(&mut *db.tx)
    .await?;
    if exists != Some(true) {
        return Err(StoreError::NotFound { entity: "token" });
    }
    revoke_with_children(db, id).await
}

/// Ends all sessions of this user but `except`, and those that were made with them. Answers how many ended.
#[tracing::instrument(name = "pg.sessions.revoke_all", skip_all, fields(user.id = %user), err(level = "debug"))]
pub async fn revoke_all(db: &mut TenantTx, user: UserId, except: Option<UserSessionId>) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "with recursive ended as (
             select id from user_sessions
              where tenant_id = $1 and user_id = $2 and id is distinct from $3 and revoked_at is null
                and ($3::uuid is null or parent_id is distinct from $3)
             union
             select child.id from user_sessions child join ended on child.parent_id = ended.id where child.tenant_id = $1)
         update user_sessions set revoked_at = now()
          where tenant_id = $1 and id in (select id from ended) and revoked_at is null",
        db.tenant.0,
        user.0,
        except.map(|session| session.0)
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(done.rows_affected())
}

async fn revoke_with_children(db: &mut TenantTx, id: UserSessionId) -> Result<(), StoreError> {
    sqlx::query!(
        "with recursive ended as (
             select id from user_sessions where tenant_id = $1 and id = $2
             union
             select child.id from user_sessions child join ended on child.parent_id = ended.id where child.tenant_id = $1)
         update user_sessions set revoked_at = now()
          where tenant_id = $1 and id in (select id from ended) and revoked_at is null",
        db.tenant.0,
        id.0
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(())
}
