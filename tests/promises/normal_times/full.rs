//! A server at its connection limit makes room for a new client, a probe and its operator.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::frames::PREFACE;
use support::harness::{Client, start, wait_until};
use support::process::{Server, signal};
use support::siege::attacks::hello;
use support::siege::floods::request;
use support::siege::sockets::accepted_by;

use super::{Site, ask};

const LIMIT: usize = 20;
const FULL: &str = "--max-connections=20";

/// Opens a connection and sends `opening`; if `answered`, waits for the first bytes of the response.
fn open(addr: SocketAddr, opening: &[u8], answered: bool) -> Client {
    let mut client = Client::connect(addr);
    client.write(opening);
    if answered {
        client.0.read_exact(&mut [0; 9]).expect("an answer");
    }
    client
}

fn fill(server: &Server, addr: SocketAddr, opening: &[u8], answered: bool) -> Vec<Client> {
    let all = (0..LIMIT).map(|_| open(addr, opening, answered)).collect();
    wait_until("the server is full", server, || accepted_by(addr).len() == LIMIT);
    all
}

/// Watches for the highest number of connections that a server has at a time, without those that it is closing.
struct Most {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
    most: Arc<AtomicUsize>,
}

impl Most {
    fn watch(addr: SocketAddr) -> Most {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let watcher = std::thread::spawn(move || {
            let mut before = accepted_by(addr);
            while !stopped.load(Ordering::SeqCst) {
                // The kernel does not make the list in one moment; connections in two consecutive lists existed at the same
                // time.
                let now = accepted_by(addr);
                let both = now.iter().filter(|one| before.contains(one)).count();
                seen.fetch_max(both, Ordering::SeqCst);
                before = now;
            }
        });
        Most { stop, watcher, most }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.watcher.join().expect("reading /proc does not panic");
        self.most.load(Ordering::SeqCst)
    }
}

#[test]
fn full_of_connections_that_do_nothing_it_answers_all_others() {
    let plain = b"GET / HTTP/1.1\r\nhost: t\r\n\r\n";
    let mut wrong = vec![];
    for (who, opening, answered) in [
        ("silent", vec![], false),
        ("half of a head", plain[..20].to_vec(), false),
        ("a bare preface", PREFACE.to_vec(), false),
        ("idle after a request", plain.to_vec(), true),
        ("idle HTTP/2", hello(&request(1, "/")), true),
    ] {
        let site = Site::start(&[FULL]);
        let most = Most::watch(site.address());
        let _all = fill(&site.server, site.address(), &opening, answered);
        let questions = [
            (site.address(), "/"),
            (site.address(), "/healthz"),
            (site.admin(), "/metrics"),
            (site.address(), "/"),
        ];
        // All at the same time: one may take the slot for which another waits.
        let asked = questions.map(|(addr, target)| std::thread::spawn(move || ask(addr, target)));
        let answers = asked.into_iter().map(|asked| asked.join().expect("`ask` does not panic"));
        wrong.extend(answers.filter_map(Result::err).map(|error| format!("full of {who}: {error}")));
        let most = most.stop();
        if most > LIMIT {
            wrong.push(format!("full of {who}: {most} connections"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn full_of_uploads_that_are_answered_early_and_stop_it_answers_all_others() {
    for opening in [
        &b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nab"[..],
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"PUT / HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n",
    ] {
        let site = Site::start(&[FULL]);
        let addr = site.address();
        // More than the connections that may be open and those that may linger, together.
        let _all: Vec<_> = (0..3 * LIMIT).map(|_| open(addr, opening, false)).collect();
        for target in ["/", "/healthz"] {
            ask(addr, target).expect("there is room");
        }
    }
}

#[test]
fn many_new_clients_at_once_do_not_make_it_exceed_its_limit() {
    let site = Site::start(&[FULL]);
    let (addr, most) = (site.address(), Most::watch(site.address()));
    let _all = fill(&site.server, addr, b"", false);
    // Fewer clients than the limit, so that none of them has to make room for another.
    let client = |_| std::thread::spawn(move || (0..20).find_map(|_| ask(addr, "/").err()));
    let asked: Vec<_> = (0..LIMIT / 2).map(client).collect();
    let wrong: Vec<_> =
        asked.into_iter().flat_map(|asked| asked.join().expect("`ask` does not panic")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(most.stop() <= LIMIT);
}

#[test]
fn a_connection_with_a_request_under_way_is_never_closed_for_another() {
    let server = start(&[FULL]);
    let addr = server.address();
    let slow = b"GET /slow?ms=3000 HTTP/1.1\r\nhost: t\r\n\r\n";
    let mut busy = fill(&server, addr, slow, false);
    let mut waiting = Client::connect(addr);
    waiting.send("/");
    for client in &mut busy {
        assert!(client.answer().contains("generation=1 "));
    }
    // Now all are idle, and one of them makes room.
    assert!(waiting.answer().contains("generation=1 "));
}

#[test]
fn the_only_idle_connection_makes_room_and_those_at_work_do_not() {
    let server = start(&[FULL]);
    let addr = server.address();
    let mut idle = Client::connect(addr);
    idle.get("/");
    let slow = b"GET /slow?ms=3000 HTTP/1.1\r\nhost: t\r\n\r\n";
    let mut busy: Vec<_> = (1..LIMIT).map(|_| open(addr, slow, false)).collect();
    wait_until("the server is full", &server, || accepted_by(addr).len() == LIMIT);
    ask(addr, "/").expect("there is room");
    idle.wait_closed();
    busy.iter_mut().for_each(|client| assert!(client.answer().contains("generation=1 ")));
}

#[test]
fn silent_connections_make_room_before_idle_ones() {
    let server = start(&[FULL]);
    let addr = server.address();
    let mut idle: Vec<_> = (0..LIMIT / 2).map(|_| Client::connect(addr)).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/")));
    let _silent: Vec<_> = (0..LIMIT / 2).map(|_| Client::connect(addr)).collect();
    wait_until("the server is full", &server, || accepted_by(addr).len() == LIMIT);
    // Only connections that have been silent for more than a second make room first.
    std::thread::sleep(Duration::from_millis(1200));
    let mut new: Vec<_> = (0..LIMIT / 2).map(|_| Client::connect(addr)).collect();
    for client in new.iter_mut().chain(&mut idle) {
        assert!(client.get("/").contains("generation=1 "));
    }
}

#[test]
fn the_connection_that_has_been_idle_longest_makes_room() {
    let server = start(&[FULL]);
    let addr = server.address();
    let mut idle: Vec<_> = (0..LIMIT).map(|_| Client::connect(addr)).collect();
    for client in &mut idle {
        client.get("/");
        // Each must have been idle for a shorter time than the one before.
        std::thread::sleep(Duration::from_millis(20));
    }
    // The first connection is no longer the one that has been idle longest.
    idle[0].get("/");
    Client::connect(addr).get("/");
    idle[1].wait_closed();
    for (n, client) in idle.iter_mut().enumerate().filter(|(n, _)| *n != 1) {
        assert!(client.get("/").contains("generation=1 "), "number {n}");
    }
}

#[test]
fn a_request_that_has_come_is_answered_before_its_connection_makes_room() {
    let server = start(&[FULL]);
    let addr = server.address();
    let mut idle: Vec<_> = (0..LIMIT).map(|_| Client::connect(addr)).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/")));
    signal(server.first_pid(), Signal::SIGSTOP);
    idle[0].send("/");
    let mut new: Vec<_> = (0..LIMIT / 2).map(|_| Client::connect(addr)).collect();
    new.iter_mut().for_each(|client| client.send("/"));
    signal(server.first_pid(), Signal::SIGCONT);
    assert!(idle[0].answer().contains("generation=1 "));
    new.iter_mut().for_each(|client| assert!(client.answer().contains("generation=1 ")));
}
