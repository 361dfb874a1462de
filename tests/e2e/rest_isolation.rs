//! No route shows or changes anything of another tenant. The routes are those of the description, so a new one cannot be forgotten.

use crate::support::postgres::{self, TestDatabase};
use crate::support::rest::{Answer, Company, TestApp, typing};
use contextnexus::rest;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

/// Method and path of every operation of the description, but for what the server tells everybody about itself.
fn routes() -> Vec<(String, String)> {
    let api: Value = serde_json::to_value(rest::openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item.get(method).is_some_and(|operation| operation["tags"][0] != "Server") {
                routes.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    assert!(routes.len() > 30, "{routes:?}");
    // Of older Y-Sweet clients; the description has their newer names.
    for (method, path) in [("GET", "/doc/{id}/as-update"), ("POST", "/doc/{id}/update"), ("GET", "/check_store")] {
        routes.push((method.to_owned(), path.to_owned()));
    }
    routes
}

/// What each request that changes something would say about a victim. A route that is missing here fails the test.
fn body(method: &str, path: &str, victim: &Company) -> Option<Value> {
    let user = victim.editor.user;
    Some(match (method, path) {
        ("POST", "/v1/auth/login") => {
            json!({ "tenant": "beta", "email": victim.editor.email, "password": "a wrong one" })
        }
        ("POST", "/v1/auth/logout") => return None,
        ("POST", "/v1/tokens") => json!({ "name": "x", "user_id": user }),
        ("POST", "/v1/projects") => json!({ "slug": "playground-2", "name": "x" }),
        ("PATCH", "/v1/projects/{id}") => json!({ "name": "taken over", "auto_create_documents": true }),
        ("POST", "/v1/projects/{id}/members") => json!({ "user_id": user, "role": "admin" }),
        ("PATCH", "/v1/projects/{id}/members/{user_id}") => json!({ "role": "viewer" }),
        ("POST", "/v1/documents") => json!({ "project_id": victim.project(), "name": "planted" }),
        ("PATCH", "/v1/documents/{id}") => json!({ "name": "taken-over" }),
        ("POST", "/v1/documents/{id}/restore" | "/v1/documents/{id}/reopen") => return None,
        ("POST", "/v1/documents/{id}/ticket") => json!({ "subject": "s" }),
        ("POST", "/check_store") => return None,
        ("POST", "/doc/new") => json!({ "docId": victim.document }),
        ("POST", "/doc/{id}/auth") => json!({ "authorization": "full" }),
        ("POST", path) if path.ends_with("/update") => return None, // binary, below
        (method, path) => panic!("say what {method} {path} would do to another tenant"),
    })
}

/// A path with the victim's ids in it.
fn filled(path: &str, victim: &Company, id: Uuid) -> String {
    let path = path.replace("{user_id}", &victim.editor.user.to_string()).replace("{id}", &id.to_string());
    let path = path.replace("{quarantine_id}", &"0".repeat(64));
    if path.ends_with("/aliases") { format!("{path}?name=x") } else { path }
}

/// Which id a path is about.
fn own_id(path: &str, victim: &Company) -> Uuid {
    match path {
        path if path.starts_with("/v1/projects") => victim.project().0,
        path if path.starts_with("/v1/user-sessions") || path.starts_with("/v1/tokens") => victim.editor.user_session.0,
        _ => victim.document,
    }
}

async fn attack(app: &TestApp, method: &str, path: &str, id: Uuid, victim: &Company, token: &str) -> Answer {
    let path_with_id = filled(path, victim, id);
    let path_with_id = if method == "GET" { path_with_id.replace("?name=x", "") } else { path_with_id };
    let mut call = app.call(method.parse().unwrap(), &path_with_id).token(token).header("if-match", "\"1\"");
    if path.ends_with("/update") {
        call = call.bytes(typing(666, 0, "graffiti"));
    } else if matches!(method, "POST" | "PATCH")
        && let Some(body) = body(method, path, victim)
    {
        call = call.json(body);
    }
    call.send().await
}

/// Every row of one tenant in every table, as text.
async fn everything(db: &TestDatabase, tenant: Uuid) -> String {
    let mut connection = db.superuser().await;
    let tables = "select c.relname::text as name, a.attname::text as tenant_column from pg_class c
                    join pg_attribute a on a.attrelid = c.oid
                   where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
                     and (a.attname = 'tenant_id' or (c.relname = 'tenants' and a.attname = 'id')) order by 1";
    let mut all = String::new();
    for row in sqlx::query(tables).fetch_all(&mut connection).await.unwrap() {
        let (table, column): (String, String) = (row.get("name"), row.get("tenant_column"));
        let rows = format!(
            "select coalesce(string_agg(t::text, chr(10) order by t::text), '') from {table} t where {column} = $1"
        );
        let rows: String =
            sqlx::query_scalar(AssertSqlSafe(rows)).bind(tenant).fetch_one(&mut connection).await.unwrap();
        all.push_str(&format!("{table}:\n{rows}\n"));
    }
    all
}

#[actix_web::test]
async fn another_tenant_sees_and_changes_nothing() {
    let db = TestDatabase::create().await;
    let victim = Company::found(&db, "acme").await;
    let attacker = Company::found(&db, "beta").await;
    let app = TestApp::start(db.database());
    let update = format!("/v1/documents/{}/update", victim.document);
    app.post(&update).token(&victim.editor.token).bytes(typing(7, 0, "secret")).send().await.expect(200);
    let before = everything(&db, victim.tenant.id.0).await;
    assert!(before.contains("editor@acme.example"));
    for (method, path) in routes() {
        if path == "/v1/auth/logout" || (method == "DELETE" && path == "/v1/user-sessions") {
            continue; // about the caller alone, and the caller is needed further on
        }
        if path == "/doc/new" {
            continue; // below: an id is unique in its tenant, so the attacker gets a document of its own
        }
        let answer = attack(&app, &method, &path, own_id(&path, &victim), &victim, &attacker.boss.token).await;
        let names_the_victim = path.contains("{id}") || matches!(path.as_str(), "/v1/tokens" | "/v1/documents");
        if names_the_victim && method != "GET" {
            assert_eq!(answer.status.as_u16(), 404, "{method} {path}: {}", answer.text());
        } else {
            assert!(answer.status.as_u16() < 500, "{method} {path}: {}", answer.text());
        }
        for secret in [
            "acme",
            "secret",
            &victim.document.to_string(),
            &victim.project().to_string(),
            &victim.editor.user.to_string(),
        ] {
            assert!(!answer.text().contains(secret), "{method} {path} tells {secret}: {}", answer.text());
        }
        // What is foreign answers as what is missing does.
        if path.contains("{id}") {
            let missing = attack(&app, &method, &path, postgres::fresh(), &victim, &attacker.boss.token).await;
            assert_eq!((missing.status, missing.text()), (answer.status, answer.text()), "{method} {path}");
        }
    }
    let own = json!({ "docId": victim.document });
    app.post("/doc/new").token(&attacker.boss.token).json(own).send().await.expect(200);
    let path = format!("/d/{}/as-update", victim.document);
    let content = app.get(&path).token(&attacker.boss.token).send().await.expect(200);
    assert_eq!(content.body.as_ref(), [0, 0], "a document of the attacker's own, and an empty one");
    assert_eq!(everything(&db, victim.tenant.id.0).await, before, "something of the victim's changed");
}

#[actix_web::test]
async fn without_a_token_nothing_answers_but_the_login() {
    let db = TestDatabase::create().await;
    let victim = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let foreign = format!("cnx_{}_{}", victim.tenant.id.0.simple(), "A".repeat(43));
    for (method, path) in routes() {
        for token in ["", "cnx_", &foreign] {
            let answer = attack(&app, &method, &path, own_id(&path, &victim), &victim, token).await;
            let code = if path == "/v1/auth/login" { "bad_credentials" } else { "unauthenticated" };
            assert_eq!(answer.expect(401).code(), code, "{method} {path}");
        }
    }
}

#[actix_web::test]
async fn a_token_moved_to_another_tenant_is_worth_nothing() {
    let db = TestDatabase::create().await;
    let victim = Company::found(&db, "acme").await;
    let attacker = Company::found(&db, "beta").await;
    let app = TestApp::start(db.database());
    let secret = attacker.boss.token.rsplit_once('_').map(|_| &attacker.boss.token[37..]).unwrap();
    let moved = format!("cnx_{}_{secret}", victim.tenant.id.0.simple());
    app.get("/v1/me").token(&moved).send().await.expect(401);
}

#[actix_web::test]
async fn hostile_text_in_every_parameter_is_no_defect() {
    let db = TestDatabase::create().await;
    let victim = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let nasty = ["'%20or%201=1--", "%00", "%ff", "..%2f..", "%7b%7b", "%F0%9F%98%80", "a%0d%0ab"];
    for (method, path) in routes() {
        if path == "/v1/auth/logout" || (method == "DELETE" && path == "/v1/user-sessions") {
            continue;
        }
        for text in nasty {
            let path = path.replace("{id}", text).replace("{user_id}", text).replace("{quarantine_id}", text);
            let path = format!("{path}?cursor={text}&limit={text}&name={text}");
            let mut call = app.call(method.parse().unwrap(), &path).token(&victim.boss.token).header("if-match", text);
            if matches!(method.as_str(), "POST" | "PATCH") {
                call = call.json(
                    json!({ "slug": text, "name": "\u{0}", "email": "\u{0}'@x", "password": "x", "docId": "\u{0}" }),
                );
            }
            let answer = call.send().await;
            assert!(answer.status.as_u16() < 500, "{method} {path}: {}", answer.text());
            for word in ["select", "sqlx", "postgres", "src/", "panicked"] {
                assert!(!answer.text().to_lowercase().contains(word), "{method} {path}: {}", answer.text());
            }
        }
    }
}
