//! A number for each unit of content, and for where it stands, by which what is no longer held is compared with what somebody sends.

use std::ops::Range;

use crate::block::{Id, Kind, Parent, View};
use crate::recent::{Unit, Units};
use crate::update::{Section, Update};
use crate::value::{any_likeness, likeness};

/// What is deleted, or was never sent: nothing is known of its content.
const GONE: u16 = 0;
/// What half a surrogate pair becomes in UTF-8.
const REPLACEMENT: u16 = 0xfffd;

/// The marks of consecutive units of one client: two bytes a unit. A UTF-16 unit of text is its own mark; that of anything else is made of what it
/// means, so that it is the same however an encoder wrote it. Two contents with equal marks are one, but for one in 50,000 that is no text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(Vec<u16>);

/// What a comparison of two contents of the same clocks found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Units that live on both sides and are the same.
    pub equal: usize,
    /// Units that live on both sides and differ.
    pub different: usize,
    /// Units that live on their side alone.
    pub gone_here: usize,
}

impl Marks {
    /// The marks of `clocks` of `client`, as far as `update` holds them from their beginning on.
    pub fn of(update: &Update, client: u64, clocks: Range<u64>) -> Self {
        let Some((section, Range { start, end })) = held(update, client, clocks) else { return Self::default() };
        let mut marks = Vec::with_capacity((end - start) as usize);
        let mut units = Units::new(update, section, start);
        while marks.len() < (end - start) as usize {
            let Some(run) = units.run() else { break };
            let count = (run.len as usize).min((end - start) as usize - marks.len());
            if run.is_gone {
                units.skip(count as u32);
                marks.extend(std::iter::repeat_n(GONE, count));
            } else {
                marks.extend((0..count).map(|_| units.next_unit().map_or(GONE, |unit| mark_of(&unit))));
            }
        }
        Self(marks)
    }

    /// The marks of where the same units stand: what each was written behind and before, or else in which type and under which key. It is the same
    /// however a writer's blocks were cut and joined since, and outlives their content. Of what was collected nothing is known.
    pub fn of_places(update: &Update, client: u64, clocks: Range<u64>) -> Self {
        let Some((section, Range { start, end })) = held(update, client, clocks) else { return Self::default() };
        let blocks = update.blocks.get(section.blocks.start as usize..section.blocks.end as usize).unwrap_or_default();
        let before = blocks.partition_point(|block| block.end_clock() <= start) as u32;
        let mut places = Vec::with_capacity((end - start) as usize);
        let views = (section.blocks.start + before..section.blocks.end).map_while(|at| update.view(section, at));
        for view in views.take_while(|view| view.block.clock < end) {
            let clocks = view.block.clock.max(start)..view.block.end_clock().min(end);
            places.extend(clocks.map(|clock| place_of(&view, client, clock)));
        }
        Self(places)
    }

    /// How many units.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that follow.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// So many units of which nothing is known follow.
    pub fn extend_unknown(&mut self, count: usize) {
        self.0.extend(std::iter::repeat_n(GONE, count));
    }

    /// All but the first `count`.
    #[must_use]
    pub fn after(&self, count: usize) -> Self {
        Self(self.0.get(count..).unwrap_or_default().to_vec())
    }

    /// Compares these, which the log holds, with what somebody sent of the same clocks. Half a surrogate pair, which is U+FFFD once it was encoded, is
    /// like any surrogate.
    pub fn compare(&self, theirs: &Self) -> Compared {
        let mut compared = Compared::default();
        for (&ours, &theirs) in self.0.iter().zip(&theirs.0) {
            match (ours, theirs) {
                (_, GONE) => {}
                (GONE, _) => compared.gone_here += 1,
                (ours, theirs) if are_alike(ours, theirs) => compared.equal += 1,
                _ => compared.different += 1,
            }
        }
        compared
    }

    /// As numbers, to be stored. Of anything but text they mean something only where [`Marks::scheme`] is the same.
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// How the marks of what is no text are made: another number in a build that makes them otherwise.
    pub fn scheme() -> u16 {
        likeness(&(Kind::Embed as u8, any_likeness(&[119, 1, b'x']))) as u16
    }
}

impl FromIterator<u16> for Marks {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        Self(numbers.into_iter().collect())
    }
}

fn mark_of(unit: &Unit<'_>) -> u16 {
    let likeness = match unit {
        Unit::Text(unit) => return (*unit).max(1), // U+0000 stands beside U+0001
        Unit::Any(value) => likeness(&(Kind::Any as u8, any_likeness(value))),
        Unit::Whole(kind, content) => likeness(&(*kind as u8, crate::recent::whole_likeness(*kind, content))),
    };
    number_of(likeness)
}

/// Below the surrogates, and never that of what is gone.
fn number_of(likeness: u64) -> u16 {
    (likeness % 0xd7ff) as u16 + 1
}

/// The section of `client`, and which of `clocks` it holds, if it holds the first.
fn held(update: &Update, client: u64, clocks: Range<u64>) -> Option<(&Section, Range<u32>)> {
    let section = update.sections.iter().find(|section| section.client == client)?;
    let end = clocks.end.min(u64::from(section.end_clock));
    let is_held = (u64::from(section.clock)..end).contains(&clocks.start);
    is_held.then_some((section, clocks.start as u32..end as u32))
}

fn place_of(view: &View<'_>, client: u64, clock: u32) -> u16 {
    let Some(links) = view.links() else { return GONE };
    let origin = if clock > view.block.clock { Some(Id { client, clock: clock - 1 }) } else { links.origin };
    let parent = match links.parent {
        _ if origin.is_some() => None,
        Parent::OfOrigin => None,
        Parent::Root(name) => Some((Some(name), None, links.key)),
        Parent::Item(id) => Some((None, Some(id), links.key)),
    };
    number_of(likeness(&(origin, links.right_origin, parent)))
}

fn are_alike(ours: u16, theirs: u16) -> bool {
    let is_half = |mark: u16| mark == REPLACEMENT || (0xd800..0xe000).contains(&mark);
    let is_replaced = ours == REPLACEMENT || theirs == REPLACEMENT;
    ours == theirs || (is_replaced && is_half(ours) && is_half(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caps;
    use bytes::Bytes;
    use yrs::{Any, Array, Doc, OffsetKind, Options, ReadTxn, StateVector, Text, Transact};

    fn doc() -> Doc {
        let mut options = Options::with_client_id(yrs::ClientID::new(5));
        options.offset_kind = OffsetKind::Utf16;
        Doc::with_options(options)
    }

    fn marks(doc: &Doc, clocks: Range<u64>) -> Marks {
        let bytes = doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default());
        Marks::of(&Update::parse(Bytes::from(bytes), &Caps::default()).unwrap(), 5, clocks)
    }

    fn texts(texts: &[&str]) -> Doc {
        let doc = doc();
        let text = doc.get_or_insert_text("t");
        for part in texts {
            text.push(&mut doc.try_transact_mut().unwrap(), part);
        }
        doc
    }

    fn values(json: &[&str]) -> Doc {
        let doc = doc();
        let array = doc.get_or_insert_array("a");
        for value in json {
            array.push_back(&mut doc.try_transact_mut().unwrap(), Any::from_json(value).unwrap());
        }
        doc
    }

    const SAME: fn(usize) -> Compared = |equal| Compared { equal, ..Compared::default() };

    #[test]
    fn the_same_content_in_other_blocks_has_the_same_marks() {
        let whole = marks(&texts(&["héllo 😀 wörld"]), 0..14);
        assert_eq!(whole.len(), 14);
        assert_eq!(whole, marks(&texts(&["hé", "llo ", "😀", " w", "örld"]), 0..14));
        assert_eq!(whole.after(6), marks(&texts(&["héllo 😀 wörld"]), 6..14), "from inside a block");
        let stored: Marks = whole.numbers().collect();
        assert_eq!(stored.compare(&whole), SAME(14));
    }

    #[test]
    fn each_unit_that_differs_is_counted() {
        let ours = marks(&texts(&["hello world"]), 0..11);
        let theirs = marks(&texts(&["hello_w0rld"]), 0..11);
        assert_eq!(ours.compare(&theirs), Compared { equal: 9, different: 2, gone_here: 0 });
    }

    #[test]
    fn what_is_deleted_is_told_from_what_differs() {
        let whole = marks(&texts(&["abcdef"]), 0..6);
        let holed = texts(&["abcdef"]);
        holed.get_or_insert_text("t").remove_range(&mut holed.try_transact_mut().unwrap(), 1, 3);
        let holed = marks(&holed, 0..6);
        assert_eq!(holed.compare(&whole), Compared { equal: 3, different: 0, gone_here: 3 });
        assert_eq!(whole.compare(&holed), SAME(3), "their deletes are no contradiction");
    }

    #[test]
    fn a_replacement_character_is_like_half_a_pair_and_like_nothing_else() {
        let halves = marks(&texts(&["a\u{fffd}\u{fffd}b"]), 0..4);
        assert_eq!(halves.compare(&marks(&texts(&["a😀b"]), 0..4)), SAME(4));
        assert_eq!(halves.compare(&marks(&texts(&["axyb"]), 0..4)).different, 2, "nobody hides behind it");
    }

    #[test]
    fn places_outlive_content_and_do_not_depend_on_blocks() {
        let places = |doc: &Doc, clocks| {
            let bytes = doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default());
            Marks::of_places(&Update::parse(Bytes::from(bytes), &Caps::default()).unwrap(), 5, clocks)
        };
        let (whole, cut) = (places(&texts(&["abcdef"]), 0..6), texts(&["ab", "cdef"]));
        cut.get_or_insert_text("t").remove_range(&mut cut.try_transact_mut().unwrap(), 1, 3);
        assert_eq!((places(&cut, 0..6), places(&cut, 3..5)), (whole.clone(), places(&texts(&["abcdef"]), 3..5)));
        // The same content before what is there, and in another type.
        let (before, elsewhere) = (texts(&["abc"]), doc());
        before.get_or_insert_text("t").insert(&mut before.try_transact_mut().unwrap(), 0, "def");
        assert_eq!(whole.compare(&places(&before, 0..6)), Compared { equal: 3, different: 3, gone_here: 0 });
        elsewhere.get_or_insert_text("u").push(&mut elsewhere.try_transact_mut().unwrap(), "abcdef");
        assert_eq!(whole.compare(&places(&elsewhere, 0..6)), Compared { equal: 5, different: 1, gone_here: 0 });
    }

    #[test]
    fn values_are_marked_by_what_they_mean() {
        let ours = marks(&values(&["{\"a\":1,\"b\":[2.5,\"x\"]}", "true"]), 0..2);
        assert_eq!(ours.compare(&marks(&values(&["{\"b\":[2.5,\"x\"],\"a\":1}", "true"]), 0..2)), SAME(2));
        assert_eq!(ours.compare(&marks(&values(&["{\"a\":2,\"b\":[2.5,\"x\"]}", "false"]), 0..2)).different, 2);
        assert_eq!(marks(&values(&["1"]), 0..9).len(), 1, "no more than it holds");
        assert!(marks(&values(&["1"]), 3..9).is_empty());
    }
}
