//! Handovers over a slow network that loses packets or clients, as real networks do.
//!
//! Loopback hides the largest loss of all: handshakes in flight when a listener closes.

mod vanishing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::harness::{Traffic, example, hand_over, skip};
use support::http2;
use support::load::{Clients, Report};
use support::netns::{self, Bed, LOSSY, SERVER, TERRIBLE, Wire};
use support::process::{Server, command};

/// Runs `test`, the body of the test `name`, in a separate network namespace.
fn on_the_bed(name: &str, test: impl FnOnce()) {
    match netns::run(name, &["--exact", name, "--nocapture"], test) {
        Ok(said) => println!("{said}"),
        Err(why) => skip(&why),
    }
}

fn serve(standby: &str) -> Server {
    let mut server = command(example("playground"));
    server.args(["--listen", &format!("{SERVER}:0"), "--log-format", "json", "--standby", standby]);
    Server::start(server)
}

/// Hands over five times, each as fast as standby allows, with pauses of a second.
fn hand_over_five_times(server: &Server) {
    (1..=5).fold(server.first_pid(), |pid, generation| {
        thread::sleep(Duration::from_secs(1));
        hand_over(server, generation, pid)
    });
    thread::sleep(Duration::from_secs(1));
}

fn load(bed: &Bed, addr: SocketAddr, clients: Clients, count: usize) -> Traffic {
    bed.at_the_client(|| Traffic::start(addr, clients, count))
}

fn say(what: &str, report: &Report, since: Instant) {
    println!(
        "{what}: {} requests answered, {} failed {:?}, in {:.0?}",
        report.samples.len(),
        report.failed(),
        report.failures(),
        since.elapsed()
    );
}

/// Starts HTTP/2 clients that reconnect whenever their connection gets GOAWAY. A client that loses a request panics.
fn http2_connections(
    bed: &Bed,
    addr: SocketAddr,
    stop: &Arc<AtomicBool>,
    count: usize,
) -> Vec<JoinHandle<u64>> {
    let client = |_| {
        let stop = Arc::clone(stop);
        thread::spawn(move || {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                answered += http2::streams(addr, &stop, 4);
            }
            answered
        })
    };
    bed.at_the_client(|| (0..count).map(client).collect())
}

/// Asserts that five handovers lose nothing with this number of clients of each kind (HTTP/2: an eighth).
fn nothing_is_lost(wire: Wire, standby: &str, clients: usize) {
    let bed = Bed::new(wire);
    let began = Instant::now();
    let server = serve(standby);
    let pause = Duration::from_millis(100);
    let fresh = load(&bed, server.address(), Clients::Fresh, clients);
    let stop = Arc::new(AtomicBool::new(false));
    let http2 = http2_connections(&bed, server.address(), &stop, clients / 8);
    let kept = load(&bed, server.address(), Clients::KeepAlive { pause }, clients);
    hand_over_five_times(&server);
    stop.store(true, Ordering::SeqCst);
    let answered: u64 = http2.into_iter().map(|client| client.join().expect("nothing is lost")).sum();
    println!("HTTP/2: {answered} requests answered, 0 failed");
    for (kind, traffic) in [("fresh", fresh), ("keep-alive", kept)] {
        let report = traffic.stop();
        say(kind, &report, began);
        assert_eq!(report.failed(), 0, "{kind}\n{}", server.log().history());
        assert!(report.samples.len() > 10 * clients);
    }
}

#[test]
fn over_a_slow_lossy_network_no_request_is_lost() {
    on_the_bed("over_a_slow_lossy_network_no_request_is_lost", || nothing_is_lost(LOSSY, "5s", 400));
}

#[test]
fn over_a_terrible_network_no_request_is_lost() {
    on_the_bed("over_a_terrible_network_no_request_is_lost", || nothing_is_lost(TERRIBLE, "8s", 200));
}

#[test]
fn without_standby_handshakes_are_lost_so_this_network_can_see_it() {
    on_the_bed("without_standby_handshakes_are_lost_so_this_network_can_see_it", || {
        let bed = Bed::new(LOSSY);
        let began = Instant::now();
        let server = serve("0s");
        let fresh = load(&bed, server.address(), Clients::Fresh, 400);
        hand_over_five_times(&server);
        let report = fresh.stop();
        say("without standby", &report, began);
        assert!(report.failed() >= 100, "{:?}", report.failures());
    });
}
