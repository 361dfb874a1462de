//! Tickets, document tokens, and the HTTP calls of Y-Sweet.

use crate::support::postgres::TestDatabase;
use crate::support::rest::{Company, TestApp, typing};
use contextnexus_actors::access::{Role, Scope, Token};
use contextnexus_actors::ids::DocumentId;
use contextnexus_actors::ports::{AccessDenied, RoomName};
use serde_json::{Value, json};

async fn issue(app: &TestApp, company: &Company, token: &str, body: Value) -> Value {
    app.post(&format!("/v1/documents/{}/ticket", company.document))
        .token(token)
        .json(body)
        .send()
        .await
        .expect(201)
        .json()
}

#[actix_web::test]
async fn a_ticket_is_taken_once() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let made =
        app.post(&format!("/v1/documents/{}/ticket", company.document)).token(&company.editor.token).send().await;
    let made = made.expect(201).json();
    let ticket = Token(made["ticket"].as_str().unwrap().to_owned());
    let caller = app.authority.authenticate(&ticket).await.unwrap();
    assert_eq!(
        (caller.user, caller.scope),
        (company.editor.user, Scope::Document(DocumentId(company.document), Role::Editor))
    );
    let grant = app.authority.open(&caller, &RoomName::Id(DocumentId(company.document))).await.unwrap();
    assert_eq!(grant.role, Role::Editor);
    assert!(matches!(app.authority.authenticate(&ticket).await, Err(AccessDenied::BadToken)), "taken twice");
}

#[actix_web::test]
async fn a_ticket_is_worth_nothing_after_its_time() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let made = issue(&app, &company, &company.editor.token, json!({})).await;
    let redeem_by: chrono::DateTime<chrono::Utc> = made["redeem_by"].as_str().unwrap().parse().unwrap();
    let left = redeem_by.timestamp() - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    assert!((50..=60).contains(&left), "{left}");
    let passed =
        "update user_sessions set redeem_by = now() - interval '1 second' where tenant_id = $1 and kind = 'ticket'";
    assert_eq!(company.tenant.sql(passed, &[]).await, 1);
    let ticket = Token(made["ticket"].as_str().unwrap().to_owned());
    assert!(matches!(app.authority.authenticate(&ticket).await, Err(AccessDenied::BadToken)));
}

#[actix_web::test]
async fn a_ticket_opens_its_own_document_and_no_other() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let other = company.tenant.document().await;
    let made = issue(&app, &company, &company.admin.token, json!({})).await;
    let caller = app.authority.authenticate(&Token(made["ticket"].as_str().unwrap().to_owned())).await.unwrap();
    assert!(matches!(app.authority.open(&caller, &RoomName::Id(other)).await, Err(AccessDenied::NoSuchDocument)));
    let named = RoomName::Named { project: None, name: "a-new-one".into() };
    assert!(app.authority.open(&caller, &named).await.is_err());
    // And over HTTP: nothing but its document.
    for path in [
        "/v1/documents".to_owned(),
        "/v1/projects".into(),
        "/v1/user-sessions".into(),
        format!("/v1/documents/{}", company.document),
        format!("/v1/documents/{other}/content"),
        "/d/some-name/as-update".into(),
    ] {
        let made = issue(&app, &company, &company.admin.token, json!({})).await;
        let answer = app.get(&path).token(made["ticket"].as_str().unwrap()).send().await;
        assert!(matches!(answer.status.as_u16(), 403 | 404), "{path}: {}", answer.text());
    }
    let made = issue(&app, &company, &company.admin.token, json!({})).await;
    let content = format!("/v1/documents/{}/content", company.document);
    app.get(&content).token(made["ticket"].as_str().unwrap()).send().await.expect(200);
}

#[actix_web::test]
async fn a_ticket_carries_at_most_the_role_of_whoever_asks() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let made = issue(&app, &company, &company.viewer.token, json!({ "role": "admin" })).await;
    assert_eq!(made["role"], "viewer");
    let update = format!("/v1/documents/{}/update", company.document);
    let write = app.post(&update).token(made["ticket"].as_str().unwrap()).bytes(typing(7, 0, "x")).send().await;
    assert_eq!(write.expect(403).code(), "read_only");
    // Later demoted: the ticket's role falls with its user's.
    let made = issue(&app, &company, &company.editor.token, json!({})).await;
    let demoted = "update project_memberships set role = 'viewer' where tenant_id = $1 and user_id = $2";
    company.tenant.sql(demoted, &[company.editor.user.0]).await;
    let write = app.post(&update).token(made["ticket"].as_str().unwrap()).bytes(typing(7, 0, "x")).send().await;
    assert_eq!(write.expect(403).code(), "read_only");
}

#[actix_web::test]
async fn an_applications_own_users_need_no_account() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let wanted = |name: &str| json!({ "subject": "customer-4711", "name": name, "role": "editor", "ttl": 600 });
    let path = format!("/v1/documents/{}/ticket", company.document);
    app.post(&path).token(&company.editor.token).json(wanted("Jane")).send().await.expect(403);
    let first = issue(&app, &company, &company.admin.token, wanted("Jane")).await;
    let second = issue(&app, &company, &company.admin.token, wanted("Jane Doe")).await;
    let one = app.authority.authenticate(&Token(first["ticket"].as_str().unwrap().to_owned())).await.unwrap();
    let two = app.authority.authenticate(&Token(second["ticket"].as_str().unwrap().to_owned())).await.unwrap();
    assert_eq!(one.user, two.user, "one subject, one user");
    assert_ne!(one.user_session, two.user_session);
    let grant = app.authority.open(&one, &RoomName::Id(DocumentId(company.document))).await.unwrap();
    assert_eq!(grant.role, Role::Editor, "a member of nothing, and yet");
    let rows = "select from users where tenant_id = $1 and id = $2 and kind = 'external' and name = 'Jane Doe'
                and external_subject = 'customer-4711' and password_hash is null and email is null";
    assert_eq!(company.tenant.sql(rows, &[one.user.0]).await, 1);
    for (body, code) in [
        (json!({ "subject": "" }), "invalid_field"),
        (json!({ "subject": "a\u{0}" }), "invalid_field"),
        (json!({ "subject": "x".repeat(513) }), "invalid_field"),
        (json!({ "subject": "s", "role": "admin" }), "invalid_field"),
        (json!({ "subject": "s", "ttl": 59 }), "invalid_field"),
        (json!({ "name": "n" }), "invalid_field"),
        (json!({ "subject": "s", "rolle": "viewer" }), "malformed_request"),
        (json!("s"), "malformed_request"),
    ] {
        let answer = app.post(&path).token(&company.admin.token).json(body.clone()).send().await;
        assert_eq!(answer.code(), code, "{body}");
    }
    company.tenant.sql("update users set is_active = false where tenant_id = $1 and kind = 'external'", &[]).await;
    app.post(&path).token(&company.admin.token).json(wanted("Jane")).send().await.expect(403);
}

#[actix_web::test]
async fn a_ticket_ends_with_the_session_that_asked_for_it() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let login = crate::support::rest::login(&app, &company, &company.editor).await;
    let session = login["token"].as_str().unwrap();
    let content = format!("/v1/documents/{}/content", company.document);
    let made = issue(&app, &company, session, json!({})).await;
    let auth = app.post(&format!("/doc/{}/auth", company.document)).token(session).send().await.expect(200).json();
    app.get(&content).token(auth["token"].as_str().unwrap()).send().await.expect(200);
    app.post("/v1/auth/logout").token(session).send().await.expect(204);
    app.get(&content).token(made["ticket"].as_str().unwrap()).send().await.expect(401);
    app.get(&content).token(auth["token"].as_str().unwrap()).send().await.expect(401);
}

#[actix_web::test]
async fn y_sweets_calls_work_as_its_clients_make_them() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let server = &company.admin.token;
    assert_eq!(app.post("/check_store").token(server).send().await.expect(200).json(), json!({ "ok": true }));
    app.get("/check_store").token(server).send().await.expect(200);
    let fresh = app.post("/doc/new").token(server).send().await.expect(200).json();
    assert!(uuid::Uuid::try_parse(fresh["docId"].as_str().unwrap()).is_ok());
    for _ in 0..2 {
        let named =
            app.post("/doc/new").token(server).json(json!({ "docId": "notes", "archiveType": "x" })).send().await;
        assert_eq!(named.expect(200).json(), json!({ "docId": "notes" }));
    }
    let auth = app
        .post("/doc/notes/auth")
        .token(server)
        .json(json!({ "authorization": "full" }))
        .send()
        .await
        .expect(200)
        .json();
    let id = auth["docId"].as_str().unwrap();
    assert_eq!(auth["url"], format!("ws://127.0.0.1:8080/d/{id}/ws"));
    assert_eq!(auth["baseUrl"], format!("http://127.0.0.1:8080/d/{id}"));
    let client = auth["token"].as_str().unwrap();
    for path in ["/d/notes/update".to_owned(), format!("/d/{id}/update"), "/doc/notes/update".into()] {
        app.post(&path).token(client).bytes(typing(7, 0, "shared")).send().await.expect(200);
    }
    for path in [format!("/d/{id}/as-update"), "/d/notes/as-update".into(), format!("/doc/{id}/as-update")] {
        assert!(app.get(&path).token(client).send().await.expect(200).text().contains("shared"));
    }
    assert_eq!(
        app.get(&format!("/d/{}/as-update", company.document)).token(client).send().await.expect(404).code(),
        "not_found"
    );
    let reading = app
        .post("/doc/notes/auth")
        .token(server)
        .json(json!({ "authorization": "read-only" }))
        .send()
        .await
        .expect(200)
        .json();
    let client = reading["token"].as_str().unwrap();
    assert_eq!(reading["authorization"], "read-only");
    let refused = app.post(&format!("/d/{id}/update")).token(client).bytes(typing(7, 6, "!")).send().await;
    assert_eq!(refused.expect(403).code(), "read_only");
    let user = app
        .post("/doc/notes/auth")
        .token(server)
        .json(json!({ "userId": "u1", "validForSeconds": 60 }))
        .send()
        .await
        .expect(200)
        .json();
    let me = app.get("/v1/me").token(user["token"].as_str().unwrap()).send().await.expect(200).json();
    assert_eq!((&me["user"]["kind"], &me["session"]["role"]), (&json!("external"), &json!("editor")));
    app.post("/doc/notes/auth").token(&company.viewer.token).send().await.expect(403);
    app.post("/doc/nothing/auth").token(server).send().await.expect(404);
    app.post(&format!("/doc/{}/auth", uuid::Uuid::nil())).token(server).send().await.expect(404);
    app.post("/doc/new").token(&company.viewer.token).json(json!({ "docId": "mine" })).send().await.expect(403);
}
