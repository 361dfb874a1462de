//! Byte budgets that many share.

use crate::limits::Limits;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Bytes in use, against a bound. Taking never waits: full is an answer.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    /// Nothing in use.
    pub fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// Takes `bytes` if they fit. What does not fit an empty budget is taken all the same: nothing else could wait for it.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        self.grow(0, bytes)
    }

    /// Takes what a holder of `from` bytes needs to hold `to`, if that fits, or if there is no other holder.
    fn grow(&self, from: usize, to: usize) -> bool {
        let fits = |used: usize| {
            let others = used.saturating_sub(from);
            (others == 0 || others + to <= self.max).then_some(others + to)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes `bytes` whether they fit or not: for what is bounded elsewhere, and must still be counted.
    pub fn take_anyway(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one holder has taken of a budget. It is given back when the holder goes.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Nothing of this budget yet.
    pub fn of(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Holds `bytes` from now on. False: there is no room for more, and it holds what it held. Less always fits.
    #[must_use]
    pub fn set(&mut self, bytes: usize) -> bool {
        if bytes < self.bytes {
            self.budget.give_back(self.bytes - bytes);
        } else if bytes > self.bytes && !self.budget.grow(self.bytes, bytes) {
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// Splits off `bytes`, or all there is: they are given back apart from the rest.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: Arc::clone(&self.budget), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

/// Time that many share: what is done at leisure, and dear, is done by one after the other, with pauses.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// When the next may begin, if somebody has taken the time until then.
    pub fn free_at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }

    /// The next begins no sooner.
    pub fn take(&self, until: Instant) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner); // as above
        *at = (*at).max(Some(until));
    }
}

/// The budgets of a node.
#[derive(Debug)]
pub struct Budgets {
    /// Updates that wait for PostgreSQL: half of `node_waiting_bytes_max`.
    pub waiting: Arc<Budget>,
    /// Messages and request bodies that have not come whole, or wait for their document: the other half. Two halves, so that whoever sends
    /// slowly does not keep others from saving, and a database outage does not keep messages from arriving.
    pub arriving: Arc<Budget>,
    /// The same of clients whose token is not checked yet: `node_unauthenticated_bytes_max`.
    pub strangers: Arc<Budget>,
    /// Presence states: `node_awareness_bytes_max`.
    pub presence: Arc<Budget>,
    /// The time for what connections ask again and again, where that is dear.
    pub answers: Pace,
}

impl Budgets {
    /// What the limits say.
    pub fn of(limits: &Limits) -> Arc<Self> {
        let half = limits.node_waiting_bytes_max / 2;
        let budget = |max| Arc::new(Budget::new(max));
        Arc::new(Self {
            waiting: budget(limits.node_waiting_bytes_max - half),
            arriving: budget(half),
            strangers: budget(limits.node_unauthenticated_bytes_max),
            presence: budget(limits.node_awareness_bytes_max),
            answers: Pace::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_as_long_as_there_is_room_and_is_given_back() {
        let budget = Arc::new(Budget::new(100));
        let (mut one, mut other) = (Share::of(Arc::clone(&budget)), Share::of(Arc::clone(&budget)));
        assert!(one.set(60) && other.set(40));
        assert!(!one.set(61), "full");
        assert_eq!(budget.used(), 100, "who finds no room holds what it held");
        assert!(other.set(10) && one.set(90));
        let part = one.split(50);
        drop(one);
        assert_eq!(budget.used(), 60);
        drop(part);
        assert!(other.set(1_000), "one is held however large");
        assert!(!Share::of(Arc::clone(&budget)).set(1));
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
