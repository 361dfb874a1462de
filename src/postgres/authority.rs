//! Who a token belongs to and what it may do, from the tables: [`Authority`] over sessions, users, memberships and documents.

use super::documents::{self, NewDocument};
use super::{Database, StoreError, TenantTx, begin, begin_planned_once};
use crate::tokens;
use async_trait::async_trait;
use contextnexus_actors::access::{Caller, Grant, Role, Scope, Token};
use contextnexus_actors::clock::Clock;
use contextnexus_actors::ids::{DocumentId, ProjectId, TenantId};
use contextnexus_actors::ports::{AccessDenied, Authority, Place, Rechecked, RightInUse, RoomName, Standing};
use contextnexus_actors::report;
use contextnexus_actors::room::{self, NameRefused};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

mod lookup;

use super::batcher::Batcher;
use lookup::{Found, Places, Room, Sessions};

/// A room whose name another node takes at the same moment is looked up again so often.
const OPEN_ATTEMPTS: u32 = 3;
/// `last_activity_at` is true to a minute: a session's row is written at most so often.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// The authority of a deployment.
#[derive(Clone)]
pub struct PostgresAuthority {
    database: Database,
    clock: Arc<dyn Clock>,
    sessions: Arc<Batcher<Sessions>>,
    places: Arc<Batcher<Places>>,
    /// When the sessions with open documents were last noted as active, by tenant.
    noted: Arc<Mutex<HashMap<TenantId, Instant>>>,
}

impl PostgresAuthority {
    /// Over this database; `clock` gives new documents their ids.
    pub fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        let sessions = Arc::new(Batcher::new(Sessions(database.clone())));
        let places = Arc::new(Batcher::new(Places { database: database.clone(), clock: clock.clone() }));
        Self { database, clock, sessions, places, noted: Arc::default() }
    }

    /// The user sessions among `rights`, when it is time to note that they are active.
    fn to_note(&self, tenant: TenantId, rights: &[RightInUse]) -> Vec<Uuid> {
        let now = self.clock.instant();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if rights.is_empty() || noted.get(&tenant).is_some_and(|at| now.saturating_duration_since(*at) < NOTE_INTERVAL)
        {
            return Vec::new();
        }
        noted.insert(tenant, now);
        rights.iter().map(|right| right.user_session.0).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl PostgresAuthority {
    async fn note_active(&self, tenant: TenantId, sessions: &[Uuid]) -> Result<(), StoreError> {
        let mut db = begin(&self.database, tenant).await?;
        touch(&mut db, sessions).await?;
        db.commit().await
    }

    /// The caller that a ticket makes: of two at once one succeeds.
    async fn redeem(&self, tenant: TenantId, hash: &tokens::TokenHash) -> Result<Caller, AccessDenied> {
        let mut db = begin(&self.database, tenant).await.map_err(unavailable)?;
        if !redeem(&mut db, hash).await.map_err(unavailable)? {
            return Err(AccessDenied::BadToken);
        }
        let session = lookup::sessions(&mut db, &[*hash]).await.map_err(unavailable)?.pop().flatten();
        let session = session.ok_or(AccessDenied::BadToken)?;
        db.commit().await.map_err(unavailable)?;
        Ok(session.caller)
    }

    /// Creates a document where there is none; `None`: somebody else is doing so.
    async fn create(
        &self,
        caller: &Caller,
        asked: &Room,
        fresh: DocumentId,
    ) -> Result<Option<Result<Grant, AccessDenied>>, StoreError> {
        let at = self.clock.instant();
        let mut db = begin(&self.database, caller.tenant).await?;
        let found = lookup::places(&mut db, std::slice::from_ref(asked), at).await?.pop();
        let decision = decide(caller, &asked.room, &found.unwrap_or_default());
        let (Decision::Create { project, role, until, own_id }, RoomName::Named { name, .. }) =
            (&decision, &asked.room)
        else {
            return Ok(match decision {
                Decision::Answer(answer) => Some(answer),
                Decision::Create { .. } => None,
            });
        };
        let document = own_id.unwrap_or(fresh);
        let new = NewDocument { fresh, project: *project, name, title: name, created_by: caller.user };
        if !documents::insert(&mut db, document, &new).await? {
            return Ok(None);
        }
        db.commit().await?;
        tracing::info!(document.id = %document, "created document {document} on first connect");
        Ok(Some(Ok(Grant { document, project: *project, role: *role, until: *until })))
    }
}

/// What a room and the one who asks for it come to.
#[derive(Debug)]
enum Decision {
    Answer(Result<Grant, AccessDenied>),
    /// There is nothing of that name, and the caller may create it.
    Create {
        project: ProjectId,
        role: Role,
        until: Option<Instant>,
        /// The id that it gets; a fresh one unless the name is one.
        own_id: Option<DocumentId>,
    },
}

fn decide(caller: &Caller, room: &RoomName, found: &Found) -> Decision {
    // The caller as the tables know it now; none when its session ended since it was authenticated.
    let Some(subject) = &found.subject else { return Decision::Answer(Err(AccessDenied::BadToken)) };
    // Whoever reaches one document only hears nothing of projects.
    let nothing = match (room, caller.scope) {
        (RoomName::Named { .. }, Scope::User) => AccessDenied::NoSuchProject,
        _ => AccessDenied::NoSuchDocument,
    };
    let Some(place) = &found.place else { return Decision::Answer(Err(nothing)) };
    let facts = Facts {
        tenant_admin: subject.tenant_admin,
        external: subject.external,
        membership: place.membership,
        scope: &caller.scope,
        only_read: place.archived || place.read_only,
    };
    if let Some((document, deleted)) = place.document {
        return Decision::Answer(match role_in(document, facts) {
            None => Err(nothing),
            Some(_) if deleted => Err(AccessDenied::Deleted),
            Some(role) => Ok(Grant { document, project: place.project, role, until: subject.until }),
        });
    }
    let RoomName::Named { name, .. } = room else {
        return Decision::Answer(Err(AccessDenied::NoSuchDocument));
    };
    // Whoever reaches one document only does not reach one that is not there.
    let Some(role) = role_in(DocumentId(Uuid::nil()), facts) else { return Decision::Answer(Err(nothing)) };
    let own_id = room::id_in(name).filter(|_| !found.is_id_taken);
    if found.is_id_taken && place.is_default {
        // The document of this id is in a project that the caller does not see (any more). A new one of this name would
        // gather what clients of the old one bring along.
        return Decision::Answer(Err(AccessDenied::NoSuchDocument));
    }
    if role.may_write() && place.auto_create {
        Decision::Create { project: place.project, role, until: subject.until, own_id }
    } else {
        Decision::Answer(Err(AccessDenied::MayNotCreate))
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
    /// The project is archived, or the document closed for writing.
    only_read: bool,
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
    Some(if facts.only_read { Role::Viewer } else { role })
}

#[async_trait]
impl Authority for PostgresAuthority {
    async fn authenticate(&self, token: &Token) -> Result<Caller, AccessDenied> {
        let (tenant, hash) = tokens::parse(token).ok_or(AccessDenied::BadToken)?;
        match self.sessions.ask(tenant, hash).await.ok_or(AccessDenied::Unavailable)? {
            Some(session) if session.kind != "ticket" => Ok(session.caller),
            Some(_) => Err(AccessDenied::BadToken), // consumed
            None => self.redeem(tenant, &hash).await,
        }
    }

    async fn open(&self, caller: &Caller, room: &RoomName) -> Result<Grant, AccessDenied> {
        let asked =
            Room { user_session: caller.user_session, user: caller.user, scope: caller.scope, room: room.clone() };
        let found = self.places.ask(caller.tenant, asked.clone()).await.ok_or(AccessDenied::Unavailable)?;
        if let Decision::Answer(answer) = decide(caller, room, &found) {
            return answer;
        }
        for _ in 0..OPEN_ATTEMPTS {
            let fresh = DocumentId(self.clock.fresh_id());
            match self.create(caller, &asked, fresh).await {
                Ok(Some(answer)) => return answer,
                // Another node was first, and has committed by now; or somebody gave that name to another document, as
                // a former name or as its id.
                Ok(None) | Err(StoreError::Taken { .. }) => {}
                // The rule of the table is wider than that of names, so this is a caller that did not ask for it.
                Err(StoreError::Invalid { .. }) => return Err(AccessDenied::BadName(NameRefused::Control)),
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(AccessDenied::Unavailable)
    }

    async fn recheck(
        &self,
        tenant: TenantId,
        since: Option<u64>,
        rights: &[RightInUse],
    ) -> Result<Rechecked, AccessDenied> {
        // First the number, then what it stands for: a change in between is found twice, and never missed.
        let epoch = epoch(&self.database, tenant).await.map_err(unavailable)?;
        let standings = if since == Some(epoch) || rights.is_empty() {
            Vec::new()
        } else {
            let at = self.clock.instant();
            let mut db = begin_planned_once(&self.database, tenant).await.map_err(unavailable)?;
            standings(&mut db, rights, at).await.map_err(unavailable)?
        };
        // Whoever has a document open is there, also without presenting a token again.
        let active = self.to_note(tenant, rights);
        if !active.is_empty() {
            self.note_active(tenant, &active).await.ok();
        }
        Ok(Rechecked { epoch, standings })
    }
}

/// When a session ends that, at `at` or later, had so many seconds left by the database's clock. So one clock decides on every node, and a
/// node's own, which may be wrong, does not.
fn ends(at: Instant, lasts_s: f64) -> Option<Instant> {
    Duration::try_from_secs_f64(lasts_s.max(0.0)).ok().and_then(|lasts| at.checked_add(lasts))
}

fn unavailable(error: StoreError) -> AccessDenied {
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    report!(error.cause(), "access cannot be checked: {error}: {source}");
    AccessDenied::Unavailable
}

fn scope(document: Option<Uuid>, role: Option<&str>) -> Result<Scope, StoreError> {
    match (document, role) {
        (Some(document), Some(role)) => Ok(Scope::Document(DocumentId(document), super::projects::role(role)?)),
        _ => Ok(Scope::User),
    }
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
#[tracing::instrument(name = "pg.authority.redeem", skip_all, err(level = "debug"))]
async fn redeem(db: &mut TenantTx, hash: &tokens::TokenHash) -> Result<bool, StoreError> {
    let update = sqlx::query!(
        "update user_sessions set redeemed_at = now()
          where tenant_id = $1 and token_hash = $2 and kind = 'ticket' and redeemed_at is null and redeem_by > now()",
        db.tenant.0,
        &hash[..]
    );
    Ok(update.execute(&mut *db.tx).await?.rows_affected() == 1)
}

/// 0 for a tenant that is not there.
async fn epoch(database: &Database, tenant: TenantId) -> Result<u64, StoreError> {
    let rows = database.pinned.ask(sqlx::query!("select access_epoch($1) as epoch", tenant.0)).await?;
    Ok(rows.first().and_then(|row| row.epoch).unwrap_or_default().unsigned_abs())
}

/// How every right in use is now, in one query, which was asked no earlier than `at`.
#[tracing::instrument(name = "pg.authority.standings", skip_all, fields(rights = rights.len()), err(level = "debug"))]
async fn standings(
    db: &mut TenantTx,
    rights: &[RightInUse],
    at: Instant,
) -> Result<Vec<(RightInUse, Standing)>, StoreError> {
    let sessions: Vec<Uuid> = rights.iter().map(|right| right.user_session.0).collect();
    let users: Vec<Uuid> = rights.iter().map(|right| right.user.0).collect();
    let document = |right: &RightInUse| match right.place {
        Place::Document(document) => document,
    };
    let documents: Vec<Uuid> = rights.iter().map(|right| document(right).0).collect();
    let rows = sqlx::query!(
        r#"select used.n as "n!", s.id as "session?", s.user_kind as "user_kind?", s.is_tenant_admin as "is_tenant_admin?",
                  extract(epoch from s.expires_at - now())::float8 as "lasts_s?",
                  s.document_id as "scope_document?", s.role as "scope_role?",
                  d.project_id as "project?", d.deleted_at is not null as "deleted!", p.is_archived as "archived?",
                  h.read_only_since is not null as "read_only!",
                  m.role as "membership?"
             from unnest($2::uuid[], $3::uuid[], $4::uuid[])
                      with ordinality as used (user_session_id, user_id, document_id, n)
             left join user_sessions_in_force s
               on s.tenant_id = $1 and s.id = used.user_session_id and s.user_id = used.user_id
             left join content_items d on d.tenant_id = $1 and d.id = used.document_id
             left join document_heads h on h.tenant_id = $1 and h.document_id = d.id
             left join projects p on p.tenant_id = $1 and p.id = d.project_id
             left join project_memberships m
               on m.tenant_id = $1 and m.project_id = d.project_id and m.user_id = used.user_id"#,
        db.tenant.0,
        &sessions,
        &users,
        &documents
    )
    .fetch_all(&mut *db.tx)
    .await?;
    let mut standings = HashMap::with_capacity(rows.len());
    for row in rows {
        let Some(&right) = usize::try_from(row.n - 1).ok().and_then(|place| rights.get(place)) else { continue };
        let document = document(&right);
        let standing = if row.session.is_none() {
            Standing::SessionEnded
        } else {
            let facts = Facts {
                tenant_admin: row.is_tenant_admin == Some(true),
                external: row.user_kind.as_deref() == Some("external"),
                membership: row.membership.as_deref().map(super::projects::role).transpose()?,
                scope: &scope(row.scope_document, row.scope_role.as_deref())?,
                only_read: row.archived == Some(true) || row.read_only,
            };
            match (row.project, role_in(document, facts)) {
                (Some(_), None) => Standing::Forbidden,
                (Some(project), Some(role)) if !row.deleted => {
                    let until = row.lasts_s.and_then(|lasts_s| ends(at, lasts_s));
                    Standing::Granted(Grant { document, project: ProjectId(project), role, until })
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
        Facts { tenant_admin: false, external: false, membership, scope, only_read: false }
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
            role_in(HERE, Facts { only_read: true, ..facts(Some(Role::Admin), &Scope::User) }),
            Some(Role::Viewer)
        );
        assert_eq!(role_in(HERE, Facts { only_read: true, ..facts(None, &Scope::User) }), None);
    }
}
