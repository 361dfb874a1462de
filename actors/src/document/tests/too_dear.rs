//! Updates of which each may be admitted can make a state that takes too long to fold at once: it is never a snapshot, and the log is enough.

use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::Input;
use crate::limits::Limits;
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::lib0::write_var_uint;
use std::time::Duration;

/// A map with many entries of one key, of which none knows another: yrs walks over all of them for each.
fn dear(client: u8) -> Bytes {
    const ENTRIES: u64 = 1_500;
    let mut update = vec![1];
    write_var_uint(&mut update, 1 + ENTRIES);
    update.extend([client, 0, 7, 1, 1, b'm', 1]);
    (0..ENTRIES).for_each(|_| update.extend([0x28, 0, client, 0, 1, b'k', 1, 126]));
    update.push(0);
    update.into()
}

/// Eight dear updates, one before and one after each word of Ann's.
fn eight(limits: Limits) -> (Bench, Editor, Editor) {
    let mut bench = Bench::with_limits(Limits { integration_ms_max: 40, snapshot_tail_updates: 16, ..limits });
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let eve = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    for client in 101..=108 {
        bench.say(&eve, Input::Update(dear(client)));
        bench.say(&ann, Input::Update(ann.type_at(ann.text().len() as u32, "word ")));
    }
    assert!(!bench.inbox(&eve).iter().any(|sent| matches!(sent, Sent::Closed(_))), "each of them may be written");
    (bench, ann, eve)
}

#[test]
fn a_state_that_folds_dearer_than_an_update_may_is_no_snapshot_and_the_log_is_enough() {
    let (mut bench, ann, _) = eight(Limits::default());
    assert_eq!(bench.too_dear, [true]);
    let stored = bench.log.load_now(bench.key).unwrap();
    assert!(stored.snapshot.is_none() && stored.tail.rows.len() == 16);
    bench.time_passes(Duration::from_secs(3_600));
    assert_eq!(bench.too_dear.len(), 1, "tried again at each rest");
    for _ in 0..16 {
        bench.say(&ann, Input::Update(ann.type_at(0, "x")));
    }
    assert_eq!(bench.too_dear, [true, false], "tried again when there is twice as much, and said once");
    let mut again = Bench::over(bench.log.clone(), bench.key, Limits::default());
    assert_eq!(again.text(), ["x".repeat(16), "word ".repeat(8)].concat());
}

/// What was dear was deleted, and collected.
#[test]
fn a_state_that_is_dear_no_longer_is_a_snapshot_again() {
    let (mut bench, ann, eve) = eight(Limits::default());
    let mut deletes = vec![0, 8];
    for client in 101..=108 {
        deletes.extend([client, 1, 0, 1]);
    }
    bench.say(&eve, Input::Update(deletes.into()));
    for _ in 0..15 {
        bench.say(&ann, Input::Update(ann.type_at(0, "x")));
    }
    assert_eq!((bench.too_dear.as_slice(), bench.state.tail_updates()), (&[true][..], 0));
    assert!(bench.log.load_now(bench.key).unwrap().snapshot.is_some());
}

#[test]
fn a_log_of_which_there_is_no_snapshot_has_a_bound_and_deletes_are_taken_beyond_it() {
    let (mut bench, ann, _) = eight(Limits { document_bytes_max: 200_000, ..Limits::default() });
    let full = Sent::Closed(close::LIMIT);
    let bob = bench.editor(3, Dialect::YWebsocket, Role::Editor);
    for _ in 0..40 {
        bench.say(&bob, Input::Update(bob.type_at(0, &"y".repeat(4_000))));
        bench.say(&bob, Input::Update(bob.delete(0, 4_000)));
        if bench.count(&bob, &full) > 0 {
            break;
        }
    }
    assert_eq!(bench.count(&bob, &full), 1, "written and deleted for ever");
    bench.say(&ann, Input::Update(ann.delete(0, 5)));
    assert_eq!(bench.count(&ann, &full), 0);
    assert!(!bench.text().contains(&"word ".repeat(8)));
}
