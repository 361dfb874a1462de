//! Honest histories of several editors, and how they are delivered: nothing is refused, nothing is lost, nothing waits in yrs.

use bytes::Bytes;
use contextnexus_gate::{Admission, Caps, Content, Delta, Index, StateVector, Update, admit, diff, merge, pieces};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{ReadTxn, Transact};

use super::{Editor, Server, content, doc, parse, rng, state};

/// Client ids as yjs 13, yjs 14 and a person with a debugger choose them.
const CLIENTS: [u64; 4] = [7, 0xffff_fffe, (1 << 53) - 1, 300];
/// What each history has at least.
const EDITS_MIN: u32 = 50;

/// What became of the updates of a history.
#[derive(Debug, Default)]
pub struct Outcomes {
    pub edits: u64,
    pub whole: u64,
    pub part: u64,
    pub nothing: u64,
    pub missing: u64,
}

impl Outcomes {
    pub fn add(&mut self, other: &Outcomes) {
        self.edits += other.edits;
        self.whole += other.whole;
        self.part += other.part;
        self.nothing += other.nothing;
        self.missing += other.missing;
    }

    fn count(&mut self, admissions: &[Admission]) {
        for admission in admissions {
            match admission.content {
                Content::Whole => self.whole += 1,
                Content::Part(_) => self.part += 1,
                Content::Nothing => self.nothing += 1,
            }
            self.missing += u64::from(admission.missing.is_some());
        }
    }
}

/// One history from its seed. It panics when anything is refused, lost, or differs between two editors in the end.
pub fn play(seed: u64) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut rng = rng(seed);
    let mut server = Server::default();
    let mut editors: Vec<Editor> =
        CLIENTS[..rng.random_range(3..=4)].iter().map(|&client| Editor::new(client)).collect();
    let (mut edits, edits_enough) = (0, rng.random_range(EDITS_MIN..100));
    while edits < edits_enough {
        let at = rng.random_range(0..editors.len());
        match rng.random_range(0..10) {
            0..=5 => {
                editors[at].edit(&mut rng);
                edits += 1;
            }
            6 => hear(&mut editors[at], &server, &mut rng),
            7 => gossip(&mut editors, at, &mut rng),
            _ => deliver(&editors, at, &mut server, &mut rng, &mut outcomes),
        }
    }
    // Everybody reconnects, step 1 and step 2 both ways, until nobody has anything new: an editor that takes in others' edits may
    // delete formats that lost their meaning.
    let mut is_quiet = false;
    while !is_quiet {
        is_quiet = true;
        for editor in &mut editors {
            let step2 = editor.step2(&server.index.state_vector());
            let admission = server.receive(&[step2]).pop().unwrap();
            assert_eq!(admission.missing, None, "seed {seed}: a step 2 lacks nothing");
            for row in &server.log[editor.seen..] {
                editor.take_in(row);
            }
            is_quiet &= editor.seen == server.log.len();
            editor.seen = server.log.len();
        }
    }
    let expected = content(&server.doc);
    for editor in &editors {
        assert_eq!(content(&editor.doc), expected, "seed {seed}");
        assert_eq!(editor.doc.transact().state_vector(), server.doc.transact().state_vector(), "seed {seed}");
    }
    check_fold(seed, &server, &expected);
    check_seeding(seed, &server);
    check_packed(seed, &server, &expected);
    check_pieces(seed, &server, &expected, &mut rng);
    outcomes.edits = edits.into();
    outcomes
}

/// The log merged into one update, or into several, does what its rows do one by one.
fn check_fold(seed: u64, server: &Server, expected: &str) {
    let rows: Vec<Update> = server.log.iter().map(|row| parse(row)).collect();
    for chunk in [1, 3, rows.len().max(1)] {
        let fresh = doc(2);
        for rows in rows.chunks(chunk) {
            let merged = merge(rows);
            let mut txn = fresh.transact_mut();
            txn.apply_update(yrs::Update::decode_v1(&merged).unwrap()).unwrap();
            assert!(!txn.has_missing_updates(), "seed {seed}");
        }
        assert_eq!(content(&fresh), expected, "seed {seed}, {chunk} rows merged");
        assert_eq!(fresh.transact().state_vector(), server.doc.transact().state_vector(), "seed {seed}");
        assert_eq!(
            fresh.transact().snapshot().delete_set,
            server.doc.transact().snapshot().delete_set,
            "seed {seed}, {chunk} rows merged"
        );
    }
}

/// A state of half the log, and what an index made from it leaves of the rest, is all that anybody lacks.
fn check_packed(seed: u64, server: &Server, expected: &str) {
    let (first, rest) = server.log.split_at(server.log.len() / 2);
    let half = doc(2);
    for row in first {
        half.transact_mut().apply_update(yrs::Update::decode_v1(row).unwrap()).unwrap();
    }
    let mut parts = vec![parse(&state(&half))];
    let mut index = Index::from_state(&parts[0]);
    for row in rest.iter().map(|row| parse(row)) {
        match index.trust(&row).unwrap().content {
            Content::Nothing => {}
            Content::Whole => parts.push(row),
            Content::Part(bytes) => parts.push(parse(&bytes)),
        }
    }
    for reader in [doc(3), half] {
        let known = StateVector::parse(&reader.transact().state_vector().encode_v1()).unwrap();
        let mut txn = reader.transact_mut();
        txn.apply_update(yrs::Update::decode_v1(&diff(&parts, &known)).unwrap()).unwrap();
        assert!(!txn.has_missing_updates(), "seed {seed}");
        drop(txn);
        assert_eq!(content(&reader), expected, "seed {seed}");
        assert_eq!(reader.transact().state_vector(), server.doc.transact().state_vector(), "seed {seed}");
        let known = StateVector::parse(&server.index.state_vector()).unwrap();
        assert!(!parse(&diff(&parts, &known)).has_structs(), "seed {seed}: who has everything gets deletes alone");
    }
}

/// Whoever is sent a state in pieces has it in the end, loses nothing when the connection breaks between two, and never has to wait for what
/// is to come, but where several pieces appear together.
fn check_pieces(seed: u64, server: &Server, expected: &str, rng: &mut StdRng) {
    let rows: Vec<Update> = server.log.iter().map(|row| parse(row)).collect();
    let bytes_max = rng.random_range(16..400);
    let reader = doc(2);
    for row in &server.log[..rng.random_range(0..=server.log.len() / 2)] {
        reader.transact_mut().apply_update(yrs::Update::decode_v1(row).unwrap()).unwrap();
    }
    let mut cuts = 3;
    loop {
        let known = StateVector::parse(&reader.transact().state_vector().encode_v1()).unwrap();
        let pieces = pieces(&parse(&diff(&rows, &known)), bytes_max);
        let taken = if cuts > 0 { rng.random_range(0..=pieces.len()) } else { pieces.len() };
        for (number, piece) in pieces[..taken].iter().enumerate() {
            let piece = parse(piece);
            // The first block of each client with the head of its section, or one that cannot be cut.
            let len_max = bytes_max + 100 * piece.clients().count().max(1);
            assert!(piece.bytes().len() <= len_max, "seed {seed}: a piece of {} for {bytes_max}", piece.bytes().len());
            let known = reader.transact().state_vector();
            let waits =
                piece.clients().all(|(client, from, _)| u64::from(known.get(&yrs::ClientID::new(client))) < from);
            let mut txn = reader.transact_mut();
            txn.apply_update(yrs::Update::decode_v1(piece.bytes()).unwrap()).unwrap();
            assert!(waits || txn.state_vector() != known, "seed {seed}: piece {number} brings nothing");
        }
        if taken == pieces.len() {
            break;
        }
        cuts -= 1;
    }
    assert!(!reader.transact().has_missing_updates(), "seed {seed}");
    assert_eq!(content(&reader), expected, "seed {seed}, pieces of {bytes_max}");
    assert_eq!(reader.transact().state_vector(), server.doc.transact().state_vector(), "seed {seed}");
    assert_eq!(reader.transact().snapshot().delete_set, server.doc.transact().snapshot().delete_set, "seed {seed}");
}

/// An index made from the state says the same as the one that grew with the log.
fn check_seeding(seed: u64, server: &Server) {
    let state = parse(&state(&server.doc));
    let seeded = Index::from_state(&state);
    assert_eq!(seeded.state_vector(), server.index.state_vector(), "seed {seed}");
    // Some deletes every replica makes on its own (the loser of two concurrent map entries, what is written into something
    // deleted): the log learns of them once, when somebody sends them.
    let mut grown = server.index.clone();
    let learned = grown.trust(&state).unwrap();
    assert!(learned.added.is_empty() && learned.missing.is_none(), "seed {seed}: the state holds no new blocks");
    for index in [&seeded, &grown] {
        let mut delta = Delta::default();
        for bytes in server.log.iter().chain([state.bytes()]) {
            let admission = admit(index, &mut delta, None, &parse(bytes), &Caps::default(), &mut |_| true).unwrap();
            assert_eq!(admission.content, Content::Nothing, "seed {seed}: a resend holds nothing new");
            assert_eq!(admission.missing, None, "seed {seed}");
        }
        assert!(delta.is_empty(), "seed {seed}");
    }
    let mut trusting = Index::new();
    for row in &server.log {
        assert_eq!(trusting.trust(&parse(row)).unwrap().content, Content::Whole, "seed {seed}: rows follow on exactly");
    }
    assert_eq!(trusting.state_vector(), server.index.state_vector(), "seed {seed}");
}

fn hear(editor: &mut Editor, server: &Server, rng: &mut StdRng) {
    if rng.random_bool(0.2) {
        editor.take_in(&state(&server.doc));
        editor.seen = server.log.len();
    } else {
        let to = rng.random_range(editor.seen..=server.log.len());
        for row in &server.log[editor.seen..to] {
            editor.take_in(row);
        }
        editor.seen = to;
    }
}

/// One editor hears of another without the server, as browser tabs do.
fn gossip(editors: &mut [Editor], at: usize, rng: &mut StdRng) {
    let from = rng.random_range(0..editors.len());
    let state = state(&editors[from].doc);
    editors[at].take_in(&state);
}

fn deliver(editors: &[Editor], at: usize, server: &mut Server, rng: &mut StdRng, outcomes: &mut Outcomes) {
    let editor = &editors[at];
    let mut pending: Vec<Bytes> = std::mem::take(&mut *editor.outgoing.lock().unwrap());
    match rng.random_range(0..8) {
        // In order, in one batch.
        0..=2 => {
            outcomes.count(&server.receive(&pending));
        }
        // As one merged update.
        3 if !pending.is_empty() => {
            let merged = yrs::merge_updates_v1(&pending).unwrap();
            outcomes.count(&server.receive(&[merged.into()]));
        }
        // Shuffled, some lost, some twice.
        4 => {
            pending.shuffle(rng);
            for update in &pending {
                if rng.random_bool(0.8) {
                    outcomes.count(&server.receive(std::slice::from_ref(update)));
                    if rng.random_bool(0.2) {
                        let again = server.receive(std::slice::from_ref(update)).pop().unwrap();
                        assert_eq!(again.content, Content::Nothing, "what was just taken in is not new");
                    }
                }
            }
        }
        // Everything that the editor knows, others' work included.
        5 => {
            outcomes.count(&server.receive(&[state(&editor.doc)]));
        }
        // A diff to what the server knew some time ago.
        6 => {
            let past = server.log.len() / 2;
            let mut index = Index::new();
            for row in &server.log[..past] {
                index.trust(&parse(row)).unwrap();
            }
            outcomes.count(&server.receive(&[editor.step2(&index.state_vector())]));
        }
        _ => {
            let step2 = editor.step2(&server.index.state_vector());
            outcomes.count(&server.receive(&[step2]));
        }
    }
}
