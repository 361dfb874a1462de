//! How often somebody may try to sign in: a bucket per address and one per account, in this node's memory.
//!
//! Guessing one account's password from many addresses empties the account's bucket, guessing many accounts from one address
//! that address's. A right password takes nothing. Devices and networks from which the account's owner has signed in before
//! have buckets of their own, so that strangers slow only strangers.

use contextnexus_actors::ids::{TenantId, UserId};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// 16,384 buckets of 32 bytes of each kind; beyond it, and with none of them full again, who comes then shares one.
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
    /// Into one account, by strangers together, and by each device and network that is known.
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

/// Into which account somebody tries to sign in, as it was found: however it is written, one account has one count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Account<'a> {
    /// A user.
    User(TenantId, UserId),
    /// No such user; counted as one is, so that the count does not tell. The e-mail address is in lower case.
    Nobody(Option<TenantId>, &'a str),
}

/// By what the owner of an account is told from a stranger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Known {
    /// A browser on which the user has signed in before.
    Device(Uuid),
    /// A network from which the user has signed in before.
    Network(IpAddr),
}

/// The buckets.
#[derive(Debug, Default)]
pub struct LoginLimits {
    rates: LoginRates,
    keys: RandomState,
    addresses: Mutex<Buckets>,
    /// Of strangers, by account.
    strangers: Mutex<Buckets>,
    /// Apart, so that strangers who fill their own memory do not take that of those who are known.
    known: Mutex<Buckets>,
}

/// What an attempt took, to be given back when it was right.
#[derive(Debug)]
pub(super) struct Attempt {
    key: u64,
    whose: Whose,
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    Address,
    Stranger,
    Known,
}

impl LoginLimits {
    /// With nothing taken yet.
    #[must_use]
    pub fn new(rates: LoginRates) -> Self {
        Self { rates, ..Self::default() }
    }

    /// Takes an attempt from an address, into whatever account, or says how many seconds to wait.
    pub(super) fn take_from(&self, now: Instant, address: IpAddr) -> Result<Attempt, u64> {
        self.take(now, Attempt { key: self.keys.hash_one(address), whose: Whose::Address })
    }

    /// Takes an attempt into an account, or says how many seconds to wait. Who is known has a count apart from strangers'.
    pub(super) fn take_into(&self, now: Instant, account: Account<'_>, known: Option<Known>) -> Result<Attempt, u64> {
        let whose = if known.is_some() { Whose::Known } else { Whose::Stranger };
        self.take(now, Attempt { key: self.keys.hash_one((account, known)), whose })
    }

    /// Gives back what a right attempt took.
    pub(super) fn give_back(&self, now: Instant, attempt: &Attempt) {
        let (buckets, rate) = self.of(attempt.whose);
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.full_at(attempt.key, now);
        *full_at = full_at.checked_sub(rate.per).unwrap_or(now);
    }

    fn take(&self, now: Instant, attempt: Attempt) -> Result<Attempt, u64> {
        let (buckets, rate) = self.of(attempt.whose);
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.full_at(attempt.key, now);
        let after = (*full_at).max(now) + rate.per;
        let over = (after - now).saturating_sub(rate.per * rate.burst);
        if !over.is_zero() {
            return Err(over.as_secs() + 1);
        }
        *full_at = after;
        Ok(attempt)
    }

    fn of(&self, whose: Whose) -> (&Mutex<Buckets>, Rate) {
        match whose {
            Whose::Address => (&self.addresses, self.rates.address),
            Whose::Stranger => (&self.strangers, self.rates.account),
            Whose::Known => (&self.known, self.rates.account),
        }
    }
}

/// When each bucket is full again.
#[derive(Debug, Default)]
struct Buckets(HashMap<u64, Instant>);

impl Buckets {
    fn full_at(&mut self, key: u64, now: Instant) -> &mut Instant {
        const SHARED: u64 = 0;
        if self.0.len() >= BUCKETS_MAX {
            self.0.retain(|_, full_at| *full_at > now);
        }
        let key = if self.0.len() < BUCKETS_MAX || self.0.contains_key(&key) { key } else { SHARED };
        self.0.entry(key).or_insert(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    fn user(n: u128) -> Account<'static> {
        Account::User(TenantId(Uuid::nil()), UserId(Uuid::from_u128(n)))
    }

    fn exhaust(limits: &LoginLimits, now: Instant, account: Account<'_>, known: Option<Known>) {
        for _ in 0..LoginRates::default().account.burst {
            limits.take_into(now, account, known).unwrap();
        }
        limits.take_into(now, account, known).unwrap_err();
    }

    #[test]
    fn guessing_one_account_is_slowed() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        exhaust(&limits, now, user(1), None);
        let wait = limits.take_into(now, user(1), None).unwrap_err();
        assert!((10..=11).contains(&wait), "{wait}");
        assert!(limits.take_into(now, user(2), None).is_ok(), "others are not slowed");
        assert!(limits.take_into(now + Duration::from_secs(10), user(1), None).is_ok());
        assert!(limits.take_into(now + Duration::from_secs(10), user(1), None).is_err());
    }

    #[test]
    fn who_is_known_is_not_slowed_by_strangers_and_has_a_count_too() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        exhaust(&limits, now, user(1), None);
        let device = Some(Known::Device(Uuid::from_u128(7)));
        let network = Some(Known::Network(address(1)));
        exhaust(&limits, now, user(1), device);
        exhaust(&limits, now, user(1), network);
        assert!(limits.take_into(now, user(2), device).is_ok(), "each account counts for itself");
    }

    #[test]
    fn guessing_many_accounts_from_one_address_is_slowed() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        let taken = (0..1000).filter(|_| limits.take_from(now, address(1)).is_ok()).count();
        assert_eq!(taken, LoginRates::default().address.burst as usize);
        assert!(limits.take_from(now, address(2)).is_ok());
    }

    #[test]
    fn a_right_password_takes_nothing() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for _ in 0..1000 {
            let attempts = [limits.take_from(now, address(1)).unwrap(), limits.take_into(now, user(1), None).unwrap()];
            attempts.iter().for_each(|attempt| limits.give_back(now, attempt));
        }
    }

    #[test]
    fn memory_is_bounded_and_strangers_who_fill_theirs_slow_nobody_who_is_known() {
        let limits = LoginLimits::default();
        let now = Instant::now();
        for n in 0..100_000_u32 {
            let _ = limits.take_from(now, address(n));
            let _ = limits.take_into(now, Account::Nobody(None, &n.to_string()), None);
        }
        for buckets in [&limits.addresses, &limits.strangers] {
            assert!(buckets.lock().unwrap().0.len() <= BUCKETS_MAX + 1);
        }
        assert!(limits.take_into(now, user(1), None).is_err(), "there is no room for another stranger");
        assert!(limits.take_into(now, user(1), Some(Known::Device(Uuid::nil()))).is_ok());
    }
}
