//! Whether the server holds its end of a connection, as the kernel tells it (proc_net_tcp(5)). A client that reads nothing
//! learns it in no other way: the server's FIN waits behind what is not read.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How often it is looked. It reads every connection of the machine.
const LOOK: Duration = Duration::from_millis(200);
/// ESTABLISHED, SYN_RECV and CLOSE_WAIT: the server has neither closed it nor said that it will.
const OPEN: [&str; 3] = ["01", "03", "08"];

/// The ports of the clients whose connections the server holds, again and again.
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

    /// Returns when the server has given up the connection of the client with this port.
    pub async fn given_up(&self, port: u16) {
        let mut held = self.held.clone();
        // The look that runs now may have begun before there was a connection.
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

/// The ports of the clients that have a connection to `addr` which its server has not closed.
pub fn held_by(addr: SocketAddr) -> HashSet<u16> {
    table(addr, |port, _| Some(port))
}

/// The same of those that the server has accepted: the others belong to no process yet.
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
