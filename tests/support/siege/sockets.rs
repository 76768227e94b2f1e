//! The server's end of each connection, from the kernel (proc_net_tcp(5)). A client that reads nothing has no other way to
//! learn that the server has closed: the FIN waits behind the unread bytes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The time between two looks, each of which reads every connection of the machine.
const LOOK: Duration = Duration::from_millis(200);
/// ESTABLISHED, SYN_RECV and CLOSE_WAIT: the states in which the server has not closed its end.
const OPEN: [&str; 3] = ["01", "03", "08"];

/// The client ports of all connections that the server holds, updated periodically.
#[derive(Debug)]
pub struct Sockets {
    held: watch::Receiver<HashSet<u16>>,
    look: JoinHandle<()>,
}

impl Sockets {
    pub fn watch(addr: SocketAddr) -> Sockets {
        let (sender, held) = watch::channel(HashSet::new());
        let look = tokio::spawn(async move {
            loop {
                let Ok(now) = tokio::task::spawn_blocking(move || held_by(addr)).await else { return };
                sender.send_replace(now);
                sleep(LOOK).await;
            }
        });
        Sockets { held, look }
    }

    /// Completes when the server has closed the connection of the client with this port.
    pub async fn given_up(&self, port: u16) {
        let mut held = self.held.clone();
        // The look in progress may have begun before the connection existed, so the second one counts.
        for _ in 0..2 {
            held.mark_unchanged();
            let _ = held.changed().await;
        }
        let _ = held.wait_for(|held| !held.contains(&port)).await;
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.look.abort();
    }
}

/// The client ports of all connections to `addr` that the server has not closed.
pub fn held_by(addr: SocketAddr) -> HashSet<u16> {
    table(addr, |port, _| Some(port))
}

/// The client ports of all connections to `addr` that the server has accepted and not closed. A connection in the backlog
/// belongs to no process, and has the inode 0.
pub fn accepted_by(addr: SocketAddr) -> HashSet<u16> {
    table(addr, |port, inode| (inode != "0").then_some(port))
}

fn table(addr: SocketAddr, pick: impl Fn(u16, &str) -> Option<u16>) -> HashSet<u16> {
    let SocketAddr::V4(v4) = addr else { panic!("a siege is on 127.0.0.1") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let client = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (from, to, state) = (fields.next()?, fields.next()?, fields.next()?);
        let inode = fields.nth(5)?;
        let port = u16::from_str_radix(to.rsplit_once(':')?.1, 16).ok()?;
        if from == local && OPEN.contains(&state) { pick(port, inode) } else { None }
    };
    table.lines().filter_map(client).collect()
}
