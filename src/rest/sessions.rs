//! The caller's own sessions: see them, end them.

use super::caller::Authenticated;
use super::paging::{self, Page, Paging};
use super::{ApiError, Problem, Rest};
use crate::postgres::sessions::{self, Session};
use actix_web::{HttpResponse, delete, get, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::ids::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list).service(revoke).service(revoke_all);
}

/// A session: one login, token or redeemed ticket.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionBody {
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

impl From<Session> for SessionBody {
    fn from(session: Session) -> Self {
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
    operation_id = "list_sessions", tag = "Sessions", security(("token" = [])), params(Paging),
    responses((status = 200, body = Page<SessionBody>))
)]
#[get("/v1/sessions")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    paging: web::Query<Paging>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let rows = paging::rows(paging.limit)?;
    let mut db = rest.begin(caller.tenant).await?;
    let found = sessions::list(&mut db, caller.user, paging.cursor.map(SessionId), rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |session| session.id.to_string(), SessionBody::from)))
}

/// Ends one of the caller's sessions, and the tickets and document tokens that were made with it.
#[utoipa::path(
    operation_id = "revoke_session", tag = "Sessions", security(("token" = [])),
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, description = "Ended; open sockets of it close within a second."),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[delete("/v1/sessions/{id}")]
async fn revoke(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let mut db = rest.begin(caller.tenant).await?;
    sessions::revoke(&mut db, caller.user, SessionId(*id)).await?;
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
    operation_id = "revoke_all_sessions", tag = "Sessions", security(("token" = [])), params(RevokeAll),
    responses((status = 200, body = Revoked))
)]
#[delete("/v1/sessions")]
async fn revoke_all(
    rest: web::Data<Rest>,
    caller: Authenticated,
    query: web::Query<RevokeAll>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let except = query.keep_current.unwrap_or(true).then_some(caller.session);
    let mut db = rest.begin(caller.tenant).await?;
    let revoked = sessions::revoke_all(&mut db, caller.user, except).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::Ok().json(Revoked { revoked }))
}
