//! Who is in a project, and in which role.

use super::caller::Authenticated;
use super::paging::{self, Page, Paging};
use super::projects::require_admin;
use super::{ApiError, Problem, Rest, validate};
use crate::postgres::projects::{self, Member, MemberChange};
use crate::postgres::users;
use actix_web::{HttpResponse, delete, get, patch, post, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::Role;
use contextnexus_actors::ids::{ProjectId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(list).service(add).service(change).service(remove);
}

/// What a member may do. Each may do what the one before it may.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RoleBody {
    /// Reads, and shows a cursor.
    Viewer,
    /// Writes.
    Editor,
    /// Manages members, documents' names and deletion.
    Admin,
}

impl From<RoleBody> for Role {
    fn from(role: RoleBody) -> Self {
        match role {
            RoleBody::Viewer => Self::Viewer,
            RoleBody::Editor => Self::Editor,
            RoleBody::Admin => Self::Admin,
        }
    }
}

impl From<Role> for RoleBody {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Editor => Self::Editor,
            Role::Admin => Self::Admin,
        }
    }
}

/// A member of a project.
#[derive(Serialize, ToSchema)]
struct MemberBody {
    user_id: Uuid,
    name: String,
    email: Option<String>,
    /// `person`, `external` or `service`.
    kind: String,
    role: RoleBody,
    /// Member since.
    created_at: DateTime<Utc>,
}

impl From<Member> for MemberBody {
    fn from(member: Member) -> Self {
        Self {
            user_id: member.user.0,
            name: member.name,
            email: member.email,
            kind: member.kind,
            role: member.role.into(),
            created_at: member.created_at,
        }
    }
}

/// Somebody to add: by id or by e-mail address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMember {
    user_id: Option<Uuid>,
    #[schema(example = "jane@example.org")]
    email: Option<String>,
    role: RoleBody,
}

/// A role to give.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeMember {
    role: RoleBody,
}

/// The members of a project.
#[utoipa::path(
    operation_id = "list_members", tag = "Members", security(("token" = [])), params(("id" = Uuid, Path), Paging),
    responses(
        (status = 200, body = Page<MemberBody>),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[get("/v1/projects/{id}/members")]
async fn list(
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    paging: web::Query<Paging>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let rows = paging::rows(paging.limit)?;
    let mut db = rest.begin(caller.tenant).await?;
    let project = projects::get(&mut db, caller, ProjectId(*id)).await?;
    let found = projects::members(&mut db, project.id, paging.cursor.map(UserId), rows).await?;
    Ok(HttpResponse::Ok().json(Page::new(found, rows, |member| member.user.to_string(), MemberBody::from)))
}

/// Adds a member. For administrators of the project.
#[utoipa::path(
    operation_id = "add_member", tag = "Members", security(("token" = [])), params(("id" = Uuid, Path)), request_body = NewMember,
    responses(
        (status = 201, body = MemberBody),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such project or user."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`name_taken`: is a member already")
    )
)]
#[post("/v1/projects/{id}/members")]
async fn add(
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
    body: web::Json<NewMember>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let id = ProjectId(*id);
    let mut db = rest.begin(caller.tenant).await?;
    require_admin(&projects::get(&mut db, caller, id).await?)?;
    let user = match (body.user_id, &body.email) {
        (Some(user), None) => UserId(user),
        (None, Some(email)) => {
            let email = validate::text("email", email, 320)?;
            users::find_by_email(&mut db, &email).await?.ok_or(ApiError::NotFound("user"))?
        }
        _ => return Err(ApiError::field("user_id", "either user_id or email")),
    };
    users::get(&mut db, user).await?;
    projects::add_member(&mut db, id, user, body.role.into(), Some(caller.user)).await?;
    let member = projects::member(&mut db, id, user).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::Created().json(MemberBody::from(member)))
}

/// Gives a member another role; open sockets follow within a second. For administrators of the project.
#[utoipa::path(
    operation_id = "change_member", tag = "Members", security(("token" = [])),
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)), request_body = ChangeMember,
    responses(
        (status = 200, body = MemberBody),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`last_admin`")
    )
)]
#[patch("/v1/projects/{id}/members/{user_id}")]
async fn change(
    rest: web::Data<Rest>,
    caller: Authenticated,
    path: web::Path<(Uuid, Uuid)>,
    body: web::Json<ChangeMember>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let (id, user) = (ProjectId(path.0), UserId(path.1));
    let mut db = rest.begin(caller.tenant).await?;
    require_admin(&projects::get(&mut db, caller, id).await?)?;
    done(projects::change_role(&mut db, id, user, body.role.into()).await?)?;
    let member = projects::member(&mut db, id, user).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::Ok().json(MemberBody::from(member)))
}

/// Removes a member; open sockets close within a second. For administrators of the project, and for whoever leaves.
#[utoipa::path(
    operation_id = "remove_member", tag = "Members", security(("token" = [])),
    params(("id" = Uuid, Path), ("user_id" = Uuid, Path)),
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "`last_admin`")
    )
)]
#[delete("/v1/projects/{id}/members/{user_id}")]
async fn remove(
    rest: web::Data<Rest>,
    caller: Authenticated,
    path: web::Path<(Uuid, Uuid)>,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let (id, user) = (ProjectId(path.0), UserId(path.1));
    let mut db = rest.begin(caller.tenant).await?;
    let project = projects::get(&mut db, caller, id).await?;
    if user != caller.user {
        require_admin(&project)?;
    }
    done(projects::remove_member(&mut db, id, user).await?)?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    Ok(HttpResponse::NoContent().finish())
}

fn done(outcome: MemberChange) -> Result<(), ApiError> {
    match outcome {
        MemberChange::Done => Ok(()),
        MemberChange::LastAdmin => Err(ApiError::LastAdmin),
    }
}
