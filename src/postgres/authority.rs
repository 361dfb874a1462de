//! Who a token belongs to and what it may do, from the tables: [`Authority`] over sessions, users, memberships and documents.

use super::{Database, StoreError, TenantTx, begin};
use crate::tokens;
use async_trait::async_trait;
use contextnexus_actors::access::{Caller, Grant, Role, Scope, Token};
use contextnexus_actors::clock::Clock;
use contextnexus_actors::ids::{DocumentId, ProjectId, SessionId, TenantId, UserId};
use contextnexus_actors::ports::{AccessDenied, Authority, Held, Rechecked, RoomName, Standing};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A room whose name another node takes at the same moment is looked up again so often.
const OPEN_ATTEMPTS: u32 = 3;
/// `last_activity_at` is true to a minute: a session's row is written at most so often.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// The authority of a deployment.
#[derive(Clone)]
pub struct PostgresAuthority {
    database: Database,
    clock: Arc<dyn Clock>,
    /// When the sessions with open documents were last noted as active, by tenant.
    noted: Arc<Mutex<HashMap<TenantId, Instant>>>,
}

impl PostgresAuthority {
    /// Over this database; `clock` gives new documents their ids.
    pub fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock, noted: Arc::default() }
    }

    /// The sessions among `held`, when it is time to note that they are active.
    fn to_note(&self, tenant: TenantId, held: &[Held]) -> Vec<Uuid> {
        let now = self.clock.instant();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() || noted.get(&tenant).is_some_and(|at| now.saturating_duration_since(*at) < NOTE_INTERVAL) {
            return Vec::new();
        }
        noted.insert(tenant, now);
        held.iter().map(|held| held.session.0).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What decides a role in a document.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    /// Administers the tenant.
    tenant_admin: bool,
    /// An application's own user, who is what the application's ticket says.
    external: bool,
    /// In the document's project.
    membership: Option<Role>,
    /// What the session reaches.
    scope: &'a Scope,
    /// The project is only read.
    archived: bool,
}

/// The role in `document`, or none.
fn role_in(document: DocumentId, facts: Facts<'_>) -> Option<Role> {
    let own = if facts.tenant_admin { Some(Role::Admin) } else { facts.membership };
    let role = match *facts.scope {
        Scope::User => own?,
        Scope::Document(scope, _) if scope != document => return None,
        Scope::Document(_, at_most) if facts.external => at_most,
        Scope::Document(_, at_most) => own?.min(at_most),
    };
    Some(if facts.archived { Role::Viewer } else { role })
}

#[async_trait]
impl Authority for PostgresAuthority {
    async fn authenticate(&self, token: &Token) -> Result<Caller, AccessDenied> {
        let (tenant, hash) = tokens::parse(token).ok_or(AccessDenied::BadToken)?;
        let mut db = begin(&self.database, tenant).await.map_err(unavailable)?;
        match session_of(&mut db, &hash).await.map_err(unavailable)? {
            Some(session) if session.kind != "ticket" => {
                if session.unseen {
                    // For lists of sessions only: whether it is stored changes nothing for the caller.
                    touch(&mut db, &[session.caller.session.0]).await.ok();
                    db.commit().await.ok();
                }
                return Ok(session.caller);
            }
            Some(_) => return Err(AccessDenied::BadToken), // consumed
            None => {}
        }
        if !redeem(&mut db, &hash).await.map_err(unavailable)? {
            return Err(AccessDenied::BadToken);
        }
        let session = session_of(&mut db, &hash).await.map_err(unavailable)?.ok_or(AccessDenied::BadToken)?;
        db.commit().await.map_err(unavailable)?;
        Ok(session.caller)
    }

    async fn open(&self, caller: &Caller, room: &RoomName) -> Result<Grant, AccessDenied> {
        for _ in 0..OPEN_ATTEMPTS {
            let mut db = begin(&self.database, caller.tenant).await.map_err(unavailable)?;
            match open(&mut db, caller, room, self.clock.as_ref()).await {
                Ok(Opened::There(grant)) => return Ok(grant),
                Ok(Opened::Created(grant)) => {
                    db.commit().await.map_err(unavailable)?;
                    tracing::info!(document.id = %grant.document, "created document {} on first connect", grant.document);
                    return Ok(grant);
                }
                Ok(Opened::Denied(why)) => return Err(why),
                // Somebody gave that name to another document just now, as a former name.
                Err(StoreError::Taken { .. }) => {}
                Err(StoreError::Invalid { .. }) => return Err(AccessDenied::BadName),
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(AccessDenied::Unavailable)
    }

    async fn recheck(&self, tenant: TenantId, since: Option<u64>, held: &[Held]) -> Result<Rechecked, AccessDenied> {
        let mut db = begin(&self.database, tenant).await.map_err(unavailable)?;
        // First the number, then what it stands for: a change in between is found twice, and never missed.
        let epoch = epoch(&mut db).await.map_err(unavailable)?;
        let standings = match since {
            Some(since) if since == epoch => Vec::new(),
            _ if held.is_empty() => Vec::new(),
            _ => standings(&mut db, held).await.map_err(unavailable)?,
        };
        // Whoever has a document open is there, also without presenting a token again.
        let active = self.to_note(tenant, held);
        if !active.is_empty() {
            touch(&mut db, &active).await.ok();
            db.commit().await.ok();
        }
        Ok(Rechecked { epoch, standings })
    }
}

fn unavailable(error: StoreError) -> AccessDenied {
    match &error {
        StoreError::Unavailable(source) => tracing::warn!("access cannot be checked: {source}"),
        _ => tracing::error!(
            "access cannot be checked: {error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        ),
    }
    AccessDenied::Unavailable
}

struct Session {
    kind: String,
    /// Not presented for a minute, as far as the tables know.
    unseen: bool,
    caller: Caller,
}

fn scope(document: Option<Uuid>, role: Option<&str>) -> Result<Scope, StoreError> {
    match (document, role) {
        (Some(document), Some(role)) => Ok(Scope::Document(DocumentId(document), super::projects::role(role)?)),
        _ => Ok(Scope::User),
    }
}

#[tracing::instrument(name = "pg.authority.session_of", skip_all, err)]
async fn session_of(db: &mut TenantTx, hash: &tokens::TokenHash) -> Result<Option<Session>, StoreError> {
    let row = sqlx::query!(
        r#"select id as "id!", user_id as "user_id!", kind as "kind!", document_id, role, expires_at as "expires_at!",
                  is_tenant_admin as "is_tenant_admin!",
                  coalesce(last_activity_at < now() - interval '1 minute', true) as "unseen!"
             from sessions_in_force where tenant_id = $1 and token_hash = $2"#,
        db.tenant.0,
        &hash[..]
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let caller = Caller {
        tenant: db.tenant,
        user: UserId(row.user_id),
        session: SessionId(row.id),
        scope: scope(row.document_id, row.role.as_deref())?,
        tenant_admin: row.is_tenant_admin,
        expires_at: row.expires_at,
    };
    Ok(Some(Session { kind: row.kind, unseen: row.unseen, caller }))
}

/// Notes that these sessions are active, those of which that is not known for a minute. Of many at once one does it.
async fn touch(db: &mut TenantTx, sessions: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "update user_sessions set last_activity_at = now()
          where tenant_id = $1 and id in (select id from user_sessions
                                           where tenant_id = $1 and id = any ($2)
                                             and coalesce(last_activity_at < now() - interval '1 minute', true)
                                           order by id for no key update skip locked)",
        db.tenant.0,
        sessions
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(())
}

/// Consumes a ticket: of two at once one succeeds.
#[tracing::instrument(name = "pg.authority.redeem", skip_all, err)]
async fn redeem(db: &mut TenantTx, hash: &tokens::TokenHash) -> Result<bool, StoreError> {
    let update = sqlx::query!(
        "update user_sessions set redeemed_at = now()
          where tenant_id = $1 and token_hash = $2 and kind = 'ticket' and redeemed_at is null and redeem_by > now()",
        db.tenant.0,
        &hash[..]
    );
    Ok(update.execute(&mut *db.tx).await?.rows_affected() == 1)
}

enum Opened {
    There(Grant),
    Created(Grant),
    Denied(AccessDenied),
}

async fn open(db: &mut TenantTx, caller: &Caller, room: &RoomName, clock: &dyn Clock) -> Result<Opened, StoreError> {
    let Some(subject) = subject(db, caller).await? else { return Ok(Opened::Denied(AccessDenied::BadToken)) };
    let place = match room {
        RoomName::Id(document) => place_by_id(db, caller.user, *document).await?,
        RoomName::Named { project, name } => place_by_name(db, caller.user, project.as_deref(), name).await?,
    };
    let Some(place) = place else { return Ok(Opened::Denied(AccessDenied::NoSuchDocument)) };
    let facts = Facts {
        tenant_admin: subject.tenant_admin,
        external: subject.external,
        membership: place.membership,
        scope: &caller.scope,
        archived: place.archived,
    };
    if let Some((document, deleted)) = place.document {
        return Ok(match role_in(document, facts) {
            None => Opened::Denied(AccessDenied::NoSuchDocument),
            Some(_) if deleted => Opened::Denied(AccessDenied::Deleted),
            Some(role) => Opened::There(Grant { document, project: place.project, role }),
        });
    }
    let RoomName::Named { name, .. } = room else { return Ok(Opened::Denied(AccessDenied::NoSuchDocument)) };
    let document = DocumentId(clock.fresh_id());
    let role = match role_in(document, facts) {
        // Somebody who is in the project hears that there is nothing, anybody else what everybody hears.
        None => return Ok(Opened::Denied(AccessDenied::NoSuchDocument)),
        Some(role) if !role.may_write() || !place.auto_create => return Ok(Opened::Denied(AccessDenied::MayNotCreate)),
        Some(role) => role,
    };
    if create(db, document, place.project, name, caller.user).await? {
        return Ok(Opened::Created(Grant { document, project: place.project, role }));
    }
    // Another node was first: it has committed by now.
    match place_in_project(db, place.project, name).await? {
        Some((document, false)) => Ok(Opened::There(Grant { document, project: place.project, role })),
        Some((_, true)) => Ok(Opened::Denied(AccessDenied::Deleted)),
        None => Err(StoreError::Taken { constraint: "content_items_name_key".to_owned() }),
    }
}

struct Subject {
    external: bool,
    tenant_admin: bool,
}

/// The caller as the tables know it now; none when its session ended since it was authenticated.
async fn subject(db: &mut TenantTx, caller: &Caller) -> Result<Option<Subject>, StoreError> {
    let row = sqlx::query!(
        r#"select user_kind = 'external' as "external!", is_tenant_admin as "tenant_admin!"
             from sessions_in_force where tenant_id = $1 and id = $2 and user_id = $3"#,
        db.tenant.0,
        caller.session.0,
        caller.user.0
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(row.map(|row| Subject { external: row.external, tenant_admin: row.tenant_admin }))
}

/// Where a room is, or would be.
struct Place {
    project: ProjectId,
    auto_create: bool,
    archived: bool,
    membership: Option<Role>,
    /// And whether it has a tombstone.
    document: Option<(DocumentId, bool)>,
}

async fn place_by_id(db: &mut TenantTx, user: UserId, document: DocumentId) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query!(
        r#"select d.project_id, d.deleted_at is not null as "deleted!", p.is_archived, m.role as "role?"
             from content_items d
             join projects p on p.tenant_id = d.tenant_id and p.id = d.project_id
             left join project_memberships m
               on m.tenant_id = d.tenant_id and m.project_id = d.project_id and m.user_id = $3
            where d.tenant_id = $1 and d.id = $2"#,
        db.tenant.0,
        document.0,
        user.0
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Place {
        project: ProjectId(row.project_id),
        auto_create: false,
        archived: row.is_archived,
        membership: row.role.as_deref().map(super::projects::role).transpose()?,
        document: Some((document, row.deleted)),
    }))
}

async fn place_by_name(
    db: &mut TenantTx,
    user: UserId,
    project: Option<&str>,
    name: &str,
) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query!(
        r#"select p.id, p.auto_create_documents, p.is_archived, m.role as "role?"
             from projects p
             left join project_memberships m on m.tenant_id = p.tenant_id and m.project_id = p.id and m.user_id = $3
            where p.tenant_id = $1 and case when $2::text is null then p.is_default else p.slug = $2 end"#,
        db.tenant.0,
        project,
        user.0
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Place {
        project: ProjectId(row.id),
        auto_create: row.auto_create_documents,
        archived: row.is_archived,
        membership: row.role.as_deref().map(super::projects::role).transpose()?,
        document: place_in_project(db, ProjectId(row.id), name).await?,
    }))
}

/// The document of this name, else of this former name.
async fn place_in_project(
    db: &mut TenantTx,
    project: ProjectId,
    name: &str,
) -> Result<Option<(DocumentId, bool)>, StoreError> {
    let row = sqlx::query!(
        r#"select d.id, d.deleted_at is not null as "deleted!"
             from content_items d
            where d.tenant_id = $1 and d.id = coalesce(
                  (select id from content_items where tenant_id = $1 and project_id = $2 and name = $3),
                  (select document_id from document_aliases where tenant_id = $1 and project_id = $2 and name = $3))"#,
        db.tenant.0,
        project.0,
        name
    )
    .fetch_optional(&mut *db.tx)
    .await?;
    Ok(row.map(|row| (DocumentId(row.id), row.deleted)))
}

/// False: somebody else created a document of that name, and has committed.
#[tracing::instrument(name = "pg.authority.create", skip_all, fields(document.id = %document), err)]
async fn create(
    db: &mut TenantTx,
    document: DocumentId,
    project: ProjectId,
    name: &str,
    user: UserId,
) -> Result<bool, StoreError> {
    let insert = sqlx::query!(
        "insert into content_items (tenant_id, id, project_id, name, title, created_by) values ($1, $2, $3, $4, $4, $5)
         on conflict (tenant_id, project_id, name) do nothing",
        db.tenant.0,
        document.0,
        project.0,
        name,
        user.0
    );
    Ok(insert.execute(&mut *db.tx).await?.rows_affected() == 1)
}

/// 0 for a tenant that is not there.
async fn epoch(db: &mut TenantTx) -> Result<u64, StoreError> {
    let epoch = sqlx::query_scalar!("select epoch from tenant_access_epochs where tenant_id = $1", db.tenant.0)
        .fetch_optional(&mut *db.tx)
        .await?;
    Ok(epoch.unwrap_or_default().unsigned_abs())
}

/// Where every held right stands, in one query.
#[tracing::instrument(name = "pg.authority.standings", skip_all, fields(held = held.len()), err)]
async fn standings(db: &mut TenantTx, held: &[Held]) -> Result<Vec<(Held, Standing)>, StoreError> {
    let sessions: Vec<Uuid> = held.iter().map(|held| held.session.0).collect();
    let users: Vec<Uuid> = held.iter().map(|held| held.user.0).collect();
    let documents: Vec<Uuid> = held.iter().map(|held| held.document.0).collect();
    let rows = sqlx::query!(
        r#"select held.n as "n!", s.id as "session?", s.user_kind as "user_kind?", s.is_tenant_admin as "is_tenant_admin?",
                  s.document_id as "scope_document?", s.role as "scope_role?",
                  d.project_id as "project?", d.deleted_at is not null as "deleted!", p.is_archived as "archived?",
                  m.role as "membership?"
             from unnest($2::uuid[], $3::uuid[], $4::uuid[]) with ordinality as held (session_id, user_id, document_id, n)
             left join sessions_in_force s
               on s.tenant_id = $1 and s.id = held.session_id and s.user_id = held.user_id
             left join content_items d on d.tenant_id = $1 and d.id = held.document_id
             left join projects p on p.tenant_id = $1 and p.id = d.project_id
             left join project_memberships m
               on m.tenant_id = $1 and m.project_id = d.project_id and m.user_id = held.user_id"#,
        db.tenant.0,
        &sessions,
        &users,
        &documents
    )
    .fetch_all(&mut *db.tx)
    .await?;
    let mut standings = HashMap::with_capacity(rows.len());
    for row in rows {
        let Some(&right) = usize::try_from(row.n - 1).ok().and_then(|place| held.get(place)) else { continue };
        let standing = if row.session.is_none() {
            Standing::SessionEnded
        } else {
            let facts = Facts {
                tenant_admin: row.is_tenant_admin == Some(true),
                external: row.user_kind.as_deref() == Some("external"),
                membership: row.membership.as_deref().map(super::projects::role).transpose()?,
                scope: &scope(row.scope_document, row.scope_role.as_deref())?,
                archived: row.archived == Some(true),
            };
            match (row.project, role_in(right.document, facts)) {
                (Some(_), None) => Standing::Forbidden,
                (Some(project), Some(role)) if !row.deleted => {
                    Standing::Granted(Grant { document: right.document, project: ProjectId(project), role })
                }
                (Some(_), Some(_)) => Standing::Deleted,
                (None, _) => Standing::Gone,
            }
        };
        standings.insert(right, standing);
    }
    Ok(standings.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: DocumentId = DocumentId(Uuid::from_u128(1));
    const ELSEWHERE: DocumentId = DocumentId(Uuid::from_u128(2));

    fn facts(membership: Option<Role>, scope: &Scope) -> Facts<'_> {
        Facts { tenant_admin: false, external: false, membership, scope, archived: false }
    }

    #[test]
    fn a_member_has_its_role_and_nobody_else_any() {
        assert_eq!(role_in(HERE, facts(Some(Role::Editor), &Scope::User)), Some(Role::Editor));
        assert_eq!(role_in(HERE, facts(None, &Scope::User)), None);
        assert_eq!(role_in(HERE, Facts { tenant_admin: true, ..facts(None, &Scope::User) }), Some(Role::Admin));
    }

    #[test]
    fn a_session_of_one_document_has_at_most_its_role_and_only_there() {
        let (viewer, admin) = (Scope::Document(HERE, Role::Viewer), Scope::Document(HERE, Role::Admin));
        assert_eq!(role_in(HERE, facts(Some(Role::Editor), &viewer)), Some(Role::Viewer));
        assert_eq!(role_in(HERE, facts(Some(Role::Editor), &admin)), Some(Role::Editor));
        assert_eq!(role_in(HERE, facts(None, &admin)), None, "its user is no member any more");
        assert_eq!(role_in(ELSEWHERE, facts(Some(Role::Admin), &admin)), None);
    }

    #[test]
    fn an_applications_own_user_is_what_its_ticket_says() {
        let ticket = Scope::Document(HERE, Role::Editor);
        assert_eq!(role_in(HERE, Facts { external: true, ..facts(None, &ticket) }), Some(Role::Editor));
        assert_eq!(role_in(ELSEWHERE, Facts { external: true, ..facts(None, &ticket) }), None);
        assert_eq!(role_in(HERE, Facts { external: true, ..facts(None, &Scope::User) }), None);
    }

    #[test]
    fn nobody_writes_in_an_archived_project() {
        assert_eq!(
            role_in(HERE, Facts { archived: true, ..facts(Some(Role::Admin), &Scope::User) }),
            Some(Role::Viewer)
        );
        assert_eq!(role_in(HERE, Facts { archived: true, ..facts(None, &Scope::User) }), None);
    }
}
