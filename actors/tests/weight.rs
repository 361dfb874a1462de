//! What documents are estimated to take in memory, against what they do take: counted by the allocator.
//!
//! Hostile shapes (many bytes of memory for each byte sent) must not take much more than their estimate, because that is all that keeps
//! them from doing so; honest documents must not be estimated much higher than they are, because they would be refused.
#![allow(clippy::unwrap_used, unsafe_code, clippy::print_stdout)]

use bytes::Bytes;
use contextnexus_actors::document::replica::Replica;
use contextnexus_actors::document::weight::{CLIENT, Weight};
use contextnexus_gate::lib0::{write_var_bytes, write_var_uint};
use contextnexus_gate::{Caps, Index, Order, Update};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use yrs::types::Attrs;
use yrs::{
    Any, Array, ArrayPrelim, ClientID, Doc, Map, MapPrelim, OffsetKind, Options, Text, Transact, TransactionMut,
    WriteTxn, XmlElementPrelim, XmlFragment, XmlTextPrelim,
};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// One test at a time: the allocator counts for all.
static TURN: Mutex<()> = Mutex::new(());

/// As allocators do: in steps of a quarter of a power of two.
fn taken(size: usize) -> usize {
    let step = (size.max(16).next_power_of_two() / 8).max(16);
    size.next_multiple_of(step)
}

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(taken(size), Ordering::Relaxed);
        LIVE.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a document of these updates takes for each byte that it is estimated at.
fn measured(what: &str, updates: &[Bytes]) -> f64 {
    let caps = Caps { update_bytes_max: usize::MAX, ..Caps::default() };
    let updates: Vec<Update> = updates.iter().map(|bytes| Update::parse(bytes.clone(), &caps).unwrap()).collect();
    let mut weight = Weight::default();
    updates.iter().for_each(|update| weight.add(update));
    let before = LIVE.load(Ordering::Relaxed);
    let (mut replica, mut index, mut order) = (Replica::new(), Index::new(), Order::new());
    for (seq, update) in (1..).zip(&updates) {
        let admission = index.trust(update).unwrap();
        assert!(admission.missing.is_none(), "{what}");
        order.follow(&index, update);
        replica.fold(seq, update).unwrap();
    }
    let truth = LIVE.load(Ordering::Relaxed) - before;
    let estimate = weight.bytes() + weight.order_bytes() + index.clients_len() * CLIENT;
    let of_order = order.bytes() as f64 / weight.order_bytes() as f64;
    println!("{what}: its order takes {} B, {of_order:.2} of the estimate", order.bytes());
    let sent: usize = updates.iter().map(|update| update.bytes().len()).sum();
    let times = truth as f64 / estimate as f64;
    println!(
        "{what}: {sent} B sent, {truth} B taken ({:.1} a byte), {estimate} B estimated: {times:.2}",
        truth as f64 / sent as f64
    );
    times
}

/// One client's blocks, in one update. Each is written by `block`, which is given its clock.
fn blocks(count: u64, mut block: impl FnMut(&mut Vec<u8>, u64)) -> Bytes {
    let mut bytes = vec![1];
    write_var_uint(&mut bytes, count);
    bytes.extend([1, 0]);
    (0..count).for_each(|clock| block(&mut bytes, clock));
    bytes.push(0);
    bytes.into()
}

fn root(bytes: &mut Vec<u8>, info: u8, name: &str) {
    bytes.extend([info, 1]);
    write_var_bytes(bytes, name.as_bytes());
}

fn alternating_deletes(ranges: u64) -> Bytes {
    let mut bytes = vec![0, 1, 1];
    write_var_uint(&mut bytes, ranges);
    for range in 0..ranges {
        write_var_uint(&mut bytes, 2 * range);
        bytes.push(1);
    }
    bytes.into()
}

#[test]
fn no_hostile_shape_takes_much_more_than_its_estimate() {
    let _turn = TURN.lock();
    const N: u64 = 20_000;
    let text = |letters: u64| {
        blocks(1, |bytes, _| {
            root(bytes, 4, "t");
            write_var_bytes(bytes, "x".repeat(letters as usize).as_bytes());
        })
    };
    let shapes: Vec<(&str, Vec<Bytes>)> = vec![
        (
            "root names",
            vec![blocks(N, |bytes, clock| {
                root(bytes, 8, &format!("{clock:x}"));
                bytes.extend([1, 126]);
            })],
        ),
        (
            "keys of a map",
            vec![blocks(N, |bytes, clock| {
                root(bytes, 0x28, "m");
                write_var_bytes(bytes, format!("{clock:x}").as_bytes());
                bytes.extend([1, 126]);
            })],
        ),
        (
            "entries of one key",
            vec![blocks(2_000, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 0x28, "m");
                    write_var_bytes(bytes, b"k");
                } else {
                    bytes.extend([0x88, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                bytes.extend([1, 126]);
            })],
        ),
        (
            "types in a root",
            vec![blocks(N, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 7, "a");
                } else {
                    bytes.extend([0x87, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                bytes.push(1); // a map
            })],
        ),
        (
            "types in types",
            vec![blocks(500, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 7, "a");
                } else {
                    bytes.extend([7, 0, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                bytes.push(0);
            })],
        ),
        (
            "formats",
            vec![blocks(N, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 6, "t");
                } else {
                    bytes.extend([0x86, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                bytes.extend([1, b'b', 1, b'1']);
            })],
        ),
        (
            "embeds of maps",
            vec![blocks(N, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 5, "t");
                } else {
                    bytes.extend([0x85, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                write_var_bytes(bytes, br#"{"a":{}}"#);
            })],
        ),
        (
            "an array of small values",
            vec![blocks(1, |bytes, _| {
                root(bytes, 8, "a");
                write_var_uint(bytes, 20 * N);
                (0..20 * N).for_each(|_| bytes.push(126));
            })],
        ),
        (
            "an array of numbers that are wrapped",
            vec![blocks(1, |bytes, _| {
                root(bytes, 8, "a");
                write_var_uint(bytes, 20 * N);
                (0..20 * N).for_each(|_| bytes.extend([125, 0x40])); // -0
            })],
        ),
        (
            "sub-documents with options",
            vec![blocks(200, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 9, "a");
                } else {
                    bytes.extend([0x89, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                bytes.extend([1, b'x', 118, 1, 1, b'a', 116]);
                write_var_bytes(bytes, &[0xff; 20_000]);
            })],
        ),
        (
            "a value of small maps",
            vec![blocks(1, |bytes, _| {
                root(bytes, 8, "a");
                bytes.extend([1, 117]);
                write_var_uint(bytes, N);
                (0..N).for_each(|_| bytes.extend([118, 1, 1, b'a', 126]));
            })],
        ),
        (
            "a value of empty texts",
            vec![blocks(1, |bytes, _| {
                root(bytes, 8, "a");
                bytes.extend([1, 117]);
                write_var_uint(bytes, N);
                (0..N).for_each(|_| bytes.extend([119, 0]));
            })],
        ),
        (
            "sub-documents",
            vec![blocks(2_000, |bytes, clock| {
                if clock == 0 {
                    root(bytes, 9, "a");
                } else {
                    bytes.extend([0x89, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                write_var_bytes(bytes, format!("{clock:x}").as_bytes());
                bytes.extend([118, 0]);
            })],
        ),
        (
            "text that is not joined",
            vec![blocks(N, |bytes, clock| {
                // Each letter before all others.
                if clock == 0 {
                    root(bytes, 4, "t");
                } else {
                    bytes.extend([0x44, 1]);
                    write_var_uint(bytes, clock - 1);
                }
                bytes.extend([1, b'x']);
            })],
        ),
        (
            "clients",
            vec![{
                let mut bytes = Vec::new();
                write_var_uint(&mut bytes, N);
                for client in (1_000..1_000 + N).rev() {
                    bytes.push(1);
                    write_var_uint(&mut bytes, client);
                    bytes.extend([0, 0, 1]);
                }
                bytes.push(0);
                bytes.into()
            }],
        ),
        ("every second letter deleted", vec![text(2 * N), alternating_deletes(N)]),
    ];
    for (what, updates) in shapes {
        let times = measured(what, &updates);
        assert!(times < 1.5, "{what} takes {times:.2} times its estimate");
        assert!(times > 0.5, "{what} is estimated at {:.2} times what it takes", 1.0 / times);
    }
}

/// The updates that an editor sends for these edits, one for each.
fn edits(count: usize, edit: impl Fn(&mut TransactionMut<'_>, usize)) -> Vec<Bytes> {
    let mut options = Options::with_client_id(ClientID::new(7));
    options.offset_kind = OffsetKind::Utf16;
    let doc = Doc::with_options(options);
    let change = |number| {
        let mut transaction = doc.try_transact_mut().unwrap();
        edit(&mut transaction, number);
        Bytes::from(transaction.encode_update_v1())
    };
    (0..count).map(change).collect()
}

/// What a snapshot holds of them: one update, everything joined.
fn stored(updates: &[Bytes]) -> Bytes {
    let mut replica = Replica::new();
    for (seq, update) in (1..).zip(updates) {
        replica.fold(seq, &Update::parse(update.clone(), &Caps::of_the_log()).unwrap()).unwrap();
    }
    replica.state().unwrap()
}

#[test]
fn honest_documents_are_estimated_within_twice_what_they_take() {
    let _turn = TURN.lock();
    let words = ["typed ", "by ", "somebody ", "who ", "goes ", "back ", "and ", "forth "];
    let documents: Vec<(&str, Vec<Bytes>)> = vec![
        (
            "text, typed at its end",
            edits(4_000, |transaction, number| {
                let text = transaction.get_or_insert_text("text");
                text.insert(transaction, number as u32, "x");
            }),
        ),
        (
            "text, written here and there",
            edits(4_000, |transaction, number| {
                let text = transaction.get_or_insert_text("text");
                let length = yrs::Text::len(&text, transaction);
                text.insert(transaction, (number as u32 * 7_919) % (length + 1), words[number % words.len()]);
            }),
        ),
        (
            "text, with words taken out",
            edits(6_000, |transaction, number| {
                let text = transaction.get_or_insert_text("text");
                let length = yrs::Text::len(&text, transaction);
                if number % 3 == 2 {
                    text.remove_range(transaction, (number as u32 * 7_919) % (length - 8), 5);
                } else {
                    text.insert(transaction, (number as u32 * 7_919) % (length + 1), "another few words of it ");
                }
            }),
        ),
        (
            "text with formats",
            edits(2_000, |transaction, number| {
                let text = transaction.get_or_insert_text("text");
                let bold = Attrs::from([("bold".into(), Any::Bool(true))]);
                if number % 2 == 0 {
                    text.push(transaction, "another few words of a sentence, ");
                } else {
                    text.insert_with_attributes(transaction, number as u32 * 10, "loud", bold);
                }
            }),
        ),
        (
            "a page of paragraphs",
            edits(2_000, |transaction, _| {
                let page = transaction.get_or_insert_xml_fragment("page");
                let paragraph = page.push_back(transaction, XmlElementPrelim::empty("paragraph"));
                paragraph.push_back(
                    transaction,
                    XmlTextPrelim::new("a paragraph as people write them, of some eighty letters or so"),
                );
            }),
        ),
        (
            "a board of cards",
            edits(2_000, |transaction, number| {
                let cards = transaction.get_or_insert_array("cards");
                let card = MapPrelim::from([
                    ("title", Any::from(format!("card {number}"))),
                    ("done", Any::Bool(false)),
                    ("x", Any::from(number as f64)),
                ]);
                cards.push_back(transaction, card);
            }),
        ),
        (
            "a table",
            edits(1_000, |transaction, number| {
                let rows = transaction.get_or_insert_map("rows");
                let cells: Vec<String> = (0..10).map(|cell| format!("cell {cell} of {number}")).collect();
                rows.insert(transaction, format!("row-{number}"), ArrayPrelim::from(cells));
            }),
        ),
        (
            "a large text",
            edits(1, |transaction, _| {
                let text = transaction.get_or_insert_text("text");
                text.push(transaction, &"a long text that was pasted ".repeat(100_000));
            }),
        ),
    ];
    for (what, updates) in documents {
        for (how, updates) in [("as it was sent", updates.clone()), ("as it is stored", vec![stored(&updates)])] {
            let times = measured(&format!("{what}, {how}"), &updates);
            assert!((0.5..2.0).contains(&times), "{what}, {how}: takes {times:.2} times its estimate");
        }
    }
}
