//! Queries the kernel about TCP sockets with sock_diag(7) over netlink, which needs no privilege.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Calls `each` for every socket that listens on `port`; the kernel may also return sockets on other ports. This takes about a
/// millisecond for any number of connections, because only sockets in state LISTEN are requested.
pub(crate) fn listeners(is_ipv4: bool, port: u16, each: impl FnMut(InetResponse)) -> io::Result<()> {
    let mut socket_id = if is_ipv4 { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.source_port = port;
    let request = InetRequest {
        family: if is_ipv4 { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    };
    ask(request, NLM_F_DUMP, each)
}

/// The kernel's data about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The shortest round trip that was measured in the last minutes.
    pub(crate) round_trip: Duration,
    /// Time since data was last sent. If more data waits to be sent, the client has accepted none for this long.
    pub(crate) last_sent: Duration,
    /// Whether the client's FIN or RST has arrived.
    pub(crate) has_ended: bool,
}

/// Looks a connection up. Returns `None` if the kernel does not answer.
pub(crate) fn connection(local: SocketAddr, remote: SocketAddr) -> Option<Connection> {
    let request = InetRequest {
        family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: match local {
                SocketAddr::V6(v6) => v6.scope_id(),
                SocketAddr::V4(_) => 0,
            },
            // INET_DIAG_NOCOOKIE: any socket matches.
            cookie: [0xff; 8],
        },
    };
    let mut connection = None;
    let each = |found: InetResponse| {
        for nla in found.nlas {
            if let Nla::TcpInfo(info) = nla {
                connection = Some(Connection {
                    round_trip: Duration::from_micros(info.min_rtt.into()),
                    last_sent: Duration::from_millis(info.last_data_sent.into()),
                    // 1 is `TCP_ESTABLISHED`.
                    has_ended: found.header.state != 1,
                });
            }
        }
    };
    match ask(request, 0, each) {
        Ok(()) => connection,
        // A connection that the kernel does not know has been reset.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(Connection { round_trip: Duration::ZERO, last_sent: Duration::MAX, has_ended: true })
        }
        Err(_) => None,
    }
}

fn ask(request: InetRequest, flags: u16, mut each: impl FnMut(InetResponse)) -> io::Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    sendto(netlink.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    // The answer is ready when `sendto` returns, so `recv` need not wait.
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        // Only a dump ends with a separate message (NLMSG_DONE).
        if parse(&buffer[..length], &mut each)? || flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// Calls `each` for the sockets of one datagram and returns whether it was the last datagram.
pub(crate) fn parse(mut bytes: &[u8], mut each: impl FnMut(InetResponse)) -> io::Result<bool> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag answered {e}"));
    while !bytes.is_empty() {
        let message =
            NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(|e| invalid(e.to_string()))?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(e) => return Err(e.to_io()),
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => each(*found),
            _ => {}
        }
        // Messages are aligned to four bytes (netlink(7)); with a length of 0 the loop would never end.
        let length = (message.header.length as usize).next_multiple_of(4);
        if length == 0 {
            return Err(invalid("a message of length 0".into()));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_loopback_connection_has_a_short_round_trip_and_its_end_is_seen() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let near = listener.local_addr().expect("bound");
            let client = TcpStream::connect(near).expect("it listens");
            let (server, remote) = listener.accept().expect("it has connected");
            let local = server.local_addr().expect("connected");
            let found = connection(local, remote).expect("sock_diag answers");
            assert!(found.round_trip < Duration::from_millis(10), "{found:?}");
            assert!(!found.has_ended);
            client.shutdown(std::net::Shutdown::Write).expect("it is open");
            assert!(connection(local, remote).expect("sock_diag answers").has_ended);
            drop((client, server));
        }
        let unknown = SocketAddr::from(([192, 0, 2, 1], 1));
        assert!(connection(unknown, unknown).expect("sock_diag answers").has_ended);
    }
}
