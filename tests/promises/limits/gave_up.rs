//! A request to reload is dropped if its client has disconnected before the server reads it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use support::harness::wait_until;
use support::process::{PATIENCE, Server, signal};

use super::Bed;

const RELOAD: &[u8] = b"POST /reload HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}

/// Sends a reload request while the server is suspended: a client that has left changes nothing, and one that stays is
/// answered.
///
/// The client that leaves only shuts down its write side, which looks the same to the server, so that the test can wait for
/// the end of the connection.
fn assert_not_begun<S: Read + Write>(
    bed: &Bed,
    server: &Server,
    connect: impl Fn() -> S,
    leave: impl Fn(&S),
) {
    let pid = server.first_pid();
    let halt = || {
        signal(pid, Signal::SIGSTOP);
        wait_until("the server is suspended", server, || is_stopped(pid));
    };
    halt();
    let mut leaves = connect();
    leaves.write_all(RELOAD).expect("the kernel has room");
    leave(&leaves);
    signal(pid, Signal::SIGCONT);
    let mut answer = String::new();
    leaves.read_to_string(&mut answer).expect("the end of the connection");
    assert!(answer.is_empty() || answer.contains("closed, so nothing was started"), "{answer}");
    // The server handles this command after everything that it received before.
    let status = bed.status();
    assert!(status.contains("serving") && status.lines().nth(2).is_none_or(str::is_empty), "{status}");
    halt();
    let mut stays = connect();
    stays.write_all(RELOAD).expect("the kernel has room");
    signal(pid, Signal::SIGCONT);
    let mut answer = String::new();
    stays.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("took over"), "{answer}");
    // The abandoned request has not started a third generation meanwhile.
    server.wait_serving(2);
    assert!(server.log().lines().iter().all(|line| line.generation() < 3), "{}", server.log().history());
}

#[test]
fn a_reload_that_was_given_up_before_the_control_socket_was_read_is_not_begun() {
    let bed = Bed::make();
    let server = bed.start(1024, &[]);
    let leave = |stream: &UnixStream| stream.shutdown(Shutdown::Write).expect("open");
    let socket = bed.path("control").join(format!("{}.sock", server.first_pid()));
    let connect = || {
        let stream = UnixStream::connect(&socket).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    };
    assert_not_begun(&bed, &server, connect, leave);
}

#[test]
fn a_reload_that_was_given_up_before_the_admin_address_was_read_is_not_begun() {
    let bed = Bed::make();
    let server = bed.start(1024, &["--admin=127.0.0.1:0"]);
    let leave = |stream: &TcpStream| stream.shutdown(Shutdown::Write).expect("open");
    let admin = server.addresses(1)[1];
    let connect = || {
        let stream = TcpStream::connect(admin).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    };
    assert_not_begun(&bed, &server, connect, leave);
}
