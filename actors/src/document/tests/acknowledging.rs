use super::bench::{Bench, Sent};
use crate::access::Role;
use crate::document::messages::Input;
use crate::ports::log::AppendOutcome;
use crate::protocol::Dialect;
use bytes::Bytes;
use std::time::Duration;

#[test]
fn hocuspocus_gets_one_status_for_its_step_2_and_one_for_each_update() {
    let mut bench = Bench::new();
    let ann = bench.stranger(1, Dialect::Hocuspocus, Role::Editor, 1);
    bench.say(&ann, Input::Step1(ann.state_vector()));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 0);
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1);
    for turn in 0..10 {
        bench.whisper(&ann, Input::Update(ann.type_at(turn, "x")));
    }
    bench.log_answers();
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 11);
    assert!(!bench.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Update(_))), "it has its own content");
}

#[test]
fn a_gap_in_hocuspocus_is_owed_and_paid_once() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    let _lost = ann.type_at(0, "lost ");
    bench.say(&ann, Input::Update(ann.type_at(5, "seen")));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 0, "acknowledged what is not in the log");
    let asked = bench.inbox(&ann).iter().filter(|sent| matches!(sent, Sent::Step1(_))).count();
    assert_eq!(asked, 1, "one step 1 for the gap");
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1, "the owed one, and none for the solicited step 2");
    assert_eq!(bench.text(), "lost seen");
}

#[test]
fn what_is_owed_is_asked_for_although_a_step_2_of_its_batch_was_whole() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "one ")));
    bench.whisper(&ann, Input::Step2(ann.step2(&[0])));
    let _lost = ann.type_at(4, "lost ");
    bench.whisper(&ann, Input::Update(ann.type_at(9, "seen")));
    bench.log_answers();
    bench.time_passes(Duration::from_millis(600));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1, "acknowledged what is not in the log");
    assert!(bench.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Step1(_))), "nobody asks for it");
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 2);
    assert_eq!(bench.text(), "one lost seen");
}

#[test]
fn a_new_step_1_cancels_what_hocuspocus_was_owed() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    let _lost = ann.type_at(0, "lost ");
    bench.say(&ann, Input::Update(ann.type_at(5, "seen")));
    bench.forget_inboxes();
    bench.say(&ann, Input::Step1(ann.state_vector()));
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1, "exactly one for the step 2 of its own synchronisation");
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 1, "and none for one that answers the older step 1");
}

#[test]
fn a_gap_is_asked_about_with_growing_patience() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let _lost = ann.type_at(0, "lost ");
    let seen = ann.type_at(5, "seen");
    bench.say(&ann, Input::Update(seen.clone()));
    bench.say(&ann, Input::Update(ann.type_at(9, "!")));
    let asked = |bench: &Bench| bench.inbox(&ann).iter().filter(|sent| matches!(sent, Sent::Step1(_))).count();
    let useless_answer = Input::Step2(seen);
    assert_eq!(asked(&bench), 1, "once per gap");
    bench.say(&ann, useless_answer.clone());
    bench.time_passes(Duration::from_millis(2_600));
    assert_eq!(asked(&bench), 2);
    bench.say(&ann, useless_answer);
    bench.time_passes(Duration::from_millis(2_000));
    assert_eq!(asked(&bench), 2);
    bench.time_passes(Duration::from_millis(2_600));
    assert_eq!(asked(&bench), 3);
}

#[test]
fn y_sweet_hears_its_102_after_all_before_it_has_committed() {
    let mut bench = Bench::new();
    let ann = bench.stranger(1, Dialect::YSweet, Role::Editor, 1);
    let mark = |n: u8| Input::Mark(Bytes::copy_from_slice(&[n]));
    let heard = |n: u8| Sent::Mark(Bytes::copy_from_slice(&[n]));
    bench.say(&ann, Input::Step1(ann.state_vector()));
    bench.say(&ann, mark(1));
    assert_eq!(bench.count(&ann, &heard(1)), 0, "before its step 2 has committed");
    let unsaved = ann.type_at(0, "unsaved");
    bench.whisper(&ann, Input::Step2(unsaved));
    assert_eq!(bench.count(&ann, &heard(1)), 0, "on receipt");
    bench.log_answers();
    assert_eq!(bench.count(&ann, &heard(1)), 1);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "more")));
    bench.whisper(&ann, mark(2));
    assert_eq!(bench.count(&ann, &heard(2)), 0);
    bench.log_answers();
    assert_eq!(bench.count(&ann, &heard(2)), 1);
}

#[test]
fn a_withheld_102_is_covered_by_a_sign_of_life() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YSweet, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "slow")));
    bench.whisper(&ann, Input::Mark(Bytes::from_static(&[1])));
    let parked = std::mem::take(&mut bench.parked);
    bench.time_passes(Duration::from_millis(2_100));
    assert_eq!(bench.count(&ann, &Sent::KeepAlive), 1, "within the 3 s after which the client gives up");
    bench.parked = parked;
    bench.log_answers();
    assert_eq!(bench.count(&ann, &Sent::Mark(Bytes::from_static(&[1]))), 1);
}

#[test]
fn a_resend_is_acknowledged_by_its_own_content_to_its_sender_alone() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    let update = ann.type_at(0, "once");
    bench.say(&ann, Input::Update(update.clone()));
    bench.forget_inboxes();
    bench.say(&ann, Input::Update(update.clone()));
    assert_eq!(bench.inbox(&ann), [Sent::Update(update)]);
    assert!(bench.inbox(&bob).is_empty());
    assert_eq!(bench.log.rows(bench.key).len(), 1, "nothing was appended again");
}

#[test]
fn a_resend_of_what_is_in_flight_waits_for_that_commit() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    let update = ann.type_at(0, "once");
    bench.whisper(&ann, Input::Update(update.clone()));
    bench.whisper(&ann, Input::Update(update));
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 0);
    bench.log_answers();
    assert_eq!(bench.count(&ann, &Sent::Status(true)), 2);
}

#[test]
fn readers_are_told_in_their_dialect_and_change_nothing() {
    let mut bench = Bench::new();
    let y_websocket = bench.editor(1, Dialect::YWebsocket, Role::Viewer);
    let hocuspocus = bench.editor(2, Dialect::Hocuspocus, Role::Viewer);
    let y_sweet = bench.editor(3, Dialect::YSweet, Role::Viewer);
    for editor in [&y_websocket, &hocuspocus, &y_sweet] {
        bench.say(editor, Input::Update(editor.type_at(0, "graffiti")));
    }
    bench.say(&y_sweet, Input::Mark(Bytes::from_static(&[1])));
    assert_eq!(bench.inbox(&y_websocket), [Sent::ReadOnly]);
    assert_eq!(bench.inbox(&hocuspocus), [Sent::Status(false)]);
    assert!(bench.inbox(&y_sweet).is_empty(), "no 102 after a refused write");
    assert_eq!(bench.text(), "");
    assert!(bench.log.rows(bench.key).is_empty());
}

#[test]
fn a_reader_that_repeats_what_is_known_is_acknowledged() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "known")));
    let reader = bench.stranger(9, Dialect::Hocuspocus, Role::Viewer, 9);
    bench.say(&reader, Input::Step1(reader.state_vector()));
    bench.read_all(&reader);
    bench.say(&reader, Input::Step2(reader.step2(&[0])));
    assert_eq!(bench.count(&reader, &Sent::Status(true)), 1);
}

#[test]
fn rights_are_looked_at_again_when_the_batch_is_formed() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "first")));
    bench.whisper(&ann, Input::Update(ann.type_at(0, "second")));
    let right = crate::ports::authority::RightInUse {
        user_session: crate::ids::UserSessionId(uuid::Uuid::from_u128(1)),
        user: crate::ids::UserId(uuid::Uuid::from_u128(1)),
        place: crate::ports::authority::Place::Document(bench.key.document),
    };
    let grant = crate::access::Grant {
        document: bench.key.document,
        project: crate::ids::ProjectId(uuid::Uuid::nil()),
        role: Role::Viewer,
        until: None,
    };
    let effects = bench.state.regrant(&[(right, crate::ports::authority::Standing::Granted(grant))], bench.now);
    bench.perform(effects);
    bench.append_fails(AppendOutcome::Behind);
    bench.log_answers();
    assert!(bench.log.rows(bench.key).is_empty(), "a right that ended wrote");
    assert_eq!(bench.count(&ann, &Sent::Status(false)), 2);
}
