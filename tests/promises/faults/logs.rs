//! A log that is not read or cannot be written. Serving does not need a log, so it must stop neither the server nor a
//! handover.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::signal::Signal;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use support::harness::{QUICK, Traffic, example, get, wait_until};
use support::process::{Server, command, signal};

/// A server with a pipe of the test as its stderr. [`Server::log`] of this server is empty.
struct Unheard {
    server: Server,
    address: SocketAddr,
    reader: BufReader<PipeReader>,
    writer: PipeWriter,
}

impl Unheard {
    fn start() -> Unheard {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut started = command("sh");
        // The server's end is opened separately, so that making our end non-blocking does not affect it.
        let stderr = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
        started.args(["-c", "exec 2>\"$0\"; exec \"$@\"", &stderr]).arg(example("playground")).args(QUICK);
        let server = Server::launch(started);
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        reader.read_line(&mut line).expect("the server logs that it serves");
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let address = line["listen"].as_str().and_then(|a| a.parse().ok()).expect("an address");
        Unheard { server, address, reader, writer }
    }

    fn wait_generation(&self, generation: u64) -> u32 {
        let mut pid = 0;
        wait_until(&format!("generation {generation} answers"), &self.server, || {
            let answer = get(self.address, "/");
            let found = answer.contains(&format!("generation={generation} "));
            if found {
                pid = answer.split("pid=").nth(1).and_then(|p| p.trim().parse().ok()).expect("a pid");
            }
            found
        });
        pid
    }

    /// Asserts that two handovers and a stop work without a log.
    fn assert_works(mut self) {
        let traffic = Traffic::start(self.address, support::load::Clients::Fresh, 8);
        signal(self.server.first_pid(), Signal::SIGHUP);
        let second = self.wait_generation(2);
        assert!(self.server.first_exit().success(), "the old generation retires");
        signal(second, Signal::SIGHUP);
        let third = self.wait_generation(3);
        wait_until("the second has retired", &self.server, || !support::harness::is_alive(second));
        traffic.stop_lossless(&self.server);
        signal(third, Signal::SIGTERM);
        wait_until("the third has stopped", &self.server, || !support::harness::is_alive(third));
    }
}

/// Starts a server with this redirection of its stderr.
fn start_without_log(redirection: &str) -> Unheard {
    // Without a log the test learns no address, so it passes one: a free port of the kernel's choice.
    let address =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut started = command("sh");
    started.args(["-c", &format!("exec {redirection}; exec \"$@\""), "sh"]).arg(example("playground"));
    started.args(["--standby", "300ms", "--listen", &address.to_string()]);
    let server = Server::launch(started);
    wait_until("the server serves", &server, || std::net::TcpStream::connect(address).is_ok());
    Unheard { server, address, reader: BufReader::new(reader), writer }
}

#[test]
fn a_full_log_pipe_without_a_reader_stops_neither_the_service_nor_a_handover() {
    let mut unheard = Unheard::start();
    let flags = fcntl_getfl(&unheard.writer).expect("a pipe has flags");
    fcntl_setfl(&unheard.writer, flags | OFlags::NONBLOCK).expect("we own it");
    while unheard.writer.write(&[b'\n'; 4096]).is_ok() {}
    while unheard.writer.write(b"\n").is_ok() {}
    unheard.assert_works();
}

#[test]
fn a_log_pipe_that_was_closed_stops_neither_the_service_nor_a_handover() {
    let Unheard { server, address, reader, writer } = Unheard::start();
    drop((reader, writer));
    // Each write fails with EPIPE from now on. An unused pipe replaces the closed one in the struct.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    Unheard { server, address, reader: BufReader::new(reader), writer }.assert_works();
}

#[test]
fn a_stderr_that_was_never_open_stops_neither_the_service_nor_a_handover() {
    start_without_log("2>&-").assert_works();
}

#[test]
fn a_log_on_a_full_disk_stops_neither_the_service_nor_a_handover() {
    if !std::path::Path::new("/dev/full").exists() {
        return support::harness::skip("there is no /dev/full");
    }
    start_without_log("2>/dev/full").assert_works();
}
