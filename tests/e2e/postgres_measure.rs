//! Figures of the log writer, on a PostgreSQL with fsync. Not a test: `cargo nextest run --release --run-ignored only
//! -E 'test(postgres_measure)' --no-capture`.

use crate::support::cluster::Cluster;
use crate::support::postgres::{TestDatabase, TestTenant, fresh};
use crate::support::process::cpu_of;
use bytes::Bytes;
use contextnexus::postgres::operation_log::{LogSettings, PostgresLog};
use contextnexus_actors::ids::{AppendId, DocumentKey, Position, UserSessionId};
use contextnexus_actors::ports::log::{AppendOutcome, AppendRequest, NewRow, OperationLog};
use futures_util::future::join_all;
use std::time::{Duration, Instant};

/// About what one key press is.
const UPDATE: &[u8] = b"\x01\x01\xd2\x85\xd8\xcc\x07\x00\x04\x01\x07content\x01a\x00";

async fn append(log: &PostgresLog, key: DocumentKey, held: Position) -> Position {
    let request = AppendRequest {
        key,
        base: held,
        append_id: AppendId(fresh()),
        rows: vec![NewRow {
            user_session: UserSessionId(fresh()),
            author: None,
            relayed_by: None,
            seen_seq: held.seq,
            updates: vec![Bytes::from_static(UPDATE)],
            idempotency: None,
        }],
    };
    match log.append(request).await {
        AppendOutcome::Committed(position) => position,
        other => panic!("{other:?}"),
    }
}

/// Each document for so long: an append every `pause`, or one after the other without one. Latencies in ms.
async fn write(log: &PostgresLog, keys: &[DocumentKey], pause: Option<Duration>, long: Duration) -> Vec<f64> {
    let until = Instant::now() + long;
    let latencies = join_all(keys.iter().enumerate().map(|(place, &key)| async move {
        let (mut at, mut latencies) = (log.load(key).await.expect("load").tail.head.position, Vec::new());
        let mut next = Instant::now() + pause.unwrap_or_default() * place as u32 / keys.len() as u32;
        while Instant::now() < until {
            if let Some(pause) = pause {
                tokio::time::sleep_until(next.into()).await;
                next += pause;
            }
            // From when it was due: a writer that comes late has waited.
            let due = pause.map_or_else(Instant::now, |pause| next - pause);
            at = append(log, key, at).await;
            latencies.push(due.elapsed().as_secs_f64() * 1e3);
        }
        latencies
    }))
    .await;
    let mut all: Vec<f64> = latencies.into_iter().flatten().collect();
    all.sort_by(f64::total_cmp);
    all
}

async fn transactions(database: &TestDatabase) -> i64 {
    let mut superuser = database.superuser().await;
    tokio::time::sleep(Duration::from_millis(1200)).await; // statistics are reported with delay
    sqlx::query_scalar("select xact_commit from pg_stat_database where datname = current_database()")
        .fetch_one(&mut superuser)
        .await
        .expect("statistics")
}

async fn documents(tenant: &TestTenant, count: usize) -> Vec<DocumentKey> {
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(DocumentKey { tenant: tenant.id, document: tenant.document().await });
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a test"]
async fn the_log_writer() {
    let long = Duration::from_secs(4);
    let cluster = Cluster::start();
    let database = TestDatabase::create_on(&cluster.server()).await;
    let tenant = database.tenant("one").await;
    let keys = documents(&tenant, 200).await;
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>9} {:>12} {:>13}",
        "", "appends/s", "p50 ms", "p99 ms", "rows/tx", "pg us/append", "own us/append"
    );
    for gap_ms in [0, 2, 4, 8] {
        let settings = LogSettings { gap: Duration::from_millis(gap_ms), ..LogSettings::default() };
        let log = database.log(settings);
        let pause_for = |documents: u32, rate: u32| Some(Duration::from_secs(1) * documents / rate);
        for (name, documents, pause) in [
            ("1 document, one after the other", 1, None),
            ("8 documents, one after the other", 8, None),
            ("1 document at 50/s", 1, pause_for(1, 50)),
            ("40 documents at 2,000/s", 40, pause_for(40, 2000)),
            ("200 documents at 2,000/s", 200, pause_for(200, 2000)),
        ] {
            write(&log, &keys[..documents], pause, Duration::from_millis(300)).await;
            let (transactions_before, cpu, own) = (transactions(&database).await, cluster.cpu(), own_cpu());
            let latencies = write(&log, &keys[..documents], pause, long).await;
            let (cpu, own) = (cluster.cpu() - cpu, own_cpu() - own);
            let transactions = transactions(&database).await - transactions_before;
            let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
            let count = latencies.len() as f64;
            println!(
                "{:34} {:9.0} {:9.2} {:9.2} {:9.1} {:12.0} {:13.0}",
                format!("{name}, gap {gap_ms}"),
                count / long.as_secs_f64(),
                at(0.5),
                at(0.99),
                count / transactions as f64,
                cpu * 1e6 / count,
                own * 1e6 / count,
            );
        }
    }
}

/// CPU seconds of this process.
fn own_cpu() -> f64 {
    cpu_of("self", false)
}
