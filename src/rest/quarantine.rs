//! Updates that were taken out of a document, or never let in: their author and the project's administrators may have the bytes.

use super::caller::Authenticated;
use super::content::UPDATE_TYPE;
use super::documents::living;
use super::paging::{self, Page};
use super::{ApiError, Problem, Rest};
use crate::postgres::quarantine::{self, Quarantined, UpdateHash};
use actix_web::http::header;
use actix_web::{HttpResponse, get, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::{Role, Scope};
use contextnexus_actors::ids::{DocumentId, UserId};
use contextnexus_actors::ports::RoomName;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list).service(download);
}

/// An update that the document does not hold.
#[derive(Serialize, ToSchema)]
struct QuarantinedBody {
    /// The BLAKE3 hash of its bytes.
    id: String,
    /// Its sequence number in the document; `null` when it never entered.
    seq: Option<u64>,
    /// Why: `fork`, it contradicted what the document held under the same client id; `deleted_before_it_came`, others had brought the same clocks of it as
    /// deleted; `does_not_continue`, it needs something that was lost or taken out (what does not need that stayed in the document); others, it could not be
    /// read back.
    #[schema(example = "fork")]
    reason: String,
    /// Its size.
    bytes: u64,
    /// Whose it is, where that is known.
    user_id: Option<Uuid>,
    /// The user session that sent it, where that is known.
    user_session_id: Option<Uuid>,
    created_at: DateTime<Utc>,
}

impl From<Quarantined> for QuarantinedBody {
    fn from(update: Quarantined) -> Self {
        Self {
            id: hex(&update.hash),
            seq: update.seq,
            reason: update.reason,
            bytes: update.bytes,
            user_id: update.user.map(|user| user.0),
            user_session_id: update.user_session.map(|session| session.0),
            created_at: update.created_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuarantine {
    /// `next_cursor` of the page before; none for the first page.
    cursor: Option<String>,
    /// Items on a page, 1 to 200; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// What was quarantined of a document, newest first: for its authors their own, for administrators of the project all.
#[utoipa::path(
    operation_id = "list_quarantine", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path), ListQuarantine),
    responses(
        (status = 200, body = Page<QuarantinedBody>),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[get("/v1/documents/{id}/quarantine")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    query: web::Query<ListQuarantine>,
) -> Result<HttpResponse, ApiError> {
    let rows = paging::rows(query.limit)?;
    let bad_cursor = || ApiError::field("cursor", "the `next_cursor` of the page before");
    let after = query.cursor.as_deref().map(|text| parse(text).ok_or_else(bad_cursor)).transpose()?;
    let document = DocumentId(*id);
    let of = whose(&rest, &caller, document).await?;
    let mut db = rest.begin(caller.tenant).await?;
    let found = quarantine::list(&mut db, document, of, after, rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |update| hex(&update.hash), QuarantinedBody::from)))
}

/// The bytes of a quarantined update, as they were sent. They may be hostile: hand them to no Yjs engine that serves anybody.
#[utoipa::path(
    operation_id = "download_quarantined", tag = "Documents", security(("token" = [])),
    params(("id" = Uuid, Path), ("quarantine_id" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[get("/v1/documents/{id}/quarantine/{quarantine_id}")]
async fn download(
    rest: web::Data<Rest>,
    caller: Authenticated,
    path: web::Path<(Uuid, String)>,
) -> Result<HttpResponse, ApiError> {
    let (document, hash) = (DocumentId(path.0), parse(&path.1));
    let of = whose(&rest, &caller, document).await?;
    let hash = hash.ok_or(ApiError::NotFound("quarantined update"))?;
    let mut db = rest.begin(caller.tenant).await?;
    let bytes = quarantine::bytes(&mut db, document, of, &hash).await?;
    Ok(HttpResponse::Ok()
        .content_type(UPDATE_TYPE)
        .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"quarantined.yjs\""))
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .body(bytes))
}

/// Whose updates the caller may see in this document: `None` for everybody's.
async fn whose(rest: &Rest, caller: &Authenticated, document: DocumentId) -> Result<Option<UserId>, ApiError> {
    let caller = caller.reaches(document)?;
    let role = match caller.scope {
        // An administrator stays one in an archived project, where nobody writes.
        Scope::User => living(&mut rest.begin(caller.tenant).await?, caller, document).await?.role,
        Scope::Document(..) => rest.authority.open(caller, &RoomName::Id(document)).await?.role,
    };
    Ok((role != Role::Admin).then_some(caller.user))
}

fn hex(hash: &UpdateHash) -> String {
    blake3::Hash::from_bytes(*hash).to_string()
}

/// None for what [`hex`] never wrote.
fn parse(text: &str) -> Option<UpdateHash> {
    blake3::Hash::from_hex(text).ok().map(UpdateHash::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let hash = *blake3::hash(b"poison").as_bytes();
        assert_eq!(parse(&hex(&hash)), Some(hash));
        for odd in ["", "0", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
