//! Where webhooks may go: to the public internet, and to networks that are named. Judged by address, after the name was
//! resolved and for the very connection that is made, so a name that means something else a moment later leads nowhere.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;

/// Addresses of one name that are tried.
const MOST: usize = 8;

/// The addresses of a server that may be connected to.
///
/// # Errors
/// When the name does not resolve, or only to what is not public.
pub(crate) async fn resolve(host: &str, port: u16, allow: &[IpNet]) -> Result<Vec<SocketAddr>, Refused> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(Refused::Name)?.collect();
    choose(found, allow)
}

fn choose(found: Vec<SocketAddr>, allow: &[IpNet]) -> Result<Vec<SocketAddr>, Refused> {
    let nobody = found.is_empty();
    let chosen: Vec<_> = found.into_iter().filter(|it| may(it.ip(), allow)).take(MOST).collect();
    match chosen.is_empty() {
        true if nobody => Err(Refused::Name(io::Error::other("the name has no address"))),
        true => Err(Refused::Private),
        false => Ok(chosen),
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the name does not resolve: {0}")]
    Name(io::Error),
    /// Without the address: it says something of a network that is nobody else's business.
    #[error("the address is not public, and not in actions.allow")]
    Private,
}

fn may(address: IpAddr, allow: &[IpNet]) -> bool {
    let plain = address.to_canonical();
    allow.iter().any(|network| network.contains(&plain)) || is_public(plain)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Carriers' networks, protocol assignments, relays of 6to4, benchmarks.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(w, x, y, z)
    };
    match (a, b) {
        // Translation of addresses: public where what it stands for is.
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => is_public_v4(embedded(g, h)),
        (0x2002, _) => is_public_v4(embedded(b, c)),
        // Teredo and other protocol assignments, documentation.
        (0x2001, b) if b < 0x200 || b == 0xdb8 => false,
        (0x3fff, b) if b < 0x1000 => false,
        // What is given out to the public; loopback, local, link-local and multicast addresses are outside.
        (a, _) => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "127.0.0.1",
            "127.255.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!may(address.parse().unwrap(), &[]), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.9.9.9",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(may(address.parse().unwrap(), &[]), "{address}");
        }
    }

    #[test]
    fn networks_that_are_named_are_allowed_however_they_are_written() {
        let allow: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap(), "fd12::/32".parse().unwrap()];
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::9", true),
            ("fd13::9", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(may(address.parse().unwrap(), &allow), allowed, "{address}");
        }
    }

    #[test]
    fn of_a_name_with_both_only_the_public_is_connected_to() {
        let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 443);
        let chosen = choose(vec![at("127.0.0.1"), at("1.1.1.1"), at("::1")], &[]).unwrap();
        assert_eq!(chosen, [at("1.1.1.1")]);
        assert!(matches!(choose(vec![at("127.0.0.1")], &[]), Err(Refused::Private)));
        assert!(matches!(choose(Vec::new(), &[]), Err(Refused::Name(_))));
        assert_eq!(choose(vec![at("1.1.1.1"); 20], &[]).unwrap().len(), MOST);
    }

    #[tokio::test]
    async fn a_name_and_every_way_to_write_an_address_are_judged_alike() {
        for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(matches!(resolve(host, 80, &[]).await, Err(Refused::Private)), "{host}");
        }
        let allow = ["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        assert!(resolve("127.0.0.1", 80, &allow).await.is_ok());
    }
}
