//! How long a final refusal takes to be said, and how long a client waits that was closed on for what it sent.
//!
//! Some stock clients retry whatever they are told, immediately and for ever. A client that was refused a moment ago with the same token
//! for the same room waits longer each time; an honest mistake is told immediately. Nobody slows down anybody else: without the token
//! there is no waiting for its holder.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals remembered: beyond it the expired are forgotten, and if that is not enough, all.
const REMEMBERED_MAX: usize = 10_000;
/// More than so many in a row count as so many.
const COUNT_MAX: u32 = 3;
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
        let delay = back_off(*count);
        *count = (*count + 1).min(COUNT_MAX);
        delay
    }

    /// How long to wait now, after what was noted last: 1, 2, 4 s from then on.
    pub fn remaining(&self, what: impl Hash, now: Instant) -> Duration {
        let key = self.keys.hash_one(what);
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((count, at)) = recent.get(&key).filter(|(_, at)| now < *at + REMEMBERED_FOR) else {
            return Duration::ZERO;
        };
        (*at + back_off(*count)).saturating_duration_since(now)
    }
}

fn back_off(count: u32) -> Duration {
    match count {
        0 => Duration::ZERO,
        repeated => Duration::from_secs(1 << (repeated - 1).min(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_waited_for_from_then_on() {
        let closes = Refusals::default();
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(closes.remaining("writer", now), Duration::ZERO);
        let _ = closes.delay("writer", now);
        assert_eq!(closes.remaining("writer", at(400)), Duration::from_millis(600));
        assert_eq!(closes.remaining("writer", at(1_000)), Duration::ZERO);
        assert_eq!(closes.remaining("reader", at(400)), Duration::ZERO);
        let _ = closes.delay("writer", at(1_000));
        assert_eq!(closes.remaining("writer", at(1_000)), Duration::from_secs(2));
    }

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
