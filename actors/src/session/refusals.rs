//! How long a final refusal takes to be said.
//!
//! Some stock clients retry whatever they are told, at once and for ever (protocols.md 2.7). Who was refused a moment ago for the same
//! token and room waits longer each time; an honest mistake is told at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals remembered: beyond it the expired are forgotten, and if that is not enough, all.
const REMEMBERED_MAX: usize = 10_000;
/// A refusal is forgotten after so long.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Recent refusals of a node.
#[derive(Debug, Default)]
pub struct Refusals {
    keys: RandomState,
    recent: Mutex<HashMap<u64, (u32, Instant)>>,
}

impl Refusals {
    /// Notes a refusal and says how long to wait before it is told: nothing, then 1, 2, 4 s. `what` is only hashed.
    pub fn delay(&self, what: impl Hash, now: Instant) -> Duration {
        let key = self.keys.hash_one(what);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= REMEMBERED_MAX {
            recent.retain(|_, (_, at)| now < *at + REMEMBERED_FOR);
            if recent.len() >= REMEMBERED_MAX {
                recent.clear();
            }
        }
        let (count, at) = recent.entry(key).or_insert((0, now));
        if now >= *at + REMEMBERED_FOR {
            *count = 0;
        }
        *at = now;
        let delay = match *count {
            0 => Duration::ZERO,
            repeated => Duration::from_secs(1 << (repeated - 1).min(2)),
        };
        *count = (*count + 1).min(3);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_again_waits_longer_and_others_do_not() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let waits: Vec<u64> = (0..5).map(|_| refusals.delay("stubborn", now).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 4]);
        assert_eq!(refusals.delay("another", now), Duration::ZERO);
        assert_eq!(refusals.delay("stubborn", now + Duration::from_secs(61)), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let refusals = Refusals::default();
        let now = Instant::now();
        for n in 0..3 * REMEMBERED_MAX {
            let _ = refusals.delay(n, now);
        }
        assert!(refusals.recent.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
