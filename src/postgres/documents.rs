//! Documents as things with a name: their content is in the log.

use super::operation_log::BROKEN_FOLDS;
use super::projects::role;
use super::{StoreError, TenantTx};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::{Caller, Role};
use contextnexus_actors::ids::{DocumentId, ProjectId, UserId};
use contextnexus_actors::room;

/// A document as somebody sees it who may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// The document.
    pub id: DocumentId,
    /// Where it is.
    pub project: ProjectId,
    /// The project's slug: `{slug}/{name}` is the room.
    pub project_slug: String,
    /// How clients name the room.
    pub name: String,
    /// What people read in a list.
    pub title: String,
    /// What the reader may do in it.
    pub role: Role,
    /// Who made it; `None` once that user is gone.
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its name or title last changed; its content has sequence numbers instead.
    pub updated_at: DateTime<Utc>,
    /// The tombstone.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Closed for writing.
    pub read_only_since: Option<DateTime<Utc>>,
    /// And why: [`BROKEN_FOLDS`], or what is wrong with its log ([`DamageKind`](contextnexus_actors::ports::DamageKind)).
    pub read_only_reason: Option<String>,
    /// The version of name, title and tombstone.
    pub version: i64,
    /// The sequence number of its last update.
    pub seq: u64,
}

/// A document to create.
#[derive(Clone, Copy, Debug)]
pub struct NewDocument<'a> {
    /// Fresh; unused where the name is an id that is free.
    pub fresh: DocumentId,
    /// Where.
    pub project: ProjectId,
    /// See [`Document::name`].
    pub name: &'a str,
    /// See [`Document::title`].
    pub title: &'a str,
    /// Who makes it.
    pub created_by: UserId,
}

/// Which documents to list.
#[derive(Clone, Copy, Default, Debug)]
pub struct Filter {
    /// Of this project only.
    pub project: Option<ProjectId>,
    /// Deleted ones instead of living ones, where the caller is an administrator.
    pub deleted: bool,
    /// Those before this one.
    pub before: Option<DocumentId>,
    /// This one only.
    pub only: Option<DocumentId>,
}

/// A former name that still leads to its document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// Since when it is a former one.
    pub created_at: DateTime<Utc>,
}

/// Documents that the caller sees, newest first.
#[tracing::instrument(name = "pg.documents.list", skip_all, err(level = "debug"))]
pub async fn list(db: &mut TenantTx, caller: &Caller, filter: Filter, limit: i64) -> Result<Vec<Document>, StoreError> {
    let rows = sqlx::query!(
        r#"select d.id, d.project_id, p.slug, d.name, d.title, d.created_by, d.created_at, d.updated_at, d.deleted_at,
                  d.pg_version, coalesce(h.seq, 0) as "seq!", h.read_only_since as "read_only_since?",
                  h.read_only_reason as "read_only_reason?", case when $3 then 'admin' else m.role end as "role!"
             from content_items d
             join projects p on p.tenant_id = d.tenant_id and p.id = d.project_id
             left join document_heads h on h.tenant_id = d.tenant_id and h.document_id = d.id
             left join project_memberships m
               on m.tenant_id = d.tenant_id and m.project_id = d.project_id and m.user_id = $2
            where d.tenant_id = $1 and ($4::uuid is null or d.project_id = $4) and ($6::uuid is null or d.id < $6)
              and ($8::uuid is null or d.id = $8)
              and case when $5 then d.deleted_at is not null and ($3 or m.role = 'admin')
                       else d.deleted_at is null and ($3 or m.role is not null) end
            order by d.id desc limit $7"#,
        db.tenant.0,
        caller.user.0,
        caller.tenant_admin,
        filter.project.map(|project| project.0),
        filter.deleted,
        filter.before.map(|document| document.0),
        limit,
        filter.only.map(|document| document.0)
    )
    .fetch_all(&mut *db.tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Document {
                id: DocumentId(row.id),
                project: ProjectId(row.project_id),
                project_slug: row.slug,
                name: row.name,
                title: row.title,
                role: role(&row.role)?,
                created_by: row.created_by.map(UserId),
                created_at: row.created_at,
                updated_at: row.updated_at,
                deleted_at: row.deleted_at,
                read_only_reason: reason(row.read_only_since, row.read_only_reason),
                read_only_since: row.read_only_since,
                version: row.pg_version,
                seq: row.seq.unsigned_abs(),
            })
        })
        .collect()
}

/// The reason of a document that was closed: none is stored from before reasons were.
fn reason(since: Option<DateTime<Utc>>, reason: Option<String>) -> Option<String> {
    since.map(|_| reason.unwrap_or_else(|| BROKEN_FOLDS.to_owned()))
}

/// One document, deleted or not, where its project is visible to the caller. [`StoreError::NotFound`] otherwise.
pub async fn get(db: &mut TenantTx, caller: &Caller, id: DocumentId) -> Result<Document, StoreError> {
    find(db, caller, id).await?.ok_or(StoreError::NotFound { entity: "document" })
}

/// One document, deleted or not, where its project is visible to the caller.
#[tracing::instrument(name = "pg.documents.find", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn find(db: &mut TenantTx, caller: &Caller, id: DocumentId) -> Result<Option<Document>, StoreError> {
    let row = sqlx::query!(
        r#"select d.project_id, p.slug, d.name, d.title, d.created_by, d.created_at, d.updated_at, d.deleted_at,
                  d.pg_version, coalesce(h.seq, 0) as "seq!", h.read_only_since as "read_only_since?",
                  h.read_only_reason as "read_only_reason?", case when $3 then 'admin' else m.role end as "role!"
             from content_items d
             join projects p on p.tenant_id = d.tenant_id and p.id = d.project_id
             left join document_heads h on h.tenant_id = d.tenant_id and h.document_id = d.id
             left join project_memberships m
               on m.tenant_id = d.tenant_id and m.project_id = d.project_id and m.user_id = $2
            where d.tenant_id = $1 and d.id = $4 and ($3 or m.role is not null)"#,
        db.tenant.0,
        caller.user.0,
        caller.tenant_admin,
        id.0
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Document {
        id,
        project: ProjectId(row.project_id),
        project_slug: row.slug,
        name: row.name,
        title: row.title,
        role: role(&row.role)?,
        created_by: row.created_by.map(UserId),
        created_at: row.created_at,
        updated_at: row.updated_at,
        deleted_at: row.deleted_at,
        read_only_reason: reason(row.read_only_since, row.read_only_reason),
        read_only_since: row.read_only_since,
        version: row.pg_version,
        seq: row.seq.unsigned_abs(),
    }))
}

/// The document of this name, or former name, in the project.
#[tracing::instrument(name = "pg.documents.find_by_name", skip_all, err(level = "debug"))]
pub async fn find_by_name(db: &mut TenantTx, project: ProjectId, name: &str) -> Result<Option<DocumentId>, StoreError> {
    let id = sqlx::query_scalar!(
        r#"select id as "id!" from content_items where tenant_id = $1 and project_id = $2 and name = $3
           union all
           select document_id from document_aliases where tenant_id = $1 and project_id = $2 and name = $3"#,
        db.tenant.0,
        project.0,
        name
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(id.map(DocumentId))
}

/// The document that a room leads to, in the order in which a client that connects finds it: by its id, as far as the
/// caller sees it, by its name, by a former name. `project` is a slug; the default project without one.
/// [`StoreError::NotFound`] for a project that the caller does not see.
pub async fn find_by_room(
    db: &mut TenantTx,
    caller: &Caller,
    project: Option<&str>,
    name: &str,
) -> Result<Option<DocumentId>, StoreError> {
    let home = super::projects::visible(db, caller, project).await?;
    if project.is_some() && home.is_none() {
        return Err(StoreError::NotFound { entity: "project" });
    }
    if let Some(id) = room::id_in(name)
        && let Some(document) = find(db, caller, id).await?
        && (project.is_none() || home == Some(document.project))
    {
        return Ok(Some(id));
    }
    find_by_name(db, home.ok_or(StoreError::NotFound { entity: "project" })?, name).await
}

/// Creates an empty document and answers its id. [`StoreError::Taken`] for a name that another one has, had, or had
/// when it was deleted.
pub async fn create(db: &mut TenantTx, new: NewDocument<'_>) -> Result<DocumentId, StoreError> {
    let id = id_for(db, new.project, new.name).await?.unwrap_or(new.fresh);
    if insert(db, id, &new).await? { Ok(id) } else { Err(taken()) }
}

/// The id of a document that gets this name: the name, where it is an id; `None` where it is not, or cannot be this
/// one's.
///
/// [`StoreError::Taken`] in the default project, where the name would lead some to this document and others to the one
/// of that id.
#[tracing::instrument(name = "pg.documents.id_for", skip_all, err(level = "debug"))]
pub async fn id_for(db: &mut TenantTx, project: ProjectId, name: &str) -> Result<Option<DocumentId>, StoreError> {
    let Some(id) = room::id_in(name) else { return Ok(None) };
    let row = sqlx::query!(
        r#"select exists (select from content_items where tenant_id = $1 and id = $2) as "is_id!",
                  exists (select from content_items c join projects p on p.tenant_id = $1 and p.id = c.project_id
                           where c.tenant_id = $1 and p.is_default and c.name = $3
                          union all
                          select from document_aliases a join projects p on p.tenant_id = $1 and p.id = a.project_id
                           where a.tenant_id = $1 and p.is_default and a.name = $3) as "is_name!",
                  exists (select from projects where tenant_id = $1 and id = $4 and is_default) as "in_default!""#,
        db.tenant.0,
        id.0,
        name,
        project.0
    )
    .fetch_one(&mut *db.tx)
    .await?;
    match (row.is_id, row.is_name, row.in_default) {
        (true, _, true) => Err(taken()),
        (true, ..) | (_, true, _) => Ok(None),
        (false, false, _) => Ok(Some(id)),
    }
}

/// [`StoreError::Taken`] if this document cannot get this name, because it is or was another's, or is another's id.
/// Asked before a rename, since PostgreSQL logs a broken unique key as an error; two renames at one moment still meet
/// at the key.
pub async fn require_free(db: &mut TenantTx, document: &Document, name: &str) -> Result<(), StoreError> {
    if find_by_name(db, document.project, name).await?.is_some_and(|holder| holder != document.id) {
        return Err(taken());
    }
    if room::id_in(name) != Some(document.id) {
        id_for(db, document.project, name).await?;
    }
    Ok(())
}

/// Creates a row. False: another document has that id, or has or had that name. Two who create one name at once are an
/// ordinary thing, so PostgreSQL is asked in a way that it calls no error.
#[tracing::instrument(name = "pg.documents.insert", skip_all, fields(document.id = %id), err(level = "debug"))]
pub(super) async fn insert(db: &mut TenantTx, id: DocumentId, new: &NewDocument<'_>) -> Result<bool, StoreError> {
    let insert = sqlx::query!(
        "insert into content_items (tenant_id, id, project_id, name, title, created_by)
         select $1, $2, $3, $4::text, $5, $6
          where not exists (select from document_aliases where tenant_id = $1 and project_id = $3 and name = $4)
         on conflict do nothing",
        db.tenant.0,
        id.0,
        new.project.0,
        new.name,
        new.title,
        new.created_by.0
    );
    Ok(insert.execute(&mut *db.tx).await?.rows_affected() == 1)
}

fn taken() -> StoreError {
    StoreError::Taken { constraint: "content_items_name_key".to_owned() }
}

/// Renames a living document that is still at `expected`; the former name becomes an alias. What is `None` stays.
#[tracing::instrument(name = "pg.documents.rename", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn rename(
    db: &mut TenantTx,
    id: DocumentId,
    expected: i64,
    name: Option<&str>,
    title: Option<&str>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "update content_items set name = coalesce($4, name), title = coalesce($5, title)
          where tenant_id = $1 and id = $2 and pg_version = $3 and deleted_at is null",
        db.tenant.0,
        id.0,
        expected,
        name,
        title
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(why_unchanged(db, id, expected).await) }
}

/// Sets the tombstone, if nobody changed the document since `expected`. Its name stays taken, its log whole. Repeating it is no error.
#[tracing::instrument(name = "pg.documents.delete", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn delete(db: &mut TenantTx, id: DocumentId, expected: Option<i64>, by: UserId) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "update content_items
            set deleted_at = coalesce(deleted_at, now()), deleted_by = case when deleted_at is null then $4 else deleted_by end
          where tenant_id = $1 and id = $2 and ($3::bigint is null or pg_version = $3)",
        db.tenant.0,
        id.0,
        expected,
        by.0
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(why_unchanged(db, id, expected.unwrap_or_default()).await) }
}

/// Takes the tombstone away. Repeating it is no error.
#[tracing::instrument(name = "pg.documents.restore", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn restore(db: &mut TenantTx, id: DocumentId) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "update content_items set deleted_at = null, deleted_by = null where tenant_id = $1 and id = $2",
        db.tenant.0,
        id.0
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound { entity: "document" }) }
}

/// Former names of a document, in order, those after `after`.
#[tracing::instrument(name = "pg.documents.aliases", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn aliases(
    db: &mut TenantTx,
    project: ProjectId,
    id: DocumentId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Alias>, StoreError> {
    let rows = sqlx::query!(
        r#"select name, created_at from document_aliases
            where tenant_id = $1 and project_id = $2 and document_id = $3
              and ($4::text is null or name collate "C" > $4 collate "C")
            order by name collate "C" limit $5"#,
        db.tenant.0,
        project.0,
        id.0,
        after,
        limit
    )
    .fetch_all(&mut *db.tx)
    .await?;
    Ok(rows.into_iter().map(|row| Alias { name: row.name, created_at: row.created_at }).collect())
}

/// Frees a former name: it leads nowhere from now on, and anybody may take it.
#[tracing::instrument(name = "pg.documents.free_alias", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn free_alias(db: &mut TenantTx, project: ProjectId, id: DocumentId, name: &str) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "delete from document_aliases where tenant_id = $1 and project_id = $2 and document_id = $3 and name = $4",
        db.tenant.0,
        project.0,
        id.0,
        name
    )
    .execute(&mut *db.tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound { entity: "alias" }) }
}

/// What was written under this key of this user: a hash of the body, and the sequence that holds it.
#[tracing::instrument(name = "pg.documents.written_under", skip_all, fields(document.id = %id), err(level = "debug"))]
pub async fn written_under(
    db: &mut TenantTx,
    id: DocumentId,
    user: UserId,
    key: &str,
) -> Result<Option<([u8; 32], u64)>, StoreError> {
    let row = sqlx::query!(
        "select body_hash, seq from idempotency_keys
          where tenant_id = $1 and document_id = $2 and subject_id = $3 and key = $4",
        db.tenant.0,
        id.0,
        user.0,
        key
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(row.and_then(|row| Some((row.body_hash.try_into().ok()?, row.seq.unsigned_abs()))))
}

async fn why_unchanged(db: &mut TenantTx, id: DocumentId, expected: i64) -> StoreError {
    let row = sqlx::query!(
        r#"select pg_version, deleted_at is not null as "deleted!" from content_items where tenant_id = $1 and id = $2"#,
        db.tenant.0,
        id.0
    )
    .fetch_optional(&mut *db.tx)
    .await;
    match row {
        Ok(Some(row)) if row.pg_version != expected => {
            StoreError::VersionConflict { entity: "document", expected, actual: row.pg_version }
        }
        Ok(_) => StoreError::NotFound { entity: "document" },
        Err(error) => error.into(),
    }
}
