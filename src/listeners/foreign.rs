//! Watches for foreign listeners while this generation serves. A program of the same user may join a port at any time, and take
//! every connection with its own steering program. A foreign listener is logged; the server does not act against it.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::port_group;

/// The interval between checks. A check takes a millisecond for each address.
const EVERY: Duration = Duration::from_secs(2);

/// One of our listeners: its address and its inode.
type Ours = (SocketAddr, u64);

/// The other sockets seen in the last check, by inode. `None`: not known to be foreign, probably a generation of this server.
type Seen = HashMap<u64, Option<Foreign>>;

#[derive(Debug, Clone)]
struct Foreign {
    address: SocketAddr,
    pid: u32,
}

/// Checks at intervals until the listeners are closed. A check in progress does not delay that.
pub(super) async fn run(ours: Vec<Ours>, predecessor: Option<u32>, mut close: watch::Receiver<bool>) {
    tokio::select! {
        () = look_again_and_again(ours, predecessor) => {}
        _ = close.wait_for(|closed| *closed) => {}
    }
}

async fn look_again_and_again(ours: Vec<Ours>, predecessor: Option<u32>) {
    let mut seen = Seen::new();
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        // On a blocking thread, because reading /proc is slow where there are many processes.
        let (ours, before) = (ours.clone(), std::mem::take(&mut seen));
        seen = spawn_blocking(move || compare(&ours, predecessor, before)).await.unwrap_or_default();
    }
}

fn compare(ours: &[Ours], predecessor: Option<u32>, mut before: Seen) -> Seen {
    let mut now = Seen::new();
    for (address, _) in ours {
        let members = port_group::of(*address).unwrap_or_default();
        for other in members.iter().filter(|member| ours.iter().all(|(_, own)| member.inode != *own)) {
            let known = before.remove(&other.inode);
            // An owner that is not found has capabilities, which hide its descriptors: most likely it is this server.
            let found = || port_group::owner(other.inode).filter(|(pid, _)| !is_kin(*pid, predecessor));
            let foreign = known.unwrap_or_else(|| {
                let (foreign, name) = found()?;
                warn!(
                    foreign,
                    %address,
                    "{name} (pid {foreign}) also listens on {address}, and is none of this server's processes: it may get \
                     connections that are meant for this server; stop it, or give it another address"
                );
                Some(Foreign { address: *address, pid: foreign })
            });
            now.insert(other.inode, foreign);
        }
    }
    for gone in before.into_values().flatten() {
        info!(foreign = gone.pid, "no other process listens on {} any more", gone.address);
    }
    now
}

/// Returns whether the process is this one, the predecessor or the successor: at most two generations listen, and one has
/// started the other.
fn is_kin(pid: u32, predecessor: Option<u32>) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    predecessor == Some(pid) || parent == Some(std::process::id()) || pid == std::process::id()
}
