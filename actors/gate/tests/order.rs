//! Whatever the gate admits, every replica reads the same, in whatever order it came to know it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use bytes::Bytes;
use common::{doc, parse, rng, state};
use contextnexus_gate::lib0::write_var_uint;
use contextnexus_gate::{Caps, Content, Delta, Index, Order, Refused, Update, admit};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use yrs::updates::decoder::Decode;
use yrs::{GetString, Transact};

type Id = (u64, u64);

/// A letter of some author.
#[derive(Clone, Debug)]
struct Letter {
    id: Id,
    origin: Option<Id>,
    right: Option<Id>,
    row: Bytes,
}

fn letter(id: Id, origin: Option<Id>, right: Option<Id>, text: u8) -> Letter {
    let mut row = vec![1, 1, id.0 as u8, id.1 as u8];
    row.push(4 | u8::from(origin.is_some()) << 7 | u8::from(right.is_some()) << 6);
    for (client, clock) in [origin, right].into_iter().flatten() {
        row.extend([client as u8, clock as u8]);
    }
    if origin.is_none() && right.is_none() {
        row.extend([1, 1, b't']);
    }
    row.extend([1, text, 0]);
    Letter { id, origin, right, row: row.into() }
}

/// Letters anywhere at all, as far as the gate lets them in. The second is how many it refused.
fn history(rng: &mut StdRng, len: usize, clients: u64) -> (Vec<Letter>, usize) {
    let (mut index, mut order) = (Index::new(), Order::new());
    let (mut letters, mut refused): (Vec<Letter>, usize) = (Vec::new(), 0);
    while letters.len() < len {
        let client = rng.random_range(1..=clients);
        let any = |rng: &mut StdRng| match rng.random_range(0..=letters.len()) {
            0 => None,
            at => Some(letters[at - 1].id),
        };
        let (origin, right) = (any(rng), any(rng));
        if origin.is_some() && origin == right {
            continue;
        }
        let letter = letter((client, index.next_clock(client)), origin, right, b'a' + letters.len() as u8);
        let mut delta = Delta::default();
        match admit(&index, &mut delta, Some(&mut order), &parse(&letter.row), &Caps::default(), &mut |_| true) {
            Ok(admission) => {
                assert_eq!(admission.content, Content::Whole);
                index.apply(delta);
                order.commit();
                letters.push(letter);
            }
            Err(why) => {
                assert_eq!(why, Refused::RightOriginFirst);
                refused += 1;
            }
        }
    }
    (letters, refused)
}

/// The same letters in another order in which each finds what it needs.
fn shuffled<'a>(letters: &'a [Letter], rng: &mut StdRng) -> Vec<&'a Letter> {
    let (mut left, mut sorted): (Vec<&Letter>, Vec<&Letter>) = (letters.iter().collect(), Vec::new());
    left.shuffle(rng);
    while !left.is_empty() {
        let has = |id: Id| sorted.iter().any(|letter: &&Letter| letter.id == id);
        let is_next = |letter: &&Letter| {
            [letter.origin, letter.right].into_iter().flatten().all(has)
                && (letter.id.1 == 0 || has((letter.id.0, letter.id.1 - 1)))
        };
        let at = left.iter().position(is_next).unwrap();
        sorted.push(left.remove(at));
    }
    sorted
}

fn read<'a>(rows: impl Iterator<Item = &'a Bytes>) -> (String, Bytes) {
    let ours = doc(99);
    for row in rows {
        ours.transact_mut().apply_update(yrs::Update::decode_v1(row).unwrap()).unwrap();
    }
    let text = ours.get_or_insert_text("t").get_string(&ours.transact());
    (text, state(&ours))
}

#[test]
fn replicas_agree_in_whatever_order_they_came_to_know_what_was_admitted() {
    let mut all_refused = 0;
    for seed in 0..400 {
        let mut rng = rng(seed);
        let (letters, refused) = history(&mut rng, 6 + seed as usize % 4, 2 + seed % 6);
        all_refused += refused;
        let (expected, state) = read(letters.iter().map(|letter| &letter.row));
        for _ in 0..12 {
            let order = shuffled(&letters, &mut rng);
            assert_eq!(read(order.iter().map(|letter| &letter.row)).0, expected, "seed {seed}: {letters:?}");
        }
        assert_eq!(read([state].iter()).0, expected, "seed {seed}: from its state");
        let rows: Vec<Update> = letters.iter().map(|letter| parse(&letter.row)).collect();
        assert_eq!(read([contextnexus_gate::merge(&rows)].iter()).0, expected, "seed {seed}: merged");
    }
    assert!(all_refused > 1_000, "only {all_refused} were refused");
}

#[test]
fn what_is_rolled_back_leaves_nothing_behind() {
    for seed in 0..100 {
        let mut rng = rng(seed);
        let (letters, _) = history(&mut rng, 12, 4);
        let (mut index, mut order) = (Index::new(), Order::new());
        for (number, letter) in letters.iter().enumerate() {
            let before = order.layout();
            let mark = order.mark();
            // The whole rest of it as one batch, with deletes, and nothing of it is written.
            let mut delta = Delta::default();
            for later in &letters[number..] {
                let mut row = later.row.to_vec();
                row.pop();
                row.extend([1, later.id.0 as u8, 1, rng.random_range(0..=later.id.1 as u8), 1]);
                let row = parse(&row);
                admit(&index, &mut delta, Some(&mut order), &row, &Caps::default(), &mut |_| true).unwrap();
            }
            order.roll_back(mark);
            assert_eq!(order.layout(), before, "seed {seed}");
            let row = parse(&letter.row);
            let mut delta = Delta::default();
            admit(&index, &mut delta, Some(&mut order), &row, &Caps::default(), &mut |_| true).unwrap();
            index.apply(delta);
            order.commit();
        }
        let (_, state) = read(letters.iter().map(|letter| &letter.row));
        assert_eq!(order.layout(), Order::of_state(&index, &parse(&state)).0.layout(), "seed {seed}");
    }
}

/// An update of one client's blocks.
fn of_one(client: u64, clock: u64, blocks: &[Vec<u8>], deletes: &[u8]) -> Bytes {
    let mut bytes = vec![1];
    write_var_uint(&mut bytes, blocks.len() as u64);
    write_var_uint(&mut bytes, client);
    write_var_uint(&mut bytes, clock);
    blocks.iter().for_each(|block| bytes.extend(block));
    bytes.extend(deletes);
    bytes.into()
}

/// What the gate says of `update` after `before`.
fn decided(before: &[Bytes], update: Bytes) -> Result<u64, Refused> {
    let (mut index, mut order) = (Index::new(), Order::new());
    for row in before {
        let row = parse(row);
        index.trust(&row).unwrap();
        order.follow(&index, &row);
    }
    let update = parse(&update);
    let admitted = admit(&index, &mut Delta::default(), Some(&mut order), &update, &Caps::default(), &mut |_| true);
    admitted.map(|admission| admission.cost.ns)
}

const DEAR: Result<u64, Refused> = Err(Refused::TooCostly { max_ms: 250 });

/// 84 KB, and yrs looks at every letter before for every one after.
#[test]
fn right_origins_all_over_a_text_are_refused() {
    let mut text = vec![4, 1, 1, b't'];
    contextnexus_gate::lib0::write_var_string(&mut text, &"x".repeat(14_000));
    let blocks = (0..14_000u64).map(|clock| {
        let mut block = vec![0x44, 7];
        write_var_uint(&mut block, clock);
        block.extend([1, b'y']);
        block
    });
    let blocks: Vec<Vec<u8>> = [text].into_iter().chain(blocks).collect();
    assert_eq!(decided(&[], of_one(7, 0, &blocks, &[0])), Err(Refused::RightOriginFirst));
}

#[test]
fn letters_before_others_that_their_authors_do_not_know_are_too_dear() {
    // One writes from right to left, another before each of the letters.
    let block = |client: u8, clock: u64| {
        let mut block = vec![0x44, client];
        write_var_uint(&mut block, clock);
        block.extend([1, b'y']);
        block
    };
    let ours: Vec<Vec<u8>> =
        [vec![4, 1, 1, b't', 1, b'x']].into_iter().chain((0..14_000).map(|clock| block(7, clock))).collect();
    let theirs: Vec<Vec<u8>> = (0..14_000).map(|clock| block(7, clock)).collect();
    assert_eq!(decided(&[of_one(7, 0, &ours, &[0])], of_one(8, 0, &theirs, &[0])), DEAR);
}

#[test]
fn many_first_entries_of_one_key_are_too_dear() {
    let entries = vec![vec![0x28, 1, 1, b'm', 1, b'k', 1, 126]; 60_000];
    assert_eq!(decided(&[], of_one(7, 0, &entries, &[0])), DEAR);
    assert!(decided(&[], of_one(7, 0, &entries[..500], &[0])).is_ok());
}

#[test]
fn entries_of_a_long_key_are_too_dear() {
    let mut first = vec![0x28, 1, 1, b'm'];
    contextnexus_gate::lib0::write_var_string(&mut first, &"k".repeat(65_536));
    first.extend([1, 126]);
    let entries = (0..10_000u64).map(|clock| {
        let mut block = vec![0x88, 7];
        write_var_uint(&mut block, clock);
        block.extend([1, 126]);
        block
    });
    let entries: Vec<Vec<u8>> = [first].into_iter().chain(entries).collect();
    assert_eq!(decided(&[], of_one(7, 0, &entries, &[0])), DEAR);
}

/// From left to right each delete would copy all the rest of the text, a hundred thousand times.
#[test]
fn every_second_letter_of_a_long_text_is_deleted_from_the_middle_on() {
    let mut text = vec![4, 1, 1, b't'];
    contextnexus_gate::lib0::write_var_string(&mut text, &"x".repeat(400_000));
    let text = of_one(7, 0, &[text], &[0]);
    let mut deletes = vec![0, 1, 7];
    write_var_uint(&mut deletes, 200_000);
    for number in 0..200_000u64 {
        write_var_uint(&mut deletes, number * 2);
        deletes.push(1);
    }
    let ns = decided(std::slice::from_ref(&text), deletes.clone().into()).unwrap();
    assert!(ns < 1_000_000_000, "{ns} ns");
    let whole = read([text.clone(), deletes[..].to_vec().into()].iter().take(1));
    let steps = contextnexus_gate::steps(&parse(&deletes));
    assert!(steps.len() > 2 * 200_000 / 64, "{} steps", steps.len());
    let ours = doc(98);
    let mut transaction = ours.transact_mut();
    for row in [text].iter().chain(&steps) {
        transaction.apply_update(yrs::Update::decode_v1(row).unwrap()).unwrap();
    }
    drop(transaction);
    assert_eq!(whole.0.len(), 400_000);
    assert_eq!(ours.get_or_insert_text("t").get_string(&ours.transact()).len(), 200_000);
}

#[test]
fn many_clients_in_one_place_are_too_dear() {
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, 10_000);
    for client in (1..=10_000u64).rev() {
        bytes.push(1);
        write_var_uint(&mut bytes, client);
        bytes.extend([0, 4, 1, 1, b't', 1, b'x']);
    }
    bytes.push(0);
    // The highest comes first, so each finds its place at once. From the lowest on each passes all before it.
    assert!(decided(&[], bytes.into()).is_ok());
    let rows: Vec<Bytes> =
        (1..=4_000u64).map(|client| of_one(client, 0, &[vec![4, 1, 1, b't', 1, b'x']], &[0])).collect();
    let ns = decided(&rows, of_one(5_000, 0, &[vec![4, 1, 1, b't', 1, b'x']], &[0])).unwrap();
    assert!(ns > 4_000 * 50, "{ns} ns for 4,000 steps");
}

/// yrs takes a client id for its own hash: ids that fill one half of a table twice over are looked for all over the other half.
#[test]
fn clients_whose_ids_end_alike_are_too_dear() {
    let clients = |id: &dyn Fn(u64) -> u64| {
        let mut ids: Vec<u64> = (0..100_000).map(id).collect();
        ids.sort_unstable();
        let mut bytes = Vec::new();
        write_var_uint(&mut bytes, ids.len() as u64);
        for client in ids.into_iter().rev() {
            bytes.push(1);
            write_var_uint(&mut bytes, client);
            bytes.extend([0, 0, 1]);
        }
        bytes.push(0);
        Bytes::from(bytes)
    };
    assert_eq!(decided(&[], clients(&|number| number % 50_000 + (number / 50_000) * (1 << 30))), DEAR);
    assert!(decided(&[], clients(&|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11)).is_ok());
    assert!(decided(&[], clients(&|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32)).is_ok(), "of 32 bits");
}
