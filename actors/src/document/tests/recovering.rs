use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::budget::Budgets;
use crate::document::close;
use crate::document::messages::Input;
use crate::document::state::{DocumentState, Unsound};
use crate::ids::{DocumentKey, NodeId, Position, Tip};
use crate::limits::Limits;
use crate::ports::bus::{BusEvent, BusMessage};
use crate::ports::log::{AppendOutcome, QuarantineReason, Snapshot};
use crate::ports::memory_log::MemoryLog;
use crate::ports::witness::{Fold, Folding, Witness};
use crate::protocol::Dialect;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use yrs::{Doc, Text, Transact};

#[test]
fn an_append_whose_answer_was_lost_is_found_and_not_sent_again() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "once")));
    bench.append_answer_is_lost();
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 0, "acknowledged on hope");
    bench.log_answers();
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1);
    assert_eq!(bench.log.rows(bench.key).len(), 1, "written twice");
    assert_eq!(bench.text(), "once");
}

#[test]
fn an_append_of_unknown_outcome_that_was_not_written_is_admitted_anew() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "once")));
    bench.append_fails(AppendOutcome::Unknown);
    bench.log_answers();
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1);
    assert_eq!(bench.log.rows(bench.key).len(), 1);
}

#[test]
fn while_postgresql_is_away_updates_wait_and_what_does_not_fit_is_asked_for_again() {
    let limits = Limits { document_waiting_bytes_max: 200, ..Limits::default() };
    let mut bench = Bench::with_limits(limits);
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "x")));
    bench.append_fails(AppendOutcome::Unavailable);
    let recovery = std::mem::take(&mut bench.parked);
    for turn in 1..100 {
        bench.whisper(&ann, Input::Update(ann.type_at(turn, "x")));
    }
    assert!(bench.state.waiting().1 <= 200, "memory is bounded");
    assert!(bench.inbox(&ann).is_empty(), "neither acknowledged nor closed");
    bench.time_passes(std::time::Duration::from_secs(40));
    assert!(bench.inbox(&ann).is_empty(), "asked for more while there is no room for it");
    bench.parked = recovery;
    bench.log_answers();
    bench.time_passes(std::time::Duration::from_millis(600));
    assert!(bench.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Step1(_))), "asked for what was dropped");
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 100, "each update exactly once");
    assert_eq!(bench.text(), "x".repeat(100));
}

#[test]
fn a_restored_backup_is_noticed_and_clients_bring_back_what_was_lost() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "kept ")));
    let backup = bench.log.backup();
    bench.say(&ann, Input::Update(ann.type_at(5, "lost")));
    bench.log.restore(backup);
    bench.forget_inboxes();
    let head = bench.log.load_now(bench.key).unwrap().tail.head;
    let effects = bench.state.head_moved(head);
    bench.perform(effects);
    bench.log_answers();
    let step1 = bench.inbox(&ann).iter().find_map(|sent| match sent {
        Sent::Step1(state_vector) => Some(state_vector.clone()),
        _ => None,
    });
    bench.say(&ann, Input::Step2(ann.step2(&step1.expect("every connection gets a step 1"))));
    assert_eq!(bench.text(), "kept lost");
    assert_eq!(bench.died, None);
}

/// Its tombstone would be final; this is not: who comes back by name makes it anew.
#[test]
fn a_document_that_the_database_has_lost_altogether_sends_everybody_round_again() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "lost")));
    bench.log.restore(MemoryLog::new().backup());
    let heads = bench.log.changed_heads_now(bench.key.tenant, &[(bench.key.document, bench.state.position())]);
    let effects = bench.state.head_moved(heads[0].1);
    bench.perform(effects);
    bench.log_answers();
    assert_eq!(bench.died, Some(close::SERVICE_RESTART));
}

#[test]
fn an_equal_number_is_not_an_equal_prefix() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let backup = bench.log.backup();
    bench.say(&ann, Input::Update(ann.type_at(0, "ann")));
    bench.log.restore(backup);
    let mut other = Bench::over(bench.log.clone(), bench.key, Limits::default());
    let bob = other.editor(2, Dialect::YWebsocket, Role::Editor);
    other.say(&bob, Input::Update(bob.type_at(0, "bob")));
    assert_eq!(other.state.position().seq, bench.state.position().seq);
    bench.say(&ann, Input::Update(ann.type_at(3, "!")));
    bench.log_answers();
    let step1 = bench.inbox(&ann).iter().rev().find_map(|sent| match sent {
        Sent::Step1(state_vector) => Some(state_vector.clone()),
        _ => None,
    });
    bench.say(&ann, Input::Step2(ann.step2(&step1.expect("the fork is noticed"))));
    let text = bench.text();
    assert!(text.contains("bob") && text.contains("ann!"), "{text}");
}

#[test]
fn a_bus_message_that_cannot_be_folded_convicts_no_row() {
    let mut bench = Bench::new();
    let ann = bench.stranger(1, Dialect::YWebsocket, Role::Editor, 1);
    let sound = ann.type_at(0, "sound");
    let _missing = ann.type_at(5, " missing");
    let updates = vec![sound, ann.type_at(13, " beyond")];
    let (from, node) = (bench.state.position(), NodeId(uuid::Uuid::from_u128(9)));
    let through = Position { seq: 2, tip: Tip(uuid::Uuid::from_u128(9)) };
    let message = BusMessage::Committed { key: bench.key, node, from, through, updates, authorship: Vec::new() };
    let effects = bench.state.hear_bus(BusEvent::Message(message), bench.now);
    bench.perform(effects);
    assert_eq!(bench.died, Some(close::SERVICE_RESTART));
    assert!(bench.quarantined.is_empty(), "a message is not the log");
}

#[test]
fn a_snapshot_and_its_tail_are_the_whole_document() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "before ")));
    let snapshot = bench.state.snapshot().0.unwrap().verify().unwrap();
    bench.log.save_snapshot_now(bench.key, snapshot).unwrap();
    bench.say(&ann, Input::Update(ann.type_at(7, "after")));
    let stored = bench.log.load_now(bench.key).unwrap();
    assert_eq!((stored.snapshot.is_some(), stored.tail.rows.len()), (true, 1));
    assert_eq!(Bench::over(bench.log.clone(), bench.key, Limits::default()).text(), "before after");
}

/// What was folded, in order.
#[derive(Debug, Default)]
struct Folded(Mutex<Vec<Folding>>);

impl Folded {
    fn take(&self) -> Vec<Folding> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Witness for Folded {
    fn folding(&self, fold: &Fold<'_>) {
        self.0.lock().unwrap().push(fold.what);
    }

    fn folded(&self) {}
}

/// A document of one update with a snapshot of it, loaded anew, and what is folded from then on.
fn loaded_from_a_snapshot(alter: impl FnOnce(&mut Snapshot)) -> (Bench, Arc<Folded>) {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "before")));
    let mut snapshot = bench.state.snapshot().0.unwrap().verify().unwrap();
    alter(&mut snapshot);
    bench.log.save_snapshot_now(bench.key, snapshot).unwrap();
    let folded = Arc::new(Folded::default());
    (Bench::watched(bench.log.clone(), bench.key, Limits::default(), folded.clone()), folded)
}

#[test]
fn a_document_that_is_only_read_is_not_folded() {
    let (mut bench, folded) = loaded_from_a_snapshot(|_| {});
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    assert_eq!((bob.text(), bench.text()), ("before".into(), "before".into()));
    assert_eq!(folded.take(), []);
    bench.say(&bob, Input::Update(bob.type_at(6, " after")));
    assert_eq!(folded.take(), [Folding::Snapshot(1), Folding::Update(2)]);
    assert_eq!(bench.text(), "before after");
}

#[test]
fn a_document_that_nobody_changes_comes_to_rest_and_is_as_good_as_before() {
    let (mut bench, folded) = loaded_from_a_snapshot(|_| {});
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&bob, Input::Update(bob.type_at(6, " and")));
    bench.time_passes(Duration::from_secs(59));
    assert_eq!(bench.snapshots, 0);
    bench.time_passes(Duration::from_secs(61));
    assert_eq!(bench.snapshots, 1);
    folded.take();
    let cid = bench.editor(3, Dialect::Hocuspocus, Role::Editor);
    assert_eq!((cid.text(), folded.take()), ("before and".into(), vec![]));
    bench.time_passes(Duration::from_secs(1_000));
    assert_eq!((bench.snapshots, folded.take()), (1, vec![]), "once is enough");
    bench.say(&bob, Input::Update(bob.type_at(10, " after")));
    assert_eq!(folded.take(), [Folding::Snapshot(2), Folding::Update(3)]);
    assert_eq!(bench.text(), "before and after");
    assert_eq!(Bench::over(bench.log.clone(), bench.key, Limits::default()).text(), "before and after");
}

/// "before" in a snapshot, a row of one update, and one of two, of which the second takes away what was there before.
fn log_with_a_tail() -> (MemoryLog, DocumentKey) {
    let (mut bench, _) = loaded_from_a_snapshot(|_| {});
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    for update in [bob.type_at(6, "!"), bob.type_at(7, " during"), bob.delete(0, 8)] {
        bench.whisper(&bob, Input::Update(update));
    }
    bench.log_answers();
    let rows: Vec<_> = bench.log.rows(bench.key).iter().map(|row| (row.seq_from, row.seq_to)).collect();
    assert_eq!(rows, [(1, 1), (2, 2), (3, 4)]);
    (bench.log, bench.key)
}

const ALL_OF_IT: [Folding; 4] = [Folding::Snapshot(1), Folding::Update(2), Folding::Update(3), Folding::Update(4)];

#[test]
fn what_came_after_the_snapshot_is_not_folded_before_the_tree_is_needed() {
    let (log, key) = log_with_a_tail();
    let folded = Arc::new(Folded::default());
    let mut bench = Bench::watched(log.clone(), key, Limits::default(), folded.clone());
    let cid = bench.editor(3, Dialect::YWebsocket, Role::Editor);
    assert_eq!((cid.text(), folded.take()), ("during".into(), vec![]));
    bench.say(&cid, Input::Update(cid.type_at(6, ", after")));
    assert_eq!(folded.take(), [&ALL_OF_IT[..], &[Folding::Update(5)]].concat());
    assert_eq!(bench.text(), "during, after");
}

#[test]
fn a_request_reads_what_yrs_made_of_it() {
    let (log, key) = log_with_a_tail();
    let folded = Arc::new(Folded::default());
    let mut bench = Bench::watched(log, key, Limits::default(), folded.clone());
    assert_eq!((bench.text().as_str(), folded.take()), ("during", ALL_OF_IT.to_vec()));
}

#[test]
fn what_is_packed_with_updates_is_folded_for_its_snapshot_and_goes_back_to_rest() {
    let (log, key) = log_with_a_tail();
    let folded = Arc::new(Folded::default());
    let mut bench = Bench::watched(log, key, Limits::default(), folded.clone());
    let age = Duration::from_secs(Limits::default().snapshot_age_s);
    bench.time_passes(age - Duration::from_secs(1));
    assert_eq!((bench.snapshots, folded.take()), (0, vec![]));
    bench.time_passes(age + Duration::from_secs(2));
    assert_eq!((bench.snapshots, bench.state.tail_updates(), folded.take()), (1, 0, ALL_OF_IT.to_vec()));
    bench.time_passes(Duration::from_secs(1_000));
    let dan = bench.editor(4, Dialect::YWebsocket, Role::Editor);
    bench.say(&dan, Input::Update(dan.type_at(6, "!")));
    assert_eq!((bench.snapshots, folded.take()), (1, vec![Folding::Snapshot(4), Folding::Update(5)]));
    assert_eq!(bench.text(), "during!");
}

#[test]
fn a_document_without_a_snapshot_is_packed_too() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "text")));
    let folded = Arc::new(Folded::default());
    let mut again = Bench::watched(bench.log.clone(), bench.key, Limits::default(), folded.clone());
    let bob = again.editor(2, Dialect::YWebsocket, Role::Editor);
    assert_eq!((bob.text(), folded.take()), ("text".into(), vec![]));
    again.say(&bob, Input::Update(bob.type_at(4, "!")));
    assert_eq!(folded.take(), [Folding::Update(1), Folding::Update(2)]);
    assert_eq!(again.text(), "text!");
}

/// Folds nothing of this number.
#[derive(Debug)]
struct Panicking(u64);

impl Witness for Panicking {
    fn folding(&self, fold: &Fold<'_>) {
        assert_ne!(fold.what, Folding::Update(self.0), "as yrs does");
    }

    fn folded(&self) {}
}

#[test]
fn a_packed_row_that_cannot_be_folded_is_quarantined_when_that_shows() {
    let (log, key) = log_with_a_tail();
    let mut bench = Bench::watched(log.clone(), key, Limits::default(), Arc::new(Panicking(4)));
    let cid = bench.stranger(3, Dialect::YWebsocket, Role::Editor, 3);
    bench.say(&cid, Input::Update(cid.type_at(0, "after ")));
    assert_eq!(
        (bench.died, bench.quarantined.as_slice()),
        (Some(close::SERVICE_RESTART), &[QuarantineReason::FoldPanicked][..])
    );
    let emptied: Vec<_> = log.rows(key)[2].updates.iter().map(|update| update[..] == [0, 0]).collect();
    assert_eq!(emptied, [false, true], "the second update of the row, which only deleted, and not the first");
    let text = Bench::over(log, key, Limits::default()).text();
    assert!(text.contains("before! during") && text.contains("after "), "{text}");
}

#[test]
fn rows_that_do_not_continue_a_snapshot_that_is_not_whole_are_not_to_blame() {
    let (log, key) = log_with_a_tail();
    let mut snapshot = log.load_now(key).unwrap().snapshot.unwrap();
    snapshot.state = beyond();
    log.discard_snapshots_now(key, 1);
    log.save_snapshot_now(key, snapshot).unwrap();
    let (limits, stored) = (Arc::new(Limits::default()), log.load_now(key).unwrap());
    let budgets = Budgets::of(&limits);
    let loaded = DocumentState::load(stored, limits, budgets, Instant::now());
    assert!(matches!(loaded, Err(Unsound::Snapshot { seq: 1 })), "{:?}", loaded.err());
}

#[test]
fn what_came_while_a_snapshot_was_stored_is_in_the_next_one_by_its_age() {
    let limits = Limits { document_compact_after_s: 86_400, ..Limits::default() };
    let age = Duration::from_secs(limits.snapshot_age_s);
    let mut bench = Bench::with_limits(limits);
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "in the first")));
    let first = bench.state.snapshot().0.unwrap().verify().unwrap();
    bench.say(&ann, Input::Update(ann.type_at(12, ", not in it")));
    bench.log.save_snapshot_now(bench.key, first.clone()).unwrap();
    bench.state.snapshot_taken(Some(first), true, bench.now);
    bench.time_passes(age - Duration::from_secs(1));
    assert_eq!((bench.snapshots, bench.state.tail_updates()), (0, 1));
    bench.time_passes(Duration::from_secs(2));
    assert_eq!((bench.snapshots, bench.state.tail_updates()), (1, 0));
}

#[test]
fn a_client_that_comes_back_is_sent_what_it_lacks_without_a_fold() {
    let (log, key) = log_with_a_tail();
    let folded = Arc::new(Folded::default());
    let mut bench = Bench::watched(log, key, Limits::default(), folded.clone());
    let mut back = bench.stranger(5, Dialect::YWebsocket, Role::Editor, 5);
    back.apply(&bench.log.rows(key)[0].updates[0]);
    assert_eq!(back.text(), "before");
    bench.synchronise(&mut back);
    assert_eq!(back.text(), "during");
    bench.say(&back, Input::Step1(back.state_vector()));
    assert!(
        matches!(bench.inbox(&back), [Sent::Step2(nothing)] if nothing[0] == 0),
        "no blocks, only what was deleted"
    );
    assert_eq!(folded.take(), []);
}

/// Nothing but a block that continues what is not there.
fn beyond() -> Bytes {
    let beyond = Doc::with_client_id(9);
    let text = beyond.get_or_insert_text("text");
    text.insert(&mut beyond.try_transact_mut().unwrap(), 0, "first");
    let mut transaction = beyond.try_transact_mut().unwrap();
    text.insert(&mut transaction, 5, "second");
    Bytes::from(transaction.encode_update_v1())
}

#[test]
fn a_packed_snapshot_that_cannot_be_folded_is_discarded_when_that_shows() {
    let (mut bench, _) = loaded_from_a_snapshot(|snapshot| snapshot.state = beyond());
    let bob = bench.stranger(2, Dialect::YWebsocket, Role::Editor, 2);
    bench.say(&bob, Input::Update(bob.type_at(0, "own ")));
    assert_eq!(bench.died, Some(close::SERVICE_RESTART));
    let mut again = Bench::over(bench.log.clone(), bench.key, Limits::default());
    let text = again.text();
    assert!(text.contains("before") && text.contains("own "), "{text}");
}

#[test]
fn a_fork_is_quarantined_and_its_sender_closed() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "truth")));
    let liar = bench.stranger(1, Dialect::YWebsocket, Role::Editor, 1);
    bench.say(&liar, Input::Update(liar.type_at(0, "false")));
    assert_eq!(bench.count(&liar, &Sent::Closed(close::FORK)), 1);
    assert_eq!(bench.quarantined, [QuarantineReason::Fork]);
    assert_eq!(bench.text(), "truth");
}

#[test]
fn a_batch_that_postgresql_refuses_is_split_until_the_culprit_stands_alone() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "a")));
    bench.whisper(&bob, Input::Update(bob.type_at(0, "bad")));
    bench.whisper(&ann, Input::Update(ann.type_at(0, "c")));
    let first = bench.parked.remove(0);
    bench.parked.push(first);
    bench.log_one();
    bench.append_fails(AppendOutcome::Refused("value too large".into()));
    bench.append_fails(AppendOutcome::Refused("value too large".into()));
    bench.log_answers();
    assert_eq!(bench.count(&bob, &Sent::Closed(close::MALFORMED)), 1);
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 2);
}
