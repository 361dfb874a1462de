//! Sets of clocks of one client, as ranges: in order, none empty, none touching another.

use std::collections::BTreeMap;
use std::ops::Range;

/// A tree and not a list, because somebody may delete every second character of a long text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Start to end.
    ranges: BTreeMap<u32, u32>,
}

impl Ranges {
    /// Builds the set from ranges that are in order, in linear time.
    pub fn from_ordered(ranges: impl Iterator<Item = Range<u32>>) -> Self {
        Self { ranges: Self::joined(ranges).into_iter().map(|range| (range.start, range.end)).collect() }
    }

    /// Joins ranges that are in order where they overlap or touch.
    pub fn joined(ranges: impl Iterator<Item = Range<u32>>) -> Vec<Range<u32>> {
        let mut joined: Vec<Range<u32>> = Vec::new();
        for range in ranges.filter(|range| !range.is_empty()) {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = range.end.max(last.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Memory of its own, about: a node of a B-tree holds 11 of them, and is two thirds full.
    pub fn bytes(&self) -> usize {
        self.ranges.len() * 16
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    pub fn insert(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Whatever begins at or before the end and ends at or after the start becomes one with it.
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ranges.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
    }

    /// Takes in every range of `other`.
    pub fn extend(&mut self, other: Ranges) {
        if self.is_empty() {
            self.ranges = other.ranges;
        } else {
            other.iter().for_each(|range| self.insert(range));
        }
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: Range<u32>) -> impl Iterator<Item = Range<u32>> + '_ {
        let before = self.ranges.range(..=range.start).next_back().map(|(_, &end)| end);
        let mut from = before.map_or(range.start, |end| end.max(range.start));
        let mut inside = self.ranges.range(range.start.saturating_add(1)..range.end.max(range.start.saturating_add(1)));
        let mut is_done = false;
        std::iter::from_fn(move || {
            while !is_done {
                let (gap, next) = match inside.next() {
                    Some((&start, &end)) => (from..start, end),
                    None => {
                        is_done = true;
                        (from..range.end, range.end)
                    }
                };
                from = next.max(from);
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_a_set_of_clocks(
            inserted in prop::collection::vec((0u32..60, 0u32..9), 0..30),
            asked in (0u32..60, 0u32..20),
        ) {
            let mut ranges = Ranges::default();
            let mut clocks = BTreeSet::new();
            for (start, len) in inserted {
                ranges.insert(start..start + len);
                clocks.extend(start..start + len);
            }
            let held: Vec<u32> = ranges.iter().flatten().collect();
            prop_assert_eq!(held, clocks.iter().copied().collect::<Vec<_>>());
            let borders: Vec<_> = ranges.iter().collect();
            prop_assert!(borders.array_windows().all(|[left, right]| left.end < right.start));
            prop_assert_eq!(&Ranges::from_ordered(ranges.iter()), &ranges);

            let asked = asked.0..asked.0 + asked.1;
            let gaps: Vec<u32> = ranges.gaps(asked.clone()).flatten().collect();
            prop_assert_eq!(gaps, asked.filter(|clock| !clocks.contains(clock)).collect::<Vec<_>>());
        }
    }
}
