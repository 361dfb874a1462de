//! Honest histories made by the real Yjs, of version 13 and of the release candidates of 14: recorded by
//! `tests/yjs/record.mjs`, replayed here through the gate.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use bytes::Bytes;
use common::Server;
use contextnexus_gate::{Caps, Content, Delta, Index, admit};
use yrs::{GetString, Transact};

struct History {
    name: String,
    /// Updates in the order in which a server hears them: whole, merged, with holes, out of order, twice.
    sent: Vec<Bytes>,
    state_vector: Bytes,
    state: Bytes,
    text: String,
}

fn unhex(hex: &str) -> Bytes {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn histories() -> Vec<History> {
    let folder =
        std::env::var("GATE_YJS_HISTORIES").unwrap_or_else(|_| format!("{}/tests/yjs", env!("CARGO_MANIFEST_DIR")));
    let mut histories = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [state_vector, state, text, sent] = fields[..] else { panic!("{path:?}:{number}: four fields") };
            histories.push(History {
                name: format!("{}:{}", path.file_name().unwrap().display(), number + 1),
                sent: sent.split(',').map(unhex).collect(),
                state_vector: unhex(state_vector),
                state: unhex(state),
                text: String::from_utf8(unhex(text).to_vec()).unwrap(),
            });
        }
    }
    assert!(histories.len() >= 30);
    histories
}

#[test]
fn what_yjs_writes_is_never_refused_and_reads_the_same_behind_the_gate() {
    for history in histories() {
        let mut server = Server::default();
        for update in &history.sent {
            server.receive(std::slice::from_ref(update));
        }
        // What was left out at gaps comes with a step 2.
        let resent = server.receive(std::slice::from_ref(&history.state)).pop().unwrap();
        assert_eq!(resent.missing, None, "{}: a whole state lacks nothing", history.name);
        assert_eq!(server.index.state_vector(), history.state_vector, "{}", history.name);
        let text = server.doc.get_or_insert_text("t").get_string(&server.doc.transact());
        // A pair that an edit tears becomes two U+FFFD only where the edit is made.
        let torn = |text: &str| text.replace('😀', "\u{fffd}\u{fffd}");
        assert_eq!(torn(&text), torn(&history.text), "{}", history.name);

        let seeded = Index::from_state(&common::parse(&history.state));
        assert_eq!(seeded.state_vector(), history.state_vector, "{}", history.name);
        let mut delta = Delta::default();
        for update in history.sent.iter().chain([&history.state]) {
            let admission =
                admit(&seeded, &mut delta, &common::parse(update), &Caps::default(), &mut |_| true).unwrap();
            assert_eq!(admission.content, Content::Nothing, "{}: the state holds it all", history.name);
        }
    }
}
