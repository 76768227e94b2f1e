//! The address that a competitor listens on, and a check whether it answers there.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::process::PATIENCE;

/// Finds a free port below the range of ephemeral ports. In that range, a client that is given the server's port before the
/// server listens would connect to itself (RFC 9293, simultaneous open) and keep the server from binding it.
pub fn free_port(ip: Ipv4Addr) -> Result<SocketAddr, String> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32768);
    let ports = 1024..lowest.max(2048);
    let picked = (0..1000).map(|_| SocketAddr::new(IpAddr::V4(ip), fastrand::u16(ports.clone())));
    picked.into_iter().find(|a| TcpListener::bind(a).is_ok()).ok_or_else(|| format!("no free port on {ip}"))
}

/// Returns whether a server listens on `address` and, on loopback, also answers. Any other address is one of a test network,
/// where only the client's end could send a request.
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

/// Sends the preface and empty SETTINGS, which the server answers with its own SETTINGS (RFC 9113, sections 3.4 and 4.1).
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

/// Returns whether a socket listens on `address`. In proc_net(5) addresses are numbers in this machine's byte order, and 0A is
/// TCP_LISTEN.
fn listens(address: SocketAddr) -> bool {
    let IpAddr::V4(ip) = address.ip() else { return false };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(wanted.as_str()) && fields.nth(1) == Some("0A")
    })
}
