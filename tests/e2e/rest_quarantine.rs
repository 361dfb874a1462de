//! Quarantined updates belong to their author: to see, and to have back.

use crate::support::postgres::TestDatabase;
use crate::support::rest::{Company, TestApp, typing};
use bytes::Bytes;
use contextnexus::postgres::operation_log::{LogSettings, PostgresLog};
use contextnexus_actors::ids::{DocumentId, DocumentKey, Tip, UserId};
use contextnexus_actors::ports::log::{Extent, OperationLog, Quarantine, QuarantineReason};
use serde_json::Value;
use uuid::Uuid;

/// Quarantines bytes of somebody's that never entered the log.
async fn refuse(log: &PostgresLog, company: &Company, user: Option<UserId>, update: &'static [u8]) {
    let key = DocumentKey { tenant: company.tenant.id, document: DocumentId(company.document) };
    let what = Quarantine {
        seq_from: 0,
        extent: Extent::Row,
        reason: QuarantineReason::Fork,
        update: Bytes::from_static(update),
        user_session: None,
        user,
        new_tip: Tip(Uuid::nil()),
    };
    log.quarantine_refused(key, what).await.expect("quarantine");
}

fn ids(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn an_author_has_its_own_and_an_administrator_all_and_nobody_else_any() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let foreign = Company::found(&db, "beta").await;
    let app = TestApp::start(db.database());
    let log = db.log(LogSettings::default());
    refuse(&log, &company, Some(company.editor.user), b"the editor's").await;
    refuse(&log, &company, None, &[7; 5000]).await;
    refuse(&log, &company, Some(company.admin.user), b"the admin's").await;
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let (of_editor, of_nobody, of_admin) = (hash(b"the editor's"), hash(&[7; 5000]), hash(b"the admin's"));
    let path = format!("/v1/documents/{}/quarantine", company.document);
    let list = async |token: &str| ids(&app.get(&path).token(token).send().await.expect(200).json());
    let all = vec![of_admin.clone(), of_nobody.clone(), of_editor.clone()];
    assert_eq!(list(&company.admin.token).await, all, "newest first");
    assert_eq!(list(&company.boss.token).await, all);
    assert_eq!(list(&company.editor.token).await, std::slice::from_ref(&of_editor));
    assert_eq!(list(&company.viewer.token).await, Vec::<String>::new());
    for token in [&company.stranger.token, &foreign.boss.token] {
        assert_eq!(app.get(&path).token(token).send().await.expect(404).code(), "not_found");
    }

    let item = app.get(&format!("{path}?limit=1")).token(&company.editor.token).send().await.expect(200).json();
    let item = &item["items"][0];
    assert_eq!((&item["reason"], &item["bytes"], &item["seq"]), (&"fork".into(), &12.into(), &Value::Null));
    assert_eq!(item["user_id"], company.editor.user.to_string());
    assert_eq!(item.get("user_session_id"), Some(&Value::Null), "it was not said");

    let get = async |token: &str, id: &str| app.get(&format!("{path}/{id}")).token(token).send().await;
    let bytes = get(&company.editor.token, &of_editor).await.expect(200);
    assert_eq!(&bytes.body[..], b"the editor's");
    assert_eq!(bytes.header("content-type"), "application/octet-stream");
    assert!(bytes.header("content-disposition").starts_with("attachment"));
    assert_eq!(
        &get(&company.admin.token, &of_nobody).await.expect(200).body[..],
        &[7; 5000],
        "compressed in the table"
    );
    for (token, id) in [
        (&company.editor.token, &of_admin),
        (&company.viewer.token, &of_editor),
        (&company.stranger.token, &of_editor),
        (&foreign.boss.token, &of_editor),
        (&company.admin.token, &"0".repeat(64)),
        (&company.admin.token, &"nothing".to_owned()),
    ] {
        assert_eq!(get(token, id).await.expect(404).code(), "not_found", "{id}");
    }
}

#[actix_web::test]
async fn a_token_of_one_document_shows_its_users_own_there_and_nothing_of_another_document() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let log = db.log(LogSettings::default());
    refuse(&log, &company, Some(company.editor.user), b"the editor's").await;
    refuse(&log, &company, Some(company.admin.user), b"the admin's").await;
    let authorize = format!("/doc/{}/auth", company.document);
    let client = app.post(&authorize).token(&company.editor.token).send().await.expect(200).json();
    let client = client["token"].as_str().unwrap();
    let path = format!("/v1/documents/{}/quarantine", company.document);
    let found = app.get(&path).token(client).send().await.expect(200).json();
    assert_eq!(ids(&found), [blake3::hash(b"the editor's").to_hex().to_string()]);
    let other = company.tenant.document().await;
    let other = format!("/v1/documents/{}/quarantine", other.0);
    app.get(&other).token(client).send().await.expect(404);
    assert_eq!(
        ids(&app.get(&other).token(&company.editor.token).send().await.expect(200).json()),
        Vec::<String>::new()
    );
}

#[actix_web::test]
async fn what_a_fork_brought_is_there_page_by_page() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let document = format!("/v1/documents/{}", company.document);
    let write =
        |text: &str| app.post(&format!("{document}/update")).token(&company.editor.token).bytes(typing(7, 0, text));
    write("one").send().await.expect(200);
    for text in ["two", "six", "ten"] {
        assert_eq!(write(text).send().await.expect(409).code(), "update_fork");
    }
    let mut found = Vec::new();
    let mut path = format!("{document}/quarantine?limit=2");
    loop {
        let page = app.get(&path).token(&company.editor.token).send().await.expect(200).json();
        found.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{document}/quarantine?limit=2&cursor={cursor}");
    }
    let newest_first = ["ten", "six", "two"].map(|text| blake3::hash(&typing(7, 0, text)).to_hex().to_string());
    assert_eq!(found, newest_first);
    let bad = app.get(&format!("{document}/quarantine?cursor=x")).token(&company.editor.token).send().await;
    assert_eq!(bad.expect(422).code(), "invalid_field");
}

#[actix_web::test]
async fn rows_that_break_a_fold_close_a_document_when_they_come_within_ten_minutes_and_only_administrators_open_it() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let log = db.log(LogSettings::default());
    let path = format!("/v1/documents/{}", company.document);
    let write = async |client: u64| {
        app.post(&format!("{path}/update")).token(&company.editor.token).bytes(typing(client, 0, "text")).send().await
    };
    let quarantine = async |seq_from: u64, reason: QuarantineReason| {
        let key = DocumentKey { tenant: company.tenant.id, document: DocumentId(company.document) };
        let new_tip = Tip(Uuid::from_u128(u128::from(seq_from)));
        let (extent, update) = (Extent::Row, Bytes::new());
        let what = Quarantine { seq_from, extent, reason, update, user_session: None, user: None, new_tip };
        log.quarantine(key, what).await.expect("quarantine");
    };
    let is_open = async || {
        app.get(&path).token(&company.viewer.token).send().await.expect(200).json()["read_only_since"] == Value::Null
    };
    for client in 1..=6 {
        write(client).await.expect(200);
    }
    quarantine(1, QuarantineReason::FoldPanicked).await;
    quarantine(2, QuarantineReason::DoesNotContinue).await; // is no fault of its own
    assert!(is_open().await);
    company
        .tenant
        .sql("update quarantine set created_at = now() - interval '10 minutes' where tenant_id = $1", &[])
        .await;
    quarantine(3, QuarantineReason::FoldDied).await;
    assert!(is_open().await, "the one before was long ago");
    quarantine(4, QuarantineReason::FoldOverran).await;
    assert!(!is_open().await);
    assert_eq!(write(7).await.expect(403).code(), "read_only");
    let reopen = async |token: &str| app.post(&format!("{path}/reopen")).token(token).send().await;
    reopen(&company.editor.token).await.expect(403);
    reopen(&company.stranger.token).await.expect(404);
    assert_eq!(reopen(&company.admin.token).await.expect(200).json()["read_only_since"], Value::Null);
    write(7).await.expect(200);
    quarantine(5, QuarantineReason::FoldPanicked).await;
    assert!(!is_open().await, "a third within the same ten minutes");
}
