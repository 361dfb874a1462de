//! Documents as things with a name. Their content is read in `content`, written in `update` and over sockets.

use super::caller::Authenticated;
use super::paging::{self, Page};
use super::versions::{etag, if_match};
use super::{ApiError, Problem, Rest, validate};
use crate::postgres::TenantTx;
use crate::postgres::documents::{self, Document};
use crate::postgres::operation_log;
use crate::postgres::projects;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, delete, get, patch, post, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::{Caller, Role};
use contextnexus_actors::ids::{DocumentId, ProjectId, Tip};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) const TITLE_BYTES_MAX: usize = 1000;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config
        .service(list)
        .service(create)
        .service(get_one)
        .service(rename)
        .service(delete)
        .service(restore)
        .service(reopen);
}

/// A document.
#[derive(Serialize, ToSchema)]
pub(super) struct DocumentBody {
    id: Uuid,
    project_id: Uuid,
    /// How clients name the room inside its project.
    name: String,
    /// How clients of every Yjs dialect name it in full: `{project slug}/{name}`.
    #[schema(example = "playground/minutes")]
    room: String,
    /// What people read in a list.
    title: String,
    /// What the caller may do in it: `viewer`, `editor` or `admin`.
    role: &'static str,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    /// When name or title last changed.
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
    /// Since when nobody may write. An administrator opens it again.
    read_only_since: Option<DateTime<Utc>>,
    /// Why: `broken_folds`, updates of it kept breaking the server that folded them (they are in its quarantine); or a damaged log:
    /// `corrupt_row`, `missing_rows` or `lost_head`. What is before the damage is read.
    #[schema(example = "corrupt_row")]
    read_only_reason: Option<String>,
    /// Of name, title and tombstone; also the `ETag`.
    version: i64,
    /// The sequence number of the content's last update.
    seq: u64,
}

impl From<Document> for DocumentBody {
    fn from(document: Document) -> Self {
        Self {
            id: document.id.0,
            project_id: document.project.0,
            room: format!("{}/{}", document.project_slug, document.name),
            name: document.name,
            title: document.title,
            role: document.role.as_str(),
            created_by: document.created_by.map(|user| user.0),
            created_at: document.created_at,
            updated_at: document.updated_at,
            deleted_at: document.deleted_at,
            read_only_since: document.read_only_since,
            read_only_reason: document.read_only_reason,
            version: document.version,
            seq: document.seq,
        }
    }
}

/// A document to create: with a name, a title, or both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDocument {
    project_id: Uuid,
    /// How clients name the room: 1 to 200 bytes in NFC, not blank, without control characters and characters that
    /// nobody sees (zero-width, overrides of the direction of text). The document's id unless told. A UUID becomes the
    /// document's id, unless another document has that id, or that name in the default project.
    #[schema(example = "minutes")]
    name: Option<String>,
    /// The name unless told.
    #[schema(example = "Minutes of the board")]
    title: Option<String>,
}

/// What to change. What is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenameDocument {
    /// The former name goes on leading here until an administrator frees it.
    name: Option<String>,
    title: Option<String>,
}

/// Which documents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListDocuments {
    /// Of this project only.
    #[param(value_type = Option<String>)]
    project_id: Option<Uuid>,
    /// The one that this room leads to, named as clients name it: `{project slug}/{name}`, a name in the default
    /// project, or an id. Former names count.
    #[param(example = "playground/minutes")]
    room: Option<String>,
    /// Deleted ones instead: those that the caller may restore.
    deleted: Option<bool>,
    /// `next_cursor` of the page before; none for the first page.
    #[param(value_type = Option<String>)]
    cursor: Option<Uuid>,
    /// Items on a page, 1 to 200; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// A document that the caller sees and that was not deleted.
pub(super) async fn living(db: &mut TenantTx, caller: &Caller, id: DocumentId) -> Result<Document, ApiError> {
    let document = documents::get(db, caller, id).await?;
    if document.deleted_at.is_some() { Err(ApiError::DocumentDeleted) } else { Ok(document) }
}

/// Who may rename, delete and restore it.
pub(super) fn require_admin(document: &Document) -> Result<(), ApiError> {
    if document.role == Role::Admin {
        Ok(())
    } else {
        Err(ApiError::Forbidden("this is for administrators of the project"))
    }
}

fn answer(mut response: actix_web::HttpResponseBuilder, document: Document) -> HttpResponse {
    response.insert_header(("etag", etag(document.version))).json(DocumentBody::from(document))
}

/// The documents that the caller sees, newest first.
#[utoipa::path(
    operation_id = "list_documents", tag = "Documents", security(("token" = [])), params(ListDocuments),
    responses(
        (status = 200, body = Page<DocumentBody>),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such project, or the caller is no member of it.")
    )
)]
#[get("/v1/documents")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    query: web::Query<ListDocuments>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let rows = paging::rows(query.limit)?;
    let room = query.room.as_deref().map(|room| validate::room("room", room)).transpose()?;
    let mut filter = documents::Filter {
        project: query.project_id.map(ProjectId),
        deleted: query.deleted.unwrap_or(false),
        before: query.cursor.map(DocumentId),
        only: None,
    };
    let mut db = rest.begin(caller.tenant).await?;
    if let Some((project, name)) = &room {
        filter.only = documents::find_by_room(&mut db, caller, project.as_deref(), name).await?;
        if filter.only.is_none() {
            return Ok(HttpResponse::Ok().json(Page::<DocumentBody>::empty()));
        }
    }
    if let Some(project) = filter.project {
        projects::get(&mut db, caller, project).await?; // an empty list would say that it exists
    }
    let found = documents::list(&mut db, caller, filter, rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |document| document.id.to_string(), DocumentBody::from)))
}

/// Creates an empty document. For editors of the project.
#[utoipa::path(
    operation_id = "create_document", tag = "Documents", security(("token" = [])), request_body = NewDocument,
    responses(
        (status = 201, body = DocumentBody, headers(("ETag" = String), ("Location" = String))),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such project."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`name_taken`, also by a former name or a deleted document")
    )
)]
#[post("/v1/documents")]
async fn create(
    rest: web::Data<Rest>,
    caller: Authenticated,
    body: web::Json<NewDocument>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let fresh = DocumentId(rest.clock.fresh_id());
    let name = body.name.as_deref().map(|name| validate::document_name("name", name)).transpose()?;
    let title = body.title.as_deref().map(|title| validate::text("title", title, TITLE_BYTES_MAX)).transpose()?;
    if name.is_none() && title.is_none() {
        return Err(ApiError::field("name", "a name, a title or both"));
    }
    let name = name.unwrap_or_else(|| fresh.to_string());
    let title = title.unwrap_or_else(|| name.clone());
    let mut db = rest.begin(caller.tenant).await?;
    let project = projects::get(&mut db, caller, ProjectId(body.project_id)).await?;
    require_writable(&project)?;
    let new =
        documents::NewDocument { fresh, project: project.id, name: &name, title: &title, created_by: caller.user };
    let id = documents::create(&mut db, new).await?;
    let document = documents::get(&mut db, caller, id).await?;
    db.commit().await?;
    tracing::info!(document.id = %id, project.id = %project.id, "created document {id}");
    let mut response = HttpResponse::Created();
    response.insert_header((header::LOCATION, format!("/v1/documents/{id}")));
    Ok(answer(response, document))
}

/// Whether the caller may create documents in a project.
pub(super) fn require_writable(project: &projects::Project) -> Result<(), ApiError> {
    if project.is_archived {
        Err(ApiError::Forbidden("this project is archived"))
    } else if project.role.may_write() {
        Ok(())
    } else {
        Err(ApiError::Forbidden("this is for editors of the project"))
    }
}

/// One document.
#[utoipa::path(
    operation_id = "get_document", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = DocumentBody, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[get("/v1/documents/{id}")]
async fn get_one(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let mut db = rest.begin(caller.tenant).await?;
    Ok(answer(HttpResponse::Ok(), living(&mut db, caller, DocumentId(*id)).await?))
}

/// Renames a document. For administrators of the project; editors may change the title.
#[utoipa::path(
    operation_id = "rename_document", tag = "Documents", security(("token" = [])), request_body = RenameDocument,
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "The `ETag` of the version to change.")),
    responses(
        (status = 200, body = DocumentBody, headers(("ETag" = String))),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`name_taken`"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "`version_conflict`, with `current_version`"),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "`precondition_required`")
    )
)]
#[patch("/v1/documents/{id}")]
async fn rename(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    body: web::Json<RenameDocument>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let id = DocumentId(*id);
    let mut db = rest.begin(caller.tenant).await?;
    let document = living(&mut db, caller, id).await?;
    let name = body.name.as_deref().filter(|name| *name != document.name);
    let name = name.map(|name| validate::document_name("name", name)).transpose()?;
    let title = body.title.as_deref().map(|title| validate::text("title", title, TITLE_BYTES_MAX)).transpose()?;
    if name.is_some() {
        require_admin(&document)?;
    } else if !document.role.may_write() {
        return Err(ApiError::Forbidden("this is for editors of the project"));
    }
    if let Some(name) = name.as_deref() {
        documents::require_free(&mut db, &document, name).await?;
    }
    documents::rename(&mut db, id, if_match(&request)?, name.as_deref(), title.as_deref()).await?;
    let document = documents::get(&mut db, caller, id).await?;
    db.commit().await?;
    Ok(answer(HttpResponse::Ok(), document))
}

/// Deletes a document: nobody reads or writes it from now on, its name stays taken, and it can be restored. For administrators of
/// the project. `If-Match` is heeded where it is sent.
#[utoipa::path(
    operation_id = "delete_document", tag = "Documents", security(("token" = [])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` of the version to delete.")),
    responses(
        (status = 204, description = "Open sockets close within a second."),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "`version_conflict`, with `current_version`")
    )
)]
#[delete("/v1/documents/{id}")]
async fn delete(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let id = DocumentId(*id);
    let expected = if request.headers().contains_key(header::IF_MATCH) { Some(if_match(&request)?) } else { None };
    let mut db = rest.begin(caller.tenant).await?;
    require_admin(&documents::get(&mut db, caller, id).await?)?;
    documents::delete(&mut db, id, expected, caller.user).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    tracing::info!(document.id = %id, user.id = %caller.user, "deleted document {id}");
    Ok(HttpResponse::NoContent().finish())
}

/// Restores a deleted document, whole. For administrators of the project.
#[utoipa::path(
    operation_id = "restore_document", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = DocumentBody, headers(("ETag" = String))),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[post("/v1/documents/{id}/restore")]
async fn restore(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let id = DocumentId(*id);
    let mut db = rest.begin(caller.tenant).await?;
    require_admin(&documents::get(&mut db, caller, id).await?)?;
    documents::restore(&mut db, id).await?;
    let document = documents::get(&mut db, caller, id).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    tracing::info!(document.id = %id, user.id = %caller.user, "restored document {id}");
    Ok(answer(HttpResponse::Ok(), document))
}

/// Opens a document for writing that the server closed. For administrators of the project.
///
/// Where two of its updates within ten minutes broke whoever folded them, one more within these ten minutes closes it again. Where its
/// log is damaged, it goes on as it is: what does not read back moves into quarantine, and so does what builds on that; clients that
/// still have it bring it back. Restore a backup first where that has more.
#[utoipa::path(
    operation_id = "reopen_document", tag = "Documents", security(("token" = [])), params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = DocumentBody, headers(("ETag" = String)), description = "Whoever is connected may write within a second."),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[post("/v1/documents/{id}/reopen")]
async fn reopen(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let id = DocumentId(*id);
    let mut db = rest.begin(caller.tenant).await?;
    require_admin(&living(&mut db, caller, id).await?)?;
    let mended = operation_log::reopen(&mut db, id, Tip(rest.clock.fresh_id())).await?;
    let document = documents::get(&mut db, caller, id).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    tracing::warn!(
        document.id = %id, user.id = %caller.user, rows = mended.rows, numbers = mended.numbers,
        "opened document {id} for writing again, without {} rows and {} numbers of its log", mended.rows, mended.numbers
    );
    Ok(answer(HttpResponse::Ok(), document))
}
