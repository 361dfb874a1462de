//! Sessions and rooms, many in one query.

use super::{ends, scope, touch, unavailable};
use crate::postgres::batcher::BatchQuery;
use crate::postgres::projects::role;
use crate::postgres::{Database, StoreError, TenantTx, begin_planned_once};
use crate::tokens::TokenHash;
use async_trait::async_trait;
use contextnexus_actors::access::{Caller, Role, Scope};
use contextnexus_actors::clock::Clock;
use contextnexus_actors::ids::{DocumentId, ProjectId, TenantId, UserId, UserSessionId};
use contextnexus_actors::ports::RoomName;
use contextnexus_actors::room;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Answers tokens with the sessions in force.
pub(super) struct Sessions(pub Database);

/// A session in force.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub kind: String,
    pub caller: Caller,
    /// Not presented for a minute, as far as the tables know.
    unseen: bool,
}

#[async_trait]
impl BatchQuery for Sessions {
    type Question = TokenHash;
    type Answer = Option<Session>;

    const WAITING: &'static str = "contextnexus_authority_waiting";

    async fn run(&self, tenant: TenantId, hashes: &[TokenHash]) -> Option<Vec<Option<Session>>> {
        let look = async {
            let mut db = begin_planned_once(&self.0, tenant).await?;
            let sessions = sessions(&mut db, hashes).await?;
            let unseen = sessions.iter().flatten().filter(|session| session.unseen && session.kind != "ticket");
            let mut unseen: Vec<Uuid> = unseen.map(|session| session.caller.user_session.0).collect();
            if !unseen.is_empty() {
                unseen.sort_unstable();
                unseen.dedup();
                // For lists of sessions only: whether it is stored changes nothing for the callers.
                touch(&mut db, &unseen).await.ok();
                db.commit().await.ok();
            }
            Ok(sessions)
        };
        look.await.map_err(unavailable).ok()
    }
}

/// The session in force of each token, in their order.
#[tracing::instrument(name = "pg.authority.sessions", skip_all, fields(tokens = hashes.len()), err(level = "debug"))]
pub(super) async fn sessions(db: &mut TenantTx, hashes: &[TokenHash]) -> Result<Vec<Option<Session>>, StoreError> {
    let asked: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
    let rows = sqlx::query!(
        r#"select w.n as "n!", s.id as "id!", s.user_id as "user_id!", s.kind as "kind!", s.document_id, s.role,
                  s.expires_at as "expires_at!", s.is_tenant_admin as "is_tenant_admin!",
                  coalesce(s.last_activity_at < now() - interval '1 minute', true) as "unseen!"
             from unnest($2::bytea[]) with ordinality as w (token_hash, n)
             join user_sessions_in_force s on s.tenant_id = $1 and s.token_hash = w.token_hash"#,
        db.tenant.0,
        &asked as &[&[u8]]
    )
    .fetch_all(&mut *db.tx)
    .await?;
    let mut sessions = vec![None; hashes.len()];
    for row in rows {
        let Some(session) = place_of(row.n, &mut sessions) else { continue };
        *session = Some(Session {
            kind: row.kind,
            unseen: row.unseen,
            caller: Caller {
                tenant: db.tenant,
                user: UserId(row.user_id),
                user_session: UserSessionId(row.id),
                scope: scope(row.document_id, row.role.as_deref())?,
                tenant_admin: row.is_tenant_admin,
                expires_at: row.expires_at,
            },
        });
    }
    Ok(sessions)
}

/// Answers rooms with what is there, and with who asks.
pub(super) struct Places {
    pub database: Database,
    pub clock: Arc<dyn Clock>,
}

/// Who wants to know of which room.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub user_session: UserSessionId,
    pub user: UserId,
    pub scope: Scope,
    pub room: RoomName,
}

/// What the tables know of a room and of who asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// `None` when the session has ended.
    pub subject: Option<Subject>,
    /// `None` when there is no such project, or, asked for by id, no such document.
    pub place: Option<Place>,
    /// The name is an id that a new document of this name cannot have: another document has it, or has it as its name
    /// in the default project.
    pub is_id_taken: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub external: bool,
    pub tenant_admin: bool,
    /// When the session ends by itself.
    pub until: Option<Instant>,
}

/// Where a room is, or would be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub project: ProjectId,
    pub is_default: bool,
    pub auto_create: bool,
    pub archived: bool,
    /// The document was closed for writing.
    pub read_only: bool,
    pub membership: Option<Role>,
    /// And whether it has a tombstone.
    pub document: Option<(DocumentId, bool)>,
}

#[async_trait]
impl BatchQuery for Places {
    type Question = Room;
    type Answer = Found;

    const WAITING: &'static str = "contextnexus_authority_waiting";

    async fn run(&self, tenant: TenantId, rooms: &[Room]) -> Option<Vec<Found>> {
        let at = self.clock.instant();
        let look = async { places(&mut begin_planned_once(&self.database, tenant).await?, rooms, at).await };
        look.await.map_err(unavailable).ok()
    }
}

/// What is known of each room, in their order, asked no earlier than `at`. A name is the id of a document that the
/// caller sees, else the name of one, else a former name. Each `offset 0` keeps PostgreSQL from joining by the
/// expression before it, for which it would read all documents, or all projects, of the tenant.
#[tracing::instrument(name = "pg.authority.places", skip_all, fields(rooms = rooms.len()), err(level = "debug"))]
pub(super) async fn places(db: &mut TenantTx, rooms: &[Room], at: Instant) -> Result<Vec<Found>, StoreError> {
    let sessions: Vec<Uuid> = rooms.iter().map(|room| room.user_session.0).collect();
    let users: Vec<Uuid> = rooms.iter().map(|room| room.user.0).collect();
    let (mut documents, mut projects, mut names) = (vec![], vec![], vec![]);
    let (mut ids, mut scopes) = (vec![], vec![]);
    for room in rooms {
        let (document, project, name) = match &room.room {
            RoomName::Id(document) => (Some(document.0), None, None),
            RoomName::Named { project, name } => (None, project.clone(), Some(name.clone())),
        };
        documents.push(document);
        projects.push(project);
        ids.push(name.as_deref().and_then(room::id_in).map(|id| id.0));
        names.push(name);
        scopes.push(match room.scope {
            Scope::User => None,
            Scope::Document(only, _) => Some(only.0),
        });
    }
    let rows = sqlx::query!(
        r#"select w.n as "n!", s.user_kind as "user_kind?", s.is_tenant_admin as "is_tenant_admin?",
                  extract(epoch from s.expires_at - now())::float8 as "lasts_s?",
                  p.id as "project?", p.is_default as "is_default?",
                  p.auto_create_documents as "auto_create?", p.is_archived as "archived?",
                  m.role as "membership?", d.id as "document?", d.deleted_at is not null as "deleted!",
                  h.read_only_since is not null as "read_only!", taken.yes as "is_id_taken!"
             from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::uuid[], $8::uuid[])
                      with ordinality as w (user_session_id, user_id, document_id, project, name, name_as_id, scope, n)
             left join user_sessions_in_force s on s.tenant_id = $1 and s.id = w.user_session_id and s.user_id = w.user_id
            cross join lateral (select case
                      when w.document_id is not null then null
                      when w.project is null then (select id from projects where tenant_id = $1 and is_default)
                      else (select id from projects where tenant_id = $1 and slug = w.project) end as id offset 0) as named
            cross join lateral (select coalesce(
                      w.document_id,
                      (select c.id from content_items c
                        where c.tenant_id = $1 and c.id = w.name_as_id
                          and (w.project is null or c.project_id = named.id)
                          and case when w.scope is not null then c.id = w.scope
                                   else s.is_tenant_admin or exists (
                                            select from project_memberships
                                             where tenant_id = $1 and project_id = c.project_id
                                               and user_id = w.user_id) end),
                      (select id from content_items where tenant_id = $1 and project_id = named.id and name = w.name),
                      (select document_id from document_aliases
                        where tenant_id = $1 and project_id = named.id and name = w.name)) as id offset 0) as meant
             left join content_items d on d.tenant_id = $1 and d.id = meant.id
            cross join lateral (select coalesce(d.project_id, named.id) as id offset 0) as place
            cross join lateral (select case when w.name_as_id is null then false else
                      exists (select from content_items where tenant_id = $1 and id = w.name_as_id)
                      or exists (select from content_items c join projects o on o.tenant_id = $1 and o.id = c.project_id
                                  where c.tenant_id = $1 and o.is_default and c.name = w.name)
                      or exists (select from document_aliases a join projects o on o.tenant_id = $1 and o.id = a.project_id
                                  where a.tenant_id = $1 and o.is_default and a.name = w.name) end as yes) as taken
             left join document_heads h on h.tenant_id = $1 and h.document_id = d.id
             left join projects p on p.tenant_id = $1 and p.id = place.id
             left join project_memberships m on m.tenant_id = $1 and m.project_id = p.id and m.user_id = w.user_id"#,
        db.tenant.0,
        &sessions,
        &users,
        &documents as &[Option<Uuid>],
        &projects as &[Option<String>],
        &names as &[Option<String>],
        &ids as &[Option<Uuid>],
        &scopes as &[Option<Uuid>]
    )
    .fetch_all(&mut *db.tx)
    .await?;
    let mut found = vec![Found::default(); rooms.len()];
    for row in rows {
        let Some(found) = place_of(row.n, &mut found) else { continue };
        found.subject = row.user_kind.map(|kind| Subject {
            external: kind == "external",
            tenant_admin: row.is_tenant_admin == Some(true),
            until: row.lasts_s.and_then(|lasts_s| ends(at, lasts_s)),
        });
        found.is_id_taken = row.is_id_taken;
        found.place = match row.project {
            None => None,
            Some(project) => Some(Place {
                project: ProjectId(project),
                is_default: row.is_default == Some(true),
                auto_create: row.auto_create == Some(true),
                archived: row.archived == Some(true),
                read_only: row.read_only,
                membership: row.membership.as_deref().map(role).transpose()?,
                document: row.document.map(|document| (DocumentId(document), row.deleted)),
            }),
        };
    }
    Ok(found)
}

/// The place of what `with ordinality` counted, from 1.
fn place_of<T>(n: i64, places: &mut [T]) -> Option<&mut T> {
    usize::try_from(n - 1).ok().and_then(|place| places.get_mut(place))
}
