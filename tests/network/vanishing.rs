//! Clients that vanish: from some moment on, no packet comes from them or reaches them, neither FIN nor RST, as when a phone
//! loses its network. They delay the retirement of a generation no longer than its deadlines, and it counts the connections
//! that it cuts.

use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, example};
use support::load::Clients;
use support::netns::{Bed, SERVER, Wire};
use support::process::{Line, Server, command, signal};

use crate::{load, on_the_bed};

/// A long and reliable wire, so that a silent client has vanished.
const CALM: Wire = Wire { delay: Duration::from_millis(40), jitter: Duration::ZERO, loss: 0.0, seed: 1 };
const IDLE_GRACE: Duration = Duration::from_millis(1500);
/// Fixed timeouts of the drain: for a client that could still send after the server's FIN, for an HTTP/2 client that does not
/// acknowledge GOAWAY, and for connections that are cut to notice it.
const LINGER: Duration = Duration::from_secs(2);
const GOAWAY: Duration = Duration::from_secs(5);
const NOTICE: Duration = Duration::from_secs(1);
/// The allowance for delays on a busy machine.
const LATE: Duration = Duration::from_secs(2);

/// A server at the end of the long wire, and other clients that use it meanwhile.
struct Scene {
    bed: Bed,
    server: Server,
    others: [Traffic; 2],
}

impl Scene {
    fn begin(drain_timeout: &str) -> Scene {
        let bed = Bed::new(CALM);
        let mut server = command(example("playground"));
        server.args(["--listen", &format!("{SERVER}:0"), "--log-format", "json", "--standby", "1s"]);
        server.args(["--idle-grace", &format!("{}ms", IDLE_GRACE.as_millis())]);
        server.args(["--drain-timeout", drain_timeout]);
        let server = Server::start(server);
        let pause = Duration::from_millis(20);
        let others =
            [Clients::Fresh, Clients::KeepAlive { pause }].map(|c| load(&bed, server.address(), c, 16));
        Scene { bed, server, others }
    }

    /// Connects clients, and waits until their requests, or the beginnings of requests, have arrived.
    fn clients<const N: usize>(&self, requests: [&str; N]) -> [Client; N] {
        let connect = || self.bed.at_the_client(|| Client::connect(self.server.address()));
        let clients = requests.map(|request| {
            let mut client = connect();
            client.write(request);
            client
        });
        // Packets keep their order on this wire.
        connect().get("/");
        clients
    }

    fn hand_over(&self) -> Instant {
        signal(self.server.first_pid(), Signal::SIGHUP);
        self.server.wait_state(1, "standby");
        Instant::now()
    }

    /// Asserts that the other clients have lost nothing; returns the `retired` line of the old generation.
    fn end(mut self) -> Line {
        assert!(self.server.first_exit().success(), "{}", self.server.log().history());
        for traffic in self.others {
            let report = traffic.stop_lossless(&self.server);
            assert!(report.first_answers().keys().eq([&1, &2]), "{}", self.server.log().history());
            println!("{} requests of others, 0 failed", report.samples.len());
        }
        let retired = self.server.log().wait_for("retired");
        println!("{}", retired.text);
        retired
    }
}

const IDLE: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
/// A request that ends after its client has vanished, and before the deadline of the HTTP/2 connections.
const SLOW: &str = "GET /slow?ms=3000 HTTP/1.1\r\nhost: test\r\n\r\n";
/// The preface and SETTINGS.
const HTTP2: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const UPLOAD: &str = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nand so";
const DOWNLOAD: &str = "GET /bytes?n=100000000 HTTP/1.1\r\nhost: test\r\n\r\n";

fn quiet_clients() {
    let scene = Scene::begin("60s");
    let before = scene.clients([IDLE, SLOW, HTTP2, ""]);
    let during = scene.clients([IDLE, SLOW, HTTP2, ""]);
    before.iter().for_each(|client| scene.bed.vanish(&client.0));
    let flip = scene.hand_over();
    during.iter().for_each(|client| scene.bed.vanish(&client.0));
    scene.server.wait_retired(1);
    let took = flip.elapsed();
    // HTTP/2 takes longest: GOAWAY is sent within the grace, then the server waits for its acknowledgement, and then lingers.
    let bound = IDLE_GRACE + GOAWAY + LINGER + LATE;
    assert!(took >= IDLE_GRACE && took < bound, "it took {took:?}");
    let retired = scene.end();
    assert_eq!((retired.json["cut"].as_u64(), retired.json["requests_cut"].as_u64()), (Some(0), Some(0)));
    assert!(retired.json["finished"].as_u64() >= Some(8), "{}", retired.text);
}

fn busy_clients() {
    const DRAIN: Duration = Duration::from_secs(4);
    let scene = Scene::begin("4s");
    let begin = || {
        let mut clients = scene.clients([DOWNLOAD, UPLOAD, "GET / HTTP/1.1\r\nhost: te"]);
        clients[0].0.read_exact(&mut [0; 60]).expect("the beginning of an answer");
        clients
    };
    let (before, during) = (begin(), begin());
    before.iter().for_each(|client| scene.bed.vanish(&client.0));
    let flip = scene.hand_over();
    during.iter().for_each(|client| scene.bed.vanish(&client.0));
    scene.server.wait_retired(1);
    let took = flip.elapsed();
    assert!(took + Duration::from_millis(200) >= DRAIN && took < DRAIN + NOTICE + LATE, "it took {took:?}");
    let retired = scene.end();
    // Half a head does not count as a request.
    assert_eq!((retired.json["cut"].as_u64(), retired.json["requests_cut"].as_u64()), (Some(6), Some(4)));
}

#[test]
fn a_client_that_vanishes_while_nothing_comes_from_it_is_let_go_after_its_grace() {
    on_the_bed(
        "vanishing::a_client_that_vanishes_while_nothing_comes_from_it_is_let_go_after_its_grace",
        quiet_clients,
    );
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_transfer_is_cut_at_the_deadline_and_counted() {
    on_the_bed(
        "vanishing::a_client_that_vanishes_in_the_middle_of_a_transfer_is_cut_at_the_deadline_and_counted",
        busy_clients,
    );
}
