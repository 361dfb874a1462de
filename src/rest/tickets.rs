//! Tickets: a one-time way into one document, for those who cannot send a header, and for an application's own users.

use super::caller::Authenticated;
use super::documents::living;
use super::members::RoleBody;
use super::{ApiError, Problem, Rest, validate};
use crate::postgres::documents::Document;
use crate::postgres::user_sessions::{self, End};
use crate::postgres::{TenantTx, users};
use crate::tokens;
use actix_web::{HttpResponse, post, web};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use contextnexus_actors::access::{Caller, Role};
use contextnexus_actors::ids::{DocumentId, UserId, UserSessionId};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

/// A ticket travels in an address, so it is worth nothing soon.
const REDEEM_WITHIN: Duration = Duration::from_secs(60);
const HOUR_S: u32 = 3600;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(issue);
}

/// For whom: nothing for the caller; an application's own user otherwise.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTicket {
    /// The application's own, stable name of its user: 1 to 512 bytes. Such a user needs no account here.
    #[schema(example = "customer-4711")]
    subject: Option<String>,
    /// What others read at the user's cursor.
    #[schema(example = "Jane")]
    name: Option<String>,
    /// `viewer` or `editor`; `editor` unless told. For the caller itself at most its own role.
    role: Option<RoleBody>,
    /// How long the connection may last, a minute to a day; an hour unless told. With `subject` only.
    #[schema(minimum = 60, maximum = 86400)]
    ttl: Option<u32>,
}

/// A ticket.
#[derive(Serialize, ToSchema)]
struct Ticket {
    /// The secret: `?ticket=…` of a WebSocket, or wherever a token goes. Taken once.
    ticket: String,
    document_id: Uuid,
    /// What its bearer may do.
    role: RoleBody,
    /// Worthless after it, unless it was taken.
    redeem_by: DateTime<Utc>,
    /// When what it opened ends.
    expires_at: DateTime<Utc>,
}

/// Issues a ticket: presented once, within 60 seconds, for this document only.
///
/// Without a body it is for the caller. With `subject` it is for a user of the application that embeds this server, who becomes a user
/// of kind `external`; that takes an administrator of the project, usually an API token of one.
/// What a ticket opened ends with the session that asked for it.
#[utoipa::path(
    operation_id = "issue_ticket", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path)),
    request_body(content = NewTicket, description = "May be empty."),
    responses(
        (status = 201, body = Ticket),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[post("/v1/documents/{id}/ticket")]
async fn issue(
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    body: Bytes,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let wanted: NewTicket = match body.trim_ascii() {
        [] => NewTicket::default(),
        text => serde_json::from_slice(text).map_err(|error| validate::json_text(&error))?,
    };
    let mut db = rest.begin(caller.tenant).await?;
    let document = living(&mut db, caller, DocumentId(*id)).await?;
    let bearer = match &wanted.subject {
        Some(subject) => {
            let role = wanted.role.map_or(Role::Editor, Role::from);
            let ttl = validate::seconds("ttl", wanted.ttl, HOUR_S, 60..=24 * HOUR_S)?;
            let fresh = UserId(rest.clock.fresh_id());
            let user = external(&mut db, &document, fresh, subject, wanted.name.as_deref(), role).await?;
            Bearer { user, role, end: End::After(Duration::from_secs(u64::from(ttl))) }
        }
        None => own(caller, &document, &wanted)?,
    };
    let token = tokens::fresh(caller.tenant)?;
    let id = UserSessionId(rest.clock.fresh_id());
    let times = user_sessions::create(
        &mut db,
        user_sessions::NewUserSession {
            id,
            user: bearer.user,
            kind: user_sessions::Kind::Ticket {
                document: document.id,
                role: bearer.role,
                redeem_within: REDEEM_WITHIN,
            },
            name: None,
            token_hash: tokens::hash(&token),
            created_by: Some(caller.user),
            parent: Some(caller.user_session),
            end: bearer.end,
            network: None,
        },
    )
    .await?;
    db.commit().await?;
    Ok(HttpResponse::Created().insert_header(("cache-control", "no-store")).json(Ticket {
        ticket: token.0,
        document_id: document.id.0,
        role: bearer.role.into(),
        redeem_by: times.redeem_by.ok_or_else(|| ApiError::internal("a ticket without an end"))?,
        expires_at: times.expires_at,
    }))
}

/// Whose authority a ticket carries.
struct Bearer {
    user: UserId,
    role: Role,
    end: End,
}

/// A ticket for the caller: at most its own role, at most as long as its session.
fn own(caller: &Caller, document: &Document, wanted: &NewTicket) -> Result<Bearer, ApiError> {
    if wanted.name.is_some() || wanted.ttl.is_some() {
        return Err(ApiError::field("subject", "name and ttl go with a subject"));
    }
    let role = wanted.role.map_or(document.role, |role| document.role.min(role.into()));
    Ok(Bearer { user: caller.user, role, end: End::At(caller.expires_at) })
}

/// The user of kind `external` that an administrator of the project vouches for.
pub(super) async fn external(
    db: &mut TenantTx,
    document: &Document,
    fresh: UserId,
    subject: &str,
    name: Option<&str>,
    role: Role,
) -> Result<UserId, ApiError> {
    super::documents::require_admin(document)?;
    if role > Role::Editor {
        return Err(ApiError::field("role", "viewer or editor"));
    }
    let subject = validate::text("subject", subject, 512)?;
    let name = name.map(|name| validate::text("name", name, 400)).transpose()?;
    let name = name.unwrap_or_else(|| subject.chars().take(100).collect());
    let (user, is_active) = users::external(db, fresh, &subject, &name).await?;
    if is_active { Ok(user) } else { Err(ApiError::Forbidden("this user is switched off")) }
}
