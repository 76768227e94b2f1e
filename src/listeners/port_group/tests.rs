//! Parsing of the kernel's answers: whole, truncated, corrupted and random ones.

use std::net::TcpListener;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};

use super::*;
use crate::sock_diag::parse;

const PORT: u16 = 8080;

/// A netlink(7) message with this payload.
fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).expect("short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[2, 0], &[0; 8], payload].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The `struct inet_diag_msg` of a listening socket, see sock_diag(7).
fn found(ip: IpAddr, port: u16, uid: u32, inode: u32) -> Vec<u8> {
    found_on(ip, port, 0, uid, inode)
}

fn found_on(ip: IpAddr, port: u16, interface: u32, uid: u32, inode: u32) -> Vec<u8> {
    let (family, mut source) = match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    source.resize(16, 0);
    let port = port.to_be_bytes();
    let payload = [
        &[family, 10, 0, 0][..],
        &port,
        &[0, 0],
        &source,
        &[0; 16],
        &interface.to_ne_bytes(),
        &[0; 8],
        &[0; 12],
    ]
    .concat();
    message(20, &[payload, uid.to_ne_bytes().to_vec(), inode.to_ne_bytes().to_vec()].concat())
}

fn done() -> Vec<u8> {
    message(3, &[0; 4])
}

/// A dump of `count` sockets, every second one on [`PORT`], and the members that it contains.
fn dump_of(count: u16) -> (Vec<u8>, Vec<Member>) {
    let (mut bytes, mut members) = (Vec::new(), Vec::new());
    for n in 0..count {
        let ip = if n % 3 == 0 { IpAddr::from([0; 16]) } else { IpAddr::from([127, 0, 0, 1]) };
        let (port, uid, inode) = (PORT + n % 2, u32::from(n), 1000 + u32::from(n));
        bytes.extend(found(ip, port, uid, inode));
        if port == PORT {
            members.push(Member { addr: SocketAddr::new(ip, port), inode: inode.into(), uid });
        }
    }
    (bytes, members)
}

fn read(bytes: &[u8]) -> (Option<bool>, Vec<Member>) {
    let mut members = Vec::new();
    let last = parse(bytes, |found| members.extend(member(&found, PORT)));
    (last.ok(), members)
}

#[test]
fn members_are_read_from_whole_answers() {
    for count in 0..20 {
        let (bytes, members) = dump_of(count);
        assert_eq!(read(&bytes), (Some(false), members.clone()));
        assert_eq!(read(&[bytes, done()].concat()), (Some(true), members));
    }
    // A real socket of this process.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let members = of(addr).expect("sock_diag answers");
    assert!(matches!(members[..], [member] if member.addr == addr && member.inode > 0), "{members:?}");
}

/// Asserts that the bytes can contain this many members: the port occurs often enough, and there is room for them.
fn believe(bytes: &[u8]) {
    let (_, members) = read(bytes);
    let named = bytes.windows(2).filter(|two| **two == PORT.to_be_bytes()).count();
    assert!(members.len() <= named.min(bytes.len() / 88), "{members:?} in {bytes:?}");
}

#[test]
fn a_truncated_answer_gives_only_the_complete_members() {
    let (mut bytes, members) = dump_of(12);
    bytes.extend(done());
    for length in 0..bytes.len() {
        let (last, part) = read(&bytes[..length]);
        assert!(members.starts_with(&part), "{length} bytes gave {part:?}");
        assert_ne!(last, Some(true), "{length} bytes are not the whole answer");
    }
}

#[test]
fn parsing_garbage_ends_and_invents_no_member() {
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
        believe(&bytes);
        // With a valid header, so that the parser reads on after the length.
        let kind =
            if random.bool() { random.u16(..) } else { random.choice([2, 3, 4, 20]).expect("not empty") };
        believe(&message(kind, &bytes));
        believe(&[message(kind, &bytes), done()].concat());
    }
}

#[test]
fn parsing_a_corrupted_answer_ends_and_invents_no_member() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let (mut bytes, _) = dump_of(random.u16(1..6));
        bytes.extend(done());
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        believe(&bytes);
    }
}

#[test]
fn a_link_local_address_is_a_different_one_on_each_interface() {
    let addr = |text: &str| -> SocketAddr { text.parse().expect("literal") };
    let bytes = found_on(IpAddr::V6("fe80::1".parse().expect("literal")), PORT, 3, 0, 1);
    let (_, members) = read(&[bytes, done()].concat());
    assert_eq!(members[0].addr, addr(&format!("[fe80::1%3]:{PORT}")));
    assert!(is_same(members[0].addr, addr("[fe80::1%3]:80")));
    assert!(!is_same(members[0].addr, addr("[fe80::1%2]:80")));
    // A socket that is bound to a device, as every socket in a VRF is.
    let bytes = found_on(IpAddr::from([127, 0, 0, 1]), PORT, 3, 0, 1);
    assert!(is_same(read(&bytes).1[0].addr, addr("127.0.0.1:80")));
}
