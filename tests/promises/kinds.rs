//! Every kind of exchange, all in flight together, during handovers and during a stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{hand_over, start};
use support::http2;
use support::process::{Server, signal};

mod http1;
mod lasting;

const GRACE: Duration = Duration::from_millis(500);

/// Clients of one kind. Each repeats its exchange until `stop` is set, and panics if it loses anything.
struct Kind {
    name: &'static str,
    clients: Vec<JoinHandle<u64>>,
}

/// An exchange, which returns the number of requests that were answered.
type Exchange = fn(SocketAddr, &Arc<AtomicBool>) -> u64;

impl Kind {
    fn start(
        name: &'static str,
        clients: usize,
        addr: SocketAddr,
        stop: &Arc<AtomicBool>,
        exchange: Exchange,
    ) -> Kind {
        let client = |_| {
            let stop = Arc::clone(stop);
            let work = move || {
                let mut answered = exchange(addr, &stop);
                while !stop.load(Ordering::SeqCst) {
                    answered += exchange(addr, &stop);
                }
                answered
            };
            thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread")
        };
        Kind { name, clients: (0..clients).map(client).collect() }
    }

    /// Returns the name of the kind if anything was lost or nothing was answered.
    fn finish(self) -> Option<&'static str> {
        let answered: thread::Result<u64> = self.clients.into_iter().map(JoinHandle::join).sum();
        println!("{}: {} requests answered", self.name, answered.as_ref().unwrap_or(&0));
        answered.map_or(true, |answered| answered == 0).then_some(self.name)
    }
}

fn all_kinds(addr: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<Kind> {
    let kind = |name, clients, exchange| Kind::start(name, clients, addr, stop, exchange);
    vec![
        kind("a connection for each request", 2, |addr, _| http1::fresh(addr)),
        kind("keep-alive, pauses up to 3 times the grace", 2, |addr, stop| {
            http1::keep_alive(addr, stop, 1, 3 * GRACE)
        }),
        kind("keep-alive, 100 at a time without a pause", 1, |addr, stop| {
            http1::keep_alive(addr, stop, 100, GRACE / 4)
        }),
        kind("pipelining", 1, |addr, _| http1::pipelined(addr)),
        kind("upload over 8 s", 1, |addr, _| http1::upload(addr, Duration::from_secs(8))),
        kind("upload over 1 s", 1, |addr, _| http1::upload(addr, Duration::from_secs(1))),
        kind("reader at 512 KiB/s", 1, |addr, _| http1::download(addr, 512 << 10)),
        kind("chunks", 1, |addr, _| http1::chunks(addr)),
        kind("events", 4, |addr, _| lasting::events(addr)),
        kind("WebSocket", 4, |addr, _| lasting::websocket(addr)),
        kind("HTTP/2, 50 streams", 1, |addr, stop| http2::streams(addr, stop, 50)),
        kind("HTTP/2 without acknowledgement", 1, |addr, _| http2::unacknowledged(addr)),
        kind("a connection without a byte", 4, |addr, _| http1::silent(addr, GRACE)),
        kind("a client that vanishes", 1, |addr, _| http1::vanish(addr)),
    ]
}

/// Stops the service in the middle of `kinds` and asserts that none of them lost anything. The service still accepts for
/// 2 s, so exchanges that begin within the first half second succeed.
fn stop_and_finish(server: &Server, generation: u64, pid: u32, stop: &AtomicBool, kinds: Vec<Kind>) {
    signal(pid, Signal::SIGTERM);
    server.wait_state(generation, "lingering");
    sleep(Duration::from_millis(500));
    stop.store(true, Ordering::SeqCst);
    let lost: Vec<_> = kinds.into_iter().filter_map(Kind::finish).collect();
    assert!(lost.is_empty(), "lost, see above: {lost:?}\n{}", server.log().history());
    for generation in 1..=generation {
        let left = server.log().wait(&format!("generation {generation} has left"), |line| {
            let left = line.generation() == generation && ["retired", "stopped"].contains(&line.message());
            left.then(|| line.clone())
        });
        assert_eq!((&left.json["cut"], &left.json["requests_cut"]), (&0.into(), &0.into()), "{}", left.text);
    }
}

const FLAGS: [&str; 8] =
    ["--idle-grace", "500ms", "--stop-idle-grace", "500ms", "--stop-delay", "2s", "--stop-timeout", "60s"];

#[test]
fn every_kind_of_exchange_survives_ten_handovers() {
    let server = start(&FLAGS);
    let stop = Arc::new(AtomicBool::new(false));
    let mut kinds = all_kinds(server.address(), &stop);
    let once = Arc::new(AtomicBool::new(true));
    kinds.push(Kind::start("reader at 64 KiB/s", 1, server.address(), &once, |addr, _| {
        http1::download(addr, 64 << 10)
    }));
    let last = (1..=10).fold(server.first_pid(), |pid, generation| {
        sleep(Duration::from_millis(5500));
        hand_over(&server, generation, pid)
    });
    stop_and_finish(&server, 11, last, &stop, kinds);
    let lines = server.log().lines();
    let slow = lines.iter().take_while(|line| !(line.generation() == 1 && line.message() == "retired"));
    let spanned = slow.filter(|line| line.message().starts_with("serving, took over")).count();
    assert!(spanned > 5, "the slow reader spanned only {spanned} handovers:\n{}", server.log().history());
}

#[test]
fn every_kind_of_exchange_survives_a_stop() {
    let mut server = start(&FLAGS);
    let stop = Arc::new(AtomicBool::new(false));
    let kinds = all_kinds(server.address(), &stop);
    sleep(Duration::from_secs(2));
    let pid = server.first_pid();
    stop_and_finish(&server, 1, pid, &stop, kinds);
    assert!(server.first_exit().success());
}
