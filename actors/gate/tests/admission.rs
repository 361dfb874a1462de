//! What is admitted of an update, case by case.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use bytes::Bytes;
use common::{content, doc, parse, state};
use contextnexus_gate::StateVector as Known;
use contextnexus_gate::lib0::{write_var_string, write_var_uint};
use contextnexus_gate::{
    Admission, Caps, Content, DEPTH_BOUND, Delta, Index, Order, Recent, Refused, Rule, Update, admit, diff, merge,
};
use yrs::types::ToJson;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Array, Doc, GetString, Map, MapPrelim, ReadTxn, StateVector, Text, Transact, TransactionMut};

const ALICE: u64 = 10;
const BOB: u64 = 20;

/// A document of Alice's that says "hello".
fn hello() -> Doc {
    let doc = doc(ALICE);
    doc.get_or_insert_text("t").push(&mut doc.transact_mut(), "hello");
    doc
}

fn index_of(doc: &Doc) -> Index {
    Index::from_state(&parse(&state(doc)))
}

/// What `doc` has beyond `before`.
fn since(doc: &Doc, before: &StateVector) -> Update {
    parse(&doc.transact().encode_state_as_update_v1(before))
}

/// The same document in other hands.
fn copy(from: &Doc, client: u64) -> Doc {
    let copy = doc(client);
    copy.transact_mut().apply_update(yrs::Update::decode_v1(&state(from)).unwrap()).unwrap();
    copy
}

fn admit_to(index: &Index, update: &Update) -> Admission {
    admit(index, &mut Delta::default(), None, update, &Caps::default(), &mut |_| true).unwrap()
}

fn refused(index: &Index, update: &Update) -> Refused {
    let mut delta = Delta::default();
    let refused = admit(index, &mut delta, None, update, &Caps::default(), &mut |_| true).unwrap_err();
    assert!(delta.is_empty(), "what is refused leaves no trace");
    refused
}

fn part(admission: &Admission) -> &Bytes {
    match &admission.content {
        Content::Part(part) => part,
        other => panic!("not a part: {other:?}"),
    }
}

/// An update by hand: sections of client, clock and blocks, and no deletes.
fn by_hand(sections: &[(u64, u64, &[&[u8]])]) -> Update {
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, sections.len() as u64);
    for (client, clock, blocks) in sections {
        write_var_uint(&mut bytes, blocks.len() as u64);
        write_var_uint(&mut bytes, *client);
        write_var_uint(&mut bytes, *clock);
        bytes.extend(blocks.concat());
    }
    bytes.push(0);
    parse(&bytes)
}

fn deletes(client: u64, ranges: &[(u64, u64)]) -> Update {
    let mut bytes = vec![0, 1];
    write_var_uint(&mut bytes, client);
    write_var_uint(&mut bytes, ranges.len() as u64);
    for (clock, len) in ranges {
        write_var_uint(&mut bytes, *clock);
        write_var_uint(&mut bytes, *len);
    }
    parse(&bytes)
}

/// A letter at the begin of the root "t".
const ROOTED: &[u8] = &[4, 1, 1, b't', 1, b'x'];

#[test]
fn an_empty_update_is_admitted_as_nothing() {
    let admission = admit_to(&Index::new(), &parse(&[0, 0]));
    assert_eq!(admission.content, Content::Nothing);
    assert!(admission.missing.is_none() && admission.trimmed.is_empty());
}

#[test]
fn what_follows_on_exactly_is_admitted_as_it_came() {
    let ours = hello();
    let index = index_of(&ours);
    let before = ours.transact().state_vector();
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), " world");
    let admission = admit_to(&index, &since(&ours, &before));
    assert_eq!(admission.content, Content::Whole);
    assert_eq!(admission.added, [(ALICE, 5..11)]);
}

#[test]
fn a_block_that_is_known_in_part_is_split_as_yjs_splits_it() {
    let ours = hello();
    let index = index_of(&ours);
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), " world");
    let whole = parse(&state(&ours));
    let admission = admit_to(&index, &whole);
    assert_eq!(admission.trimmed.len(), 1);
    assert_eq!(admission.trimmed[0].clocks, 0..5);
    assert_eq!(admission.added, [(ALICE, 5..11)]);
    // yrs cuts at the same place when it is asked for what is missing.
    let known = hello().transact().state_vector();
    assert_eq!(part(&admission), since(&ours, &known).bytes());
}

#[test]
fn a_block_that_is_split_may_not_refer_to_what_is_unknown_or_stands_elsewhere() {
    let ours = doc(ALICE);
    ours.get_or_insert_map("m").insert(&mut ours.transact_mut(), "k", 1i64);
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), "hello");
    ours.get_or_insert_text("u").push(&mut ours.transact_mut(), "other");
    let index = index_of(&ours);
    // It claims to begin at Alice's "er", which is known, and to go on.
    let before_bob: &[u8] = &[0xc4, 10, 8, 20, 0, 4, b'e', b'r', b'x', b'y'];
    let admission = admit_to(&index, &by_hand(&[(ALICE, 9, &[before_bob])]));
    assert_eq!(admission.content, Content::Nothing);
    assert_eq!(admission.missing.unwrap().clocks, [(BOB, 1)]);
    let before_an_entry: &[u8] = &[0xc4, 10, 8, 10, 0, 4, b'e', b'r', b'x', b'y'];
    assert_eq!(refused(&index, &by_hand(&[(ALICE, 9, &[before_an_entry])])), Refused::DifferentPlaces);
}

#[test]
fn a_resend_is_trimmed_to_nothing() {
    let ours = hello();
    ours.get_or_insert_text("t").remove_range(&mut ours.transact_mut(), 1, 2);
    let admission = admit_to(&index_of(&ours), &parse(&state(&ours)));
    assert_eq!(admission.content, Content::Nothing);
    assert_eq!(admission.missing, None);
    assert_eq!(admission.trimmed[0].clocks, 0..5);
}

#[test]
fn a_gap_is_left_out_and_says_what_it_waits_for() {
    let ours = hello();
    let middle = ours.transact().state_vector();
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), " world");
    let late = since(&ours, &middle);
    let admission = admit_to(&Index::new(), &late);
    assert_eq!(admission.content, Content::Nothing);
    let missing = admission.missing.unwrap();
    assert_eq!(missing.clocks, [(ALICE, 5)]);
    assert!(!missing.is_met_by(&Index::new()));
    assert!(missing.is_met_by(&index_of(&hello())));
}

#[test]
fn of_several_clients_those_who_follow_on_are_admitted_and_the_others_left_out() {
    let ours = hello();
    let bob = copy(&ours, BOB);
    bob.get_or_insert_text("t").push(&mut bob.transact_mut(), "!");
    bob.get_or_insert_text("other").push(&mut bob.transact_mut(), "apart");
    let update = parse(&state(&bob));
    // Alice's section is new, and Bob's refers to it: both go in, in whatever order they stand.
    assert_eq!(admit_to(&Index::new(), &update).content, Content::Whole);
    // Without Alice's, Bob's waits.
    let bobs = since(&bob, &ours.transact().state_vector());
    let admission = admit_to(&Index::new(), &bobs);
    assert_eq!(admission.content, Content::Nothing);
    assert_eq!(admission.missing.unwrap().clocks, [(ALICE, 5)]);
}

#[test]
fn a_skip_is_a_gap_and_what_stands_before_it_is_admitted() {
    let skip: &[u8] = &[10, 3];
    let update = by_hand(&[(ALICE, 0, &[ROOTED, skip, &[0x84, 10, 0, 1, b'y']])]);
    let admission = admit_to(&Index::new(), &update);
    assert_eq!(admission.added, [(ALICE, 0..1)]);
    assert_eq!(admission.missing.as_ref().unwrap().clocks, [(ALICE, 4)]);
    assert_eq!(part(&admission), by_hand(&[(ALICE, 0, &[ROOTED])]).bytes());
    // A Skip over what is known is nothing to wait for.
    let mut index = Index::new();
    index.trust(&by_hand(&[(ALICE, 0, &[ROOTED, &[0, 3]])])).unwrap();
    let admission = admit_to(&index, &update);
    assert_eq!((admission.added, admission.missing), (vec![(ALICE, 4..5)], None));
}

#[test]
fn a_delete_beyond_what_is_known_waits_and_its_known_part_does_not() {
    let index = index_of(&hello());
    let admission = admit_to(&index, &deletes(ALICE, &[(1, 1), (3, 6)]));
    assert_eq!(admission.missing.as_ref().unwrap().clocks, [(ALICE, 9)]);
    assert_eq!(part(&admission), deletes(ALICE, &[(1, 1), (3, 2)]).bytes());
    let admission = admit_to(&index, &deletes(BOB, &[(0, 1)]));
    assert_eq!(admission.content, Content::Nothing);
    assert_eq!(admission.missing.unwrap().clocks, [(BOB, 1)]);
}

#[test]
fn a_delete_that_is_known_is_trimmed_and_one_known_in_part_is_cut() {
    let mut index = index_of(&hello());
    index.trust(&deletes(ALICE, &[(1, 2)])).unwrap();
    assert_eq!(admit_to(&index, &deletes(ALICE, &[(1, 2)])).content, Content::Nothing);
    let admission = admit_to(&index, &deletes(ALICE, &[(0, 5)]));
    assert_eq!(part(&admission), deletes(ALICE, &[(0, 1), (3, 2)]).bytes());
}

#[test]
fn what_was_admitted_before_in_the_batch_counts_as_known_and_the_index_does_not_change() {
    let ours = hello();
    let index = Index::new();
    let mut delta = Delta::default();
    let first = parse(&state(&ours));
    let before = ours.transact().state_vector();
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), " world");
    ours.get_or_insert_text("t").remove_range(&mut ours.transact_mut(), 0, 1);
    let second = since(&ours, &before);
    for update in [&first, &second] {
        let admission = admit(&index, &mut delta, None, update, &Caps::default(), &mut |_| true).unwrap();
        assert_eq!(admission.content, Content::Whole);
    }
    let again = admit(&index, &mut delta, None, &second, &Caps::default(), &mut |_| true).unwrap();
    assert_eq!(again.content, Content::Nothing);
    assert_eq!(index.clients_len(), 0);
    let mut after = index.clone();
    after.apply(delta);
    assert_eq!(after.next_clock(ALICE), 11);
    assert_eq!(admit_to(&after, &second).content, Content::Nothing);
}

#[test]
fn new_blocks_of_a_client_who_may_not_be_written_for_are_withheld() {
    let ours = hello();
    let bob = copy(&ours, BOB);
    bob.get_or_insert_text("t").push(&mut bob.transact_mut(), "!");
    let update = parse(&state(&bob));
    let mut asked = Vec::new();
    let mut may_write = |client| {
        asked.push(client);
        client != ALICE
    };
    let admission =
        admit(&Index::new(), &mut Delta::default(), None, &update, &Caps::default(), &mut may_write).unwrap();
    assert_eq!(admission.withheld, [ALICE]);
    assert_eq!(admission.content, Content::Nothing, "Bob's letter stands behind Alice's");
    assert_eq!(admission.missing.unwrap().clocks, [(ALICE, 5)]);
    assert_eq!(asked, [BOB, ALICE]);
    // Of what is known nobody is asked.
    let nobody = &mut |client: u64| -> bool { panic!("{client} is known") };
    let index = index_of(&bob);
    assert!(admit(&index, &mut Delta::default(), None, &update, &Caps::default(), nobody).unwrap().withheld.is_empty());
}

#[test]
fn blocks_that_wait_for_each_other_are_refused() {
    let to_bob = [&[0x84][..], &[20, 0], &[1, b'x']].concat();
    let to_alice = [&[0x84][..], &[10, 0], &[1, b'x']].concat();
    let update = by_hand(&[(BOB, 0, &[&to_alice]), (ALICE, 0, &[&to_bob])]);
    assert_eq!(refused(&Index::new(), &update), Refused::Circular);
    // Crosswise but not in a circle is honest.
    let update = by_hand(&[(BOB, 0, &[ROOTED, &[0x84, 10, 1, 1, b'x']]), (ALICE, 0, &[ROOTED, &to_bob])]);
    assert_eq!(admit_to(&Index::new(), &update).content, Content::Whole);
}

#[test]
fn a_parent_that_is_no_type_is_refused_and_one_that_is_gone_is_honest() {
    let index = index_of(&hello());
    let in_alices_letter: &[u8] = &[4, 0, 10, 0, 1, b'x'];
    assert_eq!(refused(&index, &by_hand(&[(BOB, 0, &[in_alices_letter])])), Refused::ParentNotAType);

    // Alice makes a map; Bob writes into it offline; she deletes it meanwhile, and it is collected.
    let ours = doc(ALICE);
    let map = ours.get_or_insert_map("m");
    map.insert(&mut ours.transact_mut(), "inner", MapPrelim::from([("k", 1i64)]));
    let bob = copy(&ours, BOB);
    let before = bob.transact().state_vector();
    let Some(yrs::Out::YMap(inner)) = bob.get_or_insert_map("m").get(&bob.transact(), "inner") else { panic!() };
    inner.insert(&mut bob.transact_mut(), "new", 2i64);
    inner.insert(&mut bob.transact_mut(), "k", 3i64);
    map.remove(&mut ours.transact_mut(), "inner");
    let admission = admit_to(&index_of(&ours), &since(&bob, &before));
    assert!(admission.missing.is_none() && admission.added == [(BOB, 0..2)]);
}

#[test]
fn origins_in_different_places_are_refused() {
    let ours = hello();
    ours.get_or_insert_map("m").insert(&mut ours.transact_mut(), "k", "other");
    let array = ours.get_or_insert_array("a");
    array.push_back(&mut ours.transact_mut(), yrs::TextPrelim::new("inner"));
    let index = index_of(&ours);
    // Under a key, and inside a text in an array.
    for right in [5, 7] {
        let between: &[u8] = &[0xc4, 10, 0, 10, right, 1, b'x'];
        assert_eq!(refused(&index, &by_hand(&[(BOB, 0, &[between])])), Refused::DifferentPlaces, "{right}");
    }
}

/// pycrdt 0.14, which counts in bytes: 😀 in one text, something in another, and an insertion at the third byte of 😀.
/// yrs cuts the block at its end and takes what its client wrote next for the right neighbour.
#[test]
fn a_right_origin_in_another_root_type_is_refused_with_what_to_do() {
    let smiley: &[u8] = &[4, 1, 1, b't', 4, 0xf0, 0x9f, 0x98, 0x80];
    let other: &[u8] = &[4, 1, 1, b'u', 1, b'o'];
    let between: &[u8] = &[0xc4, 10, 1, 10, 2, 1, b'x'];
    let mut index = Index::new();
    index.trust(&by_hand(&[(ALICE, 0, &[smiley, other])])).unwrap();
    let why = refused(&index, &by_hand(&[(BOB, 0, &[between])]));
    assert_eq!(why, Refused::DifferentPlaces);
    assert!(why.to_string().contains("write it again from a fresh document"), "{why}");
}

#[test]
fn text_under_a_key_is_refused_even_when_the_key_is_inherited() {
    let ours = doc(ALICE);
    ours.get_or_insert_map("m").insert(&mut ours.transact_mut(), "k", 1i64);
    let index = index_of(&ours);
    let keyed: &[u8] = &[0x24, 1, 1, b'm', 1, b'k', 1, b'x'];
    assert_eq!(refused(&index, &by_hand(&[(BOB, 0, &[keyed])])), Refused::UnfitForKey);
    let behind: &[u8] = &[0x84, 10, 0, 1, b'x'];
    assert_eq!(refused(&index, &by_hand(&[(BOB, 0, &[behind])])), Refused::UnfitForKey);
}

#[test]
fn types_nest_as_deep_as_the_cap_and_no_deeper() {
    let caps = Caps::default();
    let mut index = Index::new();
    for (next, depth) in (0..).zip(1..=caps.type_depth_max + 1) {
        let mut block = vec![7];
        match next {
            0 => block.extend([1, 1, b'a']),
            _ => {
                block.extend([0, 10]);
                write_var_uint(&mut block, next - 1);
            }
        }
        block.push(0);
        let update = by_hand(&[(ALICE, next, &[&block])]);
        if depth <= caps.type_depth_max {
            index.trust(&update).unwrap();
        } else {
            assert_eq!(refused(&index, &update), Refused::TypesTooDeep { max: caps.type_depth_max });
        }
    }
}

#[test]
fn a_document_has_no_more_clients_than_the_cap() {
    let caps = Caps { document_clients_max: 3, ..Caps::default() };
    let index = Index::new();
    let mut delta = Delta::default();
    for client in 1..=3 {
        let update = by_hand(&[(client, 0, &[ROOTED])]);
        admit(&index, &mut delta, None, &update, &caps, &mut |_| true).unwrap();
    }
    let fourth = by_hand(&[(4, 0, &[ROOTED])]);
    let refused = admit(&index, &mut delta, None, &fourth, &caps, &mut |_| true).unwrap_err();
    assert_eq!(refused, Refused::TooManyClients { max: 3 });
    let known = by_hand(&[(3, 1, &[&[0x84, 3, 0, 1, b'y']])]);
    assert!(admit(&index, &mut delta, None, &known, &caps, &mut |_| true).is_ok(), "who is there already may go on");
    let mut index = index;
    index.apply(delta);
    assert!(index.trust(&fourth).is_ok(), "what another node admitted is taken in");
    assert_eq!(index.clients_len(), 4);
}

#[test]
fn merged_rows_may_overlap_or_leave_gaps_and_are_well_formed() {
    let ours = hello();
    let first = parse(&state(&ours));
    let middle = ours.transact().state_vector();
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), " big");
    let second = since(&ours, &middle);
    let later = ours.transact().state_vector();
    ours.get_or_insert_text("t").push(&mut ours.transact_mut(), " world");
    let (third, whole) = (since(&ours, &later), parse(&state(&ours)));
    let read = |updates: &[&Bytes]| {
        let doc = doc(1);
        for update in updates {
            doc.transact_mut().apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
        }
        doc.get_or_insert_text("t").get_string(&doc.transact())
    };
    assert_eq!(read(&[&merge(&[first.clone(), second.clone(), third.clone()])]), "hello big world");
    assert_eq!(read(&[&merge(&[whole.clone(), second.clone()])]), "hello big world");
    assert_eq!(read(&[&merge(&[second.clone(), whole])]), "hello big world");
    let holed = merge(&[first.clone(), third]);
    assert_eq!(read(&[&holed, second.bytes()]), "hello big world");
    assert_eq!(&merge(&[]), &[0, 0][..]);
    assert_eq!(&merge(std::slice::from_ref(&first)), first.bytes());
}

/// A diff of rows that write and rows that take away holds what is left and no more.
#[test]
fn what_was_deleted_is_not_in_a_diff() {
    let ours = doc(7);
    let text = ours.get_or_insert_text("t");
    let list = ours.get_or_insert_array("a");
    let mut readers = vec![doc(9)];
    let mut rows = Vec::new();
    let mut edit = |change: &dyn Fn(&mut TransactionMut<'_>)| {
        let mut txn = ours.transact_mut();
        change(&mut txn);
        rows.push(parse(&txn.encode_update_v1()));
        drop(txn);
        readers.push(copy(&ours, 9));
    };
    edit(&|txn| text.insert(txn, 0, "keep SECRET and 😀 TOKEN too"));
    edit(&|txn| list.insert_range(txn, 0, ["one", "HIDDEN", "three"]));
    edit(&|txn| {
        list.insert(txn, 3, MapPrelim::from([("inner", "BURIED")]));
    });
    edit(&|txn| text.remove_range(txn, 5, 7));
    edit(&|txn| text.remove_range(txn, 12, 6));
    edit(&|txn| list.remove(txn, 1));
    edit(&|txn| list.remove(txn, 2));
    let expected = content(&ours);
    let holds = |bytes: &Bytes, text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    for reader in readers {
        let known = Known::parse(&reader.transact().state_vector().encode_v1()).unwrap();
        let missing = diff(&rows, &known);
        for gone in ["SECRET", "TOKEN", "HIDDEN", "BURIED"] {
            assert!(!holds(&missing, gone), "{gone}");
        }
        assert_eq!(holds(&missing, "three"), !content(&reader).contains("three"));
        reader.transact_mut().apply_update(yrs::Update::decode_v1(&missing).unwrap()).unwrap();
        assert_eq!(content(&reader), expected);
    }
}

/// A reader in the middle of a block, of which some is deleted before, around and after where he stands.
#[test]
fn a_diff_cuts_a_block_where_its_reader_stands_and_where_it_is_deleted() {
    let ours = doc(ALICE);
    let text = ours.get_or_insert_text("t");
    text.push(&mut ours.transact_mut(), "ab😀c");
    let reader = copy(&ours, BOB);
    text.push(&mut ours.transact_mut(), "SECRET 😀 end");
    let whole = state(&ours);
    // One block of 18 units, of which a reader may have 5. The pairs stand at 2 and 12.
    let cases: [&[(u8, u8)]; 5] =
        [&[(5, 11)], &[(4, 6), (10, 18)], &[(0, 1), (3, 8), (9, 10)], &[(13, 14)], &[(12, 13), (16, 18)]];
    for deleted in cases {
        let mut deletes = vec![0, 1, ALICE as u8, deleted.len() as u8];
        for (start, end) in deleted {
            deletes.extend([*start, end - start]);
        }
        let folded = doc(BOB);
        for update in [&whole[..], &deletes] {
            folded.transact_mut().apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
        }
        for reader in [doc(BOB), copy(&reader, BOB)] {
            let known = Known::parse(&reader.transact().state_vector().encode_v1()).unwrap();
            let missing = diff(&[parse(&whole), parse(&deletes)], &known);
            reader.transact_mut().apply_update(yrs::Update::decode_v1(&missing).unwrap()).unwrap();
            assert_eq!(content(&reader), content(&folded), "{deleted:?} {known:?}");
            assert_eq!(reader.transact().snapshot(), folded.transact().snapshot(), "{deleted:?} {known:?}");
        }
    }
}

#[test]
fn caps_are_kept_and_the_rule_that_was_broken_is_named() {
    let rule = |bytes: &[u8], caps: &Caps| Update::parse(Bytes::copy_from_slice(bytes), caps).unwrap_err().rule;
    let caps = Caps::default();
    assert_eq!(rule(&[0; 20], &Caps { update_bytes_max: 19, ..Caps::default() }), Rule::TooLarge);
    let rooted = |name: &str, key: Option<&str>| {
        let mut bytes = vec![1, 1, 10, 0, if key.is_some() { 0x28 } else { 8 }, 1];
        write_var_string(&mut bytes, name);
        if let Some(key) = key {
            write_var_string(&mut bytes, key);
        }
        bytes.extend([1, 126, 0]);
        bytes
    };
    assert_eq!(rule(&rooted(&"n".repeat(4_097), None), &caps), Rule::RootNameTooLong);
    assert_eq!(rule(&rooted("m", Some(&"k".repeat(65_537))), &caps), Rule::MapKeyTooLong);
    parse(&rooted(&"n".repeat(4_096), Some(&"k".repeat(65_536))));
    assert_eq!(rule(&[0, 0, 0], &caps), Rule::TrailingBytes);
    assert_eq!(rule(&[], &caps), Rule::Truncated);
    assert_eq!(rule(&[1, 0, 1, 0, 0], &caps), Rule::EmptySection);
    assert_eq!(rule(&[0, 1, 1, 2, 5, 1, 3, 1], &caps), Rule::DeletesUnsorted);
    assert_eq!(rule(&[0, 1, 1, 1, 5, 0], &caps), Rule::EmptyDelete);
    assert_eq!(rule(&[0, 2, 1, 1, 5, 1, 1, 1, 7, 1], &caps), Rule::DuplicateDeletes);
}

/// Arrays in arrays, as `Any` and as the JSON of an embed.
#[test]
fn values_nest_as_deep_as_the_cap_and_yrs_reads_what_passes() {
    let any = |depth: usize| {
        let mut block = vec![8, 1, 1, b'a', 1];
        (0..depth).for_each(|_| block.extend([117, 1]));
        block.push(126);
        Bytes::from([&[1, 1, 10, 0][..], &block, &[0]].concat())
    };
    let embed = |depth: usize| {
        let mut block = vec![5, 1, 1, b't'];
        write_var_string(&mut block, &format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        Bytes::from([&[1, 1, 10, 0][..], &block, &[0]].concat())
    };
    let read = |bytes: &Bytes| {
        let doc = doc(3);
        doc.transact_mut().apply_update(yrs::Update::decode_v1(bytes).unwrap()).unwrap();
        yrs::Update::decode_v1(&state(&doc)).unwrap();
    };
    let most = Caps { any_depth_max: DEPTH_BOUND, ..Caps::default() };
    for (caps, depth) in [(&Caps::default(), 512), (&most, DEPTH_BOUND), (&Caps::of_the_log(), DEPTH_BOUND)] {
        read(Update::parse(any(depth), caps).unwrap().bytes());
        let refused = Update::parse(any(depth + 1), caps).unwrap_err().rule;
        assert_eq!((refused, refused.limit()), (Rule::ValueTooDeep, Some("value_depth_max")));
        read(Update::parse(embed(127), caps).unwrap().bytes());
        assert_eq!(Update::parse(embed(128), caps).unwrap_err().rule, Rule::JsonTooDeep);
    }
    assert!(yrs::Update::decode_v1(&embed(128)).is_err(), "yrs reads deeper now: so may we");
}

/// Threads of the server have eight times this stack, and its tests this one.
#[test]
fn what_is_nested_as_deep_as_any_cap_takes_half_of_a_small_stack() {
    let folds = || {
        let (depth, ours) = (DEPTH_BOUND as u64, doc(3));
        let mut blocks: Vec<Vec<u8>> = vec![vec![7, 1, 1, b'a', 0]];
        for above in 0..depth - 1 {
            let mut block = vec![7, 0, 10];
            write_var_uint(&mut block, above);
            block.push(0);
            blocks.push(block);
        }
        let mut innermost = vec![8, 0, 10];
        write_var_uint(&mut innermost, depth - 1);
        innermost.push(1);
        (0..depth).for_each(|_| innermost.extend([117, 1]));
        innermost.push(126);
        blocks.push(innermost);
        let mut bytes = vec![1];
        write_var_uint(&mut bytes, blocks.len() as u64);
        bytes.extend([ALICE as u8, 0]);
        bytes.extend(blocks.concat());
        bytes.push(0);
        let update = Update::parse(bytes.into(), &Caps::of_the_log()).unwrap();
        ours.transact_mut().apply_update(yrs::Update::decode_v1(update.bytes()).unwrap()).unwrap();
        let loaded = copy(&ours, 4);
        let array = loaded.get_or_insert_array("a");
        drop(array.to_json(&loaded.transact()));
        // The delete of the outermost collects all that is inside.
        array.remove(&mut loaded.transact_mut(), 0);
        drop(copy(&loaded, 5));
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(folds).unwrap().join().unwrap();
}

/// An insertion of Bob's between two units of Alice's.
fn between(origin: u8, right: u8) -> Update {
    by_hand(&[(BOB, 0, &[&[0xc4, 10, origin, 10, right, 1, b'x']])])
}

/// What the gate says of `update` where it knows the order of the document.
fn ordered(index: &Index, order: &mut Order, update: &Update) -> Result<Content, Refused> {
    let mark = order.mark();
    let admitted = admit(index, &mut Delta::default(), Some(order), update, &Caps::default(), &mut |_| true);
    if admitted.is_err() {
        assert_eq!(order.mark(), mark, "what is refused leaves no trace");
    }
    order.roll_back(mark);
    admitted.map(|admission| admission.content)
}

/// The index and order of a document, as they grow with its rows and as they are made of its state.
fn ways_to_know(of: &Doc) -> [(Index, Order); 2] {
    let row = parse(&state(of));
    let mut grown = (Index::new(), Order::new());
    grown.0.trust(&row).unwrap();
    grown.1.follow(&grown.0, &row);
    let index = Index::from_state(&row);
    let (order, _) = Order::of_state(&index, &row);
    [grown, (index, order)]
}

#[test]
fn a_right_origin_left_of_the_origin_or_beyond_its_neighbour_is_refused() {
    for (index, mut order) in ways_to_know(&hello()) {
        assert_eq!(ordered(&index, &mut order, &between(3, 1)), Err(Refused::RightOriginFirst));
        assert_eq!(ordered(&index, &mut order, &between(1, 3)), Err(Refused::RightOriginFirst), "2 is known with 3");
        assert_eq!(ordered(&index, &mut order, &between(1, 2)), Ok(Content::Whole));
    }
    // The same where the letters come in the same update, or before in the batch, one by one.
    let letters: Vec<Vec<u8>> = (0..5u8).map(|before| vec![0x84, 10, before, 1, b'y']).collect();
    let blocks: Vec<&[u8]> = std::iter::once(ROOTED).chain(letters.iter().map(Vec::as_slice)).collect();
    let both = by_hand(&[(BOB, 0, &[&[0xc4, 10, 4, 10, 0, 1, b'x']]), (ALICE, 0, &blocks)]);
    assert_eq!(ordered(&Index::new(), &mut Order::new(), &both), Err(Refused::RightOriginFirst));
    let (mut delta, mut order) = (Delta::default(), Order::new());
    let letters = by_hand(&[(ALICE, 0, &blocks)]);
    admit(&Index::new(), &mut delta, Some(&mut order), &letters, &Caps::default(), &mut |_| true).unwrap();
    let crossing = between(5, 4);
    let refused =
        admit(&Index::new(), &mut delta, Some(&mut order), &crossing, &Caps::default(), &mut |_| true).unwrap_err();
    assert_eq!(refused, Refused::RightOriginFirst);
}

#[test]
fn what_was_written_earlier_may_stand_right_of_what_was_written_later() {
    // Alice writes "world", and "hello " before it; Bob writes between the two.
    let ours = doc(ALICE);
    let text = ours.get_or_insert_text("t");
    text.push(&mut ours.transact_mut(), "world");
    text.insert(&mut ours.transact_mut(), 0, "hello ");
    for (index, mut order) in ways_to_know(&ours) {
        assert_eq!(ordered(&index, &mut order, &between(10, 0)), Ok(Content::Whole));
        assert_eq!(ordered(&index, &mut order, &between(10, 5)), Err(Refused::RightOriginFirst));
    }
}

/// Origins that cross, of three clients who know nothing of one another: each reads another text.
#[test]
fn right_origins_that_cross_are_refused_whoever_wrote_what() {
    const CARL: u64 = 30;
    let three = by_hand(&[(CARL, 0, &[ROOTED]), (BOB, 0, &[ROOTED]), (ALICE, 0, &[ROOTED])]);
    let (mut index, mut order) = (Index::new(), Order::new());
    index.trust(&three).unwrap();
    order.follow(&index, &three);
    // They stand in the order of their clients.
    let by_dora = |left: u64, right: u64| by_hand(&[(40, 0, &[&[0xc4, left as u8, 0, right as u8, 0, 1, b'd']])]);
    for (left, right) in [(ALICE, BOB), (ALICE, CARL), (BOB, CARL)] {
        assert_eq!(ordered(&index, &mut order, &by_dora(left, right)), Ok(Content::Whole), "{left} {right}");
        assert_eq!(
            ordered(&index, &mut order, &by_dora(right, left)),
            Err(Refused::RightOriginFirst),
            "{right} {left}"
        );
    }
}

#[test]
fn an_origin_that_is_collected_beside_one_that_lives_is_refused_and_inside_something_deleted_honest() {
    let collected = by_hand(&[(ALICE, 0, &[ROOTED, &[0, 3]])]);
    let mut index = Index::new();
    index.trust(&collected).unwrap();
    assert_eq!(refused(&index, &between(2, 0)), Refused::DifferentPlaces);
    assert_eq!(refused(&index, &between(0, 2)), Refused::DifferentPlaces);

    // A text of Alice's with three letters; somebody who deleted it knows the last one only as collected.
    let nested: &[u8] = &[7, 1, 1, b'a', 2];
    let mut index = Index::new();
    index.trust(&by_hand(&[(ALICE, 0, &[nested, &[4, 0, 10, 0, 2, b'x', b'y']])])).unwrap();
    let mut state = by_hand(&[(ALICE, 3, &[&[0, 1]])]).bytes().to_vec();
    state.pop();
    state.extend([1, 10, 1, 0, 4]);
    index.trust(&parse(&state)).unwrap();
    let admission = admit_to(&index, &between(2, 3));
    assert_eq!((admission.content, admission.missing), (Content::Whole, None));
}

#[test]
fn several_values_under_a_key_are_refused_unless_all_of_them_are_deleted() {
    let values: &[u8] = &[0x28, 1, 1, b'm', 1, b'k', 2, 126, 126];
    let alive = by_hand(&[(ALICE, 0, &[values])]);
    assert_eq!(refused(&Index::new(), &alive), Refused::UnfitForKey);
    // A client that collects nothing joins the entries that it deleted.
    let with = |deletes: &[u8]| {
        let mut bytes = alive.bytes().to_vec();
        bytes.pop();
        bytes.extend_from_slice(deletes);
        parse(&bytes)
    };
    assert_eq!(admit_to(&Index::new(), &with(&[1, 10, 1, 0, 2])).content, Content::Whole);
    assert_eq!(admit_to(&Index::new(), &with(&[1, 10, 2, 0, 1, 1, 1])).content, Content::Whole);
    assert_eq!(refused(&Index::new(), &with(&[1, 10, 1, 1, 1])), Refused::UnfitForKey);
}

#[test]
fn half_a_surrogate_pair_in_a_format_is_written_as_a_replacement_character() {
    let format = |value: &str| {
        let mut block = vec![6, 1, 1, b't'];
        write_var_string(&mut block, "note");
        write_var_string(&mut block, value);
        by_hand(&[(ALICE, 0, &[&block])])
    };
    // `JSON.stringify("cut \ud83d")`
    let half = format(r#""cut \ud83d""#);
    let admission = admit_to(&Index::new(), &half);
    assert_eq!(part(&admission), format(r#""cut \ufffd""#).bytes());
    yrs::Update::decode_v1(part(&admission)).unwrap();
    // Its author sends it again as it was.
    let row = parse(part(&admission));
    let (mut index, mut recent) = (Index::new(), Recent::new(1 << 20));
    index.trust(&row).unwrap();
    recent.push(1, row);
    let again = admit_to(&index, &half);
    assert_eq!((&again.content, recent.conflicts(&half, &again.trimmed)), (&Content::Nothing, None));
}
