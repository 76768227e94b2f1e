//! `Drain` without `Server`, in a custom accept loop.

use nix::sys::signal::Signal;
use support::harness::example;
use support::process::{Server, command, signal};

#[test]
fn a_loop_without_server_drains_too() {
    let mut started = command(example("own_loop"));
    started.arg("127.0.0.1:0");
    let mut server = Server::launch(started);
    let address: std::net::SocketAddr =
        server.log().wait("the loop listens", |line| line.text.strip_prefix("listening on ")?.parse().ok());
    let mut client = support::harness::Client::connect(address);
    assert!(client.get("/").contains("hello"));
    signal(server.first_pid(), Signal::SIGINT);
    // Another test may have got the port by now, so an attempt to connect would prove nothing.
    server.log().wait_for("no longer listening");
    assert!(client.get("/").contains("connection: close"));
    drop(client);
    assert!(server.first_exit().success());
    server.log().wait_for("connections finished, 0 cut");
}
