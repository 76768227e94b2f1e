//! All attackers, and the server's reaction to each kind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::attacks::{self, Attack};
use super::sockets::Sockets;
use super::wage::{Deed, wage};

/// The pause before an attacker reconnects.
const PAUSE: Duration = Duration::from_millis(250);

/// The result of one kind of attack.
#[derive(Debug, Serialize)]
pub struct Waged {
    pub(super) attack: &'static str,
    /// The number of connections at a time.
    pub(super) connections: usize,
    /// The number of connections in all.
    pub(super) opened: u64,
    pub(super) closed_by_server: u64,
    /// Connections on which the server ended every stream, and the client closed.
    pub(super) ended_streams: u64,
    /// Connections that could not be opened.
    pub(super) refused: u64,
    /// The longest time until the server ended a connection or its streams.
    pub(super) longest_s: f64,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    closed: AtomicU64,
    ended_streams: AtomicU64,
    refused: AtomicU64,
    longest_ms: AtomicU64,
}

/// The connections of all kinds of attacks, until [`Attackers::stop`].
#[derive(Debug)]
pub(super) struct Attackers {
    all: Vec<(Attack, Arc<Counts>)>,
    tasks: JoinSet<()>,
}

impl Attackers {
    pub(super) fn start(addr: SocketAddr) -> Attackers {
        let sockets = Arc::new(Sockets::watch(addr));
        let (mut all, mut tasks) = (vec![], JoinSet::new());
        for attack in attacks::all() {
            let counts = Arc::new(Counts::default());
            for _ in 0..attack.connections {
                tasks.spawn(attack_again_and_again(attack, addr, Arc::clone(&sockets), Arc::clone(&counts)));
            }
            all.push((attack, counts));
        }
        Attackers { all, tasks }
    }

    /// Closes every connection.
    pub(super) async fn stop(mut self) -> Vec<Waged> {
        self.tasks.shutdown().await;
        let waged = |(attack, counts): &(Attack, Arc<Counts>)| Waged {
            attack: attack.name,
            connections: attack.connections,
            opened: counts.opened.load(Ordering::Relaxed),
            closed_by_server: counts.closed.load(Ordering::Relaxed),
            ended_streams: counts.ended_streams.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            longest_s: counts.longest_ms.load(Ordering::Relaxed) as f64 / 1000.0,
        };
        self.all.iter().map(waged).collect()
    }
}

async fn attack_again_and_again(
    attack: Attack,
    addr: SocketAddr,
    sockets: Arc<Sockets>,
    counts: Arc<Counts>,
) {
    // Spreads the first connections over a second.
    sleep(PAUSE.mul_f64(4.0 * fastrand::f64())).await;
    loop {
        counts.opened.fetch_add(1, Ordering::Relaxed);
        match wage(&attack, addr, &sockets).await {
            Ok((deed, took)) => {
                let count = if deed == Deed::Closed { &counts.closed } else { &counts.ended_streams };
                count.fetch_add(1, Ordering::Relaxed);
                let ms = took.as_millis().try_into().unwrap_or(u64::MAX);
                counts.longest_ms.fetch_max(ms, Ordering::Relaxed);
            }
            Err(_) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(PAUSE).await;
    }
}
