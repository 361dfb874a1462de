//! Histories that the real Yjs made, as `tests/yjs/record.mjs` writes them: one a line.

use bytes::Bytes;
use contextnexus_gate::{Caps, Content, Delta, Index, Order, admit};
use yrs::updates::decoder::Decode;
use yrs::{GetString, ReadTxn, Transact};

use super::{Server, content, doc, parse};

/// One history.
pub struct History {
    /// Updates in the order in which a server hears them: whole, merged, with holes, out of order, twice.
    pub sent: Vec<Bytes>,
    state_vector: Bytes,
    state: Bytes,
    text: String,
}

fn unhex(hex: &str) -> Bytes {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

impl History {
    /// Reads a line: "state vector, state, text, updates" in hex.
    pub fn read(line: &str) -> Self {
        let fields: Vec<&str> = line.split(' ').collect();
        let [state_vector, state, text, sent] = fields[..] else { panic!("four fields, not {}", fields.len()) };
        Self {
            sent: sent.split(',').map(unhex).collect(),
            state_vector: unhex(state_vector),
            state: unhex(state),
            text: String::from_utf8(unhex(text).to_vec()).unwrap(),
        }
    }

    /// Sends it through the gate. It panics when anything is refused, or the end is not what Yjs says.
    pub fn replay(&self, name: &str) {
        let mut server = Server::default();
        for update in &self.sent {
            server.receive(std::slice::from_ref(update));
        }
        // What was left out at gaps comes with a step 2.
        let resent = server.receive(std::slice::from_ref(&self.state)).pop().unwrap();
        assert_eq!(resent.missing, None, "{name}: a whole state lacks nothing");
        assert_eq!(server.index.state_vector(), self.state_vector, "{name}");
        let text = server.doc.get_or_insert_text("t").get_string(&server.doc.transact());
        // A pair that an edit tears becomes two U+FFFD only where the edit is made.
        let torn = |text: &str| text.replace('😀', "\u{fffd}\u{fffd}");
        assert_eq!(torn(&text), torn(&self.text), "{name}");
        // The same, whichever way it came here: update by update, or as the state that Yjs made of them.
        let loaded = doc(2);
        let state = parse(&self.state);
        loaded.transact_mut().apply_update(yrs::Update::decode_v1(state.bytes()).unwrap()).unwrap();
        assert_eq!(content(&server.doc), content(&loaded), "{name}");
        assert_eq!(loaded.transact().snapshot().state_map, server.doc.transact().snapshot().state_map, "{name}");

        let seeded = Index::from_state(&state);
        assert_eq!(seeded.state_vector(), self.state_vector, "{name}");
        let (mut delta, mut order) = (Delta::default(), Order::of_state(&seeded, &state).0);
        for update in self.sent.iter().chain([&self.state]) {
            let admission =
                admit(&seeded, &mut delta, Some(&mut order), &parse(update), &Caps::default(), &mut |_| true).unwrap();
            assert_eq!(admission.content, Content::Nothing, "{name}: the state holds it all");
        }
    }
}
