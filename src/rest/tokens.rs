//! API tokens: for programs, made and ended by administrators of the tenant.

use super::caller::Authenticated;
use super::paging::{self, Page, Paging};
use super::user_sessions::UserSessionBody;
use super::{ApiError, Problem, Rest, validate};
use crate::postgres::{user_sessions, users};
use crate::tokens;
use actix_web::{HttpResponse, delete, get, post, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::ids::{UserId, UserSessionId};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

const DAY_S: u32 = 86_400;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list).service(create).service(revoke);
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// What it is for, for whoever reads the list.
    #[schema(example = "import job")]
    name: String,
    /// Whose authority it has; the caller's unless told.
    user_id: Option<Uuid>,
    /// How long it lasts, a minute to five years; a year unless told.
    #[schema(minimum = 60, maximum = 157680000)]
    ttl_s: Option<u32>,
}

/// A new token.
#[derive(Serialize, ToSchema)]
struct CreatedToken {
    id: Uuid,
    /// The secret. Shown this once.
    token: String,
    user_id: Uuid,
    expires_at: DateTime<Utc>,
}

/// API tokens of the tenant that are in force. For administrators of the tenant.
#[utoipa::path(
    operation_id = "list_tokens", tag = "API tokens", security(("token" = [])), params(Paging),
    responses(
        (status = 200, body = Page<UserSessionBody>),
        (status = 403, body = Problem, content_type = "application/problem+json")
    )
)]
#[get("/v1/tokens")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    paging: web::Query<Paging>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.tenant_admin()?;
    let rows = paging::rows(paging.limit)?;
    let mut db = rest.begin(caller.tenant).await?;
    let found = user_sessions::list_api_tokens(&mut db, paging.cursor.map(UserSessionId), rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |session| session.id.to_string(), UserSessionBody::from)))
}

/// Makes an API token. For administrators of the tenant.
#[utoipa::path(
    operation_id = "create_token", tag = "API tokens", security(("token" = [])), request_body = NewToken,
    responses(
        (status = 201, body = CreatedToken),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such user.")
    )
)]
#[post("/v1/tokens")]
async fn create(
    rest: web::Data<Rest>,
    caller: Authenticated,
    body: web::Json<NewToken>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.tenant_admin()?;
    let name = validate::text("name", &body.name, 400)?;
    let ttl_s = validate::seconds("ttl_s", body.ttl_s, 365 * DAY_S, 60..=5 * 365 * DAY_S)?;
    let mut db = rest.begin(caller.tenant).await?;
    let user = match body.user_id {
        Some(id) => {
            let user = users::get(&mut db, UserId(id)).await?;
            if user.kind == "external" {
                return Err(ApiError::field("user_id", "external users come with tickets"));
            }
            user.id
        }
        None => caller.user,
    };
    let token = tokens::fresh(caller.tenant)?;
    let id = UserSessionId(rest.clock.fresh_id());
    let times = user_sessions::create(
        &mut db,
        user_sessions::NewUserSession {
            id,
            user,
            kind: user_sessions::Kind::Api,
            name: Some(&name),
            token_hash: tokens::hash(&token),
            created_by: Some(caller.user),
            parent: None,
            end: user_sessions::End::After(Duration::from_secs(u64::from(ttl_s))),
            network: None,
        },
    )
    .await?;
    db.commit().await?;
    tracing::info!(user_session.id = %id, user.id = %user, "made an API token {id}");
    Ok(HttpResponse::Created().insert_header(("cache-control", "no-store")).json(CreatedToken {
        id: id.0,
        token: token.0,
        user_id: user.0,
        expires_at: times.expires_at,
    }))
}

/// Ends an API token, and the tickets and document tokens that were made with it. For administrators of the tenant.
#[utoipa::path(
    operation_id = "revoke_token", tag = "API tokens", security(("token" = [])),
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, description = "Ended; open sockets of it close within a second."),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[delete("/v1/tokens/{id}")]
async fn revoke(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.tenant_admin()?;
    let mut db = rest.begin(caller.tenant).await?;
    user_sessions::revoke_api_token(&mut db, UserSessionId(*id)).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::NoContent().finish())
}
