//! A damaged log over HTTP: what is before the damage is read, users are told why nobody writes, and an administrator goes on.

use crate::support::postgres::TestDatabase;
use crate::support::rest::{Company, TestApp, typing};
use contextnexus::postgres::operation_log;
use contextnexus_actors::ids::{DocumentId, DocumentKey};
use serde_json::{Value, json};

/// A document whose log has these rows, `one`, `two` and `three`, each of a client of its own.
async fn three_rows(app: &TestApp, company: &Company) -> String {
    let path = format!("/v1/documents/{}", company.document);
    for (client, text) in [(1, "one "), (2, "two "), (3, "three ")] {
        write(app, company, typing(client, 0, text)).await;
    }
    path
}

async fn write(app: &TestApp, company: &Company, update: Vec<u8>) {
    let path = format!("/v1/documents/{}/update", company.document);
    app.post(&path).token(&company.editor.token).bytes(update).send().await.expect(200);
}

async fn words(app: &TestApp, company: &Company) -> Vec<String> {
    let path = format!("/v1/documents/{}/content", company.document);
    let answer = app.get(&path).token(&company.viewer.token).header("accept", "text/plain").send().await.expect(200);
    let mut words: Vec<_> = answer.text().split_whitespace().map(str::to_owned).collect();
    words.sort();
    words
}

async fn faults(db: &TestDatabase, company: &Company) -> Vec<String> {
    let key = DocumentKey { tenant: company.tenant.id, document: DocumentId(company.document) };
    operation_log::audit(&db.database(), key).await.expect("the log can be asked").faults
}

/// What one kind of damage comes to, before and after it is opened again.
struct Kind {
    statement: &'static str,
    reason: &'static str,
    readable: &'static [&'static str],
    kept: &'static [&'static str],
}

#[actix_web::test]
async fn a_damaged_document_is_read_as_far_as_it_goes_and_an_administrator_opens_it_again() {
    for (number, kind) in [
        Kind {
            statement: "update operations_log set checksum = checksum + 1 where tenant_id = $1 and seq_from = 2",
            reason: "corrupt_row",
            readable: &["one"],
            kept: &["one", "three"],
        },
        Kind {
            statement: "update operations_log set updates = '', raw_bytes = 77 where tenant_id = $1 and seq_from = 3",
            reason: "corrupt_row",
            readable: &["one", "two"],
            kept: &["one", "two"],
        },
        Kind {
            statement: "update operations_log set seq_to = 900 where tenant_id = $1 and seq_from = 2",
            reason: "corrupt_row",
            readable: &["one"],
            kept: &["one", "three"],
        },
        Kind {
            statement: "delete from operations_log where tenant_id = $1 and seq_from = 2",
            reason: "missing_rows",
            readable: &["one"],
            kept: &["one", "three"],
        },
        Kind {
            statement: "delete from operations_log where tenant_id = $1 and seq_from = 3",
            reason: "missing_rows",
            readable: &["one", "two"],
            kept: &["one", "two"],
        },
        Kind {
            statement: "delete from document_heads where tenant_id = $1",
            reason: "lost_head",
            readable: &["one", "three", "two"],
            kept: &["one", "three", "two"],
        },
        Kind {
            statement: "update document_heads set seq = 1 where tenant_id = $1",
            reason: "lost_head",
            readable: &["one", "three", "two"],
            kept: &["one", "three", "two"],
        },
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{number}: {}", kind.statement);
        let db = TestDatabase::create().await;
        let company = Company::found(&db, "acme").await;
        let path = three_rows(&TestApp::start(db.database()), &company).await;
        assert_eq!(faults(&db, &company).await, Vec::<String>::new(), "{what}");
        company.tenant.sql(kind.statement, &[]).await;
        let found = faults(&db, &company).await;
        assert!(!found.is_empty() && found.len() < 3, "{what}: {found:?}");

        // Another node, which has to load it.
        let app = TestApp::start(db.database());
        assert_eq!(words(&app, &company).await, kind.readable, "{what}");
        let about = app.get(&path).token(&company.viewer.token).send().await.expect(200).json();
        assert_eq!(about["read_only_reason"], kind.reason, "{what}: {about}");
        assert!(about["read_only_since"].is_string(), "{what}: {about}");
        let listed = app.get("/v1/documents").token(&company.viewer.token).send().await.expect(200).json();
        assert_eq!(listed["items"][0]["read_only_reason"], kind.reason, "{what}: {listed}");
        let more = typing(4, 0, "four ");
        let refused = app.post(&format!("{path}/update")).token(&company.editor.token).bytes(more.clone()).send().await;
        assert_eq!(refused.expect(403).code(), "read_only", "{what}");

        let reopen = format!("{path}/reopen");
        app.post(&reopen).token(&company.editor.token).send().await.expect(403);
        let about = app.post(&reopen).token(&company.admin.token).send().await.expect(200).json();
        assert_eq!((&about["read_only_since"], &about["read_only_reason"]), (&Value::Null, &Value::Null), "{what}");
        for app in [&app, &TestApp::start(db.database())] {
            // The node that has it open may hear a moment later.
            for _ in 0..600 {
                if words(app, &company).await == kind.kept {
                    break;
                }
                actix_web::rt::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            assert_eq!(words(app, &company).await, kind.kept, "{what}");
        }
        assert_eq!(faults(&db, &company).await, Vec::<String>::new(), "{what}");
        // It goes on, and who still has what was lost brings it back.
        // The node that has it open may hear a moment later.
        for _ in 0..600 {
            let call = app.post(&format!("{path}/update")).token(&company.editor.token).bytes(more.clone());
            if call.send().await.status.as_u16() == 200 {
                break;
            }
            actix_web::rt::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        for (client, text) in [(1, "one "), (2, "two "), (3, "three ")] {
            write(&app, &company, typing(client, 0, text)).await;
        }
        assert_eq!(words(&app, &company).await, ["four", "one", "three", "two"], "{what}");
        assert_eq!(faults(&db, &company).await, Vec::<String>::new(), "{what}");
    }
}

#[actix_web::test]
async fn a_damaged_document_is_said_once_and_counted() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let path = three_rows(&TestApp::start(db.database()), &company).await;
    let statement = "update operations_log set checksum = checksum + 1 where tenant_id = $1 and seq_from = 2";
    company.tenant.sql(statement, &[]).await;
    let mut since = Vec::new();
    for _ in 0..3 {
        let app = TestApp::start(db.database());
        words(&app, &company).await;
        let about = app.get(&path).token(&company.viewer.token).send().await.expect(200).json();
        since.push(about["read_only_since"].as_str().unwrap().to_owned());
    }
    since.dedup();
    assert_eq!(since.len(), 1, "it is closed once, however many nodes find it");
}

/// Nobody ever loads what is before a snapshot.
#[actix_web::test]
async fn rows_before_a_snapshot_and_snapshots_are_read_by_an_audit() {
    for (statement, found) in [
        ("update operations_log set checksum = checksum + 1 where tenant_id = $1 and seq_from = 7", "row 7 does not"),
        ("delete from operations_log where tenant_id = $1 and seq_from = 7", "rows are missing from 7 to 7"),
        ("update document_snapshots set checksum = checksum + 1 where tenant_id = $1", "does not read back"),
        ("update document_snapshots set tip = gen_random_uuid() where tenant_id = $1", "is of another history"),
        ("update document_heads set tip = gen_random_uuid() where tenant_id = $1", "its head is at"),
    ] {
        let db = TestDatabase::create().await;
        let company = Company::found(&db, "acme").await;
        let app = TestApp::start(db.database());
        let key = DocumentKey { tenant: company.tenant.id, document: DocumentId(company.document) };
        for clock in 0..20 {
            write(&app, &company, typing(1, clock, "x")).await;
        }
        snapshot(&db, &company, "x".repeat(20).as_str()).await;
        let audit = operation_log::audit(&db.database(), key).await.unwrap();
        assert_eq!((audit.rows, audit.snapshots, audit.faults.len()), (20, 1, 0), "{:?}", audit.faults);
        company.tenant.sql(statement, &[]).await;
        let faults = faults(&db, &company).await;
        assert!(faults.iter().any(|fault| fault.contains(found)), "{statement}: {faults:?}");
    }
}

/// A snapshot that reads back, and is the fold of other rows.
#[actix_web::test]
async fn a_snapshot_that_is_not_the_fold_of_its_rows_is_found() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    write(&app, &company, typing(1, 0, "xxxx")).await;
    snapshot(&db, &company, "xxxy").await;
    let faults = faults(&db, &company).await;
    assert!(faults.iter().any(|fault| fault.contains("is not the fold of its rows")), "{faults:?}");
}

/// Stores a snapshot of this text, of client 1, at the head.
async fn snapshot(db: &TestDatabase, company: &Company, text: &str) {
    use contextnexus::postgres::operation_log::LogSettings;
    use contextnexus_actors::ports::log::{OperationLog as _, Snapshot};
    let key = DocumentKey { tenant: company.tenant.id, document: DocumentId(company.document) };
    let log = db.log(LogSettings::default());
    let position = log.load(key).await.unwrap().tail.head.position;
    let state = typing(1, 0, text).into();
    let state_vector = vec![1, 1, text.len() as u8].into();
    log.save_snapshot(key, Snapshot { position, state, state_vector, writers: Vec::new().into() }).await.unwrap();
}

#[actix_web::test]
async fn a_document_that_was_closed_before_reasons_were_stored_has_one() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    company.tenant.sql("update document_heads set read_only_since = now() where tenant_id = $1", &[]).await;
    let path = format!("/v1/documents/{}", company.document);
    let about = app.get(&path).token(&company.viewer.token).send().await.expect(200).json();
    assert_eq!(about["read_only_reason"], json!("broken_folds"));
}
