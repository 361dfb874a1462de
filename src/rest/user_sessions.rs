//! The caller's own sessions: see them, end them.

use super::caller::Authenticated;
use super::paging::{self, Page, Paging};
use super::{ApiError, Problem, Rest};
use crate::postgres::user_sessions::{self, UserSession};
use actix_web::{HttpResponse, delete, get, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::ids::UserSessionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list_user_sessions).service(revoke).service(revoke_all);
}

/// A session: one login, token or redeemed ticket.
#[derive(Serialize, ToSchema)]
pub(super) struct UserSessionBody {
    id: Uuid,
    user_id: Uuid,
    /// `login`, `api`, `document` or `ticket`.
    kind: String,
    /// As its maker named it.
    name: Option<String>,
    /// Which document it reaches, where that is only one.
    document_id: Option<Uuid>,
    /// At most in which role, there.
    role: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// When it was last presented or had a document open, to a minute.
    last_activity_at: Option<DateTime<Utc>>,
}

impl From<UserSession> for UserSessionBody {
    fn from(session: UserSession) -> Self {
        Self {
            id: session.id.0,
            user_id: session.user.0,
            kind: session.kind,
            name: session.name,
            document_id: session.document.map(|document| document.0),
            role: session.role,
            created_at: session.created_at,
            expires_at: session.expires_at,
            last_activity_at: session.last_activity_at,
        }
    }
}

/// The caller's sessions that are in force.
#[utoipa::path(
    operation_id = "list_user_sessions", tag = "User sessions", security(("token" = [])), params(Paging),
    responses((status = 200, body = Page<UserSessionBody>))
)]
#[get("/v1/user-sessions")]
async fn list_user_sessions(
    rest: web::Data<Rest>,
    caller: Authenticated,
    paging: web::Query<Paging>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let rows = paging::rows(paging.limit)?;
    let mut db = rest.begin(caller.tenant).await?;
    let found = user_sessions::list(&mut db, caller.user, paging.cursor.map(UserSessionId), rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |session| session.id.to_string(), UserSessionBody::from)))
}

/// Ends one of the caller's sessions, and the tickets and document tokens that were made with it.
#[utoipa::path(
    operation_id = "revoke_user_session", tag = "User sessions", security(("token" = [])),
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, description = "Ended; open sockets of it close within a second."),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[delete("/v1/user-sessions/{id}")]
async fn revoke(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let mut db = rest.begin(caller.tenant).await?;
    user_sessions::revoke(&mut db, caller.user, UserSessionId(*id)).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RevokeAll {
    /// Whether the session of this request goes on. Yes, unless told.
    keep_current: Option<bool>,
}

/// How many sessions ended.
#[derive(Serialize, ToSchema)]
struct Revoked {
    revoked: u64,
}

/// Ends all of the caller's sessions, API tokens included.
#[utoipa::path(
    operation_id = "revoke_all_user_sessions", tag = "User sessions", security(("token" = [])), params(RevokeAll),
    responses((status = 200, body = Revoked))
)]
#[delete("/v1/user-sessions")]
async fn revoke_all(
    rest: web::Data<Rest>,
    caller: Authenticated,
    query: web::Query<RevokeAll>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let except = query.keep_current.unwrap_or(true).then_some(caller.user_session);
    let mut db = rest.begin(caller.tenant).await?;
    let revoked = user_sessions::revoke_all(&mut db, caller.user, except).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::Ok().json(Revoked { revoked }))
}
