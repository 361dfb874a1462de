//! What has ended is removed after a while, and nothing else is; and who is there is known to a minute.

use crate::support::postgres::{TestDatabase, fresh};
use crate::support::rest::{Company, TestApp, typing};
use contextnexus::config::Retention;
use contextnexus::workers::upkeep::{self, Removed};
use contextnexus_actors::ids::DocumentId;
use contextnexus_actors::ports::{Place, RightInUse};
use serde_json::Value;

const RETENTION: Retention = Retention { idempotency_keys_h: 24, ended_sessions_days: 30, upkeep_interval_s: 3600 };

async fn count(db: &TestDatabase, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut db.superuser().await).await.unwrap()
}

#[actix_web::test]
async fn idempotency_keys_end_after_their_time_and_younger_ones_stay() {
    let db = TestDatabase::create().await;
    let (one, two) = (Company::found(&db, "acme").await, Company::found(&db, "beta").await);
    let app = TestApp::start(db.database());
    let write = async |company: &Company, key: &str, clock: u64| -> Value {
        let path = format!("/v1/documents/{}/update", company.document);
        let call = app.post(&path).token(&company.editor.token).header("idempotency-key", key);
        call.bytes(typing(7, clock, "x")).send().await.expect(200).json()
    };
    for company in [&one, &two] {
        write(company, "old", 0).await;
        write(company, "young", 1).await;
        let aged =
            "update idempotency_keys set created_at = now() - interval '25 hours' where tenant_id = $1 and key = 'old'";
        assert_eq!(company.tenant.sql(aged, &[]).await, 1);
    }
    let removed = upkeep::round(&db.database(), &RETENTION).await.unwrap();
    assert_eq!(removed, Removed { idempotency_keys: 2, sessions: 0 });
    assert_eq!(count(&db, "select count(*) from idempotency_keys where key = 'young'").await, 2);
    assert_eq!(count(&db, "select count(*) from idempotency_keys").await, 2);
    assert_eq!(write(&one, "young", 1).await["seq"], 2, "a known request is recognised");
    assert_eq!(upkeep::round(&db.database(), &RETENTION).await.unwrap(), Removed::default());
}

#[actix_web::test]
async fn sessions_end_long_after_their_end_however_many_they_are() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let user = company.editor.user.0;
    for (ended, how_many) in [
        ("expires_at = now() - interval '31 days'", 1203),
        ("revoked_at = now() - interval '31 days'", 1),
        ("expires_at = now() - interval '29 days'", 1),
        ("revoked_at = now() - interval '29 days'", 1),
    ] {
        let insert = sqlx::AssertSqlSafe(format!(
            "insert into user_sessions (tenant_id, id, user_id, kind, token_hash, expires_at)
             select $1, gen_random_uuid(), $2, 'login', sha256(random()::text::bytea), now() + interval '1 day'
               from generate_series(1, {how_many})"
        ));
        let mut connection = db.superuser().await;
        sqlx::query("select set_config('app.current_tenant_id', $1, false)")
            .bind(company.tenant.id.0.to_string())
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::query(insert).bind(company.tenant.id.0).bind(user).execute(&mut connection).await.unwrap();
        let end = format!(
            "update user_sessions set {ended} where kind = 'login' and expires_at > now() and revoked_at is null"
        );
        sqlx::query(sqlx::AssertSqlSafe(end)).execute(&mut connection).await.unwrap();
    }
    let epoch = "select epoch from tenant_access_epochs";
    let before = count(&db, epoch).await;
    let removed = upkeep::round(&db.database(), &RETENTION).await.unwrap();
    assert_eq!(removed, Removed { idempotency_keys: 0, sessions: 1204 });
    assert_eq!(count(&db, "select count(*) from user_sessions where kind = 'login'").await, 2, "29 days are not 30");
    assert_eq!(count(&db, epoch).await, before, "nobody's rights changed, so no node has to look");
    TestApp::start(db.database()).get("/v1/me").token(&company.editor.token).send().await.expect(200);
}

#[actix_web::test]
async fn a_session_with_an_open_document_is_active_and_its_row_is_written_once_a_minute() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let held = RightInUse {
        user_session: company.editor.user_session,
        user: company.editor.user,
        place: Place::Document(DocumentId(company.document)),
    };
    let written = "select count(*) from user_sessions where last_activity_at > now() - interval '1 minute'";
    assert_eq!(count(&db, written).await, 0);
    let tenant = company.tenant.id;
    let epoch = app.authority.recheck(tenant, None, &[held]).await.unwrap().epoch;
    assert_eq!(count(&db, written).await, 1, "of that session alone");
    let row = "select xmin::text::bigint from user_sessions where last_activity_at is not null";
    let version = count(&db, row).await;
    for _ in 0..20 {
        app.authority.recheck(tenant, Some(epoch), &[held]).await.unwrap();
        app.get("/v1/me").token(&company.editor.token).send().await.expect(200);
    }
    // Another node has not written it, and knows from the row that it need not.
    TestApp::start(db.database()).authority.recheck(tenant, Some(epoch), &[held]).await.unwrap();
    assert_eq!(count(&db, row).await, version, "written once");
    let aged = "update user_sessions set last_activity_at = now() - interval '2 minutes' where tenant_id = $1 and last_activity_at is not null";
    assert_eq!(company.tenant.sql(aged, &[]).await, 1);
    TestApp::start(db.database()).authority.recheck(tenant, Some(epoch), &[held]).await.unwrap();
    assert_eq!(count(&db, written).await, 1, "and again after a minute, also where no right has changed");
    let strange = RightInUse { user_session: contextnexus_actors::ids::UserSessionId(fresh()), ..held };
    TestApp::start(db.database()).authority.recheck(tenant, None, &[strange]).await.unwrap();
}
