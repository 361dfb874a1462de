//! How often somebody may try to sign in: a bucket per address and one per account, in this node's memory.
//!
//! Guessing one account's password from many addresses empties the account's bucket, guessing many accounts from one address
//! that address's. A right password takes nothing.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// 16,384 buckets of 32 bytes; beyond it, and with none of them full again, strangers share one.
const BUCKETS_MAX: usize = 16_384;

/// How often something may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// So often in a row.
    pub burst: u32,
    /// And once more after so long.
    pub per: Duration,
}

/// How often somebody may try. The defaults and their reasons stand in `default.toml`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginRates {
    /// Into one account, from anywhere.
    pub account: Rate,
    /// From one address, into any account.
    pub address: Rate,
}

impl Default for LoginRates {
    fn default() -> Self {
        Self {
            account: Rate { burst: 10, per: Duration::from_secs(10) },
            address: Rate { burst: 100, per: Duration::from_secs(1) },
        }
    }
}

/// The buckets.
#[derive(Debug, Default)]
pub struct LoginLimits {
    rates: LoginRates,
    keys: RandomState,
    buckets: Mutex<HashMap<u64, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it is full again.
    full_at: Instant,
}

/// What an attempt took, to be given back when it was right.
#[derive(Debug)]
pub(super) struct Attempt {
    account: u64,
    address: u64,
}

impl LoginLimits {
    /// With nothing taken yet.
    #[must_use]
    pub fn new(rates: LoginRates) -> Self {
        Self { rates, ..Self::default() }
    }

    /// Takes an attempt from both buckets, or says how many seconds to wait.
    pub(super) fn take(&self, now: Instant, address: IpAddr, account: &str) -> Result<Attempt, u64> {
        let attempt = Attempt { account: self.key("account", account), address: self.key("address", address) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() + 2 > BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let both = [(attempt.address, self.rates.address), (attempt.account, self.rates.account)];
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
        for (key, rate) in [(attempt.address, self.rates.address), (attempt.account, self.rates.account)] {
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
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn guessing_one_account_is_slowed_from_wherever_it_comes() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for n in 0..LoginRates::default().account.burst {
            limits.take(now, address(n), "a@b").unwrap();
        }
        let wait = limits.take(now, address(999), "a@b").unwrap_err();
        assert!((10..=11).contains(&wait), "{wait}");
        assert!(limits.take(now, address(999), "c@d").is_ok(), "others are not slowed");
        assert!(limits.take(now + Duration::from_secs(10), address(999), "a@b").is_ok());
        assert!(limits.take(now + Duration::from_secs(10), address(999), "a@b").is_err());
    }

    #[test]
    fn guessing_many_accounts_from_one_address_is_slowed() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        let taken = (0..1000).filter(|n| limits.take(now, address(1), &n.to_string()).is_ok()).count();
        assert_eq!(taken, LoginRates::default().address.burst as usize);
    }

    #[test]
    fn a_right_password_takes_nothing() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for _ in 0..1000 {
            let attempt = limits.take(now, address(1), "a@b").unwrap();
            limits.give_back(now, &attempt);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for n in 0..100_000_u32 {
            let _ = limits.take(now, address(n), &n.to_string());
        }
        assert!(limits.buckets.lock().unwrap().len() <= BUCKETS_MAX + 1);
    }
}
