//! How many sockets there may be: counted before the upgrade, when turning one away is still cheap.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
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

/// Addresses that one may have at will count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Proxies whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<Network>);

/// An address, or a network as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

/// What is neither an address nor a network.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct NoNetwork(String);

impl TrustedProxies {
    /// Reads addresses and networks.
    pub fn parse(networks: &[String]) -> Result<Self, NoNetwork> {
        networks.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Who is at the other end of `peer`: `peer` itself, or, where it is a proxy of ours, the last address in
    /// `X-Forwarded-For` that is none. What stands further left, the client may have written itself.
    pub fn client<'a>(&self, peer: IpAddr, forwarded_for: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer;
        for hop in forwarded_for.rev() {
            if !self.contain(client) {
                break;
            }
            let Ok(address) = hop.trim().parse() else {
                break; // an obfuscated or broken hop: the proxy before it is all we know
            };
            client = address;
        }
        client
    }

    fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address.to_canonical()))
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - self.prefix;
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - self.prefix;
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let no = || NoNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.trim().parse().map_err(|_| no())?;
        let prefix_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(prefix_max), |prefix| prefix.trim().parse().map_err(|_| no()))?;
        if prefix > prefix_max {
            return Err(no());
        }
        Ok(Self { address, prefix })
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

    #[test]
    fn only_a_proxy_of_ours_speaks_for_somebody_else() {
        let proxies = TrustedProxies::parse(&["10.0.0.0/8".into(), "2001:db8::5".into()]).unwrap();
        let client = |peer: &str, hops: &str| proxies.client(ip(peer), hops.split(','));
        assert_eq!(client("203.0.113.1", "198.51.100.7"), ip("203.0.113.1"), "a stranger's word counts nothing");
        assert_eq!(client("10.1.2.3", "198.51.100.7"), ip("198.51.100.7"));
        assert_eq!(
            client("10.1.2.3", "1.1.1.1, 198.51.100.7, 10.9.9.9"),
            ip("198.51.100.7"),
            "the rest is the client's"
        );
        assert_eq!(client("2001:db8::5", "unknown"), ip("2001:db8::5"));
        assert_eq!(client("10.1.2.3", ""), ip("10.1.2.3"));
    }

    #[test]
    fn a_network_that_is_none_is_refused() {
        for bad in ["10.0.0.0/33", "::/129", "proxy", "10.0.0.0/", "/8", ""] {
            assert!(TrustedProxies::parse(&[bad.into()]).is_err(), "{bad}");
        }
        let all = TrustedProxies::parse(&["0.0.0.0/0".into()]).unwrap();
        assert_eq!(all.client(ip("9.9.9.9"), ["1.1.1.1"].into_iter()), ip("1.1.1.1"));
    }
}
