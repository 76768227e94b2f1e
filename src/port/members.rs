//! Who listens on a port: the kernel's own list (sock_diag(7)), asked without privilege and, because only sockets in
//! state LISTEN are asked for, in about a millisecond however many connections there are.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) addr: SocketAddr,
    /// Tells which of our own sockets it is (fstat(2)), or whose in /proc/PID/fd.
    pub(crate) inode: u64,
    pub(crate) uid: u32,
}

/// The sockets that listen on exactly this address: the members of its SO_REUSEPORT group.
pub(crate) fn of(addr: SocketAddr) -> io::Result<Vec<Member>> {
    let family = if addr.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut members = dump(family, addr.port())?;
    members.retain(|m| m.addr.ip() == addr.ip());
    Ok(members)
}

/// The sockets that a bind to this address meets: also those on a wildcard, or on any address if this is one.
pub(crate) fn overlapping(addr: SocketAddr) -> io::Result<Vec<Member>> {
    let mut members = dump(AF_INET, addr.port())?;
    members.extend(dump(AF_INET6, addr.port())?);
    let any = |ip: IpAddr| ip.is_unspecified();
    members.retain(|m| m.addr.ip() == addr.ip() || any(m.addr.ip()) || any(addr.ip()));
    Ok(members)
}

/// " by NAME (pid P, uid U)" for each, as far as this user may know.
pub(crate) fn describe(members: &[Member]) -> String {
    let one = |m: &Member| match owner(m.inode) {
        Some((pid, name)) => format!("{name} (pid {pid}, uid {})", m.uid),
        None => format!("a process of uid {}", m.uid),
    };
    match members {
        [] => String::new(),
        _ => format!(", by {}", members.iter().map(one).collect::<Vec<_>>().join(" and ")),
    }
}

/// [`describe`], and what to do about a port that is in use.
pub(crate) fn advise(members: &[Member], predecessor: Option<u32>) -> String {
    let who = describe(members);
    let owners: Vec<_> = members.iter().map(|m| (m, owner(m.inode).map(|(pid, _)| pid))).collect();
    match &owners[..] {
        [(member, Some(pid)), ..] if Some(*pid) == predecessor => format!(
            "{who}, which is the predecessor and spells the address {}: spell it the same way, or stop it first",
            member.addr
        ),
        [(_, Some(pid)), ..] => format!(
            "{who}; if that is this server, `kill -HUP {pid}` restarts it, else stop it or choose another address"
        ),
        _ => format!("{who}; stop whoever holds it or choose another address"),
    }
}

/// The process that has the socket open, as far as this user may know.
pub(crate) fn pid(inode: u64) -> Option<u32> {
    owner(inode).map(|(pid, _)| pid)
}

/// The process that has the socket open, and its name.
fn owner(inode: u64) -> Option<(u32, String)> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| has_open(pid, inode)).find_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, name.trim().to_owned()))
    })
}

fn has_open(pid: u32, inode: u64) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    // Not by stat(2), which waits for the file system if it is a file that lies on one that hangs.
    let link = format!("socket:[{inode}]");
    fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*link))
}

fn dump(family: u8, port: u16) -> io::Result<Vec<Member>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    sendto(netlink.as_raw_fd(), &request(family, port), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut members = Vec::new();
    // The kernel has the answer ready when `sendto` returns, so nothing here waits.
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        // The kernel filters by port only where it listens; the family is given back for each socket.
        if parse(&buffer[..length], port, &mut members)? {
            return Ok(members);
        }
    }
}

fn request(family: u8, port: u16) -> Vec<u8> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.source_port = port;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Adds the sockets of one datagram to `members` and says whether it was the last.
fn parse(mut bytes: &[u8], port: u16, members: &mut Vec<Member>) -> io::Result<bool> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag answered {e}"));
    while !bytes.is_empty() {
        let message =
            NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(|e| invalid(e.to_string()))?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(e) => return Err(e.to_io()),
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                let header = found.header;
                let id = header.socket_id;
                if id.source_port == port {
                    let addr = SocketAddr::new(id.source_address, port);
                    members.push(Member { addr, inode: u64::from(header.inode), uid: header.uid });
                }
            }
            _ => {}
        }
        // Messages are aligned to four bytes (netlink(7)); a length of 0 would never end.
        let length = (message.header.length as usize).next_multiple_of(4);
        if length == 0 {
            return Err(invalid("a message of length 0".into()));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
