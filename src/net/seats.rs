//! How many HTTP connections there may be.

use crate::proxies::network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Seats {
    /// Of this node. Who comes beyond it waits in the kernel.
    pub node: usize,
    /// Of one address; of IPv6, of one /64. Who comes beyond it is refused.
    pub address: usize,
}

/// Who has one.
#[derive(Debug)]
pub(super) struct Taken {
    address_max: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Arc<Taken>,
    address: IpAddr,
}

impl Taken {
    pub(super) fn new(seats: Seats) -> Arc<Self> {
        Arc::new(Self { address_max: seats.address, addresses: Mutex::default() })
    }

    /// `None`: this address has its share.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = network(address);
        let mut addresses = self.lock();
        let count = addresses.entry(address).or_default();
        if *count >= self.address_max {
            return None;
        }
        *count += 1;
        drop(addresses);
        metrics::gauge!("contextnexus_http_connections").increment(1.0);
        Some(Seat { taken: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::gauge!("contextnexus_http_connections").decrement(1.0);
        let mut addresses = self.taken.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let taken = Taken::new(Seats { node: 9, address: 2 });
        let ip = |text: &str| text.parse().unwrap();
        let first = taken.take(ip("10.0.0.1")).unwrap();
        let _second = taken.take(ip("10.0.0.1")).unwrap();
        assert!(taken.take(ip("10.0.0.1")).is_none());
        assert!(taken.take(ip("10.0.0.2")).is_some());
        drop(first);
        assert!(taken.take(ip("10.0.0.1")).is_some());
    }
}
