//! What is large goes out in pieces, each of which counts.

use super::bench::{Bench, Editor, Sent};
use crate::access::Role;
use crate::document::follower_output::FollowerOutput;
use crate::document::follower_outputs::FollowerOutputs;
use crate::document::messages::{Effect, Input};
use crate::document::pieces::InPieces;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::protocol::Dialect;
use crate::protocol::codec::{Incoming, decode};
use bytes::Bytes;
use futures_util::task::noop_waker;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;
use tokio::sync::mpsc;

const PIECE: usize = 1_024;
const TEXT: usize = 50_000;
const DIALECTS: [Dialect; 3] = [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet];

/// A document with a large text, and who wrote it.
fn large() -> (Bench, Editor) {
    let mut bench = Bench::with_limits(Limits { sync_piece_bytes: PIECE, ..Limits::default() });
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, &"large ".repeat(TEXT / 6))));
    bench.say(&ann, Input::Update(ann.delete(10, 5)));
    bench.log_answers();
    (bench, ann)
}

fn updates(sent: &[Sent]) -> Vec<Bytes> {
    let updates = sent.iter().filter_map(|sent| match sent {
        Sent::Update(update) | Sent::Step2(update) => Some(update.clone()),
        _ => None,
    });
    updates.collect()
}

#[test]
fn a_large_state_goes_out_in_pieces_that_count_and_one_small_step_2() {
    for dialect in DIALECTS {
        let (mut bench, ann) = large();
        let bob = bench.stranger(2, dialect, Role::Editor, 2);
        bench.say(&bob, Input::Step1(bob.state_vector()));
        let step2s = |sent: &[Sent]| sent.iter().filter(|sent| matches!(sent, Sent::Step2(_))).count();
        let sent = bench.inbox(&bob).to_vec();
        assert_eq!(step2s(&sent), 1, "{dialect:?}");
        let pieces = updates(&sent);
        assert!(pieces.len() > 40 && pieces.iter().all(|piece| piece.len() < PIECE + 100), "{dialect:?}");
        assert!(matches!(&sent[sent.len() - 1], Sent::Step2(last) if last.len() < 100), "{dialect:?}");
        let half = pieces.len() / 2;
        pieces[..half].iter().for_each(|piece| bob.apply(piece));
        let read = bob.text().len();
        assert!(read > TEXT / 3, "{dialect:?}: what has come counts: {read}");

        // The connection breaks: only the rest is sent.
        let again = bench.stranger(3, dialect, Role::Editor, 2);
        bench.say(&again, Input::Step1(bob.state_vector()));
        let sent = bench.inbox(&again).to_vec();
        assert_eq!(step2s(&sent), 1, "{dialect:?}");
        let rest = updates(&sent);
        rest.iter().for_each(|piece| bob.apply(piece));
        assert_eq!(bob.text(), ann.text(), "{dialect:?}");
        let (all, twice) = (pieces.iter(), pieces[..half].iter().chain(&rest));
        let bytes = |pieces: &mut dyn Iterator<Item = &Bytes>| pieces.map(Bytes::len).sum::<usize>();
        let (all, twice) = (bytes(&mut { all }), bytes(&mut { twice }));
        assert!(twice * 10 < all * 11, "{dialect:?}: {twice} bytes where {all} were needed");
    }
}

#[test]
fn a_large_update_is_shown_in_pieces_and_echoed_in_pieces() {
    let mut bench = Bench::with_limits(Limits { sync_piece_bytes: PIECE, ..Limits::default() });
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    let bob = bench.editor(2, Dialect::Hocuspocus, Role::Editor);
    let update = ann.type_at(0, &"large ".repeat(TEXT / 6));
    bench.say(&ann, Input::Update(update.clone()));
    for reader in [&ann, &bob] {
        let pieces = updates(bench.inbox(reader));
        assert!(pieces.len() > 40 && pieces.iter().all(|piece| piece.len() < PIECE + 100));
    }
    updates(bench.inbox(&bob)).iter().for_each(|piece| bob.apply(piece));
    assert_eq!(bob.text(), ann.text());

    let before = bench.inbox(&ann).len();
    bench.say(&ann, Input::Update(update)); // the connection broke before it heard of it
    let echo = updates(&bench.inbox(&ann)[before..]);
    assert!(echo.len() > 40 && echo.iter().all(|piece| piece.len() < PIECE + 100));
    let reader = Editor::new(9);
    echo.iter().for_each(|piece| reader.apply(piece));
    assert!(reader.text().len() > TEXT - 10);
}

#[test]
fn a_small_state_is_one_step_2() {
    let mut bench = Bench::with_limits(Limits { sync_piece_bytes: PIECE, ..Limits::default() });
    let ann = bench.editor(1, Dialect::YWebsocket, Role::Editor);
    bench.say(&ann, Input::Update(ann.type_at(0, "small")));
    let bob = bench.stranger(2, Dialect::YWebsocket, Role::Editor, 2);
    bench.say(&bob, Input::Step1(bob.state_vector()));
    assert!(matches!(updates(bench.inbox(&bob)).as_slice(), [_]));
}

/// What an outbox holds, as its writer takes it.
fn taken(outbox: &Outbox) -> Vec<Incoming> {
    let mut frames = VecDeque::new();
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    let mut all = Vec::new();
    while outbox.poll_drain(&mut context, usize::MAX, &mut frames).is_ready() {
        all.extend(frames.drain(..).map(|frame| {
            let header = if frame[1] < 126 { 2 } else { 4 };
            decode(Dialect::YWebsocket, &frame.slice(header..)).unwrap().1
        }));
    }
    all
}

#[test]
fn a_state_waits_in_pieces_for_room_and_what_is_newer_follows_it() {
    const BUDGET: usize = 4 * PIECE;
    let (mut bench, ann) = large();
    let bob = bench.stranger(2, Dialect::YWebsocket, Role::Editor, 2);
    let outbox = Arc::new(Outbox::new(BUDGET));
    let (drained, mut news) = mpsc::channel(1);
    let mut outputs = FollowerOutputs::new(drained);
    outputs
        .insert(bob.follower, FollowerOutput::new(Dialect::YWebsocket, Bytes::new(), outbox.clone(), Arc::default()));
    let state = ann.step2(&[0]);
    outputs.welcome(bob.follower, &InPieces::cut(state, PIECE), bench.state.position().seq);
    let mut heard = Vec::new();
    let mut newest = 0;
    loop {
        assert!(outbox.waiting() < BUDGET + PIECE + 100, "{} bytes wait", outbox.waiting());
        heard.extend(taken(&outbox));
        if newest < 3 {
            // Somebody writes meanwhile.
            newest += 1;
            let update = ann.type_at(0, "new ");
            bench.say(&ann, Input::Update(update.clone()));
            bench.log_answers();
            outputs.show(&update.into(), bench.state.position(), None, &mut bench.state);
        }
        if news.try_recv().is_err() {
            break;
        }
        outputs.catch_up(&mut bench.state, bench.now);
    }
    let mut is_synced = false;
    let mut step2s = 0;
    for message in heard {
        match message {
            Incoming::Update(update) => bob.apply(&update),
            Incoming::Step2(update) => {
                bob.apply(&update);
                step2s += 1;
                is_synced = true;
            }
            _ => continue,
        }
        assert!(is_synced || !bob.text().contains("new"), "what is newer follows the state");
    }
    assert_eq!(step2s, 1);
    assert_eq!(bob.text(), ann.text());

    // From now on it hears every update at once.
    let update = ann.type_at(0, "last ");
    bench.say(&ann, Input::Update(update.clone()));
    bench.log_answers();
    outputs.show(&update.into(), bench.state.position(), None, &mut bench.state);
    for message in taken(&outbox) {
        if let Incoming::Update(update) = message {
            bob.apply(&update);
        }
    }
    assert_eq!(bob.text(), ann.text());
}

#[test]
fn the_pieces_of_a_state_are_shared_by_all_who_join_at_once() {
    let (mut bench, _) = large();
    let mut welcomed = Vec::new();
    for client in 2..5 {
        let reader = bench.stranger(client, Dialect::YSweet, Role::Editor, u128::from(client));
        let effects = bench.state.hear(reader.follower, Input::Step1(Bytes::from_static(&[0])), bench.now);
        welcomed.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Welcome(_, state) => Some(state),
            _ => None,
        }));
    }
    let [first, others @ ..] = welcomed.as_slice() else { panic!("nobody was welcomed") };
    for other in others {
        for (one, two) in first.iter().zip(other.iter()) {
            assert_eq!(one.as_ptr(), two.as_ptr(), "one copy for all");
        }
    }
}
