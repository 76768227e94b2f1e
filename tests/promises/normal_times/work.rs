//! The work and the memory that a few clients can cost a server are bounded, and other clients do not wait for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::harness::wait_until;
use support::process::{PATIENCE, Server};
use support::resources::{descriptors, rss_mib};
use support::siege::attacks::{Attack, FLOODS, TAKING_NOTHING};
use support::siege::sockets::Sockets;
use support::siege::wage::wage;

use super::{Site, ask};

/// Debug builds are slower, and other tests run beside this one; a release build takes less than 200 ms.
const PROMPT: Duration = Duration::from_millis(700);

fn named(attacks: &[Attack], name: &str) -> Attack {
    *attacks.iter().find(|attack| attack.name.contains(name)).expect("the list has it")
}

/// Runs `meanwhile` while this number of connections attack.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn beside<T: Send + 'static>(
    attack: Attack,
    connections: usize,
    addr: SocketAddr,
    meanwhile: impl FnOnce() -> T + Send + 'static,
) -> T {
    let sockets = Arc::new(Sockets::watch(addr));
    let mut attackers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let sockets = Arc::clone(&sockets);
        attackers.spawn(async move { wage(&attack, addr, &sockets).await });
    }
    // Dropping the set when this returns aborts the attackers.
    tokio::task::spawn_blocking(meanwhile).await.expect("`meanwhile` does not panic")
}

#[test]
fn listings_of_a_large_directory_do_not_keep_a_small_file_waiting() {
    let site = Site::start(&[]);
    let addr = site.address();
    let listings = named(FLOODS, "listings");
    let took = beside(listings, 60, addr, move || {
        std::thread::sleep(Duration::from_millis(500));
        (0..10).map(|_| ask(addr, "/")).collect::<Result<Vec<_>, _>>()
    });
    let slowest = took.map(|took| took.into_iter().max());
    assert!(slowest.as_ref().is_ok_and(|slowest| *slowest < Some(PROMPT)), "{slowest:?}");
}

/// Waits, for at most `PATIENCE`, until the server's memory no longer grows under the attack; returns its size.
fn settle(server: &Server) -> f64 {
    let (pid, until) = (server.first_pid(), Instant::now() + PATIENCE);
    let mut taken = rss_mib(pid);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = rss_mib(pid);
        if now - taken < 1.0 || Instant::now() > until {
            return now.max(taken);
        }
        taken = now;
    }
}

#[test]
fn stalled_streams_with_brotli_take_bounded_memory_which_is_given_back() {
    let site = Arc::new(Site::start(&[]));
    let (addr, pid) = (site.address(), site.server.first_pid());
    let brotli = named(TAKING_NOTHING, "brotli");
    let watched = Arc::clone(&site);
    let taken = beside(brotli, 5, addr, move || settle(&watched.server));
    println!("{taken:.0} MiB");
    assert!(taken < 300.0, "{taken:.0} MiB for 5 connections");
    wait_until("the memory is released", &site.server, || rss_mib(pid) < 100.0);
}

#[test]
fn streams_that_hold_files_leave_descriptors_for_all_others() {
    let site = Arc::new(Site::narrow(1024, &[]));
    let (addr, admin) = (site.address(), site.admin());
    let plain = named(TAKING_NOTHING, "100 stalled streams");
    let watched = Arc::clone(&site);
    let wrong = beside(plain, 12, addr, move || {
        settle(&watched.server);
        println!("{} descriptors", descriptors(watched.server.first_pid()));
        let questions = [(addr, "/"), (addr, "/healthz"), (admin, "/metrics")];
        questions.into_iter().filter_map(|(addr, target)| ask(addr, target).err()).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}
