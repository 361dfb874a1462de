//! Reading and writing documents over HTTP.

use crate::support::cluster::Cluster;
use crate::support::postgres::TestDatabase;
use crate::support::rest::{Company, TestApp, typing};
use contextnexus::origins::Origins;
use contextnexus::rest::RestSettings;
use serde_json::json;

#[actix_web::test]
async fn what_was_written_is_read_in_every_form_and_by_a_cold_server() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}", company.document);
    let token = &company.editor.token;
    let first = app.post(&format!("{path}/update")).token(token).bytes(typing(7, 0, "hello")).send().await.expect(200);
    assert_eq!(first.json(), json!({ "seq": 1 }));
    let second =
        app.post(&format!("{path}/update")).token(token).bytes(typing(7, 5, " world 😀")).send().await.expect(200);
    assert_eq!(second.json(), json!({ "seq": 2 }));
    for app in [&app, &TestApp::start(db.database())] {
        let content = format!("{path}/content");
        let update = app.get(&content).token(&company.viewer.token).send().await.expect(200);
        assert_eq!(update.header("content-type"), "application/octet-stream");
        assert_eq!(update.header("contextnexus-seq"), "2");
        assert_eq!(update.header("content-disposition"), "attachment; filename=\"document.yjs\"");
        assert!(update.text().contains("hello world 😀"), "one block of both");
        let text = app.get(&content).header("accept", "text/plain").token(token).send().await.expect(200);
        assert_eq!(text.text(), "hello world 😀");
        let shown = app.get(&content).header("accept", "application/json").token(token).send().await.expect(200);
        assert_eq!(
            shown.json()["text"],
            json!({ "kind": "text", "text": "hello world 😀", "delta": [{ "insert": "hello world 😀" }] })
        );
        let again =
            app.get(&content).header("accept", "application/json").header("if-none-match", shown.header("etag"));
        assert_eq!(again.token(token).send().await.expect(304).body.len(), 0);
        let other = app.get(&content).header("if-none-match", shown.header("etag")).token(token).send().await;
        other.expect(200); // another form
        let picture = app.get(&content).header("accept", "image/png").token(token).send().await;
        assert_eq!(picture.expect(406).code(), "not_acceptable");
        let listed = app.get(&path).token(token).send().await.expect(200).json();
        assert_eq!(listed["seq"], 2);
    }
}

#[actix_web::test]
async fn a_repeated_request_is_recognised() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}/update", company.document);
    let send = async |app: &TestApp, key: &str, token: &str, body: Vec<u8>| {
        app.post(&path).header("idempotency-key", key).token(token).bytes(body).send().await
    };
    let (editor, admin) = (&company.editor.token, &company.admin.token);
    let one = typing(7, 0, "one");
    assert_eq!(send(&app, "k", editor, one.clone()).await.expect(200).json()["seq"], 1);
    assert_eq!(send(&app, "k2", editor, typing(7, 3, "two")).await.expect(200).json()["seq"], 2);
    assert_eq!(send(&app, "k", editor, one.clone()).await.expect(200).json()["seq"], 1, "as the first time");
    let other_node = TestApp::start(db.database());
    assert_eq!(send(&other_node, "k", editor, one.clone()).await.expect(200).json()["seq"], 1);
    let conflict = send(&other_node, "k", editor, typing(7, 6, "three")).await.expect(422);
    assert_eq!(conflict.code(), "idempotency_conflict");
    // Keys are their sender's own.
    assert_eq!(send(&app, "k", admin, typing(8, 0, "other")).await.expect(200).json()["seq"], 3);
    // Without a key a repetition is harmless, too.
    app.post(&path).token(editor).bytes(one).send().await.expect(200);
    for key in ["", &"x".repeat(256), "a\tb"] {
        let answer = send(&app, key, editor, typing(7, 6, "x")).await.expect(400);
        assert_eq!(answer.code(), "malformed_request");
    }
    let rows = company.tenant.sql("select from operations_log where tenant_id = $1", &[]).await;
    assert_eq!(rows, 3);
}

#[actix_web::test]
async fn a_gap_is_answered_with_what_is_known() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}/update", company.document);
    let token = &company.editor.token;
    app.post(&path).token(token).bytes(typing(7, 0, "ab")).send().await.expect(200);
    let gap = app.post(&path).token(token).bytes(typing(7, 5, "late")).send().await.expect(409);
    assert_eq!(gap.code(), "update_gap");
    // One client, 7, at clock 2.
    assert_eq!(gap.json()["state_vector"], "AQcC");
    let content = format!("/v1/documents/{}/content", company.document);
    assert_eq!(app.get(&content).header("accept", "text/plain").token(token).send().await.text(), "ab");
    app.post(&path).token(token).bytes(typing(7, 2, "cde")).send().await.expect(200);
    app.post(&path).token(token).bytes(typing(7, 5, "late")).send().await.expect(200);
    assert_eq!(app.get(&content).header("accept", "text/plain").token(token).send().await.text(), "abcdelate");
}

#[actix_web::test]
async fn an_update_beyond_a_limit_is_refused_by_the_name_of_the_limit() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}/update", company.document);
    for (update, limit) in crate::ws_limits::beyond_the_shapes() {
        let answer = app.post(&path).token(&company.editor.token).bytes(update).send().await.expect(400);
        assert_eq!(answer.code(), "malformed_update");
        assert!(answer.text().contains(limit), "{} does not name {limit}", answer.text());
    }
}

#[actix_web::test]
async fn what_is_no_update_is_refused_and_changes_nothing() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let settings = RestSettings { update_bytes_max: 1000, ..RestSettings::default() };
    let app = TestApp::with(db.database(), settings, Origins::new(&[], &[], "", true));
    let path = format!("/v1/documents/{}/update", company.document);
    let token = &company.editor.token;
    for body in [vec![], vec![1], b"not an update".to_vec(), [typing(7, 0, "x"), vec![0]].concat(), vec![0xff; 100]] {
        let answer = app.post(&path).token(token).bytes(body.clone()).send().await.expect(400);
        assert_eq!(answer.code(), "malformed_update", "{body:?}");
    }
    let large = app.post(&path).token(token).bytes(typing(7, 0, &"x".repeat(2000))).send().await.expect(413);
    assert_eq!((large.code().as_str(), large.json()["limit_bytes"].as_u64()), ("payload_too_large", Some(1000)));
    let wrong = app.post(&path).token(token).json(json!({})).send().await.expect(415);
    assert_eq!(wrong.code(), "unsupported_media_type");
    let reader = app.post(&path).token(&company.viewer.token).bytes(typing(7, 0, "x")).send().await.expect(403);
    assert_eq!(reader.code(), "read_only");
    assert_eq!(company.tenant.sql("select from operations_log where tenant_id = $1", &[]).await, 0);
}

#[actix_web::test]
async fn without_postgresql_everybody_is_asked_to_come_back() {
    let mut cluster = Cluster::start();
    let db = TestDatabase::create_on(&cluster.server()).await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}", company.document);
    let token = &company.editor.token;
    app.post(&format!("{path}/update")).token(token).bytes(typing(7, 0, "before")).send().await.expect(200);
    cluster.stop();
    for call in [
        app.get(&path),
        app.get("/v1/me"),
        app.post("/v1/auth/login").json(json!({ "tenant": "acme", "email": "a@b", "password": "x" })),
        app.post(&format!("{path}/update")).bytes(typing(7, 6, "lost?")),
        app.get(&format!("{path}/content")),
    ] {
        let answer = call.token(token).send().await.expect(503);
        assert_eq!(answer.code(), "unavailable");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
        for word in ["sql", "postgres", "connection", "/tmp", "os error"] {
            assert!(!answer.text().to_lowercase().contains(word), "{}", answer.text());
        }
    }
    std::mem::forget(db); // nothing is left to drop it from
}

/// RFC 9110, 13.1.2: a list, weak comparison, and `*`. Proxies that compress make `ETag`s weak.
#[actix_web::test]
async fn content_that_was_seen_is_not_sent_again() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}", company.document);
    let token = &company.editor.token;
    app.post(&format!("{path}/update")).token(token).bytes(typing(7, 0, "hello")).send().await.expect(200);
    let content = format!("{path}/content");
    for form in ["application/octet-stream", "application/json", "text/plain"] {
        let ask = async |seen: &str| {
            app.get(&content).header("accept", form).header("if-none-match", seen).token(token).send().await
        };
        let etag = ask("\"x\"").await.expect(200).header("etag").to_owned();
        for seen in [&etag, &format!("W/{etag}"), &format!("\"x\", {etag}"), &format!("\"x\",W/{etag} ,\"y\""), "*"] {
            let answer = ask(seen).await.expect(304);
            assert_eq!((answer.header("etag"), answer.body.len()), (etag.as_str(), 0), "{form}: {seen}");
        }
        for seen in ["\"x\", W/\"y\"", "nonsense", ""] {
            ask(seen).await.expect(200);
        }
    }
}

/// Yjs stores no kinds and forgets deleted content; what people empty is a text.
#[actix_web::test]
async fn an_emptied_text_stays_a_text() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let path = format!("/v1/documents/{}", company.document);
    let token = &company.editor.token;
    let write = async |update: Vec<u8>| {
        app.post(&format!("{path}/update")).token(token).bytes(update).send().await.expect(200);
    };
    write(typing(7, 0, "hello")).await;
    write(vec![0, 1, 7, 1, 0, 5]).await; // all of it deleted
    for app in [&app, &TestApp::start(db.database())] {
        let ask = |form: &str| app.get(&format!("{path}/content")).header("accept", form).token(token);
        let shown = ask("application/json").send().await.expect(200).json();
        assert_eq!(shown, json!({ "text": { "kind": "text", "text": "", "delta": [] } }));
        assert_eq!(ask("text/plain").send().await.expect(200).text(), "");
    }
}

#[actix_web::test]
async fn an_update_in_format_v2_is_told_so() {
    use yrs::{ReadTxn as _, Text as _, Transact as _};
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let doc = yrs::Doc::new();
    let text = doc.get_or_insert_text("text");
    text.insert(&mut doc.try_transact_mut().unwrap(), 0, "hello");
    let update = doc.try_transact().unwrap().encode_state_as_update_v2(&yrs::StateVector::default());
    let token = &company.editor.token;
    for path in [format!("/v1/documents/{}/update", company.document), format!("/d/{}/update", company.document)] {
        let answer = app.post(&path).token(token).bytes(update.clone()).send().await.expect(400);
        assert_eq!(answer.code(), "update_format_v2", "{path}");
        assert!(answer.text().contains("format v2"), "{}", answer.text());
        let other = app.post(&path).token(token).bytes(vec![9, 9, 9]).send().await.expect(400);
        assert_eq!(other.code(), "malformed_update", "{path}");
    }
}
