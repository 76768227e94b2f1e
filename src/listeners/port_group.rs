//! The sockets that listen on a port, as the kernel lists them, and their owners.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_sock_diag::inet::InetResponse;

use crate::report::PortMember;
use crate::sock_diag;

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) addr: SocketAddr,
    /// Identifies the socket: our own by fstat(2), those of other processes in /proc/PID/fd.
    pub(crate) inode: u64,
    pub(crate) uid: u32,
}

/// The sockets that listen on exactly this address: the members of its SO_REUSEPORT group.
pub(crate) fn of(addr: SocketAddr) -> io::Result<Vec<Member>> {
    let mut members = dump(addr.is_ipv4(), addr.port())?;
    members.retain(|m| is_same(m.addr, addr));
    Ok(members)
}

/// The sockets that a bind to this address conflicts with. A wildcard address conflicts with every address on the same port.
pub(crate) fn overlapping(addr: SocketAddr) -> io::Result<Vec<Member>> {
    let mut members = dump(true, addr.port())?;
    members.extend(dump(false, addr.port())?);
    let any = |ip: IpAddr| ip.is_unspecified();
    members.retain(|m| is_same(m.addr, addr) || any(m.addr.ip()) || any(addr.ip()));
    Ok(members)
}

/// Returns whether two addresses are the same apart from the port. A link-local address is a different one on each interface;
/// for other addresses the scope has no meaning.
fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |addr: SocketAddr| match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        _ => 0,
    };
    a.ip() == b.ip() && scope(a) == scope(b)
}

/// Every socket that listens on one of these addresses, with its owner. Finding the owners reads /proc for every process.
pub(crate) fn listeners(addresses: &[SocketAddr]) -> Vec<PortMember> {
    let members = |address: &SocketAddr| of(*address).unwrap_or_default();
    let whose = |m: Member| PortMember { address: m.addr, pid: pid(m.inode), uid: m.uid };
    addresses.iter().flat_map(members).map(whose).collect()
}

/// Formats the owners of the sockets as ", by NAME (pid P, uid U) and ...", with only the uid of a process that this user may not
/// see.
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

/// Formats the owners like [`describe`] and adds what to do about a port that is in use.
pub(crate) fn advise(members: &[Member], predecessor: Option<u32>) -> String {
    let who = describe(members);
    let owners: Vec<_> = members.iter().map(|m| (m, owner(m.inode).map(|(pid, _)| pid))).collect();
    match &owners[..] {
        [(member, Some(pid)), ..] if Some(*pid) == predecessor => format!(
            "{who}, which is the predecessor and writes the address as {}: write it the same way, or stop it first",
            member.addr
        ),
        [(_, Some(pid)), ..] => format!(
            "{who}; if that is this server, `kill -HUP {pid}` restarts it, else stop it or choose another address"
        ),
        _ => format!("{who}; stop the process that holds it or choose another address"),
    }
}

/// The pid of the process that has the socket open, if this user may see it.
pub(crate) fn pid(inode: u64) -> Option<u32> {
    owner(inode).map(|(pid, _)| pid)
}

/// The pid and the name of the process that has the socket open, if this user may see it.
pub(super) fn owner(inode: u64) -> Option<(u32, String)> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| has_open(pid, inode)).find_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, name.trim().to_owned()))
    })
}

fn has_open(pid: u32, inode: u64) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    // Not with stat(2), which blocks on a descriptor of a file whose file system hangs.
    let link = format!("socket:[{inode}]");
    fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*link))
}

fn dump(is_ipv4: bool, port: u16) -> io::Result<Vec<Member>> {
    let mut members = Vec::new();
    sock_diag::listeners(is_ipv4, port, |found| members.extend(member(&found, port)))?;
    Ok(members)
}

/// Converts an answer of the kernel to a member, unless it is about another port.
fn member(found: &InetResponse, port: u16) -> Option<Member> {
    let header = &found.header;
    let mut addr = SocketAddr::new(header.socket_id.source_address, header.socket_id.source_port);
    // A socket on a link-local address is bound to an interface, which is the scope (ipv6(7)).
    if let SocketAddr::V6(v6) = &mut addr
        && v6.ip().is_unicast_link_local()
    {
        v6.set_scope_id(header.socket_id.interface_id);
    }
    (addr.port() == port).then(|| Member { addr, inode: u64::from(header.inode), uid: header.uid })
}

#[cfg(test)]
mod tests;
