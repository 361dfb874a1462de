//! Messages from Redis that are not believed. Each is counted; the log gets a line a minute for each reason, because whoever can
//! write into Redis can write a million of them.

use super::wire::Unbelievable;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Between two lines of one reason.
const EVERY: Duration = Duration::from_secs(60);

/// When each reason was told last, and how many messages came since.
#[derive(Debug, Default)]
pub(super) struct Doubts(HashMap<&'static str, (Instant, u64)>);

impl Doubts {
    /// Takes one more message. How many the line of the log is about, when it is time for one.
    pub(super) fn add(&mut self, now: Instant, why: Unbelievable) -> Option<u64> {
        let Some((told, untold)) = self.0.get_mut(why.label()) else {
            self.0.insert(why.label(), (now, 0));
            return Some(1);
        };
        *untold += 1;
        if now.saturating_duration_since(*told) < EVERY {
            return None;
        }
        *told = now;
        Some(std::mem::take(untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_minute_for_each_reason_and_none_is_left_out() {
        let (mut doubts, start) = (Doubts::default(), Instant::now());
        let mut lines = Vec::new();
        for ms in 0..=120_000 {
            let now = start + Duration::from_millis(ms);
            lines.extend(doubts.add(now, Unbelievable::Mac));
            if ms < 1000 {
                lines.extend(doubts.add(now, Unbelievable::Version));
            }
        }
        assert_eq!(lines, [1, 1, 60_000, 60_000]);
    }
}
