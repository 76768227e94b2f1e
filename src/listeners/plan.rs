//! Plans the sockets for the requested addresses before anything is bound. Addresses that the predecessor has are joined, `[::]`
//! leaves IPv4 to `0.0.0.0` if both are requested, and addresses that take each other's connections are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Kind;
use crate::generation::Address;

/// One socket that is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) asked: SocketAddr,
    /// The address on which the predecessor listens already, if this one is to be joined.
    pub(super) inherited: Option<SocketAddr>,
    /// Whether the socket leaves IPv4 connections on this port to another socket (IPV6_V6ONLY, ipv6(7)).
    pub(super) only_v6: bool,
}

/// Plans one socket per address. `dual`: `[::]` takes IPv4 connections too unless IPV6_V6ONLY is set.
///
/// All sockets of an SO_REUSEPORT group have the same IPV6_V6ONLY, so it cannot change while both generations listen. If the
/// predecessor has other wildcard addresses for the same port, the successor uses the predecessor's, which cover the same
/// connections.
pub(super) fn plan(asked: &[SocketAddr], inherited: &[Address], dual: bool) -> Vec<Planned> {
    let asked = if dual { spelled_alike(asked, inherited) } else { asked.to_vec() };
    let only_v6 = |addr: &SocketAddr| asked.contains(&ipv4(addr.port()));
    assign(&asked, inherited)
        .into_iter()
        .map(|(asked, inherited)| Planned {
            asked,
            inherited,
            only_v6: is_ipv6_wildcard(&asked) && only_v6(&asked),
        })
        .collect()
}

/// Returns an error if one of the addresses takes the connections of another.
pub(super) fn conflict(asked: &[SocketAddr], dual: bool) -> Result<(), Kind> {
    for (i, a) in asked.iter().enumerate() {
        for b in &asked[..i] {
            let both_wildcards = a.ip().is_unspecified() && b.ip().is_unspecified();
            let allowed = a == b || a.port() != b.port() || a.port() == 0 || both_wildcards;
            if !allowed && (takes(a, b, dual) || takes(b, a, dual)) {
                return Err(Kind::Conflict { a: *b, b: *a });
            }
        }
    }
    Ok(())
}

/// Returns whether a socket on `a` takes the connections of one on `b`, another address with the same port.
fn takes(a: &SocketAddr, b: &SocketAddr, dual: bool) -> bool {
    let (ip, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    match (ip, other) {
        (IpAddr::V6(ip), IpAddr::V6(other)) if ip == other => !ip.is_unicast_link_local(),
        _ if ip == other => true,
        (IpAddr::V4(ip), IpAddr::V4(_)) => ip.is_unspecified(),
        (IpAddr::V6(ip), IpAddr::V6(_)) => ip.is_unspecified(),
        (IpAddr::V6(ip), IpAddr::V4(_)) => ip.is_unspecified() && (dual || b.is_ipv6()),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

/// Returns whether a new IPv6 socket takes IPv4 connections too (net.ipv6.bindv6only). Without IPv6 the result does not matter.
pub(super) fn is_dual() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))
        .and_then(|socket| socket.only_v6())
        .is_ok_and(|only| !only)
}

/// Adapts the wildcard addresses to those of the predecessor, see [`plan`].
fn spelled_alike(asked: &[SocketAddr], inherited: &[Address]) -> Vec<SocketAddr> {
    let has = |addr: SocketAddr| inherited.iter().any(|i| i.actual == addr);
    let mut alike = Vec::with_capacity(asked.len() + 1);
    for addr in asked {
        let (v4, v6) = (ipv4(addr.port()), ipv6(addr.port()));
        // The predecessor's `[::]` takes IPv4 too, so the joined one must as well.
        let is_covered = *addr == v4 && asked.contains(&v6) && has(v6) && !has(v4);
        if !is_covered {
            alike.push(*addr);
        }
        // The predecessor's `[::]` leaves IPv4 to another socket, which must be joined as well.
        if *addr == v6 && has(v4) && !asked.contains(&v4) {
            alike.push(v4);
        }
    }
    alike
}

fn is_ipv6_wildcard(addr: &SocketAddr) -> bool {
    addr.ip() == Ipv6Addr::UNSPECIFIED
}

fn ipv4(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

fn ipv6(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
}

/// Pairs each requested address with the predecessor's actual address, if it has one. Explicit ports are matched first, so that
/// `:0` cannot take a port that is requested by its number.
fn assign(asked: &[SocketAddr], inherited: &[Address]) -> Vec<(SocketAddr, Option<SocketAddr>)> {
    let mut free = inherited.to_vec();
    let mut found = vec![None; asked.len()];
    for explicit in [true, false] {
        for (&asked, found) in asked.iter().zip(&mut found) {
            if (asked.port() != 0) == explicit {
                let fits = |i: &Address| if explicit { i.actual == asked } else { i.asked == asked };
                *found = free.iter().position(fits).map(|i| free.remove(i).actual);
            }
        }
    }
    asked.iter().copied().zip(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("literal")
    }

    fn kept(asked: &str, actual: &str) -> Address {
        Address { asked: addr(asked), actual: addr(actual) }
    }

    #[test]
    fn port_zero_keeps_its_port_and_an_explicit_port_is_not_mistaken_for_it() {
        let inherited = [
            kept("127.0.0.1:8080", "127.0.0.1:8080"),
            kept("127.0.0.1:0", "127.0.0.1:4001"),
            kept("[::1]:0", "[::1]:4002"),
        ];
        let asked = [addr("127.0.0.1:0"), addr("[::1]:0"), addr("127.0.0.1:9000")];
        let got: Vec<_> = assign(&asked, &inherited).into_iter().map(|(_, actual)| actual).collect();
        assert_eq!(got, [Some(addr("127.0.0.1:4001")), Some(addr("[::1]:4002")), None]);
    }

    #[test]
    fn two_zero_ports_stay_two_and_a_picked_port_may_be_named() {
        let inherited = [kept("127.0.0.1:0", "127.0.0.1:4001"), kept("127.0.0.1:0", "127.0.0.1:4002")];
        let got = assign(&[addr("127.0.0.1:0"), addr("127.0.0.1:4001")], &inherited);
        let got: Vec<_> = got.into_iter().map(|(_, actual)| actual).collect();
        assert_eq!(got, [Some(addr("127.0.0.1:4002")), Some(addr("127.0.0.1:4001"))]);
    }

    #[test]
    fn wildcards_follow_those_of_the_predecessor() {
        let (v4, v6) = ("0.0.0.0:80", "[::]:80");
        // The requested addresses, the predecessor's, and the planned sockets: address, joined, IPv6 only.
        type Row = (&'static [&'static str], &'static [&'static str], &'static [(&'static str, bool, bool)]);
        let table: [Row; 9] = [
            (&["0.0.0.0:80", "[::]:80"], &[], &[("0.0.0.0:80", false, false), ("[::]:80", false, true)]),
            (
                &["[::]:80", "0.0.0.0:80"],
                &["0.0.0.0:80", "[::]:80"],
                &[("[::]:80", true, true), ("0.0.0.0:80", true, false)],
            ),
            (
                &["0.0.0.0:80", "[::]:80"],
                &["0.0.0.0:80"],
                &[("0.0.0.0:80", true, false), ("[::]:80", false, true)],
            ),
            (&["0.0.0.0:80", "[::]:80"], &["[::]:80"], &[("[::]:80", true, false)]),
            (
                &["[::]:80"],
                &["0.0.0.0:80", "[::]:80"],
                &[("[::]:80", true, true), ("0.0.0.0:80", true, false)],
            ),
            (&["[::]:80"], &["0.0.0.0:80"], &[("[::]:80", false, true), ("0.0.0.0:80", true, false)]),
            (&["[::]:80"], &["[::]:80"], &[("[::]:80", true, false)]),
            (&["0.0.0.0:80"], &["0.0.0.0:80", "[::]:80"], &[("0.0.0.0:80", true, false)]),
            (&["0.0.0.0:80"], &["[::]:80"], &[("0.0.0.0:80", false, false)]),
        ];
        for (asked, inherited, expected) in table {
            let asked: Vec<_> = asked.iter().map(|a| addr(a)).collect();
            let inherited: Vec<_> = inherited.iter().map(|a| kept(a, a)).collect();
            let planned = plan(&asked, &inherited, true);
            let planned: Vec<_> =
                planned.iter().map(|p| (p.asked.to_string(), p.inherited.is_some(), p.only_v6)).collect();
            let expected: Vec<_> = expected.iter().map(|(a, i, o)| ((*a).to_owned(), *i, *o)).collect();
            assert_eq!(planned, expected, "{asked:?} after {inherited:?}");
        }
        // If `[::]` does not take IPv4 by default, the addresses are not adapted.
        let inherited = [kept(v4, v4), kept(v6, v6)];
        assert_eq!(plan(&[addr(v6)], &inherited, false).len(), 1);
    }

    #[test]
    fn addresses_that_take_each_others_connections_are_found_before_anything_is_bound() {
        let conflicts = |a: &str, b: &str, dual| {
            let found = conflict(&[addr(a), addr("127.0.0.9:1"), addr(b)], dual).is_err();
            assert_eq!(found, conflict(&[addr(b), addr(a)], dual).is_err(), "{a} {b}");
            found
        };
        for (a, b) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("[::ffff:127.0.0.1]:80", "0.0.0.0:80"),
            ("[2001:db8::1%2]:80", "[2001:db8::1]:80"),
        ] {
            assert!(conflicts(a, b, true), "{a} {b}");
        }
        for (a, b) in [
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("0.0.0.0:80", "[::]:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("0.0.0.0:80", "127.0.0.1:81"),
            ("0.0.0.0:0", "127.0.0.1:0"),
            ("[fe80::1%2]:80", "[fe80::1%3]:80"),
            ("127.0.0.1:80", "127.0.0.2:80"),
        ] {
            assert!(!conflicts(a, b, true), "{a} {b}");
        }
        assert!(!conflicts("[::]:80", "127.0.0.1:80", false));
    }
}
