//! How many sockets there may be: counted before the upgrade, when turning one away is still cheap.

use crate::proxies::network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Seats {
    /// Of this node.
    pub node: usize,
    /// Of one address; of IPv6, of one /64, which is what one customer of a provider has.
    pub address: usize,
}

/// Who sits.
#[derive(Debug)]
pub struct Admission {
    seats: Seats,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    node: usize,
    addresses: HashMap<IpAddr, usize>,
}

/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSeat {
    /// The node is full.
    Node,
    /// This address has its share.
    Address,
}

/// One connection's seat, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Nobody sits.
    pub fn new(seats: Seats) -> Arc<Self> {
        Arc::new(Self { seats, taken: Mutex::default() })
    }

    /// Takes a seat.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Seat, NoSeat> {
        let address = network(address);
        let mut taken = self.lock();
        if taken.node >= self.seats.node {
            return Err(NoSeat::Node);
        }
        let of_address = taken.addresses.get(&address).copied().unwrap_or(0);
        if of_address >= self.seats.address {
            return Err(NoSeat::Address);
        }
        taken.node += 1;
        taken.addresses.insert(address, of_address + 1);
        Ok(Seat { admission: Arc::clone(self), address })
    }

    /// How many sit.
    pub fn taken(&self) -> usize {
        self.lock().node
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.admission.lock();
        taken.node -= 1;
        if let Some(count) = taken.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn seats_are_given_back() {
        let admission = Admission::new(Seats { node: 3, address: 2 });
        let first = admission.admit(ip("10.0.0.1")).unwrap();
        let _second = admission.admit(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(admission.admit(ip("10.0.0.1")).unwrap_err(), NoSeat::Address);
        let _third = admission.admit(ip("10.0.0.2")).unwrap();
        assert_eq!(admission.admit(ip("10.0.0.3")).unwrap_err(), NoSeat::Node);
        drop(first);
        assert_eq!(admission.taken(), 2);
        assert!(admission.admit(ip("10.0.0.1")).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_customer_count_as_one() {
        let admission = Admission::new(Seats { node: 9, address: 1 });
        let _seat = admission.admit(ip("2001:db8:1:2::1")).unwrap();
        assert_eq!(admission.admit(ip("2001:db8:1:2:ffff::1")).unwrap_err(), NoSeat::Address);
        assert!(admission.admit(ip("2001:db8:1:3::1")).is_ok());
    }
}
