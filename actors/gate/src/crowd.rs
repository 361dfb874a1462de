//! How yrs finds a client: in a hash table whose hash is the id itself, so that who chooses ids chooses where they meet.
//!
//! The table is hashbrown's (`HashMap` of the standard library): a power of two of buckets, at most seven eighths of them full, probed in groups of
//! sixteen at triangular distances. Of a hash it keeps the seven highest bits in each bucket to tell keys apart, which ids below 2^53 have all alike.
//! So a lookup compares its id with every other one on its way.

use std::collections::HashSet;

/// Buckets that are looked at together.
const GROUP: usize = 16;
/// No client has it.
const FREE: u64 = u64::MAX;

/// The ids of one such table, in the buckets where yrs has them. Eight bytes for each bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    buckets: Vec<u64>,
    len: usize,
    /// Ids that were there when it last grew.
    len_grown: usize,
}

impl Crowd {
    /// Ids that are all new. The second is how many were met on the way.
    pub fn of(ids: impl Iterator<Item = u64>) -> (Self, u64) {
        let mut crowd = Self::default();
        let met = ids.map(|id| crowd.insert(id)).sum();
        (crowd, met)
    }

    /// Puts a new id in. Answers how many others were met on the way; where the table grows, once more for each of them.
    pub fn insert(&mut self, id: u64) -> u64 {
        let mut met = 0;
        if (self.len + 1) * 8 > self.buckets.len() * 7 {
            let larger = vec![FREE; (2 * self.buckets.len()).max(GROUP)];
            for id in std::mem::replace(&mut self.buckets, larger).into_iter().filter(|id| *id != FREE) {
                met += self.put(id);
            }
            self.len_grown = self.len;
        }
        self.len += 1;
        met + self.put(id)
    }

    fn put(&mut self, id: u64) -> u64 {
        let (met, bucket) = self.probe(id);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket = id;
        }
        met
    }

    /// How many are met on the way to an id.
    pub fn met(&self, id: u64) -> u64 {
        if self.len == 0 { 0 } else { self.probe(id).0 }
    }

    /// How many are met on the way, and the bucket in which it is, or would be.
    fn probe(&self, id: u64) -> (u64, usize) {
        let mask = self.buckets.len() - 1;
        let (mut at, mut stride, mut met) = (id as usize & mask, 0, 0);
        loop {
            for bucket in at..at + GROUP {
                match self.buckets.get(bucket & mask) {
                    Some(&kept) if kept != FREE && kept != id => met += 1,
                    _ => return (met, bucket & mask),
                }
            }
            stride += GROUP;
            at += stride;
        }
    }

    /// Takes out the ids that were put in last.
    pub fn forget(&mut self, last: &[u64]) {
        let len = self.len.saturating_sub(last.len());
        if len < self.len_grown {
            // Others came behind them when the table grew.
            let last: HashSet<u64> = last.iter().copied().collect();
            let kept = std::mem::take(&mut self.buckets).into_iter().filter(|id| *id != FREE && !last.contains(id));
            (*self, _) = Self::of(kept);
            return;
        }
        for id in last.iter().rev() {
            let (_, bucket) = self.probe(*id);
            if let Some(kept) = self.buckets.get_mut(bucket).filter(|kept| *kept == id) {
                *kept = FREE;
            }
        }
        self.len = len;
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::hash::{BuildHasherDefault, Hash, Hasher};

    thread_local! {
        static COMPARED: Cell<u64> = const { Cell::new(0) };
    }

    /// An id that counts how often it is compared.
    #[derive(Eq)]
    struct Id(u64);

    impl PartialEq for Id {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }

    impl Hash for Id {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u64(self.0);
        }
    }

    /// As the hasher of yrs.
    #[derive(Default)]
    struct Itself(u64);

    impl Hasher for Itself {
        fn finish(&self) -> u64 {
            self.0
        }

        fn write(&mut self, _: &[u8]) {}

        fn write_u64(&mut self, id: u64) {
            self.0 = id;
        }
    }

    /// A thousand each: no two near each other, two and sixteen for each ending, all with one, and two runs that overlap.
    fn families() -> Vec<Vec<u64>> {
        let of = |id: fn(u64) -> u64| (0..1_000).map(id).collect();
        vec![
            of(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11),
            of(|number| number % 500 + ((number / 500) << 40)),
            of(|number| number % 62 + ((number / 62) << 40)),
            of(|number| number << 32),
            of(|number| if number % 2 == 0 { 1_000 + number } else { 900_000 - number }),
        ]
    }

    #[test]
    #[allow(clippy::indexing_slicing)]
    fn ids_meet_as_many_others_as_in_a_hash_map() {
        for ids in families() {
            let (mut crowd, mut table) = (Crowd::default(), HashSet::<Id, BuildHasherDefault<Itself>>::default());
            for (len, id) in ids.iter().enumerate() {
                crowd.insert(*id);
                table.insert(Id(*id));
                if len < 16 || len % 97 > 0 {
                    continue;
                }
                for id in &ids[..=len] {
                    COMPARED.set(0);
                    assert!(table.contains(&Id(*id)));
                    assert_eq!(crowd.met(*id) + 1, COMPARED.get(), "{id} of {len}");
                }
            }
        }
    }

    #[test]
    #[allow(clippy::indexing_slicing)]
    fn what_is_forgotten_leaves_no_trace() {
        for ids in families() {
            for (before, after) in [(300, 301), (300, 440), (300, 900), (0, 1_000)] {
                let (kept, gone) = (&ids[..before], &ids[before..after]);
                let (expected, _) = Crowd::of(kept.iter().copied());
                let mut crowd = expected.clone();
                for id in gone {
                    crowd.insert(*id);
                }
                let has_grown = crowd.buckets.len() > expected.buckets.len();
                crowd.forget(gone);
                assert_eq!(crowd.len, expected.len);
                assert!(has_grown || crowd.buckets == expected.buckets, "{before} to {after}");
                for id in kept {
                    assert_eq!(crowd.buckets[crowd.probe(*id).1], *id, "{before} to {after}");
                }
            }
        }
    }
}
