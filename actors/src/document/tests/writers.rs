//! Words under a client id that somebody else has used meanwhile: never lost in silence, and never called saved; and honest people, who are not to
//! notice any of it.

use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::document::close;
use crate::document::messages::{Effect, Input};
use crate::ids::{UserId, UserSessionId};
use crate::limits::Limits;
use crate::ports::bus::{BusEvent, BusMessage};
use crate::ports::documents::{WriteRefused, Writer, Written};
use crate::ports::log::{Head, QuarantineReason};
use crate::protocol::Dialect;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;

const DIALECTS: [Dialect; 3] = [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet];
const ANN: u128 = 1;
const EVE: u128 = 2;
const MARK: &[u8] = b"7";

impl Bench {
    /// The document of `editor` on a connection of its own, as that user.
    fn comes(&mut self, editor: &mut Editor, dialect: Dialect, user: u128) {
        editor.follower = self.stranger(99, dialect, Role::Editor, user).follower;
    }

    fn goes(&mut self, editor: &Editor) {
        let effects = self.state.leave(editor.follower, self.now);
        self.perform(effects);
    }

    /// What a client does when its socket opens: it says how far it knows everybody, shows its cursor, and answers what it is asked, until nothing is
    /// asked any more. A mark of Y-Sweet follows.
    fn opens(&mut self, editor: &Editor, dialect: Dialect) {
        self.say(editor, Input::Step1(editor.state_vector()));
        self.say(editor, Input::Awareness(editor.announcement(1, "{}")));
        self.answers(editor);
        if dialect == Dialect::YSweet {
            self.say(editor, Input::Mark(Bytes::from_static(MARK)));
        }
    }

    fn answers(&mut self, editor: &Editor) {
        let mut read = 0;
        while read < self.inbox(editor).len() {
            match self.inbox(editor)[read].clone() {
                Sent::Step1(state_vector) => {
                    let step2 = editor.step2(&state_vector);
                    self.say(editor, Input::Step2(step2));
                }
                Sent::Step2(update) | Sent::Update(update) => editor.apply(&update),
                _ => {}
            }
            read += 1;
        }
    }

    /// Whether a client takes what it has for saved: an echo of blocks, a status, a mark.
    fn calls_saved(&self, editor: &Editor, what: &str) -> bool {
        self.inbox(editor).iter().any(|sent| match sent {
            Sent::Status(true) => true,
            Sent::Mark(mark) => mark == MARK,
            Sent::Update(update) => contains(update, what),
            _ => false,
        })
    }

    /// Ann writes "hello " under the id 1 and goes. Her document.
    fn ann_was_here(&mut self, dialect: Dialect) -> Editor {
        let mut ann = Editor::new(1);
        self.comes(&mut ann, dialect, ANN);
        self.opens(&ann, dialect);
        self.say(&ann, Input::Update(ann.type_at(0, "hello ")));
        self.goes(&ann);
        self.forget_inboxes();
        ann
    }

    /// What somebody writes who takes the client id of `editor`, and that document's whole state.
    fn forged(&mut self, client: u64) -> Editor {
        let forger = Editor::new(client);
        let (_, state) = self.state.read(self.now).unwrap();
        forger.apply(&state);
        forger
    }

    fn posts(&mut self, update: Bytes, user: u128) -> Result<Written, WriteRefused> {
        let (answer, mut answered) = oneshot::channel();
        let (session, user) = (UserSessionId(Uuid::from_u128(user)), UserId(Uuid::from_u128(user)));
        let by = Writer { user_session: session, user, role: Role::Editor, until: None };
        let mut effects = self.state.write(by, update, None, answer);
        effects.extend(self.state.advance(self.now));
        self.perform(effects);
        self.log_answers();
        answered.try_recv().unwrap()
    }

    fn restarts(&self) -> Self {
        Self::over(self.log.clone(), self.key, Limits::default())
    }

    fn takes_a_snapshot(&mut self) {
        let snapshot = self.state.snapshot().0.unwrap().verify().unwrap();
        self.log.save_snapshot_now(self.key, snapshot).unwrap();
    }
}

fn contains(bytes: &[u8], what: &str) -> bool {
    what.is_empty() || bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

/// What Eve does under Ann's id while she is away.
fn squats(bench: &mut Bench, deletes: bool) {
    let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
    let forger = bench.forged(1);
    bench.say(&eve, Input::Update(forger.type_at(6, "EVIL-TEXT-OF-20-CHARS")));
    if deletes {
        bench.say(&eve, Input::Update(forger.delete(6, 21)));
    }
    bench.goes(&eve);
}

#[test]
fn who_comes_back_to_a_squatted_id_keeps_the_words_and_is_told() {
    for dialect in DIALECTS {
        for (deletes, is_restarted, has_snapshot) in
            [(false, false, false), (true, false, false), (false, true, false), (true, true, false), (true, true, true)]
        {
            let case = format!("{dialect:?} {deletes} {is_restarted} {has_snapshot}");
            let mut bench = Bench::new();
            let mut ann = bench.ann_was_here(dialect);
            squats(&mut bench, deletes);
            if has_snapshot {
                bench.takes_a_snapshot();
            }
            if is_restarted {
                bench = bench.restarts();
            }
            let _offline = ann.type_at(6, "important");
            bench.comes(&mut ann, dialect, ANN);
            bench.opens(&ann, dialect);
            assert!(!bench.calls_saved(&ann, "important"), "{case}: called saved");
            assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1, "{case}: not told");
            assert_eq!(bench.quarantined, [QuarantineReason::Fork], "{case}");
            assert_eq!(ann.text(), "hello important", "{case}: the page");
        }
    }
}

#[test]
fn longer_words_than_the_squatters_are_not_spliced_into_his() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        squats(&mut bench, false);
        let _offline = ann.type_at(6, "something that is longer than what Eve wrote");
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1, "{dialect:?}");
        assert_eq!(bench.text(), "hello EVIL-TEXT-OF-20-CHARS", "{dialect:?}");
    }
}

#[test]
fn words_that_were_deleted_again_on_the_page_are_no_reason_to_take_the_squatters_for_his() {
    for dialect in DIALECTS {
        for (deletes, has_snapshot) in [(false, false), (true, false), (false, true)] {
            let case = format!("{dialect:?} {deletes} {has_snapshot}");
            let mut bench = Bench::new();
            let mut ann = bench.ann_was_here(dialect);
            squats(&mut bench, deletes);
            if has_snapshot {
                bench.takes_a_snapshot();
                bench = bench.restarts();
            }
            // At all clocks of Eve's she has nothing but what she deleted herself, which stands elsewhere.
            let _offline = ann.type_at(0, "not like this, no, not");
            let _offline = ann.delete(0, 22);
            bench.comes(&mut ann, dialect, ANN);
            bench.opens(&ann, dialect);
            assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1, "{case}: not told");
            assert_eq!(bench.quarantined, [QuarantineReason::Fork], "{case}");
            assert_eq!(
                ann.text(),
                "hello ",
                "{case}: Eve's words stand on the page, and elsewhere than for all others"
            );
        }
    }
}

#[test]
fn offline_work_that_its_author_deletes_before_it_comes_back_is_his() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        let known = ann.state_vector();
        let _offline = ann.type_at(6, "from the train");
        let bob = bench.editor(20, Dialect::Hocuspocus, Role::Editor);
        bench.say(&bob, Input::Update(ann.step2(&known)));
        let (_, _) = (ann.delete(6, 5), ann.type_at(15, " to you"));
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert_eq!(bench.text(), "hello the train to you", "{dialect:?}");
        assert_eq!(ann.text(), bench.text(), "{dialect:?}");
        assert!(bench.calls_saved(&ann, "to you") && bench.quarantined.is_empty(), "{dialect:?}");
    }
}

#[test]
fn an_id_that_was_only_announced_is_compared_too() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = Editor::new(1);
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        bench.goes(&ann);
        let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
        let forged = bench.forged(1).type_at(0, "EVIL-TEXT-OF-20-CHARS");
        bench.say(&eve, Input::Update(forged));
        let mut bench = bench.restarts();
        let _offline = ann.type_at(0, "important");
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert!(!bench.calls_saved(&ann, "important"), "{dialect:?}: called saved");
        assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1, "{dialect:?}");
    }
}

/// Somebody who is connected under an id of his own, and what he has not sent yet: until he does, nobody else may bring it.
fn has_not_sent(bench: &mut Bench) -> (Editor, Bytes) {
    let cid = bench.editor(30, Dialect::YWebsocket, Role::Editor);
    bench.say(&cid, Input::Awareness(cid.announcement(1, "{}")));
    let unsent = cid.type_at(0, "unsent ");
    (cid, unsent)
}

#[test]
fn an_id_that_was_only_announced_is_compared_though_the_rest_of_the_step_2_waits() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = Editor::new(1);
        let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
        let forged = bench.forged(1).type_at(0, "EVIL-TEXT-OF-20-CHARS");
        bench.say(&eve, Input::Update(forged));
        let mut bench = bench.restarts();
        let (_cid, unsent) = has_not_sent(&mut bench);
        let _offline = ann.type_at(0, "important");
        ann.apply(&unsent);
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert!(!bench.calls_saved(&ann, "important"), "{dialect:?}: called saved");
        assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1, "{dialect:?}");
    }
}

#[test]
fn what_a_step_2_repeats_is_echoed_though_the_rest_of_it_waits() {
    let mut bench = Bench::new();
    let mut ann = bench.ann_was_here(Dialect::YWebsocket);
    let known = ann.state_vector();
    let _offline = ann.type_at(6, "from the train");
    let bob = bench.editor(20, Dialect::Hocuspocus, Role::Editor);
    bench.say(&bob, Input::Update(ann.step2(&known)));
    let (cid, unsent) = has_not_sent(&mut bench);
    ann.apply(&unsent);
    let _new = ann.type_at(27, " to you"); // which makes all before it hers
    bench.comes(&mut ann, Dialect::YWebsocket, ANN);
    bench.opens(&ann, Dialect::YWebsocket);
    assert!(!bench.calls_saved(&ann, "from the train"), "it is not whole");
    assert_eq!(bench.text(), "hello from the train to you");
    bench.forget_inboxes();
    bench.say(&cid, Input::Update(unsent));
    bench.time_passes(Duration::from_secs(3));
    bench.answers(&ann);
    assert!(bench.calls_saved(&ann, "from the train"), "and then nobody asks for it again");
}

#[test]
fn an_update_at_a_squatted_clock_is_not_acknowledged() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        bench.comes(&mut ann, dialect, ANN);
        bench.say(&ann, Input::Step1(ann.state_vector())); // it shows no cursor, so nobody knows that it is there
        bench.answers(&ann);
        let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
        let forger = bench.forged(1);
        // Both wait for the same append.
        bench.whisper(&eve, Input::Update(eve.type_at(0, "x")));
        bench.whisper(&eve, Input::Update(forger.type_at(6, "EVIL")));
        bench.forget_inboxes();
        bench.whisper(&ann, Input::Update(ann.type_at(6, "important")));
        bench.log_answers();
        assert!(!bench.calls_saved(&ann, "important"), "{dialect:?}");
        assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1, "{dialect:?}");
        assert_eq!(bench.text(), "xhello EVIL", "{dialect:?}: spliced");
    }
}

#[test]
fn who_writes_without_a_cursor_has_the_id_too() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "hello ")));
    let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
    let forger = bench.forged(1);
    bench.say(&eve, Input::Update(forger.type_at(6, "EVIL")));
    bench.say(&ann, Input::Update(ann.type_at(6, "important")));
    assert_eq!(bench.text(), "hello important");
    assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 0);
}

#[test]
fn another_node_knows_what_was_squatted_here() {
    for by_bus in [true, false] {
        let mut here = Bench::new();
        let mut ann = here.ann_was_here(Dialect::Hocuspocus);
        let mut there = here.restarts();
        let from = here.state.position();
        squats(&mut here, false);
        if by_bus {
            let rows = here.log.rows(here.key).split_off(1);
            let updates = rows.iter().flat_map(|row| row.updates.clone()).collect();
            let authorship = rows.iter().map(|row| row.authorship).collect();
            let (key, node, through) = (here.key, crate::ids::NodeId(Uuid::nil()), here.state.position());
            let message = BusMessage::Committed { key, node, from, through, updates, authorship };
            let effects = there.state.hear_bus(BusEvent::Message(message), there.now);
            there.perform(effects);
        } else {
            let effects = there.state.head_moved(Head { position: here.state.position(), deleted: false });
            there.perform(effects);
            there.log_answers();
        }
        let _offline = ann.type_at(6, "important");
        there.comes(&mut ann, Dialect::Hocuspocus, ANN);
        there.opens(&ann, Dialect::Hocuspocus);
        assert_eq!(there.count(&ann, &Sent::Closed(close::FORK)), 1, "by the bus: {by_bus}");
    }
}

#[test]
fn a_squatted_id_over_http_is_a_conflict() {
    let mut bench = Bench::new();
    let ann = Editor::new(1);
    bench.posts(ann.type_at(0, "hello "), ANN).unwrap();
    squats(&mut bench, false);
    let forger = bench.forged(1);
    let important = ann.type_at(6, "important");
    assert_eq!(bench.posts(important, ANN), Err(WriteRefused::Fork));
    assert_eq!(bench.quarantined, [QuarantineReason::Fork]);
    // Whoever goes on behind what Eve wrote is asked for what he has instead.
    let Err(WriteRefused::Gap { state_vector }) = bench.posts(forger.type_at(6, "more "), ANN) else {
        panic!("taken for the same");
    };
    assert!(bench.posts(forger.step2(&state_vector), ANN).is_ok(), "and it is the same");
}

#[test]
fn offline_work_that_a_colleague_brings_is_admitted_and_its_author_goes_on() {
    for dialect in DIALECTS {
        for is_restarted in [false, true] {
            let mut bench = Bench::new();
            let mut ann = bench.ann_was_here(dialect);
            let known = ann.state_vector();
            let _offline = ann.type_at(6, "from the train");
            let bob = bench.editor(20, Dialect::Hocuspocus, Role::Editor);
            bench.say(&bob, Input::Update(ann.step2(&known)));
            bob.apply(&ann.step2(&known));
            assert_eq!(bench.text(), "hello from the train");
            bench.say(&bob, Input::Update(bob.delete(6, 5))); // and works on it
            if is_restarted {
                bench.takes_a_snapshot();
                bench = bench.restarts();
            }
            let _more = ann.type_at(20, " to you");
            bench.comes(&mut ann, dialect, ANN);
            bench.opens(&ann, dialect);
            assert_eq!(bench.text(), "hello the train to you", "{dialect:?}");
            assert_eq!(ann.text(), bench.text(), "{dialect:?}");
            assert!(bench.calls_saved(&ann, "from the train"), "{dialect:?}: not acknowledged");
            assert!(bench.quarantined.is_empty());
            // Now it is hers, and nobody asks for it again.
            bench.forget_inboxes();
            bench.goes(&ann);
            bench.comes(&mut ann, dialect, ANN);
            bench.opens(&ann, dialect);
            let steps = bench.inbox(&ann).iter().filter(|sent| matches!(sent, Sent::Step1(_))).count();
            assert_eq!(steps, 1, "{dialect:?}: asked twice");
            let asked = bench.inbox(&ann).iter().find_map(|sent| match sent {
                Sent::Step1(state_vector) => Some(state_vector.clone()),
                _ => None,
            });
            assert_eq!(ann.step2(&asked.unwrap()).len(), ann.step2(&ann.state_vector()).len(), "{dialect:?}");
        }
    }
}

#[test]
fn another_device_of_the_author_proves_nothing_and_is_not_held_up() {
    let mut bench = Bench::new();
    let mut ann = bench.ann_was_here(Dialect::Hocuspocus);
    squats(&mut bench, false);
    let _offline = ann.type_at(6, "important");
    let mut phone = Editor::new(11);
    for _ in 0..2 {
        bench.comes(&mut phone, Dialect::Hocuspocus, ANN);
        bench.opens(&phone, Dialect::Hocuspocus);
        assert_eq!(phone.text(), "hello EVIL-TEXT-OF-20-CHARS");
        assert!(bench.calls_saved(&phone, ""), "the phone is synchronised");
        bench.say(&phone, Input::Update(phone.type_at(0, "p")));
        bench.goes(&phone);
        bench.forget_inboxes();
        bench.posts(phone.delete(0, 1), ANN).unwrap();
    }
    bench.comes(&mut ann, Dialect::Hocuspocus, ANN);
    bench.opens(&ann, Dialect::Hocuspocus);
    assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 1);
}

#[test]
fn what_others_brought_as_deleted_is_kept_for_its_author_to_read() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        let known = ann.state_vector();
        let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
        let forger = bench.forged(1);
        let (_, _) = (forger.type_at(6, "EVIL-TEXT"), forger.delete(6, 9));
        bench.say(&eve, Input::Update(forger.step2(&known)));
        let _offline = ann.type_at(6, "important");
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert_eq!(bench.quarantined, [QuarantineReason::DeletedBeforeItCame], "{dialect:?}");
        assert_eq!(bench.count(&ann, &Sent::Closed(close::FORK)), 0, "{dialect:?}: it may have been hers");
    }
}

#[test]
fn who_signs_in_as_somebody_else_on_an_open_page_goes_on() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut page = bench.ann_was_here(dialect);
        let reader = bench.editor(30, Dialect::YWebsocket, Role::Editor);
        bench.say(&reader, Input::Update(reader_deletes(&bench, &reader)));
        let _unsent = page.type_at(6, "unsent ");
        for round in 0..3 {
            bench.comes(&mut page, dialect, EVE);
            bench.opens(&page, dialect);
            bench.say(&page, Input::Update(page.type_at(0, &format!("{round} "))));
            assert!(bench.calls_saved(&page, ""), "{dialect:?}");
            assert_eq!(page.text(), bench.text(), "{dialect:?}, round {round}");
            bench.goes(&page);
            bench.forget_inboxes();
            let _offline = page.type_at(0, "offline ");
        }
        assert!(bench.quarantined.is_empty(), "{dialect:?}: {:?}", bench.quarantined);
        // And back to the first.
        bench.comes(&mut page, dialect, ANN);
        bench.opens(&page, dialect);
        assert_eq!(page.text(), bench.text(), "{dialect:?}");
        assert!(page.text().matches("offline ").count() == 3 && bench.quarantined.is_empty());
    }
}

fn reader_deletes(bench: &Bench, reader: &Editor) -> Bytes {
    bench.read_all(reader);
    reader.delete(0, 1)
}

#[test]
fn what_a_restored_database_lacks_is_brought_back_by_anybody() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        let backup = bench.log.backup();
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        bench.say(&ann, Input::Update(ann.type_at(6, "and more ")));
        let mut bob = bench.editor(20, Dialect::YWebsocket, Role::Editor);
        bench.say(&bob, Input::Update(bob.type_at(15, "by Bob")));
        bench.say(&bob, Input::Update(bob.delete(0, 1)));
        bench.log.restore(backup);
        let mut bench = bench.restarts();
        bench.comes(&mut bob, Dialect::YWebsocket, 20);
        bench.opens(&bob, Dialect::YWebsocket);
        assert_eq!(bench.text(), "ello and more by Bob", "{dialect:?}");
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert_eq!(ann.text(), "ello and more by Bob", "{dialect:?}");
        assert!(bench.calls_saved(&ann, "and more "), "{dialect:?}");
        assert!(bench.quarantined.is_empty(), "{dialect:?}: {:?}", bench.quarantined);
    }
}

#[test]
fn a_reader_who_announces_an_id_stops_nobody_from_writing_under_it() {
    for dialect in DIALECTS {
        for is_known in [true, false] {
            let mut bench = Bench::new();
            let mut ann = if is_known { bench.ann_was_here(dialect) } else { Editor::new(1) };
            let mut bench = bench.restarts();
            let eve = bench.editor(20, Dialect::YWebsocket, Role::Viewer);
            let announced = Editor::new(1).announcement(9, "{\"name\":\"Ann\"}");
            bench.say(&eve, Input::Awareness(announced));
            let (before, text) = if is_known { (6, "hello important") } else { (0, "important") };
            let _offline = ann.type_at(before, "important");
            bench.comes(&mut ann, dialect, ANN);
            bench.opens(&ann, dialect);
            assert_eq!(bench.text(), text, "{dialect:?}: stopped");
            assert!(bench.calls_saved(&ann, "important"), "{dialect:?}");
            let more = ann.type_at(0, "x");
            assert!(bench.posts(more, ANN).is_ok(), "{dialect:?}: over HTTP");
            assert_eq!(bench.state.everybody(None).iter().filter(|entry| entry.client == 1).count(), 1);
        }
    }
}

#[test]
fn an_editor_who_announces_somebodys_id_does_not_stop_its_writer() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
        bench.say(&eve, Input::Awareness(Editor::new(1).announcement(9, "{\"name\":\"Ann\"}")));
        let _offline = ann.type_at(6, "important");
        bench.comes(&mut ann, dialect, ANN);
        bench.opens(&ann, dialect);
        assert_eq!(bench.text(), "hello important", "{dialect:?}");
        // And now that she is here, nobody else writes under it.
        let forger = bench.forged(1);
        bench.say(&eve, Input::Update(forger.type_at(0, "EVIL")));
        assert_eq!(bench.text(), "hello important", "{dialect:?}");
    }
}

#[test]
fn who_cannot_write_because_another_is_there_under_the_id_is_told_after_a_while() {
    let mut bench = Bench::new();
    let eve = bench.editor(20, Dialect::YWebsocket, Role::Editor);
    bench.say(&eve, Input::Awareness(Editor::new(1).announcement(9, "{}")));
    let mut ann = Editor::new(1);
    bench.comes(&mut ann, Dialect::YWebsocket, ANN);
    bench.opens(&ann, Dialect::YWebsocket);
    bench.say(&ann, Input::Update(ann.type_at(0, "important")));
    for _ in 0..10 {
        bench.forget_inboxes();
        bench.time_passes(Duration::from_secs(31));
        bench.answers(&ann);
        if bench.count(&ann, &Sent::Closed(close::FORK)) == 1 {
            return assert_eq!(bench.text(), "");
        }
    }
    panic!("nothing was said");
}

#[test]
fn who_has_nothing_of_what_others_brought_is_welcomed_at_once() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.ann_was_here(dialect);
        squats(&mut bench, false);
        bench.comes(&mut ann, dialect, ANN);
        let effects = bench.state.hear(ann.follower, Input::Step1(ann.state_vector()), bench.now);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Welcome(..))), "{dialect:?}");
    }
}
