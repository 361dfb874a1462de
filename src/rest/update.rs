//! Writing a document: one binary Yjs update, through its actor.

use super::body::binary;
use super::caller::Authenticated;
use super::{ApiError, Problem, Rest};
use crate::postgres::documents;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, post, web};
use bytes::Bytes;
use contextnexus_actors::access::Caller;
use contextnexus_actors::ids::{DocumentId, DocumentKey};
use contextnexus_actors::ports::{IdempotencyKey, RoomName, Writer};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(write);
}

/// A committed update.
#[derive(Serialize, ToSchema)]
struct WrittenBody {
    /// The sequence number that holds it, and everything before it.
    seq: u64,
}

/// Writes a Yjs update (v1), whole or not at all. Answered once PostgreSQL has committed it, and everybody who is connected sees it.
///
/// Sending the same update again is harmless. With an `Idempotency-Key` the answer to a repeated request is the first one's, too.
#[utoipa::path(
    operation_id = "write_update", tag = "Documents", security(("token" = [])),
    params(
        ("id" = Uuid, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters, of the caller's own in this document.")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "One Yjs update, v1."),
    responses(
        (status = 200, body = WrittenBody),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "`malformed_update`; `update_format_v2`"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "`read_only`"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`update_gap`, with `state_vector`; `update_fork`; `client_id_in_use`; `document_full`, with the limit as its detail"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "`payload_too_large`"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`idempotency_conflict`"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`unavailable`; the update may be sent again")
    )
)]
#[post("/v1/documents/{id}/update")]
async fn write(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let id = DocumentId(*id);
    let caller = caller.reaches(id)?;
    let seq = write_update(&request, &rest, caller, RoomName::Id(id), payload).await?;
    Ok(HttpResponse::Ok().json(WrittenBody { seq }))
}

/// Reads an update from a request and writes it to the document of that name, which exists. Answers the sequence that holds it.
pub(super) async fn write_update(
    request: &HttpRequest,
    rest: &Rest,
    caller: &Caller,
    room: RoomName,
    payload: web::Payload,
) -> Result<u64, ApiError> {
    let grant = rest.authority.open(caller, &room).await?; // before the body: strangers send no megabytes
    if !grant.role.may_write() {
        return Err(ApiError::ReadOnly);
    }
    let key = idempotency_key(request.headers())?;
    let update = body(request, payload, rest.settings.update_bytes_max).await?;
    let idempotency = key.map(|key| IdempotencyKey { key, body_hash: *blake3::hash(&update).as_bytes() });
    let document = DocumentKey { tenant: caller.tenant, document: grant.document };
    if let Some(wanted) = &idempotency {
        // A repetition holds nothing new, so it would not come as far as the log, which compares keys when it appends.
        let mut db = rest.begin(caller.tenant).await?;
        match documents::written_under(&mut db, grant.document, caller.user, &wanted.key).await? {
            Some((body_hash, seq)) if body_hash == wanted.body_hash => return Ok(seq),
            Some(_) => return Err(ApiError::IdempotencyConflict),
            None => {}
        }
    }
    let by = Writer { user_session: caller.user_session, user: caller.user, role: grant.role, until: grant.until };
    Ok(rest.documents.write(document, by, update, idempotency).await?.seq)
}

/// A binary body of at most `limit` bytes.
async fn body(request: &HttpRequest, payload: web::Payload, limit: usize) -> Result<Bytes, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") || kind.starts_with("text/") || kind.starts_with("multipart/") {
        return Err(ApiError::UnsupportedMediaType(super::content::UPDATE_TYPE));
    }
    let body = binary(request, payload, limit).await?;
    if body.is_empty() {
        return Err(ApiError::MalformedUpdate("the body is empty".into()));
    }
    Ok(body)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(ApiError::Malformed("Idempotency-Key holds 1 to 255 visible ASCII characters".into())),
    }
}
