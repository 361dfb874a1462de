//! The contract of [`OperationLog`], sentence by sentence, for whoever implements it.
//!
//! ```text
//! for (sentence, holds) in contract::SENTENCES { holds(&fixture).await; }
//! ```
//!
//! A sentence that does not hold panics. Each makes documents of its own, so they may run in any order, or at once.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use crate::clock::{Clock as _, SystemClock};
use crate::ids::{AppendId, DocumentId, DocumentKey, Position, Tip, UserId, UserSessionId};
use crate::ports::log::{
    AppendOutcome, AppendRequest, Authorship, Damage, DamageKind, Extent, Head, IdempotencyKey, LogError, NewRow,
    OperationLog, Quarantine, QuarantineReason, Snapshot,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What the suite needs done around the log.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The log under test.
    fn log(&self) -> &dyn OperationLog;
    /// An empty document, always of the same tenant.
    async fn create(&self) -> DocumentKey;
    /// An empty document of another tenant.
    async fn create_elsewhere(&self) -> DocumentKey;
    /// Sets its tombstone.
    async fn delete(&self, key: DocumentKey);
    /// Takes its tombstone away.
    async fn restore(&self, key: DocumentKey);
    /// Flips a bit in the stored state of a snapshot.
    async fn break_snapshot(&self, key: DocumentKey, seq: u64);
    /// Flips a bit in the stored updates of a row.
    async fn break_row(&self, key: DocumentKey, seq_from: u64);
}

/// One sentence and its proof.
pub type Sentence = (&'static str, for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, ()>);

macro_rules! sentences {
    ($($name:ident)*) => {
        /// All of the contract.
        pub const SENTENCES: &[Sentence] = &[$((stringify!($name), |fixture| Box::pin($name(fixture)))),*];
    };
}

sentences! {
    a_new_document_has_an_empty_log
    every_update_gets_the_next_number
    updates_come_back_as_they_were
    an_append_that_holds_another_position_is_behind
    of_two_appends_at_one_position_one_is_committed
    a_repeated_append_is_behind_and_finds_its_rows
    many_documents_are_appended_at_once
    a_document_with_a_tombstone_takes_nothing
    what_is_not_there_is_not_written
    another_tenants_document_is_not_there
    a_tail_is_what_stands_after_a_prefix
    a_row_says_who_brought_it
    what_is_no_prefix_has_diverged
    changed_heads_are_those_that_differ
    a_held_head_is_appended_to_by_its_holder_alone
    a_held_head_is_free_when_dropped
    a_second_holder_waits_no_longer_than_a_second
    a_quarantined_row_is_empty_and_nobody_stands_on_it
    a_quarantined_document_goes_on
    an_update_without_its_content_leaves_the_rest_of_its_row
    what_only_lacked_something_may_come_back
    refused_bytes_are_no_part_of_the_log
    loading_takes_the_newest_snapshot_and_what_follows
    a_damaged_snapshot_is_passed_over
    a_snapshot_of_another_history_is_passed_over
    the_first_snapshot_of_a_number_wins
    discarded_snapshots_are_gone
    a_damaged_row_is_named
    a_sound_snapshot_stands_in_for_a_damaged_row
    an_idempotency_key_is_done_once
    an_idempotency_key_of_another_body_is_a_conflict
    an_idempotency_key_of_what_failed_is_free
    an_idempotency_key_is_its_senders
}

fn fresh() -> Uuid {
    SystemClock.fresh_id()
}

fn row(updates: &[&[u8]]) -> NewRow {
    NewRow {
        user_session: UserSessionId(fresh()),
        author: Some(UserId(fresh())),
        relayed_by: None,
        seen_seq: 0,
        updates: updates.iter().map(|update| Bytes::copy_from_slice(update)).collect(),
        idempotency: None,
    }
}

fn request(key: DocumentKey, base: Position, rows: Vec<NewRow>) -> AppendRequest {
    AppendRequest { key, base, append_id: AppendId(fresh()), rows }
}

fn committed(outcome: AppendOutcome) -> Position {
    match outcome {
        AppendOutcome::Committed(position) => position,
        other => panic!("not committed: {other:?}"),
    }
}

/// Appends one row of so many one-byte updates.
async fn grow(fixture: &dyn Fixture, key: DocumentKey, base: Position, updates: u8) -> Position {
    let updates: Vec<Vec<u8>> = (0..updates).map(|i| vec![i]).collect();
    let updates: Vec<&[u8]> = updates.iter().map(Vec::as_slice).collect();
    committed(fixture.log().append(request(key, base, vec![row(&updates)])).await)
}

fn snapshot(position: Position, content: &[u8]) -> Snapshot {
    let (state_vector, writers) = (Bytes::from_static(b"vector"), Bytes::from_static(b"writers"));
    Snapshot { position, state: Bytes::from(content.repeat(100)), state_vector, writers }
}

fn quarantine(seq_from: u64) -> Quarantine {
    Quarantine {
        seq_from,
        new_tip: Tip(fresh()),
        extent: Extent::Row,
        reason: QuarantineReason::FoldPanicked,
        update: Bytes::new(),
        user_session: None,
        user: None,
    }
}

async fn a_new_document_has_an_empty_log(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let stored = fixture.log().load(key).await.expect("load");
    assert!(stored.snapshot.is_none() && stored.tail.rows.is_empty() && stored.quarantined.is_empty());
    assert_eq!((stored.tail.head.position, stored.tail.head.deleted), (Position::START, false));
}

async fn every_update_gets_the_next_number(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = request(key, Position::START, vec![row(&[b"a", b"b"]), row(&[b"c"])]);
    let (id, after) = (first.append_id, first.position_after());
    assert_eq!(committed(fixture.log().append(first).await), after);
    assert_eq!(after, Position { seq: 3, tip: Tip(id.0) });
    let after = grow(fixture, key, after, 2).await;

    let tail = fixture.log().load(key).await.expect("load").tail;
    assert_eq!(tail.head.position, after);
    let numbers: Vec<_> = tail.rows.iter().map(|row| (row.seq_from, row.seq_to, row.updates.len())).collect();
    assert_eq!(numbers, [(1, 2, 2), (3, 3, 1), (4, 5, 2)]);
    assert_eq!((tail.rows[0].append_id, tail.rows[1].append_id), (id, id));
    assert_eq!((tail.rows[1].tip, tail.rows[2].tip), (Tip(id.0), after.tip), "the last row carries the tip");
}

async fn updates_come_back_as_they_were(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let noise: Vec<u8> = (0..70_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let updates: Vec<Vec<u8>> = vec![vec![0], vec![], b"text".repeat(20_000), noise, vec![255; 3]];
    let borrowed: Vec<&[u8]> = updates.iter().map(Vec::as_slice).collect();
    committed(fixture.log().append(request(key, Position::START, vec![row(&borrowed)])).await);
    let tail = fixture.log().load(key).await.expect("load").tail;
    assert!(tail.rows[0].updates == updates);
}

async fn an_append_that_holds_another_position_is_behind(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let at = grow(fixture, key, Position::START, 3).await;
    for base in [
        Position::START,
        Position { seq: 2, tip: at.tip },
        Position { seq: 4, tip: at.tip },
        Position { seq: 3, tip: Tip(fresh()) },
    ] {
        let outcome = fixture.log().append(request(key, base, vec![row(&[b"x"])])).await;
        assert!(matches!(outcome, AppendOutcome::Behind), "{base}: {outcome:?}");
    }
    assert_eq!(fixture.log().load(key).await.expect("load").tail.head.position, at, "nothing was written");
}

async fn of_two_appends_at_one_position_one_is_committed(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let mut at = Position::START;
    for _ in 0..10 {
        let appends = (0..3).map(|_| fixture.log().append(request(key, at, vec![row(&[b"x"])])));
        let outcomes = join_all(appends).await;
        let won: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, AppendOutcome::Committed(_))).collect();
        let lost = outcomes.iter().filter(|outcome| matches!(outcome, AppendOutcome::Behind)).count();
        assert_eq!((won.len(), lost), (1, 2), "{outcomes:?}");
        at = fixture.log().load(key).await.expect("load").tail.head.position;
    }
    assert_eq!(at.seq, 10);
}

async fn a_repeated_append_is_behind_and_finds_its_rows(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let request = request(key, Position::START, vec![row(&[b"x"]), row(&[b"y"])]);
    committed(fixture.log().append(request.clone()).await);
    assert!(matches!(fixture.log().append(request.clone()).await, AppendOutcome::Behind));
    let tail = fixture.log().tail(key, Position::START).await.expect("tail");
    assert!(tail.rows.iter().all(|row| row.append_id == request.append_id));
    assert_eq!((tail.rows.len(), tail.head.position), (2, request.position_after()));
}

async fn many_documents_are_appended_at_once(fixture: &dyn Fixture) {
    let keys = join_all((0..40).map(|_| fixture.create())).await;
    let finished = join_all(keys.iter().map(|&key| async move {
        let mut at = Position::START;
        for _ in 0..5 {
            at = grow(fixture, key, at, 3).await;
        }
        (key, at)
    }))
    .await;
    for (key, at) in finished {
        let tail = fixture.log().load(key).await.expect("load").tail;
        assert_eq!((tail.head.position, tail.rows.len()), (at, 5));
    }
}

async fn a_document_with_a_tombstone_takes_nothing(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let at = grow(fixture, key, Position::START, 1).await;
    fixture.delete(key).await;
    let outcome = fixture.log().append(request(key, at, vec![row(&[b"x"])])).await;
    assert!(matches!(outcome, AppendOutcome::Deleted), "{outcome:?}");
    let stored = fixture.log().load(key).await.expect("a deleted document's log is still there");
    assert_eq!((stored.tail.head.position, stored.tail.head.deleted), (at, true));
    fixture.restore(key).await;
    assert_eq!(grow(fixture, key, at, 1).await.seq, 2);
}

async fn what_is_not_there_is_not_written(fixture: &dyn Fixture) {
    let key = DocumentKey { document: DocumentId(fresh()), ..fixture.create().await };
    nothing_is_there(fixture, key).await;
}

async fn another_tenants_document_is_not_there(fixture: &dyn Fixture) {
    let (ours, theirs) = (fixture.create().await, fixture.create_elsewhere().await);
    assert_ne!(ours.tenant, theirs.tenant);
    nothing_is_there(fixture, DocumentKey { tenant: ours.tenant, document: theirs.document }).await;
    let stored = fixture.log().load(theirs).await.expect("in its own tenant it is there");
    assert_eq!(stored.tail.head.position, Position::START, "and untouched");
}

async fn nothing_is_there(fixture: &dyn Fixture, key: DocumentKey) {
    let log = fixture.log();
    assert!(matches!(log.load(key).await, Err(LogError::NoSuchDocument)), "load");
    assert!(matches!(log.tail(key, Position::START).await, Err(LogError::NoSuchDocument)), "tail");
    assert!(matches!(log.lock_head(key, Position::START).await, Err(LogError::NoSuchDocument)), "hold");
    let outcome = log.append(request(key, Position::START, vec![row(&[b"x"])])).await;
    assert!(matches!(outcome, AppendOutcome::Behind | AppendOutcome::Deleted), "{outcome:?}");
    let base = Position { seq: 1, ..Position::START };
    let changed = log.changed_heads(key.tenant, &[(key.document, base)]).await.expect("changed heads");
    assert_eq!(changed, [(key.document, Head { position: Position::START, deleted: false })]);
}

async fn a_tail_is_what_stands_after_a_prefix(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 2).await;
    let second = grow(fixture, key, first, 3).await;
    for (base, starts) in [(Position::START, vec![1, 3]), (first, vec![3]), (second, vec![])] {
        let tail = fixture.log().tail(key, base).await.expect("tail");
        let found: Vec<_> = tail.rows.iter().map(|row| row.seq_from).collect();
        assert_eq!((found, tail.head.position), (starts, second), "after {base}");
    }
}

async fn a_row_says_who_brought_it(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let (ann, bob) = (UserId(fresh()), UserId(fresh()));
    let brought = |author, relayed_by| NewRow { author, relayed_by, ..row(&[b"x"]) };
    let rows = vec![brought(Some(ann), None), brought(None, Some(bob)), brought(None, None)];
    let expected = [Authorship::WrittenBy(ann), Authorship::RelayedBy(bob), Authorship::Unknown];
    committed(fixture.log().append(request(key, Position::START, rows)).await);
    let tail = fixture.log().tail(key, Position::START).await.expect("tail");
    let loaded = fixture.log().load(key).await.expect("load").tail;
    for rows in [tail.rows, loaded.rows] {
        assert_eq!(rows.iter().map(|row| row.authorship).collect::<Vec<_>>(), expected);
    }
}

async fn what_is_no_prefix_has_diverged(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 2).await;
    let second = grow(fixture, key, first, 3).await;
    for base in [
        Position { seq: 0, tip: first.tip },
        Position { seq: 1, tip: first.tip },
        Position { seq: 2, tip: second.tip },
        Position { seq: 4, tip: second.tip },
        Position { seq: 5, tip: first.tip },
        Position { seq: 6, tip: second.tip },
    ] {
        let answer = fixture.log().tail(key, base).await;
        assert!(matches!(answer, Err(LogError::Diverged)), "{base}: {answer:?}");
        assert!(matches!(fixture.log().lock_head(key, base).await.map(drop), Err(LogError::Diverged)), "{base}: hold");
    }
}

async fn changed_heads_are_those_that_differ(fixture: &dyn Fixture) {
    let (same, grown, deleted) = (fixture.create().await, fixture.create().await, fixture.create().await);
    let at = grow(fixture, grown, Position::START, 2).await;
    fixture.delete(deleted).await;
    let known = [same, grown, deleted].map(|key| (key.document, Position::START));
    let mut changed = fixture.log().changed_heads(same.tenant, &known).await.expect("changed heads");
    changed.sort_by_key(|(document, _)| *document != grown.document);
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert_eq!((changed[0].1.position, changed[0].1.deleted), (at, false));
    assert_eq!((changed[1].0, changed[1].1.deleted), (deleted.document, true));
    let known = [(grown.document, Position { tip: Tip(fresh()), ..at })];
    let changed = fixture.log().changed_heads(same.tenant, &known).await.expect("changed heads");
    assert_eq!(changed.len(), 1, "an equal number is not an equal prefix");
    assert!(fixture.log().changed_heads(same.tenant, &[]).await.expect("changed heads").is_empty());
}

async fn a_held_head_is_appended_to_by_its_holder_alone(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 1).await;
    let second = grow(fixture, key, first, 1).await;
    let mut head = fixture.log().lock_head(key, first).await.expect("hold");
    // It waits for no lock: the holder, which has the head for two seconds, has it still.
    let outcome = fixture.log().append(request(key, second, vec![row(&[b"x"])])).await;
    assert!(matches!(outcome, AppendOutcome::Behind), "{outcome:?}");

    let tail = head.take_tail();
    assert_eq!((tail.rows.len(), tail.rows[0].seq_from, tail.head.position), (1, 2, second));
    assert!(head.take_tail().rows.is_empty(), "the second time");
    let third = committed(head.append(request(key, second, vec![row(&[b"y"])])).await);
    assert_eq!(third.seq, 3);
    assert_eq!(grow(fixture, key, third, 1).await.seq, 4, "and the head is free again");
}

async fn a_held_head_is_free_when_dropped(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    drop(fixture.log().lock_head(key, Position::START).await.expect("hold"));
    let head = fixture.log().lock_head(key, Position::START).await.expect("hold again");
    let at = committed(head.append(request(key, Position::START, vec![row(&[b"x"])])).await);
    assert_eq!(grow(fixture, key, at, 1).await.seq, 2);
}

async fn a_second_holder_waits_no_longer_than_a_second(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let head = fixture.log().lock_head(key, Position::START).await.expect("hold");
    let started = Instant::now();
    let second = fixture.log().lock_head(key, Position::START);
    let answer = second.await.map(drop);
    assert!(started.elapsed() < Duration::from_secs(60), "waited {:?}", started.elapsed());
    // Refused, or granted because the first one's two seconds were over.
    if answer.is_ok() {
        let late = head.append(request(key, Position::START, vec![row(&[b"late"])])).await;
        assert!(!matches!(late, AppendOutcome::Committed(_)), "both base one head: {late:?}");
    } else {
        assert!(matches!(answer, Err(LogError::Unavailable(_))), "{answer:?}");
    }
}

async fn a_quarantined_row_is_empty_and_nobody_stands_on_it(fixture: &dyn Fixture) {
    let log = fixture.log();
    let key = fixture.create().await;
    let before = grow(fixture, key, Position::START, 1).await;
    let poison: &[u8] = b"poison";
    let sick = committed(log.append(request(key, before, vec![row(&[poison, b"more"])])).await);
    let after = grow(fixture, key, sick, 1).await;
    for position in [before, sick, after] {
        log.save_snapshot(key, snapshot(position, b"state")).await.expect("save");
    }
    let what = quarantine(2);
    log.quarantine(key, what.clone()).await.expect("quarantine");
    log.quarantine(key, quarantine(2)).await.expect("repeating it is harmless");

    let stored = log.load(key).await.expect("load");
    let head = Position { seq: after.seq, tip: what.new_tip };
    assert_eq!(stored.tail.head.position, head, "the first quarantine's tip, and the same number");
    // The last two snapshots were kept, and both stood on the row.
    assert!(stored.snapshot.is_none());
    let found: Vec<_> = stored.tail.rows.iter().map(|row| (row.seq_from, row.seq_to, row.updates.len())).collect();
    assert_eq!(found, [(1, 1, 1), (2, 3, 0), (4, 4, 1)]);
    assert_eq!(stored.quarantined, [Bytes::from_static(b"poison"), Bytes::from_static(b"more")]);
    // Whoever folded the row, up to wherever, must notice.
    for base in [sick, after] {
        assert!(matches!(log.tail(key, base).await, Err(LogError::Diverged)), "{base} is still taken for a prefix");
    }
    assert_eq!(log.tail(key, before).await.expect("before it nothing changed").rows.len(), 2);
    assert!(matches!(log.append(request(key, after, vec![row(&[b"x"])])).await, AppendOutcome::Behind));
}

async fn a_quarantined_document_goes_on(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let at = grow(fixture, key, Position::START, 2).await;
    let what = quarantine(1);
    fixture.log().quarantine(key, what.clone()).await.expect("quarantine");
    let at = grow(fixture, key, Position { tip: what.new_tip, ..at }, 1).await;
    assert_eq!(at.seq, 3);
    fixture.log().save_snapshot(key, snapshot(at, b"state")).await.expect("save");
    assert_eq!(fixture.log().load(key).await.expect("load").snapshot.expect("a snapshot").position, at);
}

/// Client 1 writes "hi" into the text "t".
const HI: &[u8] = &[1, 1, 1, 0, 4, 1, 1, b't', 2, b'h', b'i', 0];
/// The same without what it says.
const HOLLOW: &[u8] = &[1, 1, 1, 0, 1, 1, 1, b't', 2, 1, 1, 1, 0, 2];
const NOTHING: &[u8] = &[0, 0];

async fn an_update_without_its_content_leaves_the_rest_of_its_row(fixture: &dyn Fixture) {
    let log = fixture.log();
    let key = fixture.create().await;
    let before = grow(fixture, key, Position::START, 1).await;
    committed(log.append(request(key, before, vec![row(&[b"first", HI, b"last"])])).await);
    let updates = async || {
        let stored = log.load(key).await.expect("load");
        assert_eq!(stored.quarantined, [Bytes::from_static(HI)], "once, and nothing else of the row");
        (stored.tail.rows[1].updates.clone(), stored.tail.head.position)
    };
    let of = |update: &'static [u8]| {
        let (extent, update) = (Extent::Content(3), Bytes::from_static(update));
        Quarantine { extent, update, ..quarantine(2) }
    };
    let first = of(HI);
    log.quarantine(key, first.clone()).await.expect("quarantine");
    log.quarantine(key, of(HI)).await.expect("another node that had read it as it was");
    assert_eq!(
        updates().await,
        ([&b"first"[..], HOLLOW, b"last"].map(Bytes::from).into(), Position { seq: 4, tip: first.new_tip })
    );
    // What is left cannot be folded either.
    let second = of(HOLLOW);
    log.quarantine(key, second.clone()).await.expect("quarantine");
    log.quarantine(key, of(b"")).await.expect("nothing is left");
    assert_eq!(
        updates().await,
        ([&b"first"[..], NOTHING, b"last"].map(Bytes::from).into(), Position { seq: 4, tip: second.new_tip })
    );
}

async fn what_only_lacked_something_may_come_back(fixture: &dyn Fixture) {
    let log = fixture.log();
    let key = fixture.create().await;
    committed(log.append(request(key, Position::START, vec![row(&[b"first", HI])])).await);
    let rest = |update: &'static [u8]| Quarantine {
        extent: Extent::Rest(2, Bytes::from_static(b"stays")),
        reason: QuarantineReason::DoesNotContinue,
        update: Bytes::from_static(update),
        ..quarantine(1)
    };
    log.quarantine(key, rest(b"something else")).await.expect("it is no longer what was read");
    let untouched = log.load(key).await.expect("load").tail.rows[0].updates.clone();
    assert_eq!(untouched, [&b"first"[..], HI]);
    log.quarantine(key, rest(HI)).await.expect("quarantine");
    let stored = log.load(key).await.expect("load");
    assert_eq!(stored.tail.rows[0].updates, [&b"first"[..], b"stays"]);
    assert!(stored.quarantined.is_empty(), "a resend would be refused");
}

async fn refused_bytes_are_no_part_of_the_log(fixture: &dyn Fixture) {
    let log = fixture.log();
    let key = fixture.create().await;
    let at = grow(fixture, key, Position::START, 1).await;
    for update in [&b"fork"[..], b"fork", b"other fork"] {
        let what =
            Quarantine { reason: QuarantineReason::Fork, update: Bytes::copy_from_slice(update), ..quarantine(0) };
        log.quarantine_refused(key, what).await.expect("quarantine, and again");
    }
    let stored = log.load(key).await.expect("load");
    assert_eq!((stored.tail.head.position, stored.tail.rows.len()), (at, 1));
    assert!(stored.quarantined.is_empty(), "the gate knows a fork by what the log holds");

    // What was refused once and got into the log by another way is remembered like everything else.
    committed(log.append(request(key, at, vec![row(&[b"fork"])])).await);
    log.quarantine(key, quarantine(2)).await.expect("quarantine");
    assert_eq!(log.load(key).await.expect("load").quarantined, [Bytes::from_static(b"fork")]);
}

async fn loading_takes_the_newest_snapshot_and_what_follows(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let mut at = Position::START;
    for content in [&b"one"[..], b"two", b"three"] {
        at = grow(fixture, key, at, 2).await;
        fixture.log().save_snapshot(key, snapshot(at, content)).await.expect("save");
    }
    let after = grow(fixture, key, at, 1).await;
    let stored = fixture.log().load(key).await.expect("load");
    let found = stored.snapshot.expect("a snapshot");
    assert_eq!(found.position, at);
    assert!(found.state == snapshot(at, b"three").state && found.state_vector == Bytes::from_static(b"vector"));
    assert_eq!(found.writers, Bytes::from_static(b"writers"));
    assert_eq!((stored.tail.rows.len(), stored.tail.head.position), (1, after));
}

async fn a_damaged_snapshot_is_passed_over(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 2).await;
    let second = grow(fixture, key, first, 2).await;
    for position in [first, second] {
        fixture.log().save_snapshot(key, snapshot(position, b"state")).await.expect("save");
    }
    fixture.break_snapshot(key, second.seq).await;
    let stored = fixture.log().load(key).await.expect("load");
    assert_eq!(stored.snapshot.expect("the one before").position, first);
    assert_eq!(stored.tail.rows.len(), 1, "and the longer log");
    fixture.break_snapshot(key, first.seq).await;
    let stored = fixture.log().load(key).await.expect("load");
    assert!(stored.snapshot.is_none());
    assert_eq!(stored.tail.rows.len(), 2, "the whole log");
}

async fn a_snapshot_of_another_history_is_passed_over(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let at = grow(fixture, key, Position::START, 2).await;
    for position in
        [Position { tip: Tip(fresh()), ..at }, Position { seq: 1, tip: at.tip }, Position { seq: 9, tip: at.tip }]
    {
        fixture.log().save_snapshot(key, snapshot(position, b"lie")).await.expect("save");
        let stored = fixture.log().load(key).await.expect("load");
        assert!(stored.snapshot.is_none(), "believed a snapshot of {position}");
        assert_eq!(stored.tail.rows.len(), 1);
    }
    fixture.log().save_snapshot(key, snapshot(at, b"truth")).await.expect("save");
    let found = fixture.log().load(key).await.expect("load").snapshot.expect("the lie has not taken its place");
    assert!(found.state == snapshot(at, b"truth").state);
}

async fn the_first_snapshot_of_a_number_wins(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let at = grow(fixture, key, Position::START, 2).await;
    for content in [&b"first"[..], b"later"] {
        fixture.log().save_snapshot(key, snapshot(at, content)).await.expect("save");
    }
    let found = fixture.log().load(key).await.expect("load").snapshot.expect("a snapshot");
    assert!(found.state == snapshot(at, b"first").state);
}

async fn discarded_snapshots_are_gone(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 2).await;
    let second = grow(fixture, key, first, 2).await;
    for position in [first, second] {
        fixture.log().save_snapshot(key, snapshot(position, b"state")).await.expect("save");
    }
    fixture.log().discard_snapshots(key, 3).await.expect("discard");
    assert_eq!(fixture.log().load(key).await.expect("load").snapshot.expect("the one before").position, first);
    fixture.log().discard_snapshots(key, 1).await.expect("discard");
    let stored = fixture.log().load(key).await.expect("load");
    assert!(stored.snapshot.is_none());
    assert_eq!(stored.tail.head.position, second, "the log is whole");
}

async fn a_damaged_row_is_named(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 2).await;
    let second = grow(fixture, key, first, 3).await;
    let third = grow(fixture, key, second, 1).await;
    fixture.break_row(key, 3).await;
    let damage = Damage { kind: DamageKind::CorruptRow, seq_from: 3 };
    let stored = fixture.log().load(key).await.expect("what is before it");
    assert_eq!((stored.damage, stored.tail.head.position), (Some(damage), third));
    assert_eq!(stored.tail.rows.iter().map(|row| row.seq_to).collect::<Vec<_>>(), [2]);
    let answer = fixture.log().tail(key, first).await;
    assert!(matches!(answer, Err(LogError::Damaged(found)) if found == damage), "{answer:?}");
    assert_eq!(fixture.log().tail(key, second).await.expect("after it all is well").rows.len(), 1);
    for _ in 0..2 {
        fixture.log().close_for_writing(key, damage).await.expect("close");
    }
}

async fn a_sound_snapshot_stands_in_for_a_damaged_row(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let first = grow(fixture, key, Position::START, 2).await;
    let second = grow(fixture, key, first, 3).await;
    fixture.break_row(key, 3).await;
    fixture.log().save_snapshot(key, snapshot(second, b"state")).await.expect("save");
    assert_eq!(fixture.log().load(key).await.expect("load").damage, None);
}

fn keyed(user: UserId, key: &str, body: u8) -> NewRow {
    let idempotency = Some(IdempotencyKey { key: key.to_owned(), body_hash: [body; 32] });
    NewRow { author: Some(user), idempotency, ..row(&[b"a", b"b"]) }
}

async fn an_idempotency_key_is_done_once(fixture: &dyn Fixture) {
    let (key, user) = (fixture.create().await, UserId(fresh()));
    let at = committed(fixture.log().append(request(key, Position::START, vec![keyed(user, "k", 1)])).await);
    let at = grow(fixture, key, at, 1).await;
    let outcome = fixture.log().append(request(key, at, vec![keyed(user, "k", 1)])).await;
    assert!(matches!(outcome, AppendOutcome::AlreadyDone(2)), "{outcome:?}");
    assert_eq!(fixture.log().load(key).await.expect("load").tail.head.position, at, "nothing was written again");
}

async fn an_idempotency_key_of_another_body_is_a_conflict(fixture: &dyn Fixture) {
    let (key, user) = (fixture.create().await, UserId(fresh()));
    let at = committed(fixture.log().append(request(key, Position::START, vec![keyed(user, "k", 1)])).await);
    let outcome = fixture.log().append(request(key, at, vec![keyed(user, "k", 2)])).await;
    assert!(matches!(outcome, AppendOutcome::IdempotencyConflict), "{outcome:?}");
    let both = vec![keyed(user, "k", 1), keyed(user, "new", 1), keyed(user, "new", 2)];
    let outcome = fixture.log().append(request(key, at, both)).await;
    assert!(matches!(outcome, AppendOutcome::IdempotencyConflict), "{outcome:?}");
    assert_eq!(fixture.log().load(key).await.expect("load").tail.head.position, at);
}

async fn an_idempotency_key_of_what_failed_is_free(fixture: &dyn Fixture) {
    let (key, user) = (fixture.create().await, UserId(fresh()));
    let nowhere = Position { seq: 7, tip: Tip(fresh()) };
    let outcome = fixture.log().append(request(key, nowhere, vec![keyed(user, "k", 1)])).await;
    assert!(matches!(outcome, AppendOutcome::Behind), "{outcome:?}");
    committed(fixture.log().append(request(key, Position::START, vec![keyed(user, "k", 2)])).await);
}

async fn an_idempotency_key_is_its_senders(fixture: &dyn Fixture) {
    let key = fixture.create().await;
    let at = committed(fixture.log().append(request(key, Position::START, vec![keyed(UserId(fresh()), "k", 1)])).await);
    committed(fixture.log().append(request(key, at, vec![keyed(UserId(fresh()), "k", 2)])).await);
}
