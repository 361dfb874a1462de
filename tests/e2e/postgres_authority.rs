//! Who a token belongs to and what it may do, on real tables.

use crate::support::postgres::{TestDatabase, TestTenant, fresh};
use contextnexus::postgres::authority::PostgresAuthority;
use contextnexus::postgres::projects::{self, NewProject};
use contextnexus::postgres::user_sessions::{self, End, Kind, NewUserSession};
use contextnexus::postgres::{self, Database};
use contextnexus::tokens;
use contextnexus_actors::access::{Caller, Role, Scope, Token};
use contextnexus_actors::clock::SystemClock;
use contextnexus_actors::ids::{DocumentId, ProjectId, UserId, UserSessionId};
use contextnexus_actors::ports::{AccessDenied, Authority, Place, RightInUse, RoomName, Standing};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

struct House {
    authority: PostgresAuthority,
    database: Database,
    tenant: TestTenant,
    test: TestDatabase,
}

impl House {
    async fn create() -> Self {
        let test = TestDatabase::create().await;
        let tenant = test.tenant("one").await;
        let database = test.database();
        Self { authority: PostgresAuthority::new(database.clone(), Arc::new(SystemClock)), database, tenant, test }
    }

    /// A person, in this role in the default project.
    async fn member(&self, role: &'static str) -> UserId {
        let user = self.tenant.user().await;
        let join = match role {
            "viewer" => {
                "insert into project_memberships (tenant_id, project_id, user_id, role) values ($1, $2, $3, 'viewer')"
            }
            "editor" => {
                "insert into project_memberships (tenant_id, project_id, user_id, role) values ($1, $2, $3, 'editor')"
            }
            _ => "select $1, $2, $3",
        };
        self.tenant.sql(join, &[self.tenant.project.0, user.0]).await;
        user
    }

    async fn token(&self, user: UserId, kind: Kind) -> (Token, UserSessionId) {
        self.child(user, kind, None).await
    }

    async fn child(&self, user: UserId, kind: Kind, parent: Option<UserSessionId>) -> (Token, UserSessionId) {
        let (token, id) = (tokens::fresh(self.tenant.id).expect("a token"), UserSessionId(fresh()));
        let new = NewUserSession {
            id,
            user,
            kind,
            name: None,
            token_hash: tokens::hash(&token),
            created_by: None,
            parent,
            end: End::After(Duration::from_secs(3600)),
            network: None,
        };
        let mut db = postgres::begin(&self.database, self.tenant.id).await.expect("begin");
        user_sessions::create(&mut db, new).await.expect("create a session");
        db.commit().await.expect("commit");
        (token, id)
    }

    async fn caller(&self, user: UserId) -> Caller {
        let (token, _) = self.token(user, Kind::Login).await;
        self.authority.authenticate(&token).await.expect("a fresh token")
    }

    /// A project where rooms are created on first connect; who made it is its administrator.
    async fn project(&self, slug: &str, by: Option<&Caller>) -> ProjectId {
        let id = ProjectId(fresh());
        let created_by = by.map(|caller| caller.user);
        let new = NewProject { id, slug, name: slug, auto_create_documents: true, is_default: false, created_by };
        let mut db = postgres::begin(&self.database, self.tenant.id).await.expect("begin");
        projects::create(&mut db, new).await.expect("create a project");
        db.commit().await.expect("commit");
        id
    }

    /// A document in this project, with a name that is no id.
    async fn document_in(&self, project: ProjectId) -> DocumentId {
        let document = DocumentId(fresh());
        let insert = "insert into content_items (tenant_id, id, project_id, name, title) values ($1, $2, $3, 'x', 'x')";
        self.tenant.sql(insert, &[document.0, project.0]).await;
        document
    }

    /// A ticket for a document, to be redeemed within these seconds.
    fn ticket(document: DocumentId, role: Role, seconds: u64) -> Kind {
        Kind::Ticket { document, role, redeem_within: Duration::from_secs(seconds) }
    }
}

fn named(name: &str) -> RoomName {
    RoomName::Named { project: None, name: name.to_owned() }
}

#[tokio::test]
async fn a_token_is_its_users_until_something_ends_it() {
    let house = House::create().await;
    let user = house.member("editor").await;
    let (token, user_session) = house.token(user, Kind::Login).await;
    let caller = house.authority.authenticate(&token).await.expect("a fresh token");
    assert_eq!(
        (caller.tenant, caller.user, caller.user_session, caller.scope),
        (house.tenant.id, user, user_session, Scope::User)
    );

    let elsewhere = house.test.tenant("two").await;
    let moved = Token(token.0.replace(&house.tenant.id.0.simple().to_string(), &elsewhere.id.0.simple().to_string()));
    let unknown = tokens::fresh(house.tenant.id).expect("a token");
    for (what, token) in [("another tenant's", &moved), ("unknown", &unknown), ("no token", &Token("cnx_x".to_owned()))]
    {
        let refused = house.authority.authenticate(token).await.expect_err(what);
        assert!(matches!(refused, AccessDenied::BadToken), "{what}: {refused:?}");
    }
    for (what, end, again) in [
        (
            "revoked",
            "update user_sessions set revoked_at = now() where tenant_id = $1",
            "update user_sessions set revoked_at = null where tenant_id = $1",
        ),
        (
            "expired",
            "update user_sessions set expires_at = now() - interval '1 s' where tenant_id = $1",
            "update user_sessions set expires_at = now() + interval '1 h' where tenant_id = $1",
        ),
        (
            "an inactive user's",
            "update users set is_active = false where tenant_id = $1",
            "update users set is_active = true where tenant_id = $1",
        ),
        (
            "an inactive tenant's",
            "update tenants set is_active = false where id = $1",
            "update tenants set is_active = true where id = $1",
        ),
    ] {
        house.tenant.sql(end, &[]).await;
        let refused = house.authority.authenticate(&token).await.expect_err(what);
        assert!(matches!(refused, AccessDenied::BadToken), "{what}: {refused:?}");
        let refused = house.authority.open(&caller, &named("room")).await.expect_err(what);
        assert!(matches!(refused, AccessDenied::BadToken), "{what}, and open already: {refused:?}");
        house.tenant.sql(again, &[]).await;
        house.authority.authenticate(&token).await.expect("in force again");
    }
}

#[tokio::test]
async fn a_ticket_is_redeemed_once_and_in_time() {
    let house = House::create().await;
    let (user, document) = (house.member("editor").await, house.tenant.document().await);
    let (token, user_session) = house.token(user, House::ticket(document, Role::Viewer, 60)).await;
    let tries = join_all((0..10).map(|_| house.authority.authenticate(&token))).await;
    let redeemed: Vec<_> = tries.iter().flatten().collect();
    assert_eq!(redeemed.len(), 1, "{tries:?}");
    assert_eq!((redeemed[0].user_session, redeemed[0].scope), (user_session, Scope::Document(document, Role::Viewer)));
    assert!(tries.iter().all(|tried| !matches!(tried, Err(AccessDenied::Unavailable))), "{tries:?}");

    // The row is the connection's session from now on.
    let grant = house.authority.open(redeemed[0], &RoomName::Id(document)).await.expect("its document");
    assert_eq!(grant.role, Role::Viewer, "at most its role");
    let other = house.tenant.document().await;
    let refused = house.authority.open(redeemed[0], &RoomName::Id(other)).await.expect_err("another document");
    assert!(matches!(refused, AccessDenied::NoSuchDocument), "{refused:?}");

    let (late, _) = house.token(user, House::ticket(document, Role::Viewer, 0)).await;
    assert!(matches!(house.authority.authenticate(&late).await, Err(AccessDenied::BadToken)));
    let (_, login) = house.token(user, Kind::Login).await;
    let (orphan, _) = house.child(user, House::ticket(document, Role::Viewer, 60), Some(login)).await;
    house.tenant.sql("update user_sessions set revoked_at = now() where tenant_id = $1 and id = $2", &[login.0]).await;
    assert!(matches!(house.authority.authenticate(&orphan).await, Err(AccessDenied::BadToken)), "its maker signed out");
}

#[tokio::test]
async fn an_applications_own_user_opens_what_its_ticket_says() {
    let house = House::create().await;
    let (user, document) = (UserId(fresh()), house.tenant.document().await);
    house
        .tenant
        .sql(
            "insert into users (tenant_id, id, kind, external_subject, name) values ($1, $2, 'external', $2::text, 'Guest')",
            &[user.0],
        )
        .await;
    let (token, user_session) = house.token(user, Kind::Document(document, Role::Editor)).await;
    for _ in 0..2 {
        let caller = house.authority.authenticate(&token).await.expect("a document token is good again and again");
        assert_eq!(house.authority.open(&caller, &RoomName::Id(document)).await.expect("open").role, Role::Editor);
    }
    let held = RightInUse { user_session, user, place: Place::Document(document) };
    let rechecked = house.authority.recheck(house.tenant.id, None, &[held]).await.expect("recheck");
    assert!(matches!(rechecked.standings[..], [(_, Standing::Granted(grant))] if grant.role == Role::Editor));
}

#[tokio::test]
async fn a_room_is_found_by_id_by_name_and_by_former_name() {
    let house = House::create().await;
    let caller = house.caller(house.member("editor").await).await;
    let document = house.authority.open(&caller, &named("plan")).await.expect("created on first connect").document;
    house
        .tenant
        .sql("update content_items set name = 'new plan' where tenant_id = $1 and id = $2", &[document.0])
        .await;
    let slug = |name: &str| RoomName::Named { project: Some("playground".to_owned()), name: name.to_owned() };
    for room in [RoomName::Id(document), named("new plan"), slug("new plan"), named("plan"), slug("plan")] {
        let grant = house.authority.open(&caller, &room).await.expect("a room");
        assert_eq!(
            (grant.document, grant.project, grant.role),
            (document, house.tenant.project, Role::Editor),
            "{room:?}"
        );
    }
    let nowhere = RoomName::Named { project: Some("nowhere".to_owned()), name: "plan".to_owned() };
    assert!(matches!(house.authority.open(&caller, &nowhere).await, Err(AccessDenied::NoSuchProject)));
    let unknown = RoomName::Id(DocumentId(fresh()));
    assert!(matches!(house.authority.open(&caller, &unknown).await, Err(AccessDenied::NoSuchDocument)));
    for bad in ["", "a\u{7}b", "e\u{301}", &"x".repeat(201)] {
        let refused = house.authority.open(&caller, &named(bad)).await.expect_err(bad);
        assert!(matches!(refused, AccessDenied::BadName(_)), "{bad:?}: {refused:?}");
    }
}

/// A room of a name that is an id: whose id, else whose name, else a new document that has it as both.
#[tokio::test]
async fn a_name_that_is_an_id_leads_to_that_document_or_becomes_its_id() {
    let house = House::create().await;
    let caller = house.caller(house.member("editor").await).await;
    let open = async |room: &RoomName| house.authority.open(&caller, room).await;
    let id = DocumentId(fresh());
    let room = named(&id.to_string());
    assert_eq!(open(&room).await.expect("created").document, id, "the name is the id");
    assert_eq!(open(&room).await.expect("found").document, id);
    let by_number = open(&named(&id.0.simple().to_string())).await.expect("32 digits are a name");
    assert_ne!(by_number.document, id, "and never an id");

    // Another tenant has a document of this id, and hears and changes nothing.
    let neighbour = house.test.tenant("two").await;
    let theirs = neighbour.document().await;
    assert_eq!(open(&named(&theirs.to_string())).await.expect("created here too").document, theirs);
    let title = "select title from content_items where tenant_id = $1 and id = $2";
    let title: String = sqlx::query_scalar(title)
        .bind(neighbour.id.0)
        .bind(theirs.0)
        .fetch_one(&mut house.test.superuser().await)
        .await
        .expect("still theirs");
    assert_ne!(title, theirs.to_string());

    // A document that has the name without the id.
    let renamed = open(&named("plan")).await.expect("created").document;
    let other = fresh();
    let rename = "update content_items set name = $3::uuid::text where tenant_id = $1 and id = $2";
    house.tenant.sql(rename, &[renamed.0, other]).await;
    assert_eq!(open(&named(&other.to_string())).await.expect("by its name").document, renamed);

    // In a project that the caller does not see, and in one that it sees.
    let (hidden, seen) = (house.project("hidden", None).await, house.project("seen", Some(&caller)).await);
    let (in_hidden, in_seen) = (house.document_in(hidden).await, house.document_in(seen).await);
    assert_eq!(open(&named(&in_seen.to_string())).await.expect("by its id").document, in_seen);
    let refused = open(&named(&in_hidden.to_string())).await.expect_err("whoever left a project founds no second one");
    assert!(matches!(refused, AccessDenied::NoSuchDocument), "{refused:?}");
    let elsewhere = RoomName::Named { project: Some("seen".to_owned()), name: in_hidden.to_string() };
    let grant = open(&elsewhere).await.expect("a name in another project");
    assert_eq!(grant.project, seen);
    assert_ne!(grant.document, in_hidden);
    let own = RoomName::Named { project: Some("seen".to_owned()), name: in_seen.to_string() };
    assert_eq!(open(&own).await.expect("by its id in its project").document, in_seen);

    // A deleted one keeps its id and its name.
    house.tenant.sql("update content_items set deleted_at = now() where tenant_id = $1 and id = $2", &[id.0]).await;
    assert!(matches!(open(&room).await, Err(AccessDenied::Deleted)));

    // A token of one document reaches it by either name, and nothing else.
    let (token, _) = house.token(caller.user, Kind::Document(renamed, Role::Editor)).await;
    let scoped = house.authority.authenticate(&token).await.expect("in force");
    for name in [renamed.to_string(), other.to_string()] {
        assert_eq!(house.authority.open(&scoped, &named(&name)).await.expect("its own").document, renamed);
    }
    for name in [in_seen.to_string(), fresh().to_string()] {
        let refused = house.authority.open(&scoped, &named(&name)).await.expect_err("another's, or a new one");
        assert!(matches!(refused, AccessDenied::NoSuchDocument), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn nodes_that_create_one_name_at_once_get_one_document() {
    let house = House::create().await;
    let caller = house.caller(house.member("editor").await).await;
    for round in 0..20 {
        let id = fresh().to_string();
        let room = named(&if round % 2 == 0 { format!("race {round}") } else { id });
        let grants = join_all((0..8).map(|_| house.authority.open(&caller, &room))).await;
        let first = grants[0].as_ref().expect("open").document;
        for grant in &grants {
            assert_eq!(grant.as_ref().expect("open").document, first, "round {round}: {grants:?}");
        }
    }
}

#[tokio::test]
async fn who_may_not_hears_no_more_than_it_may_know() {
    let house = House::create().await;
    let editor = house.caller(house.member("editor").await).await;
    let viewer = house.caller(house.member("viewer").await).await;
    let outsider = house.caller(house.member("none").await).await;
    let document = house.authority.open(&editor, &named("plan")).await.expect("create").document;
    let theirs = house.test.tenant("two").await.document().await;

    assert_eq!(house.authority.open(&viewer, &named("plan")).await.expect("a viewer reads").role, Role::Viewer);
    assert!(matches!(house.authority.open(&viewer, &named("new")).await, Err(AccessDenied::MayNotCreate)));
    for room in [RoomName::Id(document), RoomName::Id(theirs), RoomName::Id(DocumentId(fresh()))] {
        let refused = house.authority.open(&outsider, &room).await.expect_err("an outsider");
        assert!(matches!(refused, AccessDenied::NoSuchDocument), "{room:?}: {refused:?}");
    }
    let in_project = |project: &str| RoomName::Named { project: Some(project.to_owned()), name: "plan".to_owned() };
    for room in [named("plan"), named("new"), in_project("playground"), in_project("nowhere")] {
        let refused = house.authority.open(&outsider, &room).await.expect_err("an outsider");
        assert!(matches!(refused, AccessDenied::NoSuchProject), "{room:?}: {refused:?}");
    }

    house
        .tenant
        .sql("update content_items set deleted_at = now() where tenant_id = $1 and id = $2", &[document.0])
        .await;
    for room in [named("plan"), RoomName::Id(document)] {
        assert!(
            matches!(house.authority.open(&editor, &room).await, Err(AccessDenied::Deleted)),
            "its name is reserved"
        );
        let refused = house.authority.open(&outsider, &room).await.expect_err("an outsider");
        assert!(matches!(refused, AccessDenied::NoSuchDocument | AccessDenied::NoSuchProject), "{refused:?}");
    }
    house
        .tenant
        .sql("update content_items set deleted_at = null where tenant_id = $1 and id = $2", &[document.0])
        .await;
    house.tenant.sql("update projects set is_archived = true where tenant_id = $1", &[]).await;
    assert_eq!(house.authority.open(&editor, &named("plan")).await.expect("read").role, Role::Viewer, "archived");
    assert!(matches!(house.authority.open(&editor, &named("new")).await, Err(AccessDenied::MayNotCreate)));
}

#[tokio::test]
async fn a_look_reads_a_few_rows_however_many_there_are() {
    let house = House::create().await;
    let (project, many) = (house.tenant.project.0, 20_000);
    house.tenant.user().await;
    for insert in [
        "insert into content_items (tenant_id, id, project_id, name, title)
         select $1, gen_random_uuid(), $2, 'document-' || n, 'x' from generate_series(1, 20000) n",
        "insert into projects (tenant_id, id, slug, name)
         select $1, gen_random_uuid(), 'project-' || n, 'x' from generate_series(1, 20000) n where $2 is not null",
        "insert into user_sessions (tenant_id, id, user_id, kind, token_hash, expires_at)
         select $1, gen_random_uuid(), u.id, 'login', sha256((u.id::text || n)::bytea), now() + interval '1 hour'
           from users u, generate_series(1, 20000) n where u.tenant_id = $1 and $2 is not null",
    ] {
        house.tenant.sql(insert, &[project]).await;
    }
    let user = house.member("editor").await;
    let (token, user_session) = house.token(user, Kind::Login).await;
    let mut superuser = house.test.superuser().await;
    sqlx::query("analyze").execute(&mut superuser).await.expect("analyze");
    let mut read = async || -> Vec<(String, i64)> {
        // A connection reports what it has read when it ends.
        let end = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
                    where pid <> pg_backend_pid() and datname = current_database()";
        sqlx::query(end).execute(&mut superuser).await.expect("end them");
        let read = "select relname::text, seq_tup_read + idx_tup_fetch from pg_stat_user_tables
                     where relname in ('content_items', 'projects', 'project_memberships', 'user_sessions', 'users') order by 1";
        sqlx::query_as(read).fetch_all(&mut superuser).await.expect("statistics")
    };
    let before = read().await;
    let authority = PostgresAuthority::new(house.test.database(), Arc::new(SystemClock));
    let joins = 10;
    for _ in 0..joins {
        let caller = authority.authenticate(&token).await.expect("a token");
        let grant = authority.open(&caller, &named("document-7")).await.expect("a document");
        authority.open(&caller, &RoomName::Id(grant.document)).await.expect("the same");
        let held = RightInUse { user_session, user, place: Place::Document(grant.document) };
        authority.recheck(house.tenant.id, None, &[held]).await.expect("rights");
    }
    for ((table, after), (_, before)) in read().await.into_iter().zip(before) {
        let rows = (after - before) / joins;
        assert!((1..many / 200).contains(&rows), "{rows} rows of {table} for one look");
    }
}

#[tokio::test]
async fn looks_share_a_connection_and_outlive_it() {
    let house = House::create().await;
    let look = async || house.authority.recheck(house.tenant.id, Some(1), &[]).await;
    let mut superuser = house.test.superuser().await;
    let mut pids = async || -> Vec<i32> {
        let pids = "select pid from pg_stat_activity
                     where datname = current_database() and query like 'select access_epoch%' order by pid";
        sqlx::query_scalar(pids).fetch_all(&mut superuser).await.expect("connections")
    };
    look().await.expect("a first look");
    let first = pids().await;
    for _ in 0..20 {
        look().await.expect("another look");
    }
    assert_eq!(pids().await, first, "one after the other needs no second one");
    assert_eq!(first.len(), 1);
    assert!(join_all((0..20).map(|_| look())).await.iter().all(Result::is_ok), "many at once take turns");
    assert!(pids().await.len() <= 2);

    let end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()";
    sqlx::query(end).execute(&mut house.test.superuser().await).await.expect("end them");
    let mut lost = 0;
    while look().await.is_err() {
        lost += 1;
        assert!(lost <= 2, "a broken connection is given up at the first error");
    }
    house.database.close().await;
    assert!(matches!(look().await, Err(AccessDenied::Unavailable)));
}

#[tokio::test]
async fn every_change_of_a_right_in_use_is_seen_once() {
    let house = House::create().await;
    let (editor, document) = (house.member("editor").await, house.tenant.document().await);
    let user_session = house.caller(editor).await.user_session;
    let admin = house.member("none").await;
    house.tenant.sql("update users set is_tenant_admin = true where tenant_id = $1 and id = $2", &[admin.0]).await;
    let admins = house.caller(admin).await.user_session;
    let held = [
        RightInUse { user_session, user: editor, place: Place::Document(document) },
        RightInUse { user_session: admins, user: admin, place: Place::Document(document) },
    ];
    let mut since = None;
    let mut look = async || -> Option<(Standing, Standing)> {
        let rechecked = house.authority.recheck(house.tenant.id, since, &held).await.expect("recheck");
        since = Some(rechecked.epoch);
        let of = |wanted: RightInUse| {
            rechecked.standings.iter().find(|(held, _)| *held == wanted).map(|(_, standing)| *standing)
        };
        Some((of(held[0])?, of(held[1])?))
    };
    let granted = |standing: Standing| match standing {
        Standing::Granted(grant) => grant.role,
        other => panic!("{other:?}"),
    };
    let (editors, admins) = look().await.expect("the first look sees all");
    assert_eq!((granted(editors), granted(admins)), (Role::Editor, Role::Admin));
    assert!(look().await.is_none(), "nothing changed");
    for (change, editors, admins) in [
        (
            "update project_memberships set role = 'viewer' where tenant_id = $1 and coalesce($2, $3) is not null",
            Some(Role::Viewer),
            "granted",
        ),
        ("delete from project_memberships where tenant_id = $1 and coalesce($2, $3) is not null", None, "granted"),
    ] {
        house.tenant.sql(change, &[editor.0, user_session.0]).await;
        let (of_editor, of_admin) = look().await.expect(change);
        match editors {
            Some(role) => assert_eq!(granted(of_editor), role, "{change}"),
            None => assert_eq!(of_editor, Standing::Forbidden, "{change}"),
        }
        assert_eq!(granted(of_admin), Role::Admin, "{change}: {admins}");
        assert!(look().await.is_none(), "{change}: once");
    }
    house
        .tenant
        .sql("update user_sessions set revoked_at = now() where tenant_id = $1 and id = $2", &[user_session.0])
        .await;
    assert_eq!(look().await.expect("revoked").0, Standing::SessionEnded);
    house
        .tenant
        .sql("update content_items set deleted_at = now() where tenant_id = $1 and id = $2", &[document.0])
        .await;
    assert_eq!(look().await.expect("deleted"), (Standing::SessionEnded, Standing::Deleted));
    house.tenant.sql("update users set is_active = false where tenant_id = $1 and id = $2", &[admin.0]).await;
    assert_eq!(look().await.expect("inactive").1, Standing::SessionEnded);
}
