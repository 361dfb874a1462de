//! What a session decides, without a document behind it.

use super::state::{Effect, SessionState};
use crate::document::close;
use crate::document::messages::Input;
use crate::limits::Limits;
use crate::ports::authority::AccessDenied;
use crate::protocol::Dialect;
use crate::session::messages::ClientMessage;
use bytes::Bytes;
use contextnexus_gate::lib0::{write_var_bytes, write_var_string, write_var_uint};
use std::sync::Arc;
use std::time::Duration;

fn session(dialect: Dialect) -> SessionState {
    limited(dialect, Limits::default())
}

fn limited(dialect: Dialect, limits: Limits) -> SessionState {
    SessionState::new(dialect, Arc::new(limits))
}

fn address(name: &str) -> Bytes {
    let mut bytes = Vec::new();
    write_var_string(&mut bytes, name);
    bytes.into()
}

fn message(name: &str, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = address(name).to_vec();
    body(&mut bytes);
    bytes.into()
}

/// As majors before 4 say it, or, with a version, as those from 4 on.
fn token(name: &str, token: &str, version: Option<&str>) -> Bytes {
    message(name, |bytes| {
        write_var_uint(bytes, 2);
        write_var_uint(bytes, 0);
        write_var_string(bytes, token);
        if let Some(version) = version {
            write_var_string(bytes, version);
        }
    })
}

fn sync(name: &str, step: u64, payload: &[u8]) -> Bytes {
    message(name, |bytes| {
        write_var_uint(bytes, 0);
        write_var_uint(bytes, step);
        write_var_bytes(bytes, payload);
    })
}

fn stateless(name: &str, payload: &str) -> Bytes {
    message(name, |bytes| {
        write_var_uint(bytes, 5);
        write_var_string(bytes, payload);
    })
}

fn detach(name: &str) -> Bytes {
    message(name, |bytes| write_var_uint(bytes, 7))
}

/// Lets the session hear binary messages.
fn hear(session: &mut SessionState, messages: impl IntoIterator<Item = Bytes>) -> Vec<Effect> {
    session.hear(messages.into_iter().map(ClientMessage::Binary))
}

/// Presents a token and answers with the number of the attempt.
fn present(session: &mut SessionState, name: &str, secret: &str) -> u32 {
    match &hear(session, [token(name, secret, Some("4.8.0"))])[..] {
        [Effect::Open { attachment, token: Some(presented), .. }] if presented == secret => *attachment,
        other => panic!("{other:?}"),
    }
}

fn join(session: &mut SessionState, name: &str) {
    present(session, name, "good");
    let effects = session.joined(&address(name), true);
    assert_eq!(effects[0], Effect::Authenticated { address: address(name), may_write: true });
}

fn refusal(effects: &[Effect]) -> (u32, u16) {
    match effects {
        [Effect::Refuse { attachment, code, .. }] => (*attachment, *code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_that_is_said_late_does_not_hit_a_channel_that_was_let_in_since() {
    let mut session = session(Dialect::Hocuspocus);
    present(&mut session, "room", "wrong");
    let (refused, code) = refusal(&session.denied(&address("room"), &AccessDenied::BadToken));
    assert_eq!(code, close::UNAUTHORIZED);
    assert!(session.is_refused(&address("room"), refused));
    present(&mut session, "room", "right");
    assert!(!session.is_refused(&address("room"), refused), "a newer token is being checked");
    session.joined(&address("room"), true);
    assert!(!session.is_refused(&address("room"), refused), "it is open");
    session.detached(&address("room"));
    assert!(!session.is_refused(&address("room"), refused), "it was let go for another reason");
}

#[test]
fn what_was_said_before_the_right_token_follows_it() {
    let mut session = session(Dialect::Hocuspocus);
    let effects = hear(&mut session, [token("room", "wrong", None), sync("room", 0, &[0])]);
    assert!(matches!(effects[..], [Effect::Open { .. }]), "{effects:?}");
    session.denied(&address("room"), &AccessDenied::BadToken);
    hear(&mut session, [sync("room", 2, b"typed meanwhile")]);
    present(&mut session, "room", "right");
    let inputs = vec![Input::Step1(Bytes::from_static(&[0])), Input::Update(Bytes::from_static(b"typed meanwhile"))];
    assert_eq!(
        session.joined(&address("room"), true)[1],
        Effect::Deliver { address: address("room"), inputs },
        "a provider says its step 1 once, when its socket opens"
    );
}

#[test]
fn a_document_that_was_let_go_begins_anew_with_a_fresh_token_alone() {
    let mut session = session(Dialect::Hocuspocus);
    join(&mut session, "room");
    session.detached(&address("room"));
    hear(&mut session, [sync("room", 2, b"typed meanwhile")]);
    present(&mut session, "room", "fresh");
    let inputs = vec![Input::Step1(Bytes::from_static(&[0])), Input::Update(Bytes::from_static(b"typed meanwhile"))];
    assert_eq!(session.joined(&address("room"), true)[1], Effect::Deliver { address: address("room"), inputs });
}

#[test]
fn a_token_for_an_open_document_renews_it() {
    let mut session = session(Dialect::Hocuspocus);
    join(&mut session, "room");
    let effects = hear(&mut session, [token("room", "fresh", Some("4.8.0"))]);
    assert!(matches!(&effects[..], [Effect::Renew { token, .. }] if token == "fresh"), "{effects:?}");
}

#[test]
fn of_two_tokens_in_one_breath_the_newer_decides() {
    let mut session = session(Dialect::Hocuspocus);
    let effects = hear(&mut session, [token("room", "old", None), token("room", "new", None)]);
    assert!(matches!(effects[..], [Effect::Open { .. }]), "one at a time: {effects:?}");
    let effects = session.denied(&address("room"), &AccessDenied::BadToken);
    assert!(matches!(&effects[..], [Effect::Open { token: Some(token), .. }] if token == "new"), "{effects:?}");
}

#[test]
fn what_passes_brings_the_client_back_and_disturbs_no_other_document() {
    for passing in [AccessDenied::Full, AccessDenied::Unavailable] {
        let mut alone = session(Dialect::Hocuspocus);
        present(&mut alone, "room", "good");
        let effects = alone.denied(&address("room"), &passing);
        assert!(matches!(effects[..], [Effect::Close { code: close::TRY_AGAIN_LATER, .. }]), "{effects:?}");

        let mut other = session(Dialect::YWebsocket);
        other.opened("room");
        let effects = other.denied(&Bytes::new(), &passing);
        assert!(matches!(effects[..], [Effect::Close { code: close::TRY_AGAIN_LATER, .. }]), "{effects:?}");

        let mut shared = session(Dialect::Hocuspocus);
        join(&mut shared, "open");
        present(&mut shared, "room", "good");
        let mut waits = Vec::new();
        for _ in 0..7 {
            match &shared.denied(&address("room"), &passing)[..] {
                [Effect::OpenLater { address, attachment, after }] => {
                    waits.push(after.as_secs());
                    let effects = shared.open_again(address, *attachment);
                    assert!(matches!(&effects[..], [Effect::Open { token: Some(token), .. }] if token == "good"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(shared.joined_channels().count(), 1);
    }
}

#[test]
fn an_attempt_that_is_put_off_ends_with_the_channel() {
    let mut session = session(Dialect::Hocuspocus);
    join(&mut session, "open");
    let attempt = present(&mut session, "room", "good");
    let later = session.denied(&address("room"), &AccessDenied::Full);
    assert_eq!(
        later,
        [Effect::OpenLater { address: address("room"), attachment: attempt, after: Duration::from_secs(1) }]
    );
    hear(&mut session, [detach("room")]);
    assert_eq!(session.open_again(&address("room"), attempt), []);
}

#[test]
fn one_document_too_many_is_refused_alone() {
    let limits = Limits { documents_per_connection_max: 2, ..Limits::default() };
    let mut session = limited(Dialect::Hocuspocus, limits);
    join(&mut session, "one");
    join(&mut session, "two");
    let (attempt, code) = refusal(&hear(&mut session, [token("three", "good", None), sync("three", 0, &[0])]));
    assert_eq!(code, close::LIMIT);
    assert!(session.is_refused(&address("three"), attempt));
    assert_eq!(session.joined_channels().count(), 2);
    hear(&mut session, [detach("one")]);
    present(&mut session, "three", "good");
}

#[test]
fn a_name_that_is_none_is_refused_alone() {
    let mut session = session(Dialect::Hocuspocus);
    join(&mut session, "open");
    let (_, code) = refusal(&hear(&mut session, [token("/", "good", None)]));
    assert_eq!(code, close::NOT_FOUND);
    assert_eq!(session.joined_channels().count(), 1);
}

#[test]
fn message_7_goes_only_to_providers_that_tell_their_version() {
    for (version, expected) in [(None, 0), (Some("4.8.0"), 1)] {
        let mut session = session(Dialect::Hocuspocus);
        hear(&mut session, [token("room", "good", version)]);
        session.joined(&address("room"), true);
        let effects = hear(&mut session, [detach("room")]);
        assert_eq!(effects[0], Effect::Leave { address: address("room") });
        assert_eq!(effects.len(), 1 + expected, "{effects:?}");
    }
}

#[test]
fn everything_that_arrives_before_authentication_counts() {
    let limits = Limits { unauthenticated_messages_max: 10, unauthenticated_bytes_max: 10_000, ..Limits::default() };
    let floods: [fn(u32) -> Bytes; 5] = [
        |_| Bytes::from_static(&[9]),
        |_| stateless("room", "x"),
        |_| detach("room"),
        |n| token(&format!("room-{n}"), "wrong", None),
        |n| sync(&format!("room-{n}"), 0, &[0]),
    ];
    for flood in floods {
        let mut session = limited(Dialect::Hocuspocus, limits.clone());
        let effects = hear(&mut session, (0..11).map(flood));
        let closes = effects.iter().filter(|effect| matches!(effect, Effect::Close { code: close::LIMIT, .. }));
        assert_eq!(closes.count(), 1, "{effects:?}");
    }
    let mut session = limited(Dialect::Hocuspocus, limits.clone());
    let effects = hear(&mut session, [stateless("room", &"x".repeat(10_000))]);
    assert!(matches!(effects[..], [Effect::Close { code: close::LIMIT, .. }]), "bytes, too: {effects:?}");
    let mut session = limited(Dialect::YWebsocket, limits);
    assert_eq!(session.hear([ClientMessage::Text(9_000)]), []);
    let effects = session.hear([ClientMessage::Text(9_000)]);
    assert!(matches!(effects[..], [Effect::Close { code: close::LIMIT, .. }]), "text, too: {effects:?}");
}

#[test]
fn a_document_that_waits_for_its_token_is_bounded_beside_open_ones() {
    let limits = Limits { unauthenticated_bytes_max: 1_000, ..Limits::default() };
    let mut session = limited(Dialect::Hocuspocus, limits);
    join(&mut session, "open");
    assert_eq!(hear(&mut session, [sync("late", 2, &[0; 600])]), []);
    let (_, code) = refusal(&hear(&mut session, [sync("late", 2, &[0; 600])]));
    assert_eq!(code, close::LIMIT);
    assert_eq!(session.unauthenticated_bytes(), 600, "what is refused may come yet, within the bound");
    assert_eq!(hear(&mut session, [sync("late", 2, &[0; 600])]), []);
    assert_eq!(session.unauthenticated_bytes(), 600);
    assert_eq!(session.joined_channels().count(), 1);
}

#[test]
fn a_message_that_is_too_large_is_refused_with_its_document_alone() {
    let mut session = session(Dialect::Hocuspocus);
    join(&mut session, "open");
    join(&mut session, "large");
    let effects = session.hear([ClientMessage::TooLarge(sync("large", 2, &[0; 100]))]);
    assert_eq!(effects, [Effect::Deliver { address: address("large"), inputs: vec![Input::TooLarge] }]);
    present(&mut session, "early", "good");
    let effects = session.hear([ClientMessage::TooLarge(sync("early", 2, &[0; 100]))]);
    assert_eq!(refusal(&effects).1, close::TOO_LARGE);
    assert_eq!(session.joined_channels().count(), 2);
}
