//! Projects and who is in them.

use super::{StoreError, TenantTx};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::{Caller, Role};
use contextnexus_actors::ids::{ProjectId, UserId};

/// A project as somebody sees it who may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Project {
    /// The project.
    pub id: ProjectId,
    /// Its name in rooms and addresses.
    pub slug: String,
    /// For people to read.
    pub name: String,
    /// A room that does not exist is created when somebody who may write connects to it.
    pub auto_create_documents: bool,
    /// Where a room without a project stands.
    pub is_default: bool,
    /// Readable, by nobody writable.
    pub is_archived: bool,
    /// What the reader may do in it.
    pub role: Role,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Its version.
    pub version: i64,
}

/// A project to create.
#[derive(Clone, Copy, Debug)]
pub struct NewProject<'a> {
    /// Fresh.
    pub id: ProjectId,
    /// Unique in the tenant.
    pub slug: &'a str,
    /// For people to read.
    pub name: &'a str,
    /// See [`Project::auto_create_documents`].
    pub auto_create_documents: bool,
    /// See [`Project::is_default`]; the tenant's only one.
    pub is_default: bool,
    /// Who becomes its first administrator.
    pub created_by: Option<UserId>,
}

/// What to change; what is `None` stays.
#[derive(Clone, Copy, Default, Debug)]
pub struct ProjectChange<'a> {
    /// For people to read.
    pub name: Option<&'a str>,
    /// See [`Project::auto_create_documents`].
    pub auto_create_documents: Option<bool>,
    /// See [`Project::is_archived`].
    pub is_archived: Option<bool>,
}

/// Somebody in a project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// For people to read.
    pub name: String,
    /// People only.
    pub email: Option<String>,
    /// `person`, `external` or `service`.
    pub kind: String,
    /// What they may do.
    pub role: Role,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// The membership's version.
    pub version: i64,
}

/// A stored role. The table's check admits no other names.
pub(super) fn role(text: &str) -> Result<Role, StoreError> {
    text.parse().map_err(|error| StoreError::Database(sqlx::Error::Decode(Box::new(error))))
}

/// The projects that the caller sees: those they are in, all for an administrator of the tenant. Newest first, those before `before`.
#[tracing::instrument(name = "pg.projects.list", skip_all, err(level = "debug"))]
pub async fn list(
    db: &mut TenantTx,
    caller: &Caller,
    before: Option<ProjectId>,
    limit: i64,
) -> Result<Vec<Project>, StoreError> {
    let rows = sqlx::query!(
        r#"select p.id, p.slug, p.name, p.auto_create_documents, p.is_default, p.is_archived, p.created_at, p.updated_at,
                  p.pg_version, case when $3 then 'admin' else m.role end as "role!"
             from projects p
             left join project_memberships m on m.tenant_id = p.tenant_id and m.project_id = p.id and m.user_id = $2
            where p.tenant_id = $1 and ($3 or m.role is not null) and ($4::uuid is null or p.id < $4)
            order by p.id desc limit $5"#,
        db.tenant.0,
        caller.user.0,
        caller.tenant_admin,
        before.map(|project| project.0),
        limit
    )
    .fetch_all(&mut *db.tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Project {
                id: ProjectId(row.id),
                slug: row.slug,
                name: row.name,
                auto_create_documents: row.auto_create_documents,
                is_default: row.is_default,
                is_archived: row.is_archived,
                role: role(&row.role)?,
                created_at: row.created_at,
                updated_at: row.updated_at,
                version: row.pg_version,
            })
        })
        .collect()
}

/// One project. [`StoreError::NotFound`] for one that the caller does not see, too.
#[tracing::instrument(name = "pg.projects.get", skip_all, fields(project.id = %id), err(level = "debug"))]
pub async fn get(db: &mut TenantTx, caller: &Caller, id: ProjectId) -> Result<Project, StoreError> {
    let row = sqlx::query!(
        r#"select p.slug, p.name, p.auto_create_documents, p.is_default, p.is_archived, p.created_at, p.updated_at,
                  p.pg_version, case when $3 then 'admin' else m.role end as "role!"
             from projects p
             left join project_memberships m on m.tenant_id = p.tenant_id and m.project_id = p.id and m.user_id = $2
            where p.tenant_id = $1 and p.id = $4 and ($3 or m.role is not null)"#,
        db.tenant.0,
        caller.user.0,
        caller.tenant_admin,
        id.0
    )
    .fetch_optional(&mut *db.tx)
    .await?
    .ok_or(StoreError::NotFound { entity: "project" })?;
    Ok(Project {
        id,
        slug: row.slug,
        name: row.name,
        auto_create_documents: row.auto_create_documents,
        is_default: row.is_default,
        is_archived: row.is_archived,
        role: role(&row.role)?,
        created_at: row.created_at,
        updated_at: row.updated_at,
        version: row.pg_version,
    })
}

/// The project in which rooms without a project stand, where the caller sees it.
#[tracing::instrument(name = "pg.projects.default", skip_all, err(level = "debug"))]
pub async fn default(db: &mut TenantTx, caller: &Caller) -> Result<Project, StoreError> {
    let id = default_id(db).await?.ok_or(StoreError::NotFound { entity: "project" })?;
    get(db, caller, id).await
}

/// The project of this slug, or the default one, as far as the caller sees it.
#[tracing::instrument(name = "pg.projects.visible", skip_all, err(level = "debug"))]
pub async fn visible(db: &mut TenantTx, caller: &Caller, slug: Option<&str>) -> Result<Option<ProjectId>, StoreError> {
    let id = sqlx::query_scalar!(
        "select p.id from projects p
           left join project_memberships m
             on m.tenant_id = p.tenant_id and m.project_id = p.id and m.user_id = $2
          where p.tenant_id = $1 and ($3 or m.role is not null)
            and case when $4::text is null then p.is_default else p.slug = $4 end",
        db.tenant.0,
        caller.user.0,
        caller.tenant_admin,
        slug
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(id.map(ProjectId))
}

/// The project in which rooms without a project stand, whether or not anybody sees it.
#[tracing::instrument(name = "pg.projects.default_id", skip_all, err(level = "debug"))]
pub async fn default_id(db: &mut TenantTx) -> Result<Option<ProjectId>, StoreError> {
    let id = sqlx::query_scalar!("select id from projects where tenant_id = $1 and is_default", db.tenant.0)
        .fetch_optional(&mut *db.tx)
        .await?;
    Ok(id.map(ProjectId))
}

/// Creates a project; whoever is `created_by` becomes its administrator. [`StoreError::Taken`] for a slug that is in use.
#[tracing::instrument(name = "pg.projects.create", skip_all, fields(project.id = %new.id), err(level = "debug"))]
pub async fn create(db: &mut TenantTx, new: NewProject<'_>) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "insert into projects (tenant_id, id, slug, name, auto_create_documents, is_default, created_by)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (tenant_id, slug) do nothing",
        db.tenant.0,
        new.id.0,
        new.slug,
        new.name,
        new.auto_create_documents,
        new.is_default,
        new.created_by.map(|user| user.0)
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 0 {
        // An ordinary thing, and so no error of PostgreSQL's.
        return Err(StoreError::Taken { constraint: "projects_slug_key".to_owned() });
    }
    if let Some(user) = new.created_by {
        add_member(db, new.id, user, Role::Admin, None).await?;
    }
    Ok(())
}

/// Changes a project that is still at `expected`. [`StoreError::VersionConflict`] otherwise.
#[tracing::instrument(name = "pg.projects.change", skip_all, fields(project.id = %id), err(level = "debug"))]
pub async fn change(
    db: &mut TenantTx,
    id: ProjectId,
    expected: i64,
    change: ProjectChange<'_>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "update projects set name = coalesce($4, name), auto_create_documents = coalesce($5, auto_create_documents),
                             is_archived = coalesce($6, is_archived)
          where tenant_id = $1 and id = $2 and pg_version = $3",
        db.tenant.0,
        id.0,
        expected,
        change.name,
        change.auto_create_documents,
        change.is_archived
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(());
    }
    let actual =
        sqlx::query_scalar!("select pg_version from projects where tenant_id = $1 and id = $2", db.tenant.0, id.0)
            .fetch_optional(&mut *db.tx)
            .await?;
    Err(match actual {
        Some(actual) => StoreError::VersionConflict { entity: "project", expected, actual },
        None => StoreError::NotFound { entity: "project" },
    })
}

/// Members, newest membership of newest users first, those whose user stands before `before`.
#[tracing::instrument(name = "pg.projects.members", skip_all, fields(project.id = %id), err(level = "debug"))]
pub async fn members(
    db: &mut TenantTx,
    id: ProjectId,
    before: Option<UserId>,
    limit: i64,
) -> Result<Vec<Member>, StoreError> {
    let rows = sqlx::query!(
        "select m.user_id, m.role, m.created_at, m.pg_version, u.name, u.email, u.kind
           from project_memberships m join users u on u.tenant_id = m.tenant_id and u.id = m.user_id
          where m.tenant_id = $1 and m.project_id = $2 and ($3::uuid is null or m.user_id < $3)
          order by m.user_id desc limit $4",
        db.tenant.0,
        id.0,
        before.map(|user| user.0),
        limit
    )
    .fetch_all(&mut *db.tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Member {
                user: UserId(row.user_id),
                name: row.name,
                email: row.email,
                kind: row.kind,
                role: role(&row.role)?,
                created_at: row.created_at,
                version: row.pg_version,
            })
        })
        .collect()
}

/// One member.
#[tracing::instrument(name = "pg.projects.member", skip_all, fields(project.id = %id, user.id = %user), err(level = "debug"))]
pub async fn member(db: &mut TenantTx, id: ProjectId, user: UserId) -> Result<Member, StoreError> {
    let row = sqlx::query!(
        "select m.role, m.created_at, m.pg_version, u.name, u.email, u.kind
           from project_memberships m join users u on u.tenant_id = m.tenant_id and u.id = m.user_id
          where m.tenant_id = $1 and m.project_id = $2 and m.user_id = $3",
        db.tenant.0,
        id.0,
        user.0
    )
    .fetch_optional(&mut *db.tx)
    .await?
    .ok_or(StoreError::NotFound { entity: "member" })?;
    Ok(Member {
        user,
        name: row.name,
        email: row.email,
        kind: row.kind,
        role: role(&row.role)?,
        created_at: row.created_at,
        version: row.pg_version,
    })
}

/// Adds a member. [`StoreError::Taken`] for one who is in it, [`StoreError::RefersToNothing`] for nobody of this tenant.
#[tracing::instrument(name = "pg.projects.add_member", skip_all, fields(project.id = %id, user.id = %user), err(level = "debug"))]
pub async fn add_member(
    db: &mut TenantTx,
    id: ProjectId,
    user: UserId,
    role: Role,
    by: Option<UserId>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into project_memberships (tenant_id, project_id, user_id, role, created_by) values ($1, $2, $3, $4, $5)",
        db.tenant.0,
        id.0,
        user.0,
        role.as_str(),
        by.map(|user| user.0)
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(())
}

/// What became of a change to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// It is done.
    Done,
    /// It would leave the project without an administrator: nothing was changed.
    LastAdmin,
}

/// Gives a member another role. A project keeps one administrator, also when two leave at the same moment.
#[tracing::instrument(name = "pg.projects.change_role", skip_all, fields(project.id = %id, user.id = %user), err(level = "debug"))]
pub async fn change_role(
    db: &mut TenantTx,
    id: ProjectId,
    user: UserId,
    role: Role,
) -> Result<MemberChange, StoreError> {
    if role != Role::Admin && is_last_admin(db, id, user).await? {
        return Ok(MemberChange::LastAdmin);
    }
    let done = sqlx::query!(
        "update project_memberships set role = $4 where tenant_id = $1 and project_id = $2 and user_id = $3",
        db.tenant.0,
        id.0,
        user.0,
        role.as_str()
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 0 { Err(StoreError::NotFound { entity: "member" }) } else { Ok(MemberChange::Done) }
}

/// Removes a member. A project keeps one administrator, as above.
#[tracing::instrument(name = "pg.projects.remove_member", skip_all, fields(project.id = %id, user.id = %user), err(level = "debug"))]
pub async fn remove_member(db: &mut TenantTx, id: ProjectId, user: UserId) -> Result<MemberChange, StoreError> {
    if is_last_admin(db, id, user).await? {
        return Ok(MemberChange::LastAdmin);
    }
    let done = sqlx::query!(
        "delete from project_memberships where tenant_id = $1 and project_id = $2 and user_id = $3",
        db.tenant.0,
        id.0,
        user.0
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 0 { Err(StoreError::NotFound { entity: "member" }) } else { Ok(MemberChange::Done) }
}

/// Locks the project's administrators until the transaction ends, so that the last two cannot both leave.
async fn is_last_admin(db: &mut TenantTx, id: ProjectId, user: UserId) -> Result<bool, StoreError> {
    let admins = sqlx::query_scalar!(
        "select user_id from project_memberships
          where tenant_id = $1 and project_id = $2 and role = 'admin' order by user_id for update",
        db.tenant.0,
        id.0
    )
    .fetch_all(&mut *db.tx)
    .await?;
    Ok(admins == [user.0])
}
