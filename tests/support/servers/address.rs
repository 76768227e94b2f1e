//! Where a competitor listens, and whether it answers there.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::process::PATIENCE;

/// Below the ports that clients get: while nobody listens there, a client with this port would connect to itself
/// (RFC 9293, simultaneous open) and keep the server out.
pub fn free_port(ip: Ipv4Addr) -> Result<SocketAddr, String> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32768);
    let ports = 1024..lowest.max(2048);
    let picked = (0..1000).map(|_| SocketAddr::new(IpAddr::V4(ip), fastrand::u16(ports.clone())));
    picked.into_iter().find(|a| TcpListener::bind(a).is_ok()).ok_or_else(|| format!("no free port on {ip}"))
}

/// In a network of its own the loopback device is down, and only the other end could ask.
pub fn serves(address: SocketAddr, http2: bool) -> bool {
    let answers = if http2 { answers_http2 } else { answers_http1 };
    listens(address) && (!address.ip().is_loopback() || answers(address).unwrap_or(false))
}

fn answers_http1(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

/// The preface and empty settings, which the server answers with its own (RFC 9113, sections 3.4 and 4.1).
fn answers_http2(address: SocketAddr) -> std::io::Result<bool> {
    const SETTINGS: u8 = 4;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])?;
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    Ok(header[3] == SETTINGS)
}

/// proc_net(5): addresses are written as numbers of this machine's byte order, and 0A is TCP_LISTEN.
fn listens(address: SocketAddr) -> bool {
    let IpAddr::V4(ip) = address.ip() else { return false };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(wanted.as_str()) && fields.nth(1) == Some("0A")
    })
}
