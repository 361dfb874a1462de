//! Who a request comes from, where proxies stand between: the one definition, for sockets and for HTTP.

use actix_web::HttpRequest;
use actix_web::http::header;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Proxies whose `X-Forwarded-For` is believed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct TrustedProxies(Vec<Network>);

/// An address, or a network as `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

/// How a connection came, among actix's data of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transport {
    /// By TLS that ends here.
    pub is_encrypted: bool,
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

    /// Who sent this request, as far as we can know.
    pub fn client_of(&self, request: &HttpRequest) -> IpAddr {
        let peer = peer_of(request);
        let hops: Vec<&str> = request
            .headers()
            .get_all(header::X_FORWARDED_FOR)
            .filter_map(|value| value.to_str().ok())
            .flat_map(|hops| hops.split(','))
            .collect();
        self.client(peer, hops.into_iter())
    }

    /// `http://host:port`, as the client of this request reaches the server: what a proxy of ours says about it, else what came here.
    pub fn base_of(&self, request: &HttpRequest) -> String {
        let own = if request.conn_data::<Transport>().is_some_and(|transport| transport.is_encrypted) {
            "https"
        } else {
            "http"
        };
        if self.contain(peer_of(request)) {
            let info = request.connection_info();
            let is_told = request.headers().contains_key("x-forwarded-proto")
                || request.headers().contains_key(header::FORWARDED);
            return format!("{}://{}", if is_told { info.scheme() } else { own }, info.host());
        }
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        format!("{own}://{}", host.unwrap_or(request.app_config().host()))
    }

    /// Who is at the other end of `peer`: `peer` itself, or, where it is a proxy of ours, the last address in
    /// `X-Forwarded-For` that is none. What stands further left, the client may have written itself.
    fn client<'a>(&self, peer: IpAddr, forwarded_for: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
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

fn peer_of(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

impl TryFrom<Vec<String>> for TrustedProxies {
    type Error = NoNetwork;

    fn try_from(networks: Vec<String>) -> Result<Self, NoNetwork> {
        Self::parse(&networks)
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

/// What to count an address as: addresses that one may have at will are one. Of IPv6 that is a /64, which one customer of a provider has.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
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
