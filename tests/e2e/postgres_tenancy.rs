//! What one tenant can do to another with the application's role and raw SQL: nothing.

use crate::support::postgres::{TestDatabase, fresh};
use contextnexus::postgres::{self, StoreError, isolation, migrate, roles, tenants};
use contextnexus_actors::ids::TenantId;
use sqlx::{Connection, PgConnection};
use std::time::Duration;
use uuid::Uuid;

const TABLES: &[&str] = &[
    "tenants",
    "users",
    "user_sessions",
    "projects",
    "project_memberships",
    "content_items",
    "document_aliases",
    "document_heads",
    "operations_log",
    "document_snapshots",
    "quarantine",
    "idempotency_keys",
    "tenant_access_epochs",
];

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap_or_else(|error| panic!("{table}: {error}"))
}

/// Fills every table with rows of a tenant, by its own means.
async fn filled(database: &TestDatabase, slug: &str) -> crate::support::postgres::TestTenant {
    let tenant = database.tenant(slug).await;
    let user = tenant.user().await;
    let document = tenant.document().await;
    let ids = &[user.0, document.0, tenant.project.0];
    for statement in [
        "insert into project_memberships (tenant_id, project_id, user_id, role) values ($1, $4, $2, coalesce('editor', $3::text))",
        "insert into user_sessions (tenant_id, id, user_id, kind, token_hash, expires_at)
         select $1, $2, $2, 'login', sha256($3::text::bytea), now() + interval '1 day' where $4 is not null",
        "update content_items set name = 'renamed' where tenant_id = $1 and id = $3 and coalesce($2, $4) is not null",
        "insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, user_session_id, seen_seq,
                                     codec, raw_bytes, updates, checksum)
         select $1, $3, 1, 1, $2, $2, $2, 0, 0, 0, '', 0 where $4 is not null",
        "insert into document_snapshots (tenant_id, document_id, seq, tip, codec, raw_bytes, state, state_vector, checksum)
         select $1, $3, 1, $2, 0, 0, '', '', 0 where $4 is not null",
        "insert into quarantine (tenant_id, document_id, update_hash, reason, codec, raw_bytes, update)
         select $1, $3, sha256($2::text::bytea), 'fork', 0, 0, '' where $4 is not null",
        "insert into idempotency_keys (tenant_id, document_id, subject_id, key, body_hash, seq)
         select $1, $3, $2, 'key', sha256(''), 1 where $4 is not null",
    ] {
        assert_eq!(tenant.sql(statement, ids).await, 1, "{statement}");
    }
    tenant
}

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_no_others_in_any_table() {
    let database = TestDatabase::create().await;
    let (one, two) = (filled(&database, "one").await, filled(&database, "two").await);
    for url in [&database.url, &database.owner_url] {
        let mut connection = PgConnection::connect(url).await.expect("connect");
        for table in TABLES {
            assert_eq!(count(&mut connection, table).await, 0, "{table} without a tenant, as {url}");
        }
        for tenant in [&one, &two] {
            let mut tx = connection.begin().await.expect("begin");
            sqlx::query("select set_config('app.current_tenant_id', $1, true)")
                .bind(tenant.id.0.to_string())
                .execute(&mut *tx)
                .await
                .expect("set the tenant");
            for table in TABLES {
                assert_eq!(count(&mut tx, table).await, 1, "{table} of one tenant, as {url}");
            }
            tx.commit().await.expect("commit");
        }
        // The setting of a transaction that ended is '' from now on, not null.
        for table in TABLES {
            assert_eq!(count(&mut connection, table).await, 0, "{table} after a tenant's transaction, as {url}");
        }
    }
    let mut superuser = database.superuser().await;
    let listed =
        count(&mut superuser, "pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')").await;
    assert_eq!(listed as usize, TABLES.len() + 2, "this test names every table, but the directory and the migrations");
}

#[tokio::test]
async fn a_tenant_changes_nothing_of_another() {
    let database = TestDatabase::create().await;
    // A copy of a database has not what everybody may not do in it.
    migrate::migrate(&database.owner_url, |_| {}).await.expect("migrate");
    let (one, two) = (filled(&database, "one").await, filled(&database, "two").await);
    let mut connection = database.application().await;
    for (what, statement) in [
        ("names", "update content_items set title = 'mine'"),
        ("roles", "update project_memberships set role = 'admin'"),
        ("sessions", "update user_sessions set expires_at = now() + interval '9 years'"),
        ("heads", "update document_heads set seq = 9"),
        ("rows", "update operations_log set updates = 'x'"),
        ("users", "update users set is_tenant_admin = true"),
        ("memberships", "delete from project_memberships"),
    ] {
        let mut tx = connection.begin().await.expect("begin");
        sqlx::query("select set_tenant_context($1)").bind(one.id.0).execute(&mut *tx).await.expect("set the tenant");
        let done = sqlx::query(statement).execute(&mut *tx).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(done.rows_affected(), 1, "{what}: its own row, and only that");
        tx.rollback().await.expect("rollback");
    }
    for (what, statement, code) in [
        ("insert for another", "insert into projects (tenant_id, id, slug, name) values ($1, $2, 'x', 'x')", "42501"),
        (
            "a project of another",
            "insert into content_items (tenant_id, id, project_id, name, title)
             values (nullif(current_setting('app.current_tenant_id'), '')::uuid, $1, $2, 'x', 'x')",
            "23503",
        ),
        ("truncate", "truncate operations_log", "42501"),
        ("forget what was written", "delete from operations_log", "42501"),
        ("forget a document", "delete from content_items", "42501"),
        ("switch row security off", "alter table users no force row level security", "42501"),
        ("become the owner", "set role contextnexus_test_owner", "42501"),
        ("write the directory", "update tenant_directory set is_active = true", "42501"),
        ("isolate by itself", "select isolate_tenant('users')", "42501"),
        ("create", "create table mine (id int)", "42501"),
        ("create for a moment", "create temporary table users (id int)", "42501"),
    ] {
        let mut tx = connection.begin().await.expect("begin");
        sqlx::query("select set_tenant_context($1)").bind(one.id.0).execute(&mut *tx).await.expect("set the tenant");
        let mut query = sqlx::query(statement);
        if statement.contains("$1") {
            query = query.bind(two.id.0).bind(two.project.0);
        }
        let refused = query.execute(&mut *tx).await.expect_err(what);
        let refused = refused.as_database_error().and_then(|error| error.code()).expect(what).into_owned();
        assert_eq!(refused, code, "{what}");
    }
}

async fn weaknesses(database: &postgres::Database) -> Vec<String> {
    isolation::weaknesses(database).await.expect("look").iter().map(ToString::to_string).collect()
}

/// Each with what it is called, and mended by what the finding says.
#[tokio::test]
async fn whatever_weakens_the_isolation_of_tenants_is_found_with_its_remedy() {
    let database = TestDatabase::create().await;
    let (as_served, mut superuser) = (database.database(), database.superuser().await);
    let mut owner = PgConnection::connect(&database.owner_url).await.expect("the owner signs in");
    assert_eq!(weaknesses(&as_served).await, Vec::<String>::new());
    for (statement, found) in [
        ("alter table users disable row level security", "row-level security of users is disabled"),
        ("alter table operations_log no force row level security", "row-level security of operations_log is not forced"),
        ("drop policy tenant_isolation_content_items on content_items", "tenant_isolation_content_items is missing"),
        ("drop policy tenant_isolation_tenants on tenants", "tenant_isolation_tenants is missing"),
        ("alter policy tenant_isolation_quarantine on quarantine using (true)", "not the one that the migrations made"),
        ("alter policy tenant_isolation_users on users with check (true)", "not the one that the migrations made"),
        (
            "alter policy tenant_isolation_users on users
                 using (tenant_id = nullif(current_setting('app.current_tenant_id', true), '')::uuid or is_tenant_admin)",
            "not the one that the migrations made",
        ),
        (
            "alter policy tenant_isolation_projects on projects to contextnexus_application",
            "not the one that the migrations made",
        ),
        ("create policy everybody on user_sessions using (true)", "the policy everybody of user_sessions lets rows pass"),
        ("alter view user_sessions_in_force set (security_invoker = false)", "the view user_sessions_in_force reads with"),
        ("create view all_users as select * from users", ""),
        ("grant select on all_users to contextnexus_application", "the view all_users reads with"),
        ("create policy fewer on users as restrictive using (is_active)", ""),
        ("create table others (tenant_id uuid)", ""),
        ("grant select on others to contextnexus_application", "row-level security of others is disabled"),
    ] {
        sqlx::raw_sql(statement).execute(&mut superuser).await.expect(statement);
        sqlx::raw_sql("alter table if exists others owner to contextnexus_test_owner").execute(&mut superuser).await.ok();
        sqlx::raw_sql("alter view if exists all_users owner to contextnexus_test_owner").execute(&mut superuser).await.ok();
        let weak = isolation::weaknesses(&as_served).await.expect("look");
        assert_eq!(weak.is_empty(), found.is_empty(), "{statement}: {weak:?}");
        assert!(found.is_empty() || weak.iter().any(|weak| weak.what.contains(found)), "{statement}: {weak:?}");
        for _ in 0..3 {
            // Where more than one thing is missing, one remedy may have mended another.
            let Some(weak) = isolation::weaknesses(&as_served).await.expect("look").pop() else { break };
            let remedy = sqlx::raw_sql(sqlx::AssertSqlSafe(weak.remedy.clone())).execute(&mut owner).await;
            remedy.unwrap_or_else(|error| panic!("{weak}: {error}"));
        }
        assert_eq!(weaknesses(&as_served).await, Vec::<String>::new(), "{statement}");
    }
}

#[tokio::test]
async fn a_role_that_may_become_one_above_the_policies_does_not_serve() {
    let database = TestDatabase::create().await;
    let name = &database.name;
    let statement = format!(
        "create role {name}_above nologin bypassrls;
         create role {name}_app login password 'test' in role contextnexus_application;
         grant {name}_above to {name}_app"
    );
    let mut superuser = database.superuser().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut superuser).await.expect("roles");
    let url = database.url.replace("contextnexus_test_app", &format!("{name}_app"));
    let served = postgres::Database::new(&url, &postgres::DatabaseSettings::default()).expect("an address");
    let found = roles::inspect(&served).await.expect("look").unsafe_role;
    let drop = format!("drop role {name}_app; drop role {name}_above");
    served.close().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut superuser).await.expect("drop");
    assert!(found.iter().any(|reason| reason.contains("_above")), "{found:?}");
}

#[tokio::test]
async fn a_former_name_leads_to_its_document_until_it_is_freed() {
    let database = TestDatabase::create().await;
    let tenant = database.tenant("one").await;
    let (first, second) = (tenant.document().await, tenant.document().await);
    let mut superuser = database.superuser().await;
    sqlx::query("select set_config('app.current_tenant_id', $1, false)")
        .bind(tenant.id.0.to_string())
        .execute(&mut superuser)
        .await
        .expect("set the tenant");
    let mut rename = async |document: uuid::Uuid, name: &str| {
        let update = sqlx::query("update content_items set name = $2 where id = $1").bind(document).bind(name);
        match update.execute(&mut superuser).await.map_err(StoreError::from) {
            Ok(_) => None,
            Err(StoreError::Taken { constraint }) => Some(constraint),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(rename(first.0, "plan").await, None);
    assert_eq!(rename(first.0, "old plan").await, None);
    assert_eq!(rename(second.0, "old plan").await.as_deref(), Some("content_items_name_key"), "a name in use");
    assert_eq!(rename(second.0, "plan").await.as_deref(), Some("document_aliases_pkey"), "a former name in use");
    assert_eq!(rename(first.0, "plan").await, None, "back to its own former name");
    assert_eq!(rename(first.0, "new plan").await, None);
    sqlx::query("delete from document_aliases where name = 'plan'").execute(&mut superuser).await.expect("free");
    let update = sqlx::query("update content_items set name = 'plan' where id = $1").bind(second.0);
    update.execute(&mut superuser).await.expect("a freed name is anybody's");
}

#[tokio::test]
async fn the_epoch_rises_with_what_changes_rights_and_with_nothing_else() {
    let database = TestDatabase::create().await;
    let tenant = filled(&database, "one").await;
    filled(&database, "two").await;
    let mut superuser = database.superuser().await;
    let mut epoch = async || -> i64 {
        sqlx::query_scalar("select epoch from tenant_access_epochs where tenant_id = $1")
            .bind(tenant.id.0)
            .fetch_one(&mut superuser)
            .await
            .expect("the epoch")
    };
    for (statement, rises) in [
        ("update users set name = 'Else' where tenant_id = $1", false),
        ("update users set last_login_at = now() where tenant_id = $1", false),
        ("update users set is_active = false where tenant_id = $1", true),
        ("update users set is_tenant_admin = true where tenant_id = $1", true),
        ("update user_sessions set last_activity_at = now() where tenant_id = $1", false),
        ("update user_sessions set revoked_at = now() where tenant_id = $1", true),
        ("update projects set name = 'Else' where tenant_id = $1", false),
        ("update projects set is_archived = true where tenant_id = $1", true),
        ("update project_memberships set role = 'viewer' where tenant_id = $1", true),
        ("update project_memberships set role = 'viewer' where tenant_id = $1", false),
        ("delete from project_memberships where tenant_id = $1", true),
        ("update content_items set title = 'Else' where tenant_id = $1", false),
        ("update content_items set deleted_at = now() where tenant_id = $1", true),
        ("update content_items set deleted_at = null where tenant_id = $1", true),
        ("update tenants set is_active = false where id = $1", true),
    ] {
        let before = epoch().await;
        assert_eq!(tenant.sql(statement, &[]).await, 1, "{statement}");
        assert_eq!(epoch().await > before, rises, "{statement}");
    }
}

#[tokio::test]
async fn a_look_sees_its_tenant_only_and_leaves_no_tenant_behind() {
    let database = TestDatabase::create().await;
    let (one, two) = (filled(&database, "one").await, filled(&database, "two").await);
    let document = two.document().await;
    assert_eq!(two.sql("update users set is_tenant_admin = true where tenant_id = $1", &[]).await, 1);
    let mut connection = PgConnection::connect(&database.url).await.expect("connect");
    let mut look = async |tenant: TenantId| -> (Option<i64>, Vec<(Uuid, Option<i64>)>) {
        let question = sqlx::query_scalar("select access_epoch($1)").bind(tenant.0);
        let epoch = question.fetch_one(&mut connection).await.expect("the epoch");
        let question = "select document_id, seq from changed_heads($1, array[$2], array[7::bigint], array[$2])";
        let question = sqlx::query_as(question).bind(tenant.0).bind(document.0);
        let heads = question.fetch_all(&mut connection).await.expect("heads");
        assert_eq!(count(&mut connection, "document_heads").await, 0, "the look was over, and its tenant went with it");
        (epoch, heads)
    };
    let (epoch, heads) = look(two.id).await;
    assert_eq!(heads, [(document.0, Some(0))]);
    let (other, heads) = look(one.id).await;
    assert!(other < epoch, "each has its own: {other:?}, {epoch:?}");
    assert_eq!(heads, [(document.0, None)], "somebody else's is not there");
    assert_eq!(look(TenantId(fresh())).await.0, None);
}

#[tokio::test]
async fn the_directory_follows_its_tenants() {
    let test = TestDatabase::create().await;
    let database = test.database();
    let id = TenantId(fresh());
    let mut db = postgres::begin(&database, id).await.expect("begin");
    tenants::create(&mut db, "acme", "Acme", Some("Acme.example")).await.expect("create");
    db.commit().await.expect("commit");
    let found = tenants::find_by_domain(&database, "ACME.example").await.expect("find").expect("acme");
    assert_eq!((found.id, found.slug.as_str(), found.is_active), (id, "acme", true));

    let mut db = postgres::begin(&database, id).await.expect("begin");
    tenants::set_active(&mut db, false).await.expect("switch off");
    db.commit().await.expect("commit");
    assert!(!tenants::find_by_slug(&database, "acme").await.expect("find").expect("acme").is_active);

    let mut db = postgres::begin(&database, TenantId(fresh())).await.expect("begin");
    let taken = tenants::create(&mut db, "acme", "Other", None).await.expect_err("a slug in use");
    assert!(matches!(taken, StoreError::Taken { ref constraint } if constraint == "tenants_slug_key"), "{taken:?}");
}

#[tokio::test]
async fn the_server_knows_its_schema_and_refuses_any_other() {
    let test = TestDatabase::create().await;
    let database = test.database();
    migrate::check(&database).await.expect("a schema that was just migrated");
    migrate::migrate(&test.owner_url, |_| {}).await.expect("nothing to do is no error");

    let mut superuser = test.superuser().await;
    let last = migrate::version_needed();
    for (what, statement, expected) in [
        ("newer", "insert into _sqlx_migrations values (9999, 'x', now(), true, '', 0)", "newer"),
        ("half applied", "update _sqlx_migrations set success = false where version = 102", "in part"),
        ("changed", "update _sqlx_migrations set checksum = 'x' where version = 101", "other contents"),
        ("behind", "delete from _sqlx_migrations where version > 101", "contextnexus migrate"),
        (
            "before the first release",
            "truncate _sqlx_migrations;
             insert into _sqlx_migrations select n, 'x', now(), true, '', 0 from generate_series(1, 22) n",
            "at schema 22, of a ContextNexus from before the first release",
        ),
    ] {
        let mut tx = superuser.begin().await.expect("begin");
        sqlx::raw_sql("create table kept as table _sqlx_migrations").execute(&mut *tx).await.expect("keep");
        sqlx::raw_sql(statement).execute(&mut *tx).await.expect(what);
        tx.commit().await.expect("commit");
        let refused = migrate::check(&database).await.expect_err(what).to_string();
        assert!(refused.contains(expected), "{what}: {refused}");
        if what != "behind" {
            let refused = migrate::migrate(&test.owner_url, |_| {}).await.expect_err(what).to_string();
            assert!(refused.contains(expected), "{what}: {refused}");
        }
        sqlx::raw_sql("truncate _sqlx_migrations; insert into _sqlx_migrations table kept; drop table kept")
            .execute(&mut superuser)
            .await
            .expect("put back");
    }
    migrate::check(&database).await.expect("as before");
    assert!(last >= 106);

    let hide = "revoke select on _sqlx_migrations from contextnexus_application"; // as it is for who is no member
    sqlx::raw_sql(hide).execute(&mut superuser).await.expect(hide);
    let refused = migrate::check(&database).await.expect_err("hidden").to_string();
    assert!(refused.contains("grant contextnexus_application"), "{refused}");
}

#[tokio::test]
async fn a_role_that_tenants_cannot_trust_is_named() {
    let test = TestDatabase::create().await;
    let inspect = async |url: &str| {
        let settings = postgres::DatabaseSettings::default();
        roles::inspect(&postgres::Database::new(url, &settings).expect("an address")).await.expect("inspect")
    };
    let application = inspect(&test.url).await;
    assert!(application.unsafe_role.is_empty(), "{:?}", application.unsafe_role);
    assert!(application.server_version >= 150_000);
    assert!(inspect(&test.owner_url).await.unsafe_role.iter().any(|why| why.contains("owns tables")));
    assert!(inspect(&test.superuser_url).await.unsafe_role.iter().any(|why| why.contains("row-level security")));
}

#[tokio::test]
async fn a_database_that_is_away_answers_soon() {
    let database = postgres::Database::new("postgres://nobody@127.0.0.1:1/x", &Default::default()).expect("an address");
    let answer = tokio::time::timeout(Duration::from_secs(5), postgres::begin(&database, TenantId(fresh()))).await;
    assert!(matches!(answer.expect("in time"), Err(StoreError::Unavailable(_))));
}
