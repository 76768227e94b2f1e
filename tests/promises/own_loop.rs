//! The library with an accept loop of one's own, any protocol over TCP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::harness::example;
use crate::process::{PATIENCE, Server, command, signal};

struct Lines(BufReader<TcpStream>);

impl Lines {
    fn connect(server: &Server) -> Lines {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Lines(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) -> String {
        writeln!(self.0.get_mut(), "{text}").expect("the connection is open");
        self.next()
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
}

#[test]
fn another_protocol_is_handed_over_and_its_connections_learn_of_it() {
    let mut started = command(example("raw_tcp"));
    started.args(["127.0.0.1:0", "300"]);
    let mut server = Server::start(started);
    let mut old = Lines::connect(&server);
    assert_eq!(old.say("one"), format!("{}: one", server.first_pid()));
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    assert_eq!(old.next(), "goodbye", "a connection is told that its generation retires");
    assert_eq!(old.next(), "", "and ends");
    let mut new = Lines::connect(&server);
    assert_eq!(new.say("two"), format!("{second}: two"));
    assert!(server.first_exit().success());
    server.log().wait_for("retired");
}

#[test]
fn a_loop_without_server_drains_too() {
    let mut started = command(example("own_loop"));
    started.arg("127.0.0.1:0");
    let mut server = Server::launch(started);
    let address =
        server.log().wait("it listens", |line| line.text.strip_prefix("listening on ")?.parse().ok());
    let mut client = crate::harness::Client::connect(address);
    assert!(client.get("/").contains("hello"));
    signal(server.first_pid(), Signal::SIGINT);
    let refused = || TcpStream::connect::<std::net::SocketAddr>(address).is_err();
    crate::harness::wait_until("it has closed its listener", &server, refused);
    assert!(client.get("/").contains("connection: close"));
    drop(client);
    assert!(server.first_exit().success());
    server.log().wait_for("connections finished, 0 cut");
}
