//! Projects: where documents stand and members meet.

use super::caller::Authenticated;
use super::paging::{self, Page, Paging};
use super::versions::{etag, if_match};
use super::{ApiError, Problem, Rest, validate};
use crate::postgres::projects::{self, Project};
use actix_web::{HttpRequest, HttpResponse, get, patch, post, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::Role;
use contextnexus_actors::ids::ProjectId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list).service(create).service(get_one).service(change);
}

/// A project.
#[derive(Serialize, ToSchema)]
pub(super) struct ProjectBody {
    id: Uuid,
    /// Its name in rooms: `{slug}/{document name}`.
    slug: String,
    name: String,
    /// A room that does not exist is created when somebody who may write connects to it.
    auto_create_documents: bool,
    /// Rooms without a project stand here.
    is_default: bool,
    /// Readable, by nobody writable.
    is_archived: bool,
    /// What the caller may do here: `viewer`, `editor` or `admin`.
    role: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Also the `ETag`.
    version: i64,
}

impl From<Project> for ProjectBody {
    fn from(project: Project) -> Self {
        Self {
            id: project.id.0,
            slug: project.slug,
            name: project.name,
            auto_create_documents: project.auto_create_documents,
            is_default: project.is_default,
            is_archived: project.is_archived,
            role: project.role.as_str(),
            created_at: project.created_at,
            updated_at: project.updated_at,
            version: project.version,
        }
    }
}

/// A project to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProject {
    /// 1 to 63 of a–z, 0–9 and hyphens; stays as it is.
    #[schema(example = "handbook")]
    slug: String,
    #[schema(example = "Handbook")]
    name: String,
    /// Whether connecting to a room that does not exist creates it. No, unless told.
    #[serde(default)]
    auto_create_documents: bool,
}

/// What to change. What is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeProject {
    name: Option<String>,
    auto_create_documents: Option<bool>,
    is_archived: Option<bool>,
}

/// Who may manage this project.
pub(super) fn require_admin(project: &Project) -> Result<(), ApiError> {
    if project.role == Role::Admin {
        Ok(())
    } else {
        Err(ApiError::Forbidden("this is for administrators of the project"))
    }
}

fn answer(mut response: actix_web::HttpResponseBuilder, project: Project) -> HttpResponse {
    response.insert_header(("etag", etag(project.version))).json(ProjectBody::from(project))
}

/// The projects that the caller is in; all of them for an administrator of the tenant.
#[utoipa::path(
    operation_id = "list_projects", tag = "Projects", security(("token" = [])), params(Paging),
    responses((status = 200, body = Page<ProjectBody>))
)]
#[get("/v1/projects")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    paging: web::Query<Paging>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let rows = paging::rows(paging.limit)?;
    let mut db = rest.begin(caller.tenant).await?;
    let found = projects::list(&mut db, caller, paging.cursor.map(ProjectId), rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |project| project.id.to_string(), ProjectBody::from)))
}

/// Creates a project; the caller becomes its administrator.
#[utoipa::path(
    operation_id = "create_project", tag = "Projects", security(("token" = [])), request_body = NewProject,
    responses(
        (status = 201, body = ProjectBody),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`name_taken`")
    )
)]
#[post("/v1/projects")]
async fn create(
    rest: web::Data<Rest>,
    caller: Authenticated,
    body: web::Json<NewProject>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let slug = validate::slug("slug", &body.slug)?;
    let name = validate::text("name", &body.name, 400)?;
    let id = ProjectId(rest.clock.fresh_id());
    let mut db = rest.begin(caller.tenant).await?;
    projects::create(
        &mut db,
        projects::NewProject {
            id,
            slug: &slug,
            name: &name,
            auto_create_documents: body.auto_create_documents,
            is_default: false,
            created_by: Some(caller.user),
        },
    )
    .await?;
    let project = projects::get(&mut db, caller, id).await?;
    db.commit().await?;
    tracing::info!(project.id = %id, "created project {id}");
    Ok(answer(HttpResponse::Created(), project))
}

/// One project.
#[utoipa::path(
    operation_id = "get_project", tag = "Projects", security(("token" = [])), params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = ProjectBody, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[get("/v1/projects/{id}")]
async fn get_one(rest: web::Data<Rest>, caller: Authenticated, id: web::Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let mut db = rest.begin(caller.tenant).await?;
    Ok(answer(HttpResponse::Ok(), projects::get(&mut db, caller, ProjectId(*id)).await?))
}

/// Renames a project or changes its settings. For its administrators.
#[utoipa::path(
    operation_id = "change_project", tag = "Projects", security(("token" = [])), request_body = ChangeProject,
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "The `ETag` of the version to change.")),
    responses(
        (status = 200, body = ProjectBody, headers(("ETag" = String))),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "`version_conflict`, with `current_version`"),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "`precondition_required`")
    )
)]
#[patch("/v1/projects/{id}")]
async fn change(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    body: web::Json<ChangeProject>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let id = ProjectId(*id);
    let name = body.name.as_deref().map(|name| validate::text("name", name, 400)).transpose()?;
    let mut db = rest.begin(caller.tenant).await?;
    require_admin(&projects::get(&mut db, caller, id).await?)?;
    let expected = if_match(&request)?;
    let changes = projects::ProjectChange {
        name: name.as_deref(),
        auto_create_documents: body.auto_create_documents,
        is_archived: body.is_archived,
    };
    projects::change(&mut db, id, expected, changes).await?;
    let project = projects::get(&mut db, caller, id).await?;
    db.commit().await?;
    if body.is_archived.is_some() {
        rest.documents.access_changed(caller.tenant).await;
    }
    Ok(answer(HttpResponse::Ok(), project))
}
