//! Former names of documents, which still lead to them until somebody frees them.

use super::caller::Authenticated;
use super::documents::require_admin;
use super::paging::{self, Page};
use super::{ApiError, Problem, Rest, validate};
use crate::postgres::documents::{self, Alias};
use actix_web::{HttpResponse, delete, get, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::ids::DocumentId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list).service(free);
}

/// A former name.
#[derive(Serialize, ToSchema)]
struct AliasBody {
    name: String,
    /// When it became a former one.
    created_at: DateTime<Utc>,
}

impl From<Alias> for AliasBody {
    fn from(alias: Alias) -> Self {
        Self { name: alias.name, created_at: alias.created_at }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListAliases {
    /// `next_cursor` of the page before; none for the first page.
    cursor: Option<String>,
    /// Items on a page, 1 to 200; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FreeAlias {
    /// The former name.
    name: String,
}

/// The former names of a document, in the order of the alphabet.
#[utoipa::path(
    operation_id = "list_aliases", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path), ListAliases),
    responses(
        (status = 200, body = Page<AliasBody>),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[get("/v1/documents/{id}/aliases")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    query: web::Query<ListAliases>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let rows = paging::rows(query.limit)?;
    let after = query.cursor.as_deref().map(|name| validate::stored_name("cursor", name)).transpose()?;
    let mut db = rest.begin(caller.tenant).await?;
    let document = documents::get(&mut db, caller, DocumentId(*id)).await?;
    require_admin(&document)?;
    let found = documents::aliases(&mut db, document.project, document.id, after.as_deref(), rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |alias| alias.name.clone(), AliasBody::from)))
}

/// Frees a former name: it leads nowhere from now on, and any document may take it. A client that still uses it would begin a new
/// document there. For administrators of the project.
#[utoipa::path(
    operation_id = "free_alias", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path), FreeAlias),
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[delete("/v1/documents/{id}/aliases")]
async fn free(
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    query: web::Query<FreeAlias>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let name = validate::stored_name("name", &query.name).map_err(|_| ApiError::NotFound("alias"))?;
    let mut db = rest.begin(caller.tenant).await?;
    let document = documents::get(&mut db, caller, DocumentId(*id)).await?;
    require_admin(&document)?;
    documents::free_alias(&mut db, document.project, document.id, &name).await?;
    db.commit().await?;
    Ok(HttpResponse::NoContent().finish())
}
