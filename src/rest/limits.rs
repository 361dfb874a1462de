//! How often somebody may try to sign in: a bucket per address and one per account, in this node's memory.
//!
//! Guessing one account's password from many addresses empties the account's bucket, guessing many accounts from one address
//! that address's. A right password takes nothing.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A person mistypes a few times in a row; 10 guesses and one more every 10 s are 8,650 a day, too few for a password of 10 characters.
const ACCOUNT: Rate = Rate { burst: 10, per: Duration::from_secs(10) };
/// Many people sign in behind one address in the morning.
const ADDRESS: Rate = Rate { burst: 100, per: Duration::from_secs(1) };
/// 16,384 buckets of 32 bytes; beyond it, and with none of them full again, strangers share one.
const BUCKETS_MAX: usize = 16_384;

#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    /// One more attempt after so long.
    per: Duration,
}

/// The buckets.
#[derive(Debug)]
pub struct LoginLimits {
    keys: RandomState,
    buckets: Mutex<HashMap<u64, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it is full again.
    full_at: Instant,
}

impl Default for LoginLimits {
    fn default() -> Self {
        Self { keys: RandomState::new(), buckets: Mutex::default() }
    }
}

/// What an attempt took, to be given back when it was right.
#[derive(Debug)]
pub(super) struct Attempt {
    account: u64,
    address: u64,
}

impl LoginLimits {
    /// Takes an attempt from both buckets, or says how many seconds to wait.
    pub(super) fn take(&self, now: Instant, address: &str, account: &str) -> Result<Attempt, u64> {
        let attempt = Attempt { account: self.key("account", account), address: self.key("address", address) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() + 2 > BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let both = [(attempt.address, ADDRESS), (attempt.account, ACCOUNT)];
        for (key, rate) in both {
            let full_at = bucket(&mut buckets, key, now).full_at.max(now) + rate.per;
            let over = (full_at - now).saturating_sub(rate.per * rate.burst);
            if !over.is_zero() {
                return Err(over.as_secs() + 1);
            }
        }
        for (key, rate) in both {
            let bucket = bucket(&mut buckets, key, now);
            bucket.full_at = bucket.full_at.max(now) + rate.per;
        }
        Ok(attempt)
    }

    /// Gives back what a right attempt took.
    pub(super) fn give_back(&self, now: Instant, attempt: &Attempt) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, rate) in [(attempt.address, ADDRESS), (attempt.account, ACCOUNT)] {
            let bucket = bucket(&mut buckets, key, now);
            bucket.full_at = bucket.full_at.checked_sub(rate.per).unwrap_or(now);
        }
    }

    fn key(&self, kind: &str, value: impl Hash) -> u64 {
        self.keys.hash_one((kind, value))
    }
}

fn bucket(buckets: &mut HashMap<u64, Bucket>, key: u64, now: Instant) -> &mut Bucket {
    const STRANGERS: u64 = 0;
    let key = if buckets.len() < BUCKETS_MAX || buckets.contains_key(&key) { key } else { STRANGERS };
    buckets.entry(key).or_insert(Bucket { full_at: now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_one_account_is_slowed_from_wherever_it_comes() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for n in 0..ACCOUNT.burst {
            limits.take(now, &format!("10.0.0.{n}"), "a@b").unwrap();
        }
        let wait = limits.take(now, "10.9.9.9", "a@b").unwrap_err();
        assert!((10..=11).contains(&wait), "{wait}");
        assert!(limits.take(now, "10.9.9.9", "c@d").is_ok(), "others are not slowed");
        assert!(limits.take(now + Duration::from_secs(10), "10.9.9.9", "a@b").is_ok());
        assert!(limits.take(now + Duration::from_secs(10), "10.9.9.9", "a@b").is_err());
    }

    #[test]
    fn guessing_many_accounts_from_one_address_is_slowed() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        let taken = (0..1000).filter(|n| limits.take(now, "10.0.0.1", &n.to_string()).is_ok()).count();
        assert_eq!(taken, ADDRESS.burst as usize);
    }

    #[test]
    fn a_right_password_takes_nothing() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for _ in 0..1000 {
            let attempt = limits.take(now, "10.0.0.1", "a@b").unwrap();
            limits.give_back(now, &attempt);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for n in 0..100_000_u32 {
            let _ = limits.take(now, &n.to_string(), &n.to_string());
        }
        assert!(limits.buckets.lock().unwrap().len() <= BUCKETS_MAX + 1);
    }
}
