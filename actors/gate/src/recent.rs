//! The newest rows of a log, kept for two questions: does somebody who sends what we have send what we have, and what does somebody
//! lack who has everything up to some row?

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::admit::Known;
use crate::block::{Kind, View};
use crate::lib0::Reader;
use crate::update::{Section, Update};
use crate::value::{any_likeness, json_likeness, likeness, skip_any};

/// Two different contents at one client's clock: a client id used twice, or a restored browser profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client {client} has two contents at clock {clock}")]
pub struct Fork {
    /// The client.
    pub client: u64,
    /// The first clock that differs.
    pub clock: u64,
}

/// A memory of recent log rows, bounded in bytes; the oldest are forgotten first, the newest never.
#[derive(Debug)]
pub struct Recent {
    bytes_max: usize,
    bytes: usize,
    rows: VecDeque<(u64, Update)>,
    /// How many rows were forgotten: the number of the first that is held.
    forgotten: u64,
    by_client: HashMap<u64, VecDeque<Held>>,
}

/// One client's blocks in one row, as far as no earlier row holds them.
#[derive(Clone, Debug)]
struct Held {
    clocks: Range<u32>,
    row: u64,
    section: u32,
}

impl Recent {
    /// A memory of at most `bytes_max` bytes, what it costs to find things included, or of one row that is larger.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, rows: VecDeque::new(), forgotten: 0, by_client: HashMap::new() }
    }

    /// What the rows take in memory, what it costs to find things included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows, in their order.
    pub fn rows(&self) -> impl Iterator<Item = &Update> {
        self.rows.iter().map(|(_, row)| row)
    }

    /// Every row after the sequence number `seq`; `None` where one of them may be forgotten.
    pub fn since(&self, seq: u64) -> Option<impl Iterator<Item = &Update>> {
        self.rows.front().filter(|(first, _)| *first <= seq + 1)?;
        Some(self.rows.range(self.rows.partition_point(|(at, _)| *at <= seq)..).map(|(_, row)| row))
    }

    /// Remembers a row as it stands in the log, under its sequence number; rows come in their order.
    pub fn push(&mut self, seq: u64, row: Update) {
        let number = self.forgotten + self.rows.len() as u64;
        for (section, at) in row.sections.iter().zip(0..) {
            let held = self.by_client.entry(section.client).or_default();
            let start = held.back().map_or(section.clock, |last| last.clocks.end.max(section.clock));
            if start < section.end_clock {
                held.push_back(Held { clocks: start..section.end_clock, row: number, section: at });
            } else if held.is_empty() {
                self.by_client.remove(&section.client);
            }
        }
        self.bytes += cost(&row);
        self.rows.push_back((seq, row));
        while self.bytes > self.bytes_max && self.rows.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, row)) = self.rows.pop_front() else { return };
        for section in &row.sections {
            if let Some(held) = self.by_client.get_mut(&section.client) {
                while held.front().is_some_and(|first| first.row <= self.forgotten) {
                    held.pop_front();
                }
                if held.is_empty() {
                    self.by_client.remove(&section.client);
                }
            }
        }
        self.bytes = self.bytes.saturating_sub(cost(&row));
        self.forgotten += 1;
    }

    /// Whether `known`, which was trimmed off `update`, differs from what the log holds there. Only live content on both sides
    /// is compared; U+FFFD, which stands for half a surrogate pair, equals everything; and what is older than what is held is
    /// not compared at all.
    pub fn conflicts(&self, update: &Update, known: &[Known]) -> Option<Fork> {
        known.iter().find_map(|known| self.conflict(update, known))
    }

    fn conflict(&self, update: &Update, known: &Known) -> Option<Fork> {
        let theirs = update.sections.get(known.section as usize)?;
        let held = self.by_client.get(&known.client)?;
        let clocks = known.clocks.start as u32..known.clocks.end as u32;
        let first = held.partition_point(|held| held.clocks.end <= clocks.start);
        for held in held.range(first..).take_while(|held| held.clocks.start < clocks.end) {
            let Some((_, row)) = self.rows.get((held.row - self.forgotten) as usize) else { continue };
            let Some(ours) = row.sections.get(held.section as usize) else { continue };
            let both = held.clocks.start.max(clocks.start)..held.clocks.end.min(clocks.end);
            let (ours, theirs) = (Units::new(row, ours, both.start), Units::new(update, theirs, both.start));
            if let Some(clock) = first_difference(ours, theirs, both, Unit::differs_from) {
                return Some(Fork { client: known.client, clock: u64::from(clock) });
            }
        }
        None
    }
}

/// What a row costs beside its bytes, roughly: its parsed form and where to find it.
fn cost(row: &Update) -> usize {
    row.bytes.len() + 16 * row.blocks.len() + 80 * row.sections.len() + 8 * row.deletes.len() + 160
}

/// The first of these clocks at which content that lives on both sides `differs`.
pub(crate) fn first_difference<'a>(
    mut ours: Units<'a>,
    mut theirs: Units<'a>,
    clocks: Range<u32>,
    differs: impl Fn(&Unit<'a>, &Unit<'a>) -> bool,
) -> Option<u32> {
    let mut clock = clocks.start;
    while clock < clocks.end {
        let (Some(left), Some(right)) = (ours.run(), theirs.run()) else { return None };
        let len = left.len.min(right.len).min(clocks.end - clock);
        if left.is_gone || right.is_gone {
            ours.skip(len);
            theirs.skip(len);
            clock += len;
            continue;
        }
        for _ in 0..len {
            if differs(&ours.next_unit()?, &theirs.next_unit()?) {
                return Some(clock);
            }
            clock += 1;
        }
    }
    None
}

/// The units of a section, one after the other, from some clock on.
pub(crate) struct Units<'a> {
    update: &'a Update,
    section: &'a Section,
    next_block: u32,
    left: u32,
    content: Content<'a>,
}

enum Content<'a> {
    Gone,
    Text { rest: std::str::Chars<'a>, low_surrogate: Option<u16> },
    Any(Reader<'a>),
    Whole(Kind, &'a [u8]),
}

/// How many units follow in the block at hand.
pub(crate) struct Run {
    pub len: u32,
    pub is_gone: bool,
}

pub(crate) enum Unit<'a> {
    Text(u16),
    Any(&'a [u8]),
    Whole(Kind, &'a [u8]),
}

impl<'a> Units<'a> {
    pub fn new(update: &'a Update, section: &'a Section, clock: u32) -> Self {
        let blocks = update.blocks.get(section.blocks.start as usize..section.blocks.end as usize).unwrap_or_default();
        let before = blocks.partition_point(|block| block.end_clock() <= clock);
        let next_block = section.blocks.start + before as u32;
        let inside = blocks.get(before).map_or(0, |block| clock.saturating_sub(block.clock));
        let mut units = Self { update, section, next_block, left: 0, content: Content::Gone };
        if inside > 0 {
            units.run();
            units.skip(inside);
        }
        units
    }

    pub fn run(&mut self) -> Option<Run> {
        if self.left == 0 {
            if self.next_block >= self.section.blocks.end {
                return None;
            }
            let view = self.update.view(self.section, self.next_block)?;
            self.next_block += 1;
            self.left = view.block.len;
            self.content = Content::of(&view);
        }
        Some(Run { len: self.left, is_gone: matches!(self.content, Content::Gone) })
    }

    /// Passes over units of the block at hand.
    pub fn skip(&mut self, len: u32) {
        if matches!(self.content, Content::Gone) {
            self.left -= len.min(self.left);
        } else {
            for _ in 0..len {
                if self.next_unit().is_none() {
                    break;
                }
            }
        }
    }

    pub fn next_unit(&mut self) -> Option<Unit<'a>> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.content {
            Content::Gone => None,
            Content::Text { rest, low_surrogate } => {
                if let Some(unit) = low_surrogate.take() {
                    return Some(Unit::Text(unit));
                }
                let mut units = [0; 2];
                let [first, second] = *rest.next()?.encode_utf16(&mut units) else {
                    return Some(Unit::Text(units[0]));
                };
                *low_surrogate = Some(second);
                Some(Unit::Text(first))
            }
            Content::Any(reader) => {
                let rest = reader.rest();
                let start = reader.at();
                skip_any(reader, usize::MAX).ok()?;
                rest.get(..reader.at() - start).map(Unit::Any)
            }
            Content::Whole(kind, bytes) => Some(Unit::Whole(*kind, bytes)),
        }
    }
}

impl<'a> Content<'a> {
    fn of(view: &View<'a>) -> Self {
        match view.kind() {
            Kind::Gc | Kind::Deleted | Kind::Skip => Self::Gone,
            Kind::String => Self::Text { rest: view.text().chars(), low_surrogate: None },
            Kind::Any => {
                let mut reader = Reader::new(view.content());
                // Its length, which was read before.
                let _ = reader.read_var_uint();
                Self::Any(reader)
            }
            kind => Self::Whole(kind, view.content()),
        }
    }
}

impl<'a> Unit<'a> {
    fn differs_from(&self, other: &Unit<'a>) -> bool {
        const REPLACEMENT: u16 = 0xfffd;
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left != right && *left != REPLACEMENT && *right != REPLACEMENT,
            // Encoders order the keys of a map and write numbers as they like: bytes that differ are looked at once more.
            (Self::Any(left), Self::Any(right)) => left != right && any_likeness(left) != any_likeness(right),
            (Self::Whole(kind, left), Self::Whole(same, right)) if kind == same => {
                left != right && whole_likeness(*kind, left) != whole_likeness(*kind, right)
            }
            _ => true,
        }
    }
}

/// Equal for contents that mean the same to everybody who decodes them.
pub(crate) fn whole_likeness(kind: Kind, content: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(content);
    match kind {
        Kind::Embed => reader.read_var_string().ok().map(json_likeness),
        Kind::Format => {
            let key = reader.read_var_string().ok()?;
            let value = json_likeness(reader.read_var_string().ok()?);
            Some(likeness(&(key, value)))
        }
        // The same sub-document, whatever options a client adds when it sends it again.
        Kind::Document => reader.read_var_string().ok().map(|guid| likeness(&guid)),
        _ => Some(likeness(&content)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caps, Content as Admitted, Delta, Index, admit};
    use bytes::Bytes;
    use yrs::updates::decoder::Decode;
    use yrs::{Any, Array, Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, Transact};

    fn doc(client: u64) -> Doc {
        let mut options = Options::with_client_id(yrs::ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        Doc::with_options(options)
    }

    fn state(doc: &Doc) -> Update {
        let bytes = doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default());
        Update::parse(Bytes::from(bytes), &Caps::default()).unwrap()
    }

    fn texts(client: u64, texts: &[&str]) -> Doc {
        let doc = doc(client);
        let text = doc.get_or_insert_text("t");
        for part in texts {
            text.push(&mut doc.try_transact_mut().unwrap(), part);
        }
        doc
    }

    /// What `theirs` meets at a log that holds `ours`.
    fn meeting(ours: &[&Update], theirs: &Update) -> Option<Fork> {
        let mut index = Index::new();
        let mut recent = Recent::new(1 << 20);
        for (row, seq) in ours.iter().zip(1..) {
            index.trust(row).unwrap();
            recent.push(seq, (*row).clone());
        }
        let admission = admit(&index, &mut Delta::default(), None, theirs, &Caps::default(), &mut |_| true).unwrap();
        assert!(!admission.trimmed.is_empty());
        recent.conflicts(theirs, &admission.trimmed)
    }

    #[test]
    fn other_text_at_a_known_clock_is_a_fork_and_the_first_differing_clock_is_named() {
        let (ours, theirs) = (state(&texts(5, &["hello world"])), state(&texts(5, &["hello", "_", "world!"])));
        assert_eq!(meeting(&[&ours], &theirs), Some(Fork { client: 5, clock: 5 }));
        assert_eq!(meeting(&[&theirs], &ours), Some(Fork { client: 5, clock: 5 }));
    }

    #[test]
    fn the_same_text_in_other_blocks_and_rows_is_no_fork() {
        let doc = texts(5, &["héllo 😀 "]);
        let first = state(&doc);
        doc.get_or_insert_text("t").push(&mut doc.try_transact_mut().unwrap(), "wörld");
        let both = state(&doc);
        assert_eq!(meeting(&[&first, &both], &both), None);
        let pieces = state(&texts(5, &["hé", "llo ", "😀", " w", "örld"]));
        assert_eq!(meeting(&[&first, &both], &pieces), None);
        assert_eq!(meeting(&[&pieces], &both), None);
    }

    #[test]
    fn what_is_deleted_on_either_side_is_no_fork() {
        let doc = texts(5, &["abcdef"]);
        let whole = state(&doc);
        doc.get_or_insert_text("t").remove_range(&mut doc.try_transact_mut().unwrap(), 1, 3);
        let holed = state(&doc);
        assert_eq!(meeting(&[&whole], &holed), None);
        assert_eq!(meeting(&[&holed], &whole), None);
        let other = state(&texts(5, &["aXXXeg"]));
        assert_eq!(meeting(&[&holed], &other), Some(Fork { client: 5, clock: 5 }), "behind the hole it differs");
    }

    #[test]
    fn half_a_surrogate_pair_is_no_fork() {
        let ours = state(&texts(5, &["a😀b"]));
        let theirs = state(&texts(5, &["a\u{fffd}\u{fffd}b"]));
        assert_eq!(meeting(&[&ours], &theirs), None);
        assert_eq!(meeting(&[&theirs], &ours), None);
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        let with = |json: &str| {
            let doc = doc(5);
            let array = doc.get_or_insert_array("a");
            array.push_back(&mut doc.try_transact_mut().unwrap(), Any::from_json(json).unwrap());
            state(&doc)
        };
        let ours = with("{\"a\":1,\"b\":[2.5,\"x\"],\"c\":null}");
        for _ in 0..8 {
            // yrs writes the keys of a map in another order each time.
            assert_eq!(meeting(&[&ours], &with("{\"c\":null,\"b\":[2.5,\"x\"],\"a\":1}")), None);
        }
        assert!(meeting(&[&ours], &with("{\"a\":2,\"b\":[2.5,\"x\"],\"c\":null}")).is_some());
    }

    #[test]
    fn json_is_compared_by_what_it_means() {
        assert_eq!(json_likeness("{\"a\":1.0,\"b\":\"\\u00e9\\n\"}"), json_likeness(" {\"b\" : \"é\\n\", \"a\":1 }"));
        assert_ne!(json_likeness("{\"a\":1}"), json_likeness("{\"a\":2}"));
        assert_ne!(json_likeness("true"), json_likeness("false"));
    }

    #[test]
    fn what_was_forgotten_is_not_compared_and_the_memory_stays_within_its_bound() {
        let mut index = Index::new();
        let mut recent = Recent::new(10_000);
        let doc = doc(5);
        let text = doc.get_or_insert_text("t");
        let mut known = StateVector::default();
        for number in 0..500 {
            text.push(&mut doc.try_transact_mut().unwrap(), &format!("{number:04}"));
            let diff = doc.try_transact().unwrap().encode_state_as_update_v1(&known);
            known = doc.try_transact().unwrap().state_vector();
            let row = Update::parse(diff.into(), &Caps::default()).unwrap();
            assert_eq!(index.trust(&row).unwrap().content, Admitted::Whole);
            recent.push(number + 1, row);
            assert!(recent.bytes() <= 10_000);
        }
        let held = recent.rows().count() as u64;
        assert!((10..100).contains(&held), "a row of a few bytes counts as what it takes: {held}");
        assert_eq!(recent.since(500).map(Iterator::count), Some(0));
        assert_eq!(recent.since(490).map(Iterator::count), Some(10));
        assert_eq!(recent.since(500 - held).map(|rows| rows.count() as u64), Some(held));
        assert!(recent.since(500 - held - 1).is_none(), "one of them is forgotten");
        let mut small = Recent::new(10);
        for (seq, row) in recent.rows().zip(1..).map(|(row, seq)| (seq, row.clone())) {
            small.push(seq, row);
            assert_eq!(small.rows().count(), 1, "the newest stays, however large");
            assert_eq!(small.since(seq - 1).map(Iterator::count), Some(1));
        }
        let forked = |text: &str| {
            let forked = state(&texts(5, &[text]));
            let admission =
                admit(&index, &mut Delta::default(), None, &forked, &Caps::default(), &mut |_| true).unwrap();
            recent.conflicts(&forked, &admission.trimmed)
        };
        let string = text.get_string(&doc.try_transact().unwrap());
        assert_eq!(forked(&string), None);
        assert_eq!(forked(&string.replacen("0001", "9999", 1)), None, "forgotten");
        assert_eq!(forked(&string.replacen("0491", "0499", 1)), Some(Fork { client: 5, clock: 491 * 4 + 3 }));
        let reloaded = super::tests::doc(6);
        let bytes = state(&doc).bytes().clone();
        reloaded.try_transact_mut().unwrap().apply_update(yrs::Update::decode_v1(&bytes).unwrap()).unwrap();
        let resent = state(&reloaded);
        let admission = admit(&index, &mut Delta::default(), None, &resent, &Caps::default(), &mut |_| true).unwrap();
        assert_eq!(recent.conflicts(&resent, &admission.trimmed), None);
    }
}
