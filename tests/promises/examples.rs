//! Each example is handed over under load and loses nothing. `own_loop` and `playground` are tested elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, example, get, hand_over, wait_until};
use support::load::Clients;
use support::process::{Server, command, signal};
use tokio_rustls::TlsConnector;

mod conversations;
mod tls;
mod tonic;
mod worker;

/// The number of clients that keep their connections.
const KEPT: usize = 16;

/// Starts an example, with the timings that its users have.
fn start(name: &str, args: &[&str]) -> Server {
    let mut started = command(example(name));
    started.args(args);
    Server::start(started)
}

/// Starts clients that keep their connections and clients that do not, and waits until each has an answer.
fn load(server: &Server, address: SocketAddr) -> [Traffic; 2] {
    load_with(None, server, address)
}

/// Starts the clients of [`load`], over TLS if there is a connector.
fn load_with(tls: Option<&TlsConnector>, server: &Server, address: SocketAddr) -> [Traffic; 2] {
    let keep_alive = Clients::KeepAlive { pause: Duration::from_millis(10) };
    let traffic = [(Clients::Fresh, 8), (keep_alive, KEPT)]
        .map(|(clients, count)| Traffic::start_with(tls, address, clients, count));
    wait_until("every client is answered", server, || traffic.iter().all(Traffic::is_under_way));
    traffic
}

/// Stops the load, and asserts that nothing was lost and that each generation answered requests.
fn assert_lossless(traffic: impl IntoIterator<Item = Traffic>, generations: usize, server: &Server) {
    for traffic in traffic {
        let report = traffic.stop();
        assert_eq!(report.failed(), 0, "{:?}\n{}", report.failures(), server.log().history());
        assert_eq!(report.first_answers().len(), generations, "{} answers", report.samples.len());
    }
}

/// Waits until the first generation has exited, and asserts that it cut no connection.
fn assert_nobody_was_cut(server: &mut Server) {
    assert!(server.first_exit().success());
    let retired = server.log().wait_for("retired");
    assert_eq!(retired.json["cut"], 0, "{}", retired.text);
}

#[test]
fn embed_is_handed_over() {
    let mut server = start("embed", &["127.0.0.1:0"]);
    let traffic = load(&server, server.address());
    hand_over(&server, 1, server.first_pid());
    assert_lossless(traffic, 2, &server);
    assert_nobody_was_cut(&mut server);
}

#[test]
fn own_signals_notices_no_handover_and_every_stop() {
    let mut server = start("own_signals", &["127.0.0.1:0"]);
    let traffic = load(&server, server.address());
    let mut pid = server.first_pid();
    for generation in 1..=3 {
        pid = hand_over(&server, generation, pid);
    }
    assert_lossless(traffic, 4, &server);
    assert_nobody_was_cut(&mut server);
    let heard = || server.log().lines().iter().any(|line| line.message().starts_with("told to stop"));
    assert!(!heard(), "{}", server.log().history());
    signal(pid, Signal::SIGTERM);
    server.log().wait_for("told to stop");
    server
        .log()
        .wait("the last one stops", |line| (line.pid() == pid && line.message() == "stopped").then_some(()));
}

#[test]
fn axum_is_handed_over_and_its_events_end_themselves() {
    let mut server = start("axum", &["127.0.0.1:0"]);
    let mut events = Client::connect(server.address());
    events.write("GET /events HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let traffic = load(&server, server.address());
    wait_until("events come", &server, || {
        let mut seen = [0; 4096];
        let n = events.0.peek(&mut seen).expect("the connection is open");
        String::from_utf8_lossy(&seen[..n]).contains("data: 0\n\n")
    });
    hand_over(&server, 1, server.first_pid());
    assert_lossless(traffic, 2, &server);
    assert_nobody_was_cut(&mut server);
    let all = events.rest();
    assert!(all.contains("data: 0\n\n") && all.ends_with("\r\n0\r\n\r\n"), "not ended properly: {all}");
    let mut client = Client::connect(server.address());
    let me = client.0.local_addr().expect("the client is connected");
    let answer = client.get("/");
    assert!(answer.ends_with(&format!("generation=2 hello {me}\n")), "{answer}");
}

#[test]
fn two_ports_move_together_and_the_internal_one_can_restart() {
    let mut server = start("two_ports", &["127.0.0.1:0", "127.0.0.1:0"]);
    let addresses = server.addresses(1);
    let (public, internal) = (addresses[0], addresses[1]);
    let traffic = [load(&server, public), load(&server, internal)];
    wait_until("all clients have connected", &server, || {
        let status = get(internal, "/");
        let open = status.rsplit(", ").next().and_then(|text| text.split(' ').next()?.parse::<usize>().ok());
        open.is_some_and(|open| open > 2 * KEPT)
    });
    hand_over(&server, 1, server.first_pid());
    assert!(get(public, "/").contains("generation=2 hello"));
    assert!(get(internal, "/").contains("Serving"));
    let restart = |address| {
        let mut client = Client::connect(address);
        client.write("POST /restart HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
        client.answer()
    };
    assert!(restart(public).contains("generation=2 hello"), "the public port restarts nothing");
    let outcome = restart(internal);
    let third = server.wait_serving(3);
    assert!(outcome.contains(&format!("generation=2 {third} serves after")), "{outcome}");
    server.wait_state(2, "draining");
    assert_eq!(server.addresses(3), addresses);
    assert_lossless(traffic.into_iter().flatten(), 3, &server);
    assert_nobody_was_cut(&mut server);
    signal(third, Signal::SIGTERM);
    server.log().wait_for("stopped");
}
