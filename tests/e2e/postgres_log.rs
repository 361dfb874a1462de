//! The operation log on a real PostgreSQL: the contract, and what only a database can do to it.

use crate::support::cluster::Cluster;
use crate::support::postgres::{TestDatabase, TestTenant, fresh};
use crate::support::process::PATIENCE;
use async_trait::async_trait;
use bytes::Bytes;
use contextnexus::postgres::operation_log::{LogSettings, PostgresLog};
use contextnexus_actors::ids::{AppendId, DocumentKey, Position, UserSessionId};
use contextnexus_actors::ports::contract::{Fixture, SENTENCES};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Extent, IdempotencyKey, LogError, NewRow, OperationLog, Quarantine, QuarantineReason,
};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, PgConnection};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const NOBODY: Uuid = Uuid::nil();

struct PostgresFixture {
    log: PostgresLog,
    tenant: TestTenant,
    other: TestTenant,
    _database: TestDatabase,
}

impl PostgresFixture {
    async fn create() -> Self {
        let database = TestDatabase::create().await;
        Self {
            log: database.log(LogSettings::default()),
            tenant: database.tenant("one").await,
            other: database.tenant("two").await,
            _database: database,
        }
    }
}

#[async_trait]
impl Fixture for PostgresFixture {
    fn log(&self) -> &dyn OperationLog {
        &self.log
    }
    async fn create(&self) -> DocumentKey {
        DocumentKey { tenant: self.tenant.id, document: self.tenant.document().await }
    }
    async fn create_elsewhere(&self) -> DocumentKey {
        DocumentKey { tenant: self.other.id, document: self.other.document().await }
    }
    async fn delete(&self, key: DocumentKey) {
        let delete = "update content_items set deleted_at = now() where tenant_id = $1 and id = $2";
        assert_eq!(self.tenant.sql(delete, &[key.document.0]).await, 1);
    }
    async fn restore(&self, key: DocumentKey) {
        let restore = "update content_items set deleted_at = null where tenant_id = $1 and id = $2";
        assert_eq!(self.tenant.sql(restore, &[key.document.0]).await, 1);
    }
    async fn break_snapshot(&self, key: DocumentKey, seq: u64) {
        let flip = "update document_snapshots set state = set_byte(state, 3, get_byte(state, 3) # 16)
                     where tenant_id = $1 and document_id = $2 and seq = ('x' || right($3::text, 8))::bit(32)::bigint";
        assert_eq!(self.tenant.sql(flip, &[key.document.0, uuid::Uuid::from_u128(seq.into())]).await, 1);
    }
    async fn break_row(&self, key: DocumentKey, seq_from: u64) {
        let flip = "update operations_log set updates = set_byte(updates, 4, get_byte(updates, 4) # 16)
                     where tenant_id = $1 and document_id = $2 and seq_from = ('x' || right($3::text, 8))::bit(32)::bigint";
        assert_eq!(self.tenant.sql(flip, &[key.document.0, uuid::Uuid::from_u128(seq_from.into())]).await, 1);
    }
}

#[tokio::test]
async fn the_log_keeps_its_contract() {
    let fixture = PostgresFixture::create().await;
    let mut broken = Vec::new();
    for (sentence, holds) in SENTENCES {
        if AssertUnwindSafe(holds(&fixture)).catch_unwind().await.is_err() {
            broken.push(*sentence);
        }
    }
    assert!(broken.is_empty(), "broken: {broken:#?}");
}

fn append(key: DocumentKey, held: Position, updates: &[&[u8]]) -> AppendRequest {
    AppendRequest {
        key,
        base: held,
        append_id: AppendId(fresh()),
        rows: vec![NewRow {
            user_session: UserSessionId(fresh()),
            author: None,
            relayed_by: None,
            seen_seq: 0,
            updates: updates.iter().map(|update| Bytes::copy_from_slice(update)).collect(),
            idempotency: None,
        }],
    }
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.expect("prepare the database");
}

#[tokio::test]
async fn a_commit_that_fails_at_its_very_end_is_not_taken_for_one() {
    let fixture = PostgresFixture::create().await;
    let key = fixture.create().await;
    let mut superuser = fixture._database.superuser().await;
    run(
        &mut superuser,
        "create function fail_late() returns trigger language plpgsql as
             $$ begin raise exception 'late' using errcode = 'check_violation'; end $$;
         create constraint trigger fail_late after insert on operations_log deferrable initially deferred
             for each row execute function fail_late()",
    )
    .await;
    let outcome = fixture.log.append(append(key, Position::START, &[b"x"])).await;
    assert!(matches!(outcome, AppendOutcome::Refused(_)), "{outcome:?}");
    assert_eq!(fixture.log.load(key).await.expect("load").tail.head.position, Position::START);
}

#[tokio::test]
async fn what_postgresql_will_never_take_stands_alone() {
    let fixture = PostgresFixture::create().await;
    let keys = join_all((0..20).map(|_| fixture.create())).await;
    let outcomes = join_all(keys.iter().enumerate().map(|(place, &key)| {
        let mut request = append(key, Position::START, &[b"x"]);
        if place == 7 {
            // A zero byte in a text.
            request.rows[0].idempotency = Some(IdempotencyKey { key: "a\0b".to_owned(), body_hash: [0; 32] });
        }
        fixture.log.append(request)
    }))
    .await;
    for (place, outcome) in outcomes.iter().enumerate() {
        match place {
            7 => assert!(matches!(outcome, AppendOutcome::Refused(_)), "{outcome:?}"),
            _ => assert!(matches!(outcome, AppendOutcome::Committed(_)), "{place}: {outcome:?}"),
        }
    }
}

/// The tables have no check constraints, which cost too much: these functions are what keeps such numbers out.
#[tokio::test]
async fn an_append_whose_numbers_make_no_sense_is_refused_and_changes_nothing() {
    let fixture = PostgresFixture::create().await;
    let key = fixture.create().await;
    let mut superuser = fixture._database.superuser().await;
    let (tenant, document) = (key.tenant.0, key.document.0);
    // Where it is held, where that ends, codec, size, and where its only row begins and ends.
    let one = |held: i64, to: i64, codec: i16, size: i32, _: (i64, i64)| {
        format!(
            "select append_operation('{tenant}', '{document}', {held}, '{NOBODY}', '{NOBODY}', {to}, '{NOBODY}', null, null, 0,
                                     {codec}::smallint, {size}, '', 0)"
        )
    };
    let many = |held: i64, to: i64, codec: i16, size: i32, (row_from, row_to): (i64, i64)| {
        format!(
            "select append_operations('{tenant}', '{{{document}}}', '{{{held}}}', '{{{NOBODY}}}', '{{{to}}}', '{{{NOBODY}}}', '{{1}}',
                                      '{{{row_from}}}', '{{{row_to}}}', '{{{NOBODY}}}', '{{null}}', '{{null}}', '{{0}}', '{{{codec}}}',
                                      '{{{size}}}', array[''::bytea], '{{0}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
        )
    };
    let refused = [
        one(0, 0, 0, 0, (1, 1)),
        one(-1, 1, 0, 0, (1, 1)),
        one(0, 1, 2, 0, (1, 1)),
        one(0, 1, 0, -1, (1, 1)),
        many(0, 0, 0, 0, (1, 1)),
        many(0, 1, 0, 0, (0, 1)),
        many(0, 1, 0, 0, (2, 1)),
        many(0, 1, 2, 0, (1, 1)),
        many(0, 1, 0, -1, (1, 1)),
    ];
    for statement in refused {
        let answer = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut superuser).await;
        let code = answer.err().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()));
        assert!(matches!(code.as_deref(), Some("23514" | "23502")), "{statement}: {code:?}");
    }
    assert_eq!(fixture.log.load(key).await.expect("load").tail.head.position, Position::START);
    // The statements themselves are sound.
    run(&mut superuser, &many(0, 1, 0, 0, (1, 1))).await;
    run(&mut superuser, &one(1, 2, 0, 0, (2, 2))).await;
    let rows = "select count(*) from operations_log where document_id = $1";
    let rows: i64 = sqlx::query_scalar(rows).bind(document).fetch_one(&mut superuser).await.expect("count");
    assert_eq!(rows, 2);
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_whatever_the_database_says() {
    let fixture = PostgresFixture::create().await;
    let key = fixture.create().await;
    let mut superuser = fixture._database.superuser().await;
    let name = fixture._database.name.clone();
    run(
        &mut superuser,
        &format!(
            "alter database {name} set synchronous_commit = off;
             create table seen (setting text); grant insert on seen to public;
             create function see() returns trigger language plpgsql as
                 $$ begin insert into seen values (current_setting('synchronous_commit')); return null; end $$;
             create trigger see after insert on operations_log for each row execute function see()"
        ),
    )
    .await;
    assert!(matches!(fixture.log.append(append(key, Position::START, &[b"x"])).await, AppendOutcome::Committed(_)));
    let seen: Vec<String> =
        sqlx::query_scalar("select setting from seen").fetch_all(&mut superuser).await.expect("look");
    assert_eq!(seen, ["on"]);
}

#[tokio::test]
async fn a_snapshot_of_the_log_is_taken_in_one_instant() {
    let fixture = Arc::new(PostgresFixture::create().await);
    let key = fixture.create().await;
    let writing = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            let mut at = Position::START;
            for _ in 0..300 {
                match fixture.log.append(append(key, at, &[b"x", b"y"])).await {
                    AppendOutcome::Committed(position) => at = position,
                    other => panic!("{other:?}"),
                }
            }
        })
    };
    while !writing.is_finished() {
        // A row without its head, or a head without its rows, would be called corrupt.
        fixture.log.load(key).await.expect("load while somebody writes");
    }
    writing.await.expect("the writer");
}

#[tokio::test]
async fn quarantined_bytes_are_kept_for_their_author() {
    let fixture = PostgresFixture::create().await;
    let key = fixture.create().await;
    let user = fixture.tenant.user().await;
    let mut request = append(key, Position::START, &[b"poison"]);
    request.rows[0].author = Some(user);
    let AppendOutcome::Committed(at) = fixture.log.append(request).await else { panic!("not committed") };
    let what = Quarantine {
        seq_from: 1,
        extent: Extent::Row,
        new_tip: contextnexus_actors::ids::Tip(fresh()),
        reason: QuarantineReason::FoldPanicked,
        update: Bytes::new(),
        user_session: None,
        user: None,
    };
    fixture.log.quarantine(key, what).await.expect("quarantine");
    let stored = fixture.log.load(key).await.expect("load");
    assert_eq!(stored.quarantined, [Bytes::from_static(b"poison")]);
    let mut superuser = fixture._database.superuser().await;
    let (update, owner, seq): (Vec<u8>, uuid::Uuid, i64) =
        sqlx::query_as("select update, user_id, seq from quarantine").fetch_one(&mut superuser).await.expect("look");
    assert_eq!((&update[..], owner, seq as u64), (&b"poison"[..], user.0, at.seq));
}

/// Writes one document until that is so, and a few rows at least, as a document actor does: after an unknown outcome it compares the head
/// first. Returns where it stands.
async fn write_through(log: &PostgresLog, key: DocumentKey, is_enough: &AtomicBool) -> Position {
    let mut at = Position::START;
    while !is_enough.load(Ordering::Relaxed) || at.seq <= 3 {
        let request = append(key, at, &[b"x"]);
        let id = request.append_id;
        match log.append(request).await {
            AppendOutcome::Committed(position) => at = position,
            AppendOutcome::Unavailable => tokio::time::sleep(Duration::from_millis(20)).await,
            AppendOutcome::Unknown | AppendOutcome::Behind => loop {
                match log.tail(key, at).await {
                    Ok(tail) => {
                        assert!(tail.rows.iter().all(|row| row.append_id == id), "somebody else writes");
                        at = tail.head.position;
                        break;
                    }
                    Err(LogError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(other) => panic!("{other}"),
                }
            },
            other => panic!("{other:?}"),
        }
    }
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_connections_break() {
    let fixture = PostgresFixture::create().await;
    let keys = join_all((0..8).map(|_| fixture.create())).await;
    let (until, is_enough) = (Instant::now() + Duration::from_secs(3), AtomicBool::new(false));
    let breaking = async {
        let mut superuser = fixture._database.superuser().await;
        let mut broken = 0_i64;
        while Instant::now() < until || broken <= 20 {
            broken += sqlx::query_scalar::<_, i64>(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                  where datname = current_database() and pid <> pg_backend_pid()",
            )
            .fetch_one(&mut superuser)
            .await
            .expect("break connections");
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
        is_enough.store(true, Ordering::Relaxed);
    };
    let writing = join_all(keys.iter().map(|&key| write_through(&fixture.log, key, &is_enough)));
    let ((), finished) = tokio::join!(breaking, writing);
    for (key, at) in keys.into_iter().zip(finished) {
        // The pool may still hold connections that were broken at the very end.
        let patience = Instant::now() + PATIENCE;
        let tail = loop {
            match fixture.log.tail(key, Position::START).await {
                Err(LogError::Unavailable(_)) if Instant::now() < patience => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                answered => break answered.expect("tail"),
            }
        };
        assert_eq!(tail.head.position, at, "what its writer was told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_or_is_gone_is_answered_in_time() {
    let mut cluster = Cluster::start();
    let database = TestDatabase::create_on(&cluster.server()).await;
    let tenant = database.tenant("one").await;
    let key = DocumentKey { tenant: tenant.id, document: tenant.document().await };
    let log = Arc::new(database.log(LogSettings::default()));
    let AppendOutcome::Committed(at) = log.append(append(key, Position::START, &[b"x"])).await else {
        panic!("not committed")
    };

    cluster.freeze_all();
    let started = Instant::now();
    let request = append(key, at, &[b"y"]);
    let expected = request.position_after();
    let outcome = log.append(request).await;
    // Unavailable from a connection that was not made yet.
    assert!(matches!(outcome, AppendOutcome::Unavailable | AppendOutcome::Unknown), "hanging: {outcome:?}");
    assert!(started.elapsed() < PATIENCE, "hanging: {:?}", started.elapsed());
    let started = Instant::now();
    let outcome = log.append(append(key, at, &[b"z"])).await;
    assert!(matches!(outcome, AppendOutcome::Unavailable | AppendOutcome::Unknown), "hanging still: {outcome:?}");
    assert!(started.elapsed() < PATIENCE, "hanging still: {:?}", started.elapsed());
    cluster.thaw_all();

    // The first one was on its way: it may have become true, and nothing else may.
    let deadline = Instant::now() + PATIENCE;
    let at = loop {
        match log.tail(key, at).await {
            Ok(tail) => break tail.head.position,
            Err(LogError::Unavailable(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            Err(other) => panic!("after it went on: {other}"),
        }
    };
    assert!(at == expected || at.seq == 1, "{at}");

    cluster.stop();
    let started = Instant::now();
    let outcomes = join_all((0..5).map(|_| log.append(append(key, at, &[b"w"])))).await;
    assert!(started.elapsed() < PATIENCE, "gone: {:?}", started.elapsed());
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, AppendOutcome::Unavailable | AppendOutcome::Unknown)),
        "gone: {outcomes:?}"
    );
    cluster.restart();
    let started = Instant::now();
    loop {
        let held = match log.tail(key, at).await {
            Ok(tail) => tail.head.position,
            Err(_) => at,
        };
        match log.append(append(key, held, &[b"v"])).await {
            AppendOutcome::Committed(_) => break,
            other => assert!(started.elapsed() < PATIENCE, "back: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
