//! Which units of one client stand in the order in which they were written: all that the gate knows of a document's order.
//!
//! A unit whose origin is the unit that its client wrote before stands to the right of it, in every replica and for ever. So
//! between two breaks of that chain the clocks give the order. A break costs a byte or two, because a document has one for
//! every time that somebody put the cursor elsewhere.

use crate::lib0::{Reader, write_var_uint};

/// Breaks between two places where a search may begin.
const STRIDE: u32 = 32;

/// The clocks of one client at which a unit does not stand behind the one before. Clock zero never does, and is not noted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaks(Option<Box<Noted>>);

#[derive(Clone, Debug, Default)]
struct Noted {
    /// Each break as its distance from the one before.
    distances: Vec<u8>,
    /// Every [`STRIDE`]th break, and where the distances after it begin.
    marks: Vec<(u32, u32)>,
    count: u32,
    last: u32,
}

impl Breaks {
    /// Notes a break behind all others.
    pub fn push(&mut self, clock: u32) {
        if clock == 0 {
            return;
        }
        let noted = self.0.get_or_insert_default();
        if noted.count > 0 && clock <= noted.last {
            return;
        }
        if noted.count == 0 {
            // Most clients have few: no room is taken before it is needed.
            noted.distances.reserve_exact(4);
        }
        write_var_uint(&mut noted.distances, u64::from(clock - noted.last));
        if noted.count % STRIDE == STRIDE - 1 {
            noted.marks.push((clock, noted.distances.len() as u32));
        }
        noted.count += 1;
        noted.last = clock;
    }

    /// Takes in what stands behind all that is here.
    pub fn extend(&mut self, other: Breaks) {
        if self.0.is_none() {
            self.0 = other.0;
        } else if let Some(noted) = other.0 {
            noted.iter_from(0, 0).for_each(|clock| self.push(clock));
        }
    }

    /// Memory of its own.
    pub fn bytes(&self) -> usize {
        let of = |noted: &Noted| noted.distances.capacity() + noted.marks.capacity() * size_of::<(u32, u32)>();
        self.0.as_ref().map_or(0, |noted| size_of::<Noted>() + of(noted))
    }

    /// Whether the chain breaks somewhere after `from`, at `to` at the latest.
    pub fn any_within(&self, from: u32, to: u32) -> bool {
        let Some(noted) = &self.0 else { return false };
        if noted.last <= to {
            return noted.last > from;
        }
        let behind = noted.marks.partition_point(|(clock, _)| *clock <= from);
        let (clock, at) = behind.checked_sub(1).and_then(|mark| noted.marks.get(mark)).copied().unwrap_or_default();
        noted.iter_from(clock, at).find(|clock| *clock > from).is_some_and(|clock| clock <= to)
    }
}

impl Noted {
    fn iter_from(&self, clock: u32, at: u32) -> impl Iterator<Item = u32> + '_ {
        let mut reader = Reader::starting_at(&self.distances, at as usize);
        let mut clock = clock;
        std::iter::from_fn(move || {
            clock += reader.read_var_uint().ok()? as u32;
            Some(clock)
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
        fn breaks_are_an_ordered_set_of_clocks(
            distances in prop::collection::vec(1u32..400, 0..200),
            cut in 0usize..200,
            asked in prop::collection::vec((0u32..50_000, 0u32..3_000), 40),
        ) {
            let clocks: BTreeSet<u32> =
                distances.iter().scan(0, |clock, distance| { *clock += distance; Some(*clock) }).collect();
            let (mut breaks, mut behind) = (Breaks::default(), Breaks::default());
            for (number, &clock) in clocks.iter().enumerate() {
                if number < cut { breaks.push(clock) } else { behind.push(clock) }
            }
            breaks.extend(behind);
            for (from, len) in asked.into_iter().chain(clocks.iter().map(|&clock| (clock - 1, 1))) {
                prop_assert_eq!(breaks.any_within(from, from + len), clocks.range(from + 1..from + len + 1).next().is_some());
            }
        }
    }

    #[test]
    fn ten_thousand_jumps_of_the_cursor_cost_some_ten_thousand_bytes() {
        let mut breaks = Breaks::default();
        (1..=10_000).for_each(|number| breaks.push(number * 26));
        let noted = breaks.0.unwrap();
        assert!(noted.distances.len() + 8 * noted.marks.len() <= 13_000);
    }
}
