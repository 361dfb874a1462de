//! What an update is made of, counted: for whoever must know what it takes in memory before yrs makes a tree of it.

use crate::block::{Id, Kind, Links, Parent, View};
use crate::lib0::Reader;
use crate::update::{Section, Update};
use crate::value::{self, Token};
use crate::wrap;

/// Counts of blocks by what each takes. A block counts once as one of `items`, `joined` or `collected`, and besides as what else it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Blocks that yrs holds as an item of their own.
    pub items: usize,
    /// Text or values that continue what their client wrote just before: yrs joins them to that.
    pub joined: usize,
    /// What was garbage-collected.
    pub collected: usize,
    /// Items that are cut in two: by text that is written into the middle of one, or by a delete of what other updates brought (two cuts each).
    pub cuts: usize,
    /// Shared types.
    pub types: usize,
    /// Sub-documents.
    pub documents: usize,
    /// Entries of maps and attributes of elements.
    pub keyed: usize,
    /// Formats and embeds.
    pub marks: usize,
    /// Values: each element of an array or entry of a map counts, at every level.
    pub values: usize,
    /// Arrays and maps among these, and texts and binaries.
    pub heaps: usize,
    /// Maps among these.
    pub maps: usize,
    /// Bytes of the keys of these entries.
    pub key_bytes: usize,
    /// Bytes of text and of everything else that is kept as it came.
    pub bytes: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.joined += other.joined;
        self.collected += other.collected;
        self.cuts += other.cuts;
        self.types += other.types;
        self.documents += other.documents;
        self.keyed += other.keyed;
        self.marks += other.marks;
        self.values += other.values;
        self.heaps += other.heaps;
        self.maps += other.maps;
        self.key_bytes += other.key_bytes;
        self.bytes += other.bytes;
    }
}

impl Update {
    /// What it is made of. `root` is told the name of each root type that a block names, as often as one does.
    pub fn tally(&self, mut root: impl FnMut(&str)) -> Tally {
        let mut tally = Tally::default();
        for section in &self.sections {
            let mut before = None;
            for index in section.blocks.clone() {
                let Some(view) = self.view(section, index) else { continue };
                let links = view.links();
                if let Some(Parent::Root(name)) = links.map(|links| links.parent) {
                    root(name);
                }
                tally.count_block(section, &view, links, before);
                before = links.map(|links| (view.kind(), links.right_origin));
            }
        }
        tally.cuts += 2 * self.cutting_deletes();
        tally
    }

    /// How many of its deletes are of blocks that it does not bring itself.
    fn cutting_deletes(&self) -> usize {
        let mut cutting = 0;
        for deletes in &self.delete_sections {
            let ranges = self.deletes.get(deletes.ranges.start as usize..deletes.ranges.end as usize);
            let own = self.sections.iter().find(|section| section.client == deletes.client);
            let is_own = |clock: u32| own.is_some_and(|own| (own.clock..own.end_clock).contains(&clock));
            cutting += ranges.unwrap_or_default().iter().filter(|range| !is_own(range.start)).count();
        }
        cutting
    }
}

impl Tally {
    fn count_block(
        &mut self,
        section: &Section,
        view: &View<'_>,
        links: Option<Links<'_>>,
        before: Option<(Kind, Option<Id>)>,
    ) {
        let Some(links) = links else {
            self.collected += usize::from(view.kind() == Kind::Gc);
            return;
        };
        let clock = view.block.clock;
        let is_next = |id: Id| id.client == section.client && id.clock + 1 == clock;
        // Within an update it is known what the block before is, and stands next to; beyond it, an honest client's is and does the same.
        let is_like = before.is_none_or(|before| before == (view.kind(), links.right_origin));
        let may_join = matches!(view.kind(), Kind::String | Kind::Any);
        if may_join && links.origin.is_some_and(is_next) && is_like {
            self.joined += 1;
        } else {
            self.items += 1;
            if let (Some(left), Some(right)) = (links.origin, links.right_origin) {
                self.cuts += usize::from(left.client == right.client && left.clock + 1 == right.clock);
            }
        }
        if let Some(key) = links.key {
            self.keyed += 1;
            self.key_bytes += key.len();
        }
        match view.kind() {
            Kind::Gc | Kind::Skip | Kind::Deleted => {}
            Kind::String => self.bytes += view.content().len(),
            Kind::Binary => {
                self.heaps += 1;
                self.bytes += view.content().len();
            }
            Kind::Embed | Kind::Format => {
                self.marks += 1;
                // JSON: each value takes a letter at least, and what stands between two of them.
                let json = view.content();
                self.values += json.iter().filter(|letter| matches!(letter, b',' | b':' | b'[' | b'{')).count();
                self.heaps += json.iter().filter(|letter| matches!(letter, b'[' | b'{')).count();
                self.maps += json.iter().filter(|letter| **letter == b'{').count();
                self.bytes += json.len();
                let mut reader = Reader::new(json);
                let _key = (view.kind() == Kind::Format).then(|| reader.read_var_bytes());
                self.heaps += usize::from(!wrap::keeps_json(reader.read_var_string().unwrap_or_default()));
            }
            Kind::Type => {
                self.types += 1;
                self.bytes += view.content().len();
            }
            Kind::Any => {
                let mut reader = Reader::new(view.content());
                let count = reader.read_var_uint().unwrap_or_default();
                for _ in 0..count {
                    let value = reader.rest();
                    self.count_value(&mut reader);
                    // Wrapped, a number takes an allocation of its own; all else takes less than it would unwrapped.
                    self.heaps += usize::from(matches!(value, [122..=125, ..]) && !wrap::keeps_any(value));
                }
            }
            Kind::Document => {
                self.documents += 1;
                self.bytes += 2 * view.content().len(); // wrapped, each byte may take two
            }
        }
    }

    fn count_value(&mut self, reader: &mut Reader<'_>) {
        let Ok(tag) = reader.read_u8() else { return };
        // It was walked once before; whatever could fail failed then.
        let _ = value::walk_any(reader, tag, usize::MAX, |token| match token {
            Token::Text(text) => {
                self.values += 1;
                self.heaps += 1;
                self.bytes += text.len();
            }
            Token::Bytes(bytes) => {
                self.values += 1;
                self.heaps += 1;
                self.bytes += bytes.len();
            }
            Token::Sign(sign) => {
                self.values += 1;
                self.heaps += usize::from(matches!(sign, 117 | 118));
                self.maps += usize::from(sign == 118);
            }
            Token::Number(_) => self.values += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Caps;
    use bytes::Bytes;

    fn tally(bytes: &[u8]) -> (Tally, Vec<String>) {
        let update = Update::parse(Bytes::copy_from_slice(bytes), &Caps::default()).unwrap();
        let mut roots = Vec::new();
        let tally = update.tally(|name| roots.push(name.to_owned()));
        (tally, roots)
    }

    #[test]
    fn text_that_goes_on_is_joined_and_text_in_the_middle_cuts() {
        // "hi" into "t", "!" behind it, and "?" between its two letters.
        let (told, roots) =
            tally(&[1, 3, 1, 0, 4, 1, 1, b't', 2, b'h', b'i', 0x84, 1, 1, 1, b'!', 0xC4, 1, 0, 1, 1, 1, b'?', 0]);
        assert_eq!((told.items, told.joined, told.cuts), (2, 1, 1), "{told:?}");
        assert_eq!(roots, ["t"]);
    }

    #[test]
    fn every_value_counts_at_its_level_and_deletes_of_others_cut_twice() {
        // {"a": [true, "x"]} under the key "k" of "m".
        let value = [118, 1, 1, b'a', 117, 2, 120, 119, 1, b'x'];
        let (told, _) = tally(&[&[1, 1, 1, 0, 0x28, 1, 1, b'm', 1, b'k', 1][..], &value, &[1, 9, 1, 4, 2]].concat());
        assert_eq!((told.items, told.keyed, told.cuts), (1, 1, 2), "{told:?}");
        assert_eq!((told.values, told.heaps, told.maps), (5, 4, 1), "{told:?}");
    }
}
