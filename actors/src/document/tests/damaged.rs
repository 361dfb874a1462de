//! A log that does not read back: what is before the damage is read, nobody writes, and mending it is noticed.

use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::{Effect, Input};
use crate::ids::{DocumentKey, Tip};
use crate::limits::Limits;
use crate::ports::log::{Damage, DamageKind, Extent, Quarantine, QuarantineReason, Snapshot};
use crate::ports::memory_log::MemoryLog;
use crate::protocol::Dialect;
use bytes::Bytes;
use uuid::Uuid;

const SECOND_ROW: Damage = Damage { kind: DamageKind::CorruptRow, seq_from: 2 };

/// A log of two rows, the editor who wrote them, and a node that meets the second one damaged.
fn damaged() -> (MemoryLog, DocumentKey, Editor, Bench) {
    let mut writing = Bench::new();
    let ann = writing.editor(1, Dialect::Hocuspocus, Role::Editor);
    writing.say(&ann, Input::Update(ann.type_at(0, "sound ")));
    writing.say(&ann, Input::Update(ann.type_at(6, "lost")));
    let (log, key) = (writing.log.clone(), writing.key);
    log.damage_row(key, 2);
    let reading = Bench::over(log.clone(), key, Limits::default());
    assert_eq!(reading.state.damage(), Some(SECOND_ROW));
    (log, key, ann, reading)
}

fn mend(log: &MemoryLog, key: DocumentKey) {
    let new_tip = Tip(Uuid::from_u128(77));
    let what = Quarantine {
        seq_from: 2,
        new_tip,
        reason: QuarantineReason::FoldPanicked,
        update: Bytes::new(),
        user_session: None,
        user: None,
        extent: Extent::Row,
    };
    log.quarantine_now(key, &what).unwrap();
}

#[test]
fn what_is_before_the_damage_is_read_and_nobody_writes() {
    for dialect in [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet] {
        let (log, key, _, mut bench) = damaged();
        assert_eq!(bench.text(), "sound ");
        let bob = bench.editor(2, dialect, Role::Admin);
        bench.say(&bob, Input::Update(bob.type_at(0, "more ")));
        assert_eq!(log.rows(key).len(), 2, "written behind what cannot be read");
        assert!(!bench.inbox(&bob).iter().any(|sent| matches!(sent, Sent::Closed(_))), "{:?}", bench.inbox(&bob));
        assert_eq!(bench.count(&bob, &Sent::Status(true)), 0, "called saved");
        assert_eq!(bench.text(), "sound ");
        assert!(bench.parked.is_empty() && bench.died.is_none());
    }
}

#[test]
fn the_head_that_it_was_found_with_is_no_news() {
    let (log, key, _, mut bench) = damaged();
    let head = log.load_now(key).unwrap().tail.head;
    assert_eq!(bench.state.stands_at(), head.position);
    assert!(bench.state.head_moved(head).is_empty());
}

#[test]
fn a_mended_log_is_loaded_and_written_again() {
    let (log, key, _, mut bench) = damaged();
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    mend(&log, key);
    let effects = bench.state.head_moved(log.load_now(key).unwrap().tail.head);
    bench.perform(effects);
    bench.log_answers();
    assert_eq!(bench.state.damage(), None);
    bench.say(&bob, Input::Update(bob.type_at(0, "more ")));
    assert_eq!(bench.count(&bob, &Sent::Status(true)), 1);
    assert_eq!(bench.text(), "more sound ");
}

/// Another node had it open and stored a snapshot: the head is where it was.
#[test]
fn a_log_that_was_mended_in_place_is_noticed_when_rights_change() {
    let (log, key, ann, mut bench) = damaged();
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    for _ in 0..2 {
        let effects = bench.state.regrant(&[], bench.now);
        assert!(matches!(effects[..], [Effect::Rebuild]), "{effects:?}");
        bench.perform(effects);
        bench.log_answers();
        assert!(bench.inbox(&bob).is_empty(), "it is as it was: {:?}", bench.inbox(&bob));
    }
    let position = log.load_now(key).unwrap().tail.head.position;
    let (state, state_vector) = (ann.step2(&[0]), ann.state_vector());
    log.save_snapshot_now(key, Snapshot { position, state, state_vector, writers: Vec::new().into() }).unwrap();
    let effects = bench.state.regrant(&[], bench.now);
    bench.perform(effects);
    bench.log_answers();
    assert_eq!((bench.state.damage(), bench.text().as_str()), (None, "sound lost"));
    bench.read_all(&bob);
    assert_eq!(bob.text(), "sound lost", "who is here is shown it");
}

#[test]
fn a_document_that_meets_damage_while_it_is_open_has_everybody_come_back_to_what_is_left() {
    let mut writing = Bench::new();
    let ann = writing.editor(1, Dialect::Hocuspocus, Role::Editor);
    writing.say(&ann, Input::Update(ann.type_at(0, "sound ")));
    let mut other = Bench::over(writing.log.clone(), writing.key, Limits::default());
    writing.say(&ann, Input::Update(ann.type_at(6, "lost")));
    writing.log.damage_row(writing.key, 2);
    let effects = other.state.head_moved(writing.log.load_now(writing.key).unwrap().tail.head);
    other.perform(effects);
    other.log_answers();
    assert_eq!(other.died, Some(close::SERVICE_RESTART), "come back, and not later");
}
