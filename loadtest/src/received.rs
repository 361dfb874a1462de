//! What a reader has of a writer.

/// Which clocks of one writer a reader has.
#[derive(Default, Debug)]
pub struct Received {
    next: u32,
    /// Below `next`, not yet seen: a server that merges or resyncs may fill them later.
    holes: Vec<(u32, u32)>,
}

impl Received {
    /// Whether every clock below `clock` has come.
    pub fn has_all_below(&self, clock: u32) -> bool {
        self.next >= clock && self.holes.iter().all(|(from, _)| *from >= clock)
    }

    /// Takes a run of clocks and calls `fresh` for those not seen before.
    pub fn take(&mut self, clock: u32, len: u32, mut fresh: impl FnMut(std::ops::Range<u32>)) {
        if len == 0 {
            return;
        }
        let end = clock.saturating_add(len);
        if clock < self.next && !self.holes.is_empty() {
            let holes = std::mem::take(&mut self.holes);
            for (from, to) in holes {
                let (low, high) = (from.max(clock), to.min(end));
                if low < high {
                    fresh(low..high);
                    self.holes.extend([(from, low), (high, to)].into_iter().filter(|(from, to)| from < to));
                } else {
                    self.holes.push((from, to));
                }
            }
        }
        if end > self.next {
            if clock > self.next {
                self.holes.push((self.next, clock));
            }
            fresh(clock.max(self.next)..end);
            self.next = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(received: &mut Received, clock: u32, len: u32) -> Vec<u32> {
        let mut fresh = Vec::new();
        received.take(clock, len, |clocks| fresh.extend(clocks));
        fresh
    }

    #[test]
    fn every_clock_counts_once_however_often_it_comes() {
        let mut received = Received::default();
        assert_eq!(take(&mut received, 0, 2), [0, 1]);
        assert_eq!(take(&mut received, 0, 4), [2, 3], "merged with what is known");
        assert_eq!(take(&mut received, 1, 2), [0u32; 0]);
    }

    #[test]
    fn a_hole_is_missing_until_it_is_filled() {
        let mut received = Received::default();
        assert_eq!(take(&mut received, 3, 2), [3, 4]);
        assert_eq!(received.holes, [(0, 3)]);
        assert!(!received.has_all_below(5));
        assert_eq!(take(&mut received, 1, 1), [1]);
        assert_eq!(take(&mut received, 0, 6), [0, 2, 5]);
        assert!(received.holes.is_empty());
        assert!(received.has_all_below(6) && !received.has_all_below(7));
    }
}
