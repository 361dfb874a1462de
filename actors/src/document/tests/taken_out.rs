//! What cannot be folded is taken out of the log alone: whatever continues without it stays, and its author is told.

use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::budget::Budgets;
use crate::document::close;
use crate::document::messages::Input;
use crate::document::state::{DocumentState, Unsound};
use crate::ids::{DocumentKey, Tip};
use crate::limits::Limits;
use crate::ports::log::{Extent, Quarantine, QuarantineReason};
use crate::ports::memory_log::MemoryLog;
use crate::ports::witness::{Fold, Witness};
use crate::protocol::Dialect;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Folds nothing that contains this.
#[derive(Debug)]
struct Panicking(&'static str);

impl Witness for Panicking {
    fn folding(&self, fold: &Fold<'_>) {
        let text = self.0.as_bytes();
        assert!(!fold.update.windows(text.len()).any(|part| part == text), "as yrs does");
    }

    fn folded(&self) {}
}

/// Rows of Eve's, one of two updates, and Ann's words in the middle of what Eve wrote, and elsewhere.
fn written_around() -> (Bench, Editor, Editor) {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let eve = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    for update in [eve.type_at(0, "first "), eve.type_at(6, "poison "), eve.type_at(13, "last ")] {
        bench.whisper(&eve, Input::Update(update));
    }
    bench.log_answers();
    bench.read_all(&ann);
    bench.say(&ann, Input::Update(ann.type_at(9, "[inside]")));
    bench.say(&ann, Input::Update(ann.type_at(0, "before ")));
    bench.say(&eve, Input::Update(eve.type_at(eve.text().len() as u32, "later")));
    let rows: Vec<_> = bench.log.rows(bench.key).iter().map(|row| (row.seq_from, row.seq_to)).collect();
    assert_eq!(rows, [(1, 1), (2, 3), (4, 4), (5, 5), (6, 6)]);
    (bench, ann, eve)
}

/// Loads the document where yrs folds nothing that contains this, until somebody who writes has had it mended.
fn taken_out(log: &MemoryLog, key: DocumentKey, text: &'static str) -> Bench {
    let mut bench = Bench::watched(log.clone(), key, Limits::default(), Arc::new(Panicking(text)));
    let cid = bench.stranger(3, Dialect::YWebsocket, Role::Editor, 3);
    bench.say(&cid, Input::Update(cid.type_at(0, "after ")));
    assert_eq!(
        (bench.died, bench.quarantined.as_slice()),
        (Some(close::SERVICE_RESTART), &[QuarantineReason::FoldPanicked][..])
    );
    Bench::watched(log.clone(), key, Limits::default(), Arc::new(Panicking(text)))
}

#[test]
fn what_is_around_a_convicted_update_stays_where_it_is() {
    let (bench, ann, _) = written_around();
    let poison = bench.log.rows(bench.key)[1].updates[0].clone();
    let mut again = taken_out(&bench.log, bench.key, "poison");
    let text = again.text();
    assert_eq!(text.replace("after ", ""), "before first [inside]last later");
    assert_eq!(again.log.load_now(again.key).unwrap().quarantined, [poison], "it alone");
    // Who has it open, and who has never seen it, read the same.
    let mut ann = Editor { follower: again.stranger(1, Dialect::YWebsocket, Role::Editor, 1).follower, ..ann };
    again.synchronise(&mut ann);
    let bob = again.editor(4, Dialect::Hocuspocus, Role::Editor);
    assert_eq!((ann.text(), bob.text()), (text.clone(), text));
    assert!(!again.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Closed(_))), "{:?}", again.inbox(&ann));
    again.say(&ann, Input::Update(ann.type_at(0, "on ")));
    assert!(again.text().starts_with("on "));
}

#[test]
fn what_cannot_be_folded_without_its_content_either_goes_and_what_does_not_need_it_stays() {
    let (bench, ..) = written_around();
    let again = taken_out(&bench.log, bench.key, "poison");
    let hollow = again.log.rows(again.key)[1].updates[0].clone();
    let what = Quarantine {
        seq_from: 2,
        extent: Extent::Content(2),
        new_tip: Tip(Uuid::from_u128(7)),
        reason: QuarantineReason::FoldOverran,
        update: hollow,
        user_session: None,
        user: None,
    };
    again.log.quarantine_now(again.key, &what).unwrap();
    let (log, limits) = (again.log.clone(), Arc::new(Limits::default()));
    let load =
        || DocumentState::load(log.load_now(bench.key).unwrap(), limits.clone(), Budgets::of(&limits), Instant::now());
    let Err(Unsound::Log(all)) = load() else { panic!("what depends on it is there") };
    let seqs: Vec<u64> = all.iter().map(Quarantine::seq).collect();
    // Eve's own later clocks, and what Ann wrote inside; then Ann's own later clocks.
    assert_eq!(seqs, [3, 4, 5, 6]);
    assert!(all.iter().all(|what| what.reason == QuarantineReason::DoesNotContinue));
    for what in all {
        log.quarantine_now(bench.key, &what).unwrap();
    }
    assert!(load().is_ok(), "one pass is enough");
    assert_eq!(Bench::over(log, bench.key, Limits::default()).text().replace("after ", ""), "first ");
}

/// One update may hold what depends on something that is gone and what does not.
#[test]
fn of_an_update_that_does_not_continue_the_part_stays_that_does() {
    let mut bench = Bench::new();
    let eve = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    bench.say(&eve, Input::Update(eve.type_at(0, "gone")));
    let (bob, relay) = (Editor::new(4), bench.editor(5, Dialect::YWebsocket, Role::Editor));
    bob.type_at(0, "by itself");
    relay.apply(&bob.step2(&[0]));
    let index = relay.text().find("gone").unwrap() as u32 + 2;
    relay.type_at(index, "depends");
    bench.say(&relay, Input::Step2(relay.step2(&eve.state_vector())));
    let whole = bench.log.rows(bench.key)[1].updates[0].clone();
    let what = Quarantine {
        seq_from: 1,
        extent: Extent::Row,
        new_tip: Tip(Uuid::from_u128(7)),
        reason: QuarantineReason::FoldDied,
        update: Bytes::new(),
        user_session: None,
        user: None,
    };
    bench.log.quarantine_now(bench.key, &what).unwrap();
    let limits = Arc::new(Limits::default());
    let stored = bench.log.load_now(bench.key).unwrap();
    let loaded = DocumentState::load(stored, limits.clone(), Budgets::of(&limits), Instant::now());
    let Err(Unsound::Log(all)) = loaded else { panic!("it depends on what is gone") };
    assert_eq!((all.len(), &all[0].update), (1, &whole), "the whole update is kept");
    bench.log.quarantine_now(bench.key, &all[0]).unwrap();
    let mut again = Bench::over(bench.log.clone(), bench.key, Limits::default());
    assert_eq!(again.text(), "by itself");
    // It only lacked something: whoever has both brings both.
    let stored = again.log.load_now(again.key).unwrap();
    assert!(!stored.quarantined.contains(&whole));
}

#[test]
fn an_author_is_told_once_his_page_says_who_it_is() {
    let (bench, ann, eve) = written_around();
    let mut again = taken_out(&bench.log, bench.key, "poison");
    for dialect in [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet] {
        let of_ann = Editor { follower: again.stranger(1, dialect, Role::Editor, 1).follower, doc: ann.doc.clone() };
        again.say(&of_ann, Input::Awareness(of_ann.announcement(1, "{}")));
        assert_eq!(again.count(&of_ann, &Sent::Closed(close::FORK)), 0, "nothing of hers is gone");
        let of_eve = Editor { follower: again.stranger(2, dialect, Role::Editor, 2).follower, doc: eve.doc.clone() };
        again.say(&of_eve, Input::Awareness(of_eve.announcement(1, "{}")));
        assert_eq!(again.count(&of_eve, &Sent::Closed(close::FORK)), 1, "{dialect:?}");
        let page = again.editor(20, dialect, Role::Editor);
        again.say(&page, Input::Awareness(page.announcement(1, "{}")));
        assert_eq!(again.count(&page, &Sent::Closed(close::FORK)), 0, "a page that is loaded again goes on");
    }
}

#[test]
fn an_author_who_shows_no_cursor_is_told_when_he_writes_and_that_is_kept() {
    let (bench, _, eve) = written_around();
    let mut again = taken_out(&bench.log, bench.key, "poison");
    let mut eve = Editor { follower: again.stranger(2, Dialect::YWebsocket, Role::Editor, 2).follower, ..eve };
    again.synchronise(&mut eve);
    assert_eq!(again.count(&eve, &Sent::Closed(close::FORK)), 0);
    again.say(&eve, Input::Update(eve.type_at(0, "on ")));
    assert_eq!(again.count(&eve, &Sent::Closed(close::FORK)), 1);
    assert!(again.text().contains("on "));
}

#[test]
fn who_sends_his_content_again_is_told_and_others_only_learn_that_it_is_gone() {
    let (bench, ann, eve) = written_around();
    let mut again = taken_out(&bench.log, bench.key, "poison");
    let all = [eve.step2(&[0]), ann.step2(&[0])];
    for (user, closed) in [(2, 1), (1, 0)] {
        for state in &all {
            let sender = again.stranger(30 + user, Dialect::YWebsocket, Role::Editor, user.into());
            again.say(&sender, Input::Step2(state.clone()));
            assert_eq!(again.count(&sender, &Sent::Closed(close::FORK)), closed, "user {user}");
        }
    }
    assert!(!again.text().contains("poison"));
}

/// Another node has found out what it was.
#[test]
fn an_author_whose_page_is_open_is_told_when_it_is_taken_out() {
    let (mut bench, ann, eve) = written_around();
    bench.say(&ann, Input::Awareness(ann.announcement(1, "{}")));
    taken_out(&bench.log, bench.key, "poison");
    bench.forget_inboxes();
    let effects = bench.state.head_moved(bench.log.load_now(bench.key).unwrap().tail.head);
    bench.perform(effects);
    bench.log_answers();
    let closed = Sent::Closed(close::FORK);
    assert_eq!((bench.count(&eve, &closed), bench.count(&ann, &closed)), (1, 0));
    bench.read_all(&ann);
    assert_eq!(ann.text().replace("after ", ""), "before first [inside]last later");
}

/// Over HTTP an update is all or nothing.
#[test]
fn a_request_that_sends_its_own_content_again_is_refused_and_one_of_others_is_not() {
    let (bench, ann, eve) = written_around();
    let mut again = taken_out(&bench.log, bench.key, "poison");
    for (user, state, is_taken) in [(2, &eve, false), (1, &ann, true), (2, &ann, false)] {
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        let (session, user) =
            (crate::ids::UserSessionId(Uuid::from_u128(user)), crate::ids::UserId(Uuid::from_u128(user)));
        let by = crate::ports::documents::Writer { user_session: session, user, role: Role::Editor, until: None };
        let mut effects = again.state.write(by, state.step2(&[0]), None, answer);
        effects.extend(again.state.advance(again.now));
        again.perform(effects);
        again.log_answers();
        assert_eq!(answered.try_recv().unwrap().is_ok(), is_taken, "{user:?}");
    }
}
