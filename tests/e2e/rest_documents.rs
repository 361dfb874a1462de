//! Projects, members and documents over HTTP: who may, versions, names.

use crate::support::postgres::TestDatabase;
use crate::support::rest::{Company, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

#[actix_web::test]
async fn a_rename_needs_the_version_that_was_seen() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}", company.document);
    let token = &company.admin.token;
    let seen = app.get(&path).token(token).send().await.expect(200);
    assert_eq!(seen.header("etag"), "\"1\"");
    let rename = json!({ "name": "minutes", "title": "Minutes" });
    let without = app.patch(&path).token(token).json(rename.clone()).send().await;
    assert_eq!(without.expect(428).code(), "precondition_required");
    let renamed =
        app.patch(&path).token(token).header("if-match", "\"1\"").json(rename.clone()).send().await.expect(200);
    assert_eq!(renamed.header("etag"), "\"2\"");
    assert_eq!(renamed.json()["room"], "playground/minutes");
    let stale = app
        .patch(&path)
        .token(token)
        .header("if-match", "\"1\"")
        .json(json!({ "title": "Mine" }))
        .send()
        .await
        .expect(412);
    assert_eq!((stale.code().as_str(), &stale.json()["current_version"]), ("version_conflict", &json!(2)));
    assert_eq!(stale.header("etag"), "\"2\"");
    let stale = app.delete(&path).token(token).header("if-match", "\"1\"").send().await.expect(412);
    assert_eq!(stale.json()["current_version"], 2);
}

#[actix_web::test]
async fn a_former_name_leads_to_its_document_until_it_is_freed() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.admin.token;
    let project = company.project();
    let new = |name: &str| json!({ "project_id": project, "name": name });
    let first = app.post("/v1/documents").token(token).json(new("one")).send().await.expect(201).json();
    let id = first["id"].as_str().unwrap();
    let path = format!("/v1/documents/{id}");
    app.patch(&path).token(token).header("if-match", "\"1\"").json(json!({ "name": "two" })).send().await.expect(200);
    assert_eq!(app.post("/v1/documents").token(token).json(new("one")).send().await.expect(409).code(), "name_taken");
    assert_eq!(app.post("/v1/documents").token(token).json(new("two")).send().await.expect(409).code(), "name_taken");
    let by_old_name = app.post("/doc/new").token(token).json(json!({ "docId": "one" })).send().await.expect(200);
    assert_eq!(by_old_name.json()["docId"], "one");

    let aliases = format!("{path}/aliases");
    let listed = app.get(&aliases).token(token).send().await.expect(200).json();
    assert_eq!(listed["items"][0]["name"], "one");
    app.get(&aliases).token(&company.editor.token).send().await.expect(403);
    app.delete(&format!("{aliases}?name=one")).token(&company.editor.token).send().await.expect(403);
    app.delete(&format!("{aliases}?name=other")).token(token).send().await.expect(404);
    app.delete(&format!("{aliases}?name=%00")).token(token).send().await.expect(404);
    app.delete(&format!("{aliases}?name=one")).token(token).send().await.expect(204);
    let second = app.post("/v1/documents").token(token).json(new("one")).send().await.expect(201).json();
    assert_ne!(second["id"], first["id"]);
}

#[actix_web::test]
async fn a_deleted_document_is_gone_for_everybody_until_it_is_restored() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.admin.token;
    let path = format!("/v1/documents/{}", company.document);
    app.delete(&path).token(&company.editor.token).send().await.expect(403);
    app.delete(&path).token(token).send().await.expect(204);
    app.delete(&path).token(token).send().await.expect(204); // again
    for (answer, what) in [
        (app.get(&path).token(token).send().await, "read"),
        (app.get(&format!("{path}/content")).token(token).send().await, "content"),
        (app.post(&format!("{path}/update")).token(token).bytes(vec![0, 0]).send().await, "write"),
        (app.post(&format!("{path}/ticket")).token(token).send().await, "ticket"),
        (
            app.patch(&path).token(token).header("if-match", "\"2\"").json(json!({ "title": "x" })).send().await,
            "rename",
        ),
    ] {
        assert_eq!(answer.expect(410).code(), "document_deleted", "{what}");
    }
    let list = async |query: &str, token: &str| {
        let page = app.get(&format!("/v1/documents{query}")).token(token).send().await.expect(200).json();
        page["items"].as_array().unwrap().len()
    };
    assert_eq!((list("", token).await, list("?deleted=true", token).await), (0, 1));
    assert_eq!(list("?deleted=true", &company.editor.token).await, 0, "who may not restore need not see");
    app.post(&format!("{path}/restore")).token(&company.editor.token).send().await.expect(403);
    let restored = app.post(&format!("{path}/restore")).token(token).send().await.expect(200).json();
    assert_eq!(restored["deleted_at"], Value::Null);
    app.get(&format!("{path}/content")).token(&company.viewer.token).send().await.expect(200);
}

#[actix_web::test]
async fn each_role_may_what_it_may_and_no_more() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let project = format!("/v1/projects/{}", company.project());
    let document = format!("/v1/documents/{}", company.document);
    let add = json!({ "user_id": company.stranger.user, "role": "viewer" });
    let me = format!("{project}/members/{}", company.stranger.user);
    // Per route: viewer, editor, admin, stranger of the same tenant. 404 is all that a stranger learns.
    for (method, path, body, expected) in [
        ("GET", project.clone(), None, [200, 200, 200, 404]),
        ("GET", format!("{project}/members"), None, [200, 200, 200, 404]),
        ("PATCH", project.clone(), Some(json!({ "name": "x" })), [403, 403, 200, 404]),
        (
            "POST",
            "/v1/documents".into(),
            Some(json!({ "project_id": company.project(), "title": "x" })),
            [403, 201, 201, 404],
        ),
        ("GET", format!("/v1/documents?project_id={}", company.project()), None, [200, 200, 200, 404]),
        ("GET", document.clone(), None, [200, 200, 200, 404]),
        ("GET", format!("{document}/content"), None, [200, 200, 200, 404]),
        ("POST", format!("{document}/update"), None, [403, 200, 200, 404]),
        ("PATCH", document.clone(), Some(json!({ "name": "y" })), [403, 403, 200, 404]),
        ("POST", format!("{document}/ticket"), Some(json!({})), [201, 201, 201, 404]),
        ("POST", format!("{document}/ticket"), Some(json!({ "subject": "s" })), [403, 403, 201, 404]),
        // The administrator has made a viewer of the stranger by the time the stranger asks.
        ("POST", format!("{project}/members"), Some(add), [403, 403, 201, 403]),
        ("PATCH", me.clone(), Some(json!({ "role": "editor" })), [403, 403, 200, 403]),
        ("DELETE", me, None, [403, 403, 204, 404]),
    ] {
        let people = [&company.viewer, &company.editor, &company.admin, &company.stranger];
        for (person, expected) in people.into_iter().zip(expected) {
            let current = app.get(&path).token(&company.boss.token).send().await;
            let etag = current.header("etag").to_owned();
            let mut call = app.call(method.parse().unwrap(), &path).token(&person.token).header("if-match", &etag);
            if let Some(body) = &body {
                call = call.json(body.clone());
            } else if path.ends_with("/update") {
                call = call.bytes(crate::support::rest::typing(7, 0, "a"));
            }
            let answer = call.send().await;
            assert_eq!(answer.status.as_u16(), expected, "{method} {path} by {}: {}", person.email, answer.text());
        }
    }
}

#[actix_web::test]
async fn a_project_keeps_an_administrator() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let members = format!("/v1/projects/{}/members", company.project());
    let admin = format!("{members}/{}", company.admin.user);
    let token = &company.admin.token;
    let demote = json!({ "role": "editor" });
    assert_eq!(app.patch(&admin).token(token).json(demote.clone()).send().await.expect(409).code(), "last_admin");
    assert_eq!(app.delete(&admin).token(token).send().await.expect(409).code(), "last_admin");
    let editor = format!("{members}/{}", company.editor.user);
    app.patch(&editor).token(token).json(json!({ "role": "admin" })).send().await.expect(200);
    app.patch(&admin).token(token).json(demote).send().await.expect(200);
    // Now an editor: may leave, may not remove others.
    app.delete(&editor).token(token).send().await.expect(403);
    app.delete(&admin).token(token).send().await.expect(204);
    app.get(&members).token(token).send().await.expect(404);
    let again = json!({ "email": "VIEWER@acme.example", "role": "viewer" });
    assert_eq!(
        app.post(&members).token(&company.editor.token).json(again).send().await.expect(409).code(),
        "name_taken"
    );
}

#[actix_web::test]
async fn lists_lead_through_everything_once() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.editor.token;
    for n in 0..7 {
        let new = json!({ "project_id": company.project(), "name": format!("n{n}") });
        app.post("/v1/documents").token(token).json(new).send().await.expect(201);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/documents?limit=3".to_owned();
    loop {
        let page = app.get(&path).token(token).send().await.expect(200).json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/documents?limit=3&cursor={next}");
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(seen[..7], ["n6", "n5", "n4", "n3", "n2", "n1", "n0"]);
    for query in ["limit=0", "limit=201", "limit=x", "cursor=x", "page=2"] {
        let answer = app.get(&format!("/v1/documents?{query}")).token(token).send().await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{query}: {}", answer.text());
    }
}

#[actix_web::test]
async fn what_does_not_fit_is_refused_by_name() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.admin.token;
    let project = company.project();
    for (body, code) in [
        (json!({ "project_id": project }), "invalid_field"),
        (json!({ "project_id": project, "name": "" }), "invalid_field"),
        (json!({ "project_id": project, "name": "x".repeat(201) }), "invalid_field"),
        (json!({ "project_id": project, "name": "a\u{0}b" }), "invalid_field"),
        (json!({ "project_id": project, "name": company.document }), "name_taken"),
        (json!({ "project_id": project, "title": " \n" }), "invalid_field"),
        (json!({ "project_id": "x", "name": "a" }), "malformed_request"),
        (json!({ "project_id": project, "name": "a", "owner": 1 }), "malformed_request"),
        (json!([]), "malformed_request"),
    ] {
        let answer = app.post("/v1/documents").token(token).json(body.clone()).send().await;
        assert_eq!(answer.code(), code, "{body}");
    }
    let text = app.post("/v1/documents").token(token).bytes(b"{}".to_vec()).send().await;
    assert_eq!(text.expect(415).code(), "unsupported_media_type");
    let large = json!({ "project_id": project, "title": "x".repeat(300_000) });
    assert_eq!(app.post("/v1/documents").token(token).json(large).send().await.expect(413).code(), "payload_too_large");
    let composed = json!({ "project_id": project, "name": "e\u{301}tude / 1" });
    let made = app.post("/v1/documents").token(token).json(composed).send().await.expect(201).json();
    assert_eq!(made["name"], "\u{e9}tude / 1");
    for id in
        ["..%2f..%2fetc", "%00", "%2e%2e", "x", &"9".repeat(10_000), "\u{e9}".escape_default().to_string().as_str()]
    {
        let answer = app.get(&format!("/v1/documents/{id}")).token(token).send().await;
        assert_eq!(answer.status.as_u16(), 404, "{id}");
    }
    for header in ["Basic x", "Bearer", "Bearer ", "cnx_x", "Bearer x y"] {
        let answer = app.get("/v1/me").header("authorization", header).send().await;
        assert_eq!(answer.expect(401).header("www-authenticate"), "Bearer", "{header}");
    }
}

/// Yjs names sub-documents by UUIDs, and documents that come from other servers have such names.
#[actix_web::test]
async fn a_uuid_is_a_name_and_becomes_the_id() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.editor.token;
    let fresh = || crate::support::postgres::fresh().to_string();
    let new = async |project: Uuid, name: &str| {
        let body = json!({ "project_id": project, "name": name });
        app.post("/v1/documents").token(token).json(body).send().await
    };
    let default = company.project().0;
    let id = fresh();
    let created = new(default, &id.to_uppercase()).await.expect(201).json();
    assert_eq!((&created["id"], &created["name"]), (&json!(id), &json!(id)), "in lower case, as the id is written");
    assert_eq!(new(default, &id).await.expect(409).code(), "name_taken");
    let digits = id.replace('-', "");
    let created = new(default, &digits).await.expect(201).json();
    assert_eq!(created["name"], digits);
    assert_ne!(created["id"], id, "32 digits are a name like any other");

    // Y-Sweet's calls, which know nothing but such names.
    for doc_id in [fresh(), fresh().to_uppercase(), fresh().replace('-', "")] {
        let new = json!({ "docId": doc_id });
        let answer = app.post("/doc/new").token(token).json(new.clone()).send().await.expect(200).json();
        assert_eq!(answer["docId"], doc_id, "as it was asked for");
        app.post("/doc/new").token(token).json(new).send().await.expect(200);
        let auth = app.post(&format!("/doc/{doc_id}/auth")).token(token).send().await.expect(200).json();
        assert_eq!(auth["docId"], doc_id);
        let own = auth["token"].as_str().unwrap();
        for path in ["d", "doc"] {
            let update = crate::support::rest::typing(7, 0, "a");
            app.post(&format!("/{path}/{doc_id}/update")).token(own).bytes(update).send().await.expect(200);
            app.get(&format!("/{path}/{doc_id}/as-update")).token(own).send().await.expect(200);
        }
        app.get(&format!("/d/{}/as-update", company.document)).token(own).send().await.expect(404);
        let by_id = app.get(&format!("/v1/documents/{doc_id}")).token(token).send().await;
        if doc_id.contains('-') {
            assert_eq!(by_id.expect(200).json()["id"], doc_id.to_lowercase());
        } else {
            by_id.expect(404);
        }
    }
    // Nothing is created where somebody only looks.
    let nothing = fresh();
    app.get(&format!("/d/{nothing}/as-update")).token(token).send().await.expect(404);
    app.post(&format!("/doc/{nothing}/auth")).token(token).send().await.expect(404);
    app.get(&format!("/v1/documents/{nothing}/content")).token(token).send().await.expect(404);
    app.get(&format!("/v1/documents/{nothing}")).token(token).send().await.expect(404);

    // A document that the caller does not see keeps its id; its name leads nobody to two documents.
    let boss = &company.boss.token;
    let hidden = json!({ "slug": "hidden", "name": "Hidden" });
    let hidden = app.post("/v1/projects").token(boss).json(hidden).send().await.expect(201).json();
    let secret = json!({ "project_id": hidden["id"], "title": "Secret" });
    let secret = app.post("/v1/documents").token(boss).json(secret).send().await.expect(201).json();
    let secret = secret["id"].as_str().unwrap();
    assert_eq!(new(default, secret).await.expect(409).code(), "name_taken");
    app.post("/doc/new").token(token).json(json!({ "docId": secret })).send().await.expect(404);
    let path = format!("/v1/documents/{}", company.document);
    let etag = app.get(&path).token(boss).send().await.header("etag").to_owned();
    let rename = app.patch(&path).token(boss).header("if-match", &etag).json(json!({ "name": secret })).send().await;
    assert_eq!(rename.expect(409).code(), "name_taken");
    let free = json!({ "name": fresh() });
    app.patch(&path).token(boss).header("if-match", &etag).json(free).send().await.expect(200);

    // Another tenant's document of the same id is another document.
    let other = Company::found(&db, "umbrella").await;
    let body = json!({ "project_id": other.project(), "name": id });
    let theirs = app.post("/v1/documents").token(&other.editor.token).json(body).send().await.expect(201).json();
    assert_eq!(theirs["id"], id);
    app.delete(&format!("/v1/documents/{id}")).token(&other.admin.token).send().await.expect(204);
    app.get(&format!("/v1/documents/{id}")).token(token).send().await.expect(200);
    let gone = app.post("/doc/new").token(&other.editor.token).json(json!({ "docId": id })).send().await;
    assert_eq!(gone.expect(410).code(), "document_deleted");
}

#[actix_web::test]
async fn names_that_hide_something_are_refused_wherever_a_name_is_given() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.admin.token;
    let path = format!("/v1/documents/{}", company.document);
    for name in ["", "   ", "\u{200b}", "pl\u{200b}an", "gpj.\u{202e}exe", "a\nb", &"x".repeat(201)] {
        let new = json!({ "project_id": company.project(), "name": name });
        let created = app.post("/v1/documents").token(token).json(new).send().await;
        let renamed =
            app.patch(&path).token(token).header("if-match", "\"1\"").json(json!({ "name": name })).send().await;
        let y_sweet = app.post("/doc/new").token(token).json(json!({ "docId": name })).send().await;
        let mut texts = Vec::new();
        for (answer, field) in [(created, "name"), (renamed, "name"), (y_sweet, "docId")] {
            let answer = answer.expect(422);
            assert_eq!((answer.code().as_str(), &answer.json()["field"]), ("invalid_field", &json!(field)), "{name:?}");
            texts.push(answer.json()["detail"].as_str().unwrap().split_once(": ").unwrap().1.to_owned());
        }
        texts.dedup();
        assert_eq!(texts.len(), 1, "one rule and one text for {name:?}: {texts:?}");
    }
}

#[actix_web::test]
async fn a_document_is_found_by_its_room() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let token = &company.admin.token;
    let new = json!({ "project_id": company.project(), "name": "plan (2)" });
    let created = app.post("/v1/documents").token(token).json(new).send().await.expect(201).json();
    let id = created["id"].as_str().unwrap();
    let path = format!("/v1/documents/{id}");
    let rename = json!({ "name": "a/b 100%" });
    app.patch(&path).token(token).header("if-match", "\"1\"").json(rename).send().await.expect(200);
    let find = async |room: &str, token: &str| {
        let room = contextnexus::paths::segment(room);
        app.get(&format!("/v1/documents?room={room}")).token(token).send().await
    };
    for room in ["plan (2)", "playground/plan (2)", "playground/a/b 100%", id, &format!("playground/{id}")] {
        let page = find(room, token).await.expect(200).json();
        assert_eq!(page["items"][0]["id"], id, "{room}: {page}");
        assert_eq!((page["items"].as_array().unwrap().len(), &page["next_cursor"]), (1, &Value::Null), "{room}");
    }
    for room in ["plan", "playground/plan", &crate::support::postgres::fresh().to_string()] {
        assert_eq!(find(room, token).await.expect(200).json()["items"], json!([]), "{room}");
    }
    for (room, token) in [("nowhere/plan", token), ("playground/plan (2)", &company.stranger.token)] {
        let problem = find(room, token).await.expect(404).json();
        assert_eq!(problem["detail"], "no such project", "{room}");
    }
    assert_eq!(find(id, &company.stranger.token).await.expect(404).json()["detail"], "no such project");
    assert_eq!(find("\u{200b}", token).await.expect(422).json()["field"], "room");

    app.delete(&path).token(token).send().await.expect(204);
    assert_eq!(find("plan (2)", token).await.expect(200).json()["items"], json!([]), "deleted");
    let deleted = app.get("/v1/documents?deleted=true&room=plan%20(2)").token(token).send().await.expect(200).json();
    assert_eq!(deleted["items"][0]["id"], id);
}
