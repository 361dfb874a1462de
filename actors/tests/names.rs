//! What a session makes of rooms and of frames that name none, in each dialect.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use contextnexus_actors::document::close;
use contextnexus_actors::limits::Limits;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::room::NameRefused;
use contextnexus_actors::session::messages::ClientMessage;
use contextnexus_actors::session::state::{Effect, SessionState};
use std::sync::Arc;

const DIALECTS: [Dialect; 3] = [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet];

/// A session in which the room was asked for, and what that led to.
fn ask(dialect: Dialect, room: &str) -> (SessionState, Vec<Effect>) {
    let mut session = SessionState::new(dialect, Arc::new(Limits::default()));
    if dialect == Dialect::Hocuspocus {
        let mut token = vec![room.len() as u8];
        token.extend_from_slice(room.as_bytes());
        token.extend_from_slice(b"\x02\x00\x01t");
        let effects = session.hear([ClientMessage::Binary(Bytes::from(token))]);
        (session, effects)
    } else {
        let effects = session.opened(room);
        (session, effects)
    }
}

#[test]
fn an_empty_frame_is_malformed_and_says_nothing_of_a_token() {
    for dialect in DIALECTS {
        let (mut session, _) = ask(dialect, "plan");
        let effects = session.hear([ClientMessage::Binary(Bytes::new())]);
        let closed = Effect::Close { code: close::MALFORMED, reason: "empty message" };
        assert_eq!(effects, [closed], "{dialect:?}");
    }
}

#[test]
fn one_rule_says_what_a_name_is_in_every_dialect() {
    for dialect in DIALECTS {
        for (room, why) in [
            ("  ", NameRefused::Blank),
            ("pl\u{200b}an", NameRefused::Invisible),
            ("gpj.\u{202e}exe", NameRefused::Invisible),
            ("a\nb", NameRefused::Control),
        ] {
            let (_, effects) = ask(dialect, room);
            assert!(
                matches!(effects[..], [Effect::Refuse { code: close::NOT_FOUND, reason, .. }] if reason == why.text()),
                "{dialect:?} {room:?}: {effects:?}"
            );
        }
        for room in ["0189c0de-0000-7000-8000-00000000abcd", "0189C0DE0000700080000000ABCD0123", "plan (2)", "100%"] {
            let (_, effects) = ask(dialect, room);
            assert!(matches!(effects[..], [Effect::Open { .. }]), "{dialect:?} {room:?}: {effects:?}");
        }
    }
}
