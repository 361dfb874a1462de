use super::bench::{Bench, Editor, Sent};
use crate::access::{Grant, Role};
use crate::document::close;
use crate::document::messages::{Effect, Input, Renew};
use crate::hosting::HostedKey;
use crate::ids::{ProjectId, UserId, UserSessionId};
use crate::ports::authority::{RightInUse, Standing};
use crate::protocol::Dialect;
use std::time::{Duration, Instant};
use uuid::Uuid;

const DIALECTS: [Dialect; 3] = [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet];
const S: Duration = Duration::from_secs(1);

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn user_session(number: u128) -> UserSessionId {
    UserSessionId(Uuid::from_u128(number))
}

impl Bench {
    fn stands(&mut self, number: u128, standing: Standing) {
        let right = RightInUse { user_session: user_session(number), user: user(number), place: self.key.place() };
        let effects = self.state.regrant(&[(right, standing)], self.now);
        self.perform(effects);
        self.log_answers();
    }

    fn granted(&self, role: Role, until: Option<Instant>) -> Standing {
        Standing::Granted(Grant { document: self.key.document, project: ProjectId(Uuid::nil()), role, until })
    }

    fn renews(&mut self, editor: &Editor, number: u128, role: Role, until: Option<Instant>) {
        let renewal =
            Renew { follower: editor.follower, user: user(number), user_session: user_session(number), role, until };
        let effects = self.state.renew(renewal, self.now);
        self.perform(effects);
    }

    fn is_closed(&self, editor: &Editor) -> bool {
        self.inbox(editor).iter().any(|sent| matches!(sent, Sent::Closed(_)))
    }
}

#[test]
fn a_right_that_runs_out_reads_and_writes_no_more_without_being_looked_up() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let mut ann = bench.passing(1, dialect, Role::Editor, 1, Some(3 * S));
        let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
        bench.synchronise(&mut ann);
        bench.time_passes(2 * S);
        assert!(!bench.is_closed(&ann), "{dialect:?}: too early");
        bench.time_passes(S);
        assert_eq!(bench.count(&ann, &Sent::Closed(close::EXPIRED)), 1, "{dialect:?}");
        bench.forget_inboxes();
        bench.say(&ann, Input::Update(ann.type_at(0, "after its time")));
        bench.say(&bob, Input::Update(bob.type_at(0, "not for Ann")));
        assert_eq!(bench.text(), "not for Ann", "{dialect:?}");
    }
}

#[test]
fn what_waits_when_a_right_runs_out_is_not_written() {
    let mut bench = Bench::new();
    let ann = bench.passing(1, Dialect::Hocuspocus, Role::Editor, 1, Some(3 * S));
    bench.whisper(&ann, Input::Update(ann.type_at(0, "in flight")));
    bench.whisper(&ann, Input::Update(ann.type_at(0, "waiting ")));
    bench.now += 4 * S; // nobody has looked at the clock yet
    bench.log_answers();
    assert_eq!(bench.text(), "in flight", "admitted under a right that had ended");
}

#[test]
fn hocuspocus_is_asked_for_a_fresh_token_once_and_ahead_of_time() {
    let mut bench = Bench::new();
    let ann = bench.passing(1, Dialect::Hocuspocus, Role::Editor, 1, Some(100 * S));
    let bob = bench.passing(2, Dialect::YWebsocket, Role::Editor, 2, Some(100 * S));
    bench.time_passes(89 * S);
    assert_eq!(bench.count(&ann, &Sent::TokenRequest), 0);
    bench.time_passes(2 * S);
    assert_eq!(bench.count(&ann, &Sent::TokenRequest), 1);
    assert_eq!(bench.count(&bob, &Sent::TokenRequest), 0, "its dialect has no word for it");
    let until = Some(bench.now + 9 * S + Duration::from_millis(3));
    bench.renews(&ann, 1, Role::Editor, until);
    bench.time_passes(5 * S);
    assert_eq!(bench.count(&ann, &Sent::TokenRequest), 1, "the same token again: not asked twice");
    let until = Some(bench.now + 100 * S);
    bench.renews(&ann, 1, Role::Editor, until);
    bench.time_passes(50 * S);
    assert!(!bench.is_closed(&ann), "a longer right applies");
    assert_eq!(bench.count(&bob, &Sent::Closed(close::EXPIRED)), 1);
    bench.time_passes(50 * S);
    assert_eq!(bench.count(&ann, &Sent::TokenRequest), 2);
    assert_eq!(bench.count(&ann, &Sent::Closed(close::EXPIRED)), 1);
}

#[test]
fn a_session_whose_end_is_moved_is_closed_at_the_new_one() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let ann = bench.passing(1, dialect, Role::Editor, 1, Some(10 * S));
        let later = bench.granted(Role::Editor, Some(bench.now + 60 * S));
        bench.stands(1, later);
        bench.time_passes(59 * S);
        assert!(!bench.is_closed(&ann), "{dialect:?}");
        bench.time_passes(S);
        assert_eq!(bench.count(&ann, &Sent::Closed(close::EXPIRED)), 1, "{dialect:?}");
    }
}

#[test]
fn a_session_that_the_database_saw_run_out_first_was_not_revoked() {
    let mut bench = Bench::new();
    let ann = bench.passing(1, Dialect::YWebsocket, Role::Editor, 1, Some(Duration::from_millis(200)));
    let bob = bench.passing(2, Dialect::YWebsocket, Role::Editor, 2, Some(60 * S));
    bench.stands(1, Standing::SessionEnded);
    bench.stands(2, Standing::SessionEnded);
    assert_eq!(bench.count(&ann, &Sent::Closed(close::EXPIRED)), 1, "it may come back with a fresh token");
    assert_eq!(bench.count(&bob, &Sent::Closed(close::UNAUTHORIZED)), 1, "revoked long before its end");
}

#[test]
fn a_changed_role_is_told_in_the_words_of_the_dialect() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Editor);
    let bob = bench.editor(2, Dialect::YWebsocket, Role::Editor);
    for number in [1, 2] {
        let viewer = bench.granted(Role::Viewer, None);
        bench.stands(number, viewer);
        bench.stands(number, viewer);
    }
    assert_eq!(bench.count(&ann, &Sent::Scope(false)), 1);
    assert_eq!(bench.count(&bob, &Sent::ReadOnly), 1);
    let admin = bench.granted(Role::Admin, None);
    bench.stands(1, admin);
    let editor = bench.granted(Role::Editor, None);
    bench.stands(1, editor);
    assert_eq!(bench.count(&ann, &Sent::Scope(true)), 1, "an administrator and an editor both write");
}

#[test]
fn what_was_typed_while_it_might_only_read_is_saved_once_it_may_write() {
    for dialect in DIALECTS {
        let mut bench = Bench::new();
        let ann = bench.editor(1, dialect, Role::Viewer);
        bench.say(&ann, Input::Update(ann.type_at(0, "one ")));
        bench.say(&ann, Input::Update(ann.type_at(4, "two")));
        bench.say(&ann, Input::Mark(b"2".as_slice().into()));
        assert_eq!(bench.text(), "", "{dialect:?}");
        bench.forget_inboxes();
        let editor = bench.granted(Role::Editor, None);
        bench.stands(1, editor);
        let asked = bench.inbox(&ann).iter().find_map(|sent| match sent {
            Sent::Step1(state_vector) => Some(state_vector.clone()),
            _ => None,
        });
        let step2 = ann.step2(&asked.unwrap_or_else(|| panic!("{dialect:?}: not asked for it")));
        bench.say(&ann, Input::Step2(step2));
        assert_eq!(bench.text(), "one two", "{dialect:?}");
        match dialect {
            Dialect::Hocuspocus => {
                assert_eq!(bench.count(&ann, &Sent::Status(true)), 2, "one for each that was refused");
            }
            Dialect::YWebsocket => assert!(bench.inbox(&ann).iter().any(|sent| matches!(sent, Sent::Update(_)))),
            Dialect::YSweet => {
                bench.say(&ann, Input::Mark(b"3".as_slice().into()));
                assert_eq!(bench.count(&ann, &Sent::Mark(b"3".as_slice().into())), 1);
            }
        }
    }
}

#[test]
fn what_is_typed_after_a_fresh_token_is_written_under_it() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::Hocuspocus, Role::Viewer);
    bench.renews(&ann, 7, Role::Editor, None);
    bench.whisper(&ann, Input::Update(ann.type_at(0, "as seven")));
    let rows = bench.parked.iter().find_map(|effect| match effect {
        Effect::Append { rows, .. } => Some(rows.iter().map(|row| row.user_session).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(rows, Some(vec![user_session(7)]));
    bench.log_answers();
    bench.stands(1, Standing::SessionEnded);
    assert!(!bench.is_closed(&ann), "the session before it is nothing to this connection any more");
    bench.stands(7, Standing::SessionEnded);
    assert_eq!(bench.count(&ann, &Sent::Closed(close::UNAUTHORIZED)), 1);
}

#[test]
fn a_second_step_1_is_not_sent_while_the_first_is_being_answered() {
    let mut bench = Bench::new();
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let _lost = ann.type_at(0, "lost ");
    bench.say(&ann, Input::Update(ann.type_at(5, "seen")));
    let asked = |bench: &Bench| bench.inbox(&ann).iter().filter(|sent| matches!(sent, Sent::Step1(_))).count();
    assert_eq!(asked(&bench), 1);
    bench.time_passes(60 * S);
    assert_eq!(asked(&bench), 1, "the answer may be large, and the line slow");
    bench.say(&ann, Input::Step2(ann.step2(&[0])));
    assert_eq!(bench.text(), "lost seen");
}
