//! The tools that every test needs: the programs, a server on a free port, traffic, and single requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::load::{Clients, Load, Report};
use crate::process::{PATIENCE, Server, command, signal};

/// The path of an example program, which `cargo test` builds into `examples`, next to the folder of this executable.
pub fn example(name: &str) -> PathBuf {
    let path = crate::profile_dir().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}

/// Flags that make a server testable: a free port, a machine-readable log, a short standby.
pub const QUICK: [&str; 6] = ["--listen", "127.0.0.1:0", "--log-format", "json", "--standby", "300ms"];

pub fn playground(args: &[&str]) -> Command {
    let mut command = command(example("playground"));
    command.args(QUICK).args(args);
    command
}

pub fn start(args: &[&str]) -> Server {
    Server::start(playground(args))
}

/// Makes `generation` hand over, waits until it drains, and returns the pid of its successor.
pub fn hand_over(server: &Server, generation: u64, pid: u32) -> u32 {
    signal(pid, Signal::SIGHUP);
    let successor = server.wait_serving(generation + 1);
    server.wait_state(generation, "draining");
    successor
}

/// A playground with a fault file: each successor behaves as the file says.
pub struct Faulty {
    pub server: Server,
    fault: PathBuf,
    _dir: tempfile::TempDir,
}

impl Faulty {
    pub fn start(args: &[&str]) -> Faulty {
        let dir = tempfile::tempdir().expect("a directory");
        let fault = dir.path().join("fault");
        let mut command = playground(args);
        command.arg("--fault-file").arg(&fault);
        Faulty { server: Server::start(command), fault, _dir: dir }
    }

    pub fn next_is(&self, fault: &str) {
        std::fs::write(&self.fault, fault).expect("writable");
    }
}

/// A load that runs in the background of a test.
pub struct Traffic {
    runtime: Runtime,
    load: Load,
}

impl Traffic {
    pub fn start(addr: SocketAddr, clients: Clients, count: usize) -> Traffic {
        Traffic::start_with(None, addr, clients, count)
    }

    /// Starts the load, over TLS if there is a connector.
    pub fn start_with(
        tls: Option<&TlsConnector>,
        addr: SocketAddr,
        clients: Clients,
        count: usize,
    ) -> Traffic {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let load = runtime.block_on(async { Load::start_with(tls, addr, clients, count) });
        Traffic { runtime, load }
    }

    pub fn fresh(server: &Server) -> Traffic {
        Traffic::start(server.address(), Clients::Fresh, 8)
    }

    /// Returns whether every client has received an answer.
    pub fn is_under_way(&self) -> bool {
        self.load.is_under_way()
    }

    pub fn stop(self) -> Report {
        self.runtime.block_on(self.load.stop())
    }

    /// Stops the load, and asserts that there was traffic and that every request was answered.
    pub fn stop_lossless(self, server: &Server) -> Report {
        let report = self.stop();
        assert_eq!(report.failed(), 0, "{:?}\n{}", report.failures(), server.log().history());
        assert!(report.samples.len() > 50, "only {} requests", report.samples.len());
        report
    }
}

/// Puts a copy of a program at `to`, by rename because the old program may be running. `cp` makes the copy: if this process
/// wrote the file, a process that another test starts meanwhile would inherit the descriptor for a moment, and a program that
/// is open for writing cannot be started (ETXTBSY).
pub fn install(from: impl AsRef<Path>, to: &Path) {
    let draft = to.with_extension("draft");
    let copied = Command::new("cp").arg(from.as_ref()).arg(&draft).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy {}", from.as_ref().display());
    std::fs::rename(draft, to).expect("writable");
}

/// Starts the playground from a copy at `program`, which the test may replace.
pub fn start_copy(program: &Path, args: &[&str]) -> Server {
    install(example("playground"), program);
    let mut command = command(program);
    command.args(args);
    Server::start(command)
}

/// A connection that a test drives by hand.
pub struct Client<S = TcpStream>(pub S);

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends a request and reads its answer, head and body.
    pub fn get(&mut self, target: &str) -> String {
        self.send(target);
        self.answer()
    }

    pub fn send(&mut self, target: &str) {
        self.write(format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n"));
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("the connection is open");
    }

    pub fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let n = self
                .0
                .read(&mut chunk)
                .unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(&answer)));
            answer.extend_from_slice(&chunk[..n]);
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(n > 0, "closed after {text:?}");
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.and_then(|l| l.parse().ok()).unwrap_or(0) {
                return text;
            }
        }
    }

    /// Reads until the server closes the connection, and asserts that it closes with FIN, not RST.
    pub fn rest(mut self) -> String {
        let mut all = String::new();
        let end = self.0.read_to_string(&mut all);
        assert!(end.is_ok(), "not closed properly: {end:?} after {all:?}");
        all
    }

    /// Waits until the server closes the connection, and asserts that it closes with FIN, not RST.
    pub fn wait_closed(&mut self) {
        match self.0.read(&mut [0; 1]) {
            Ok(0) => {}
            Ok(_) => panic!("the server sent more"),
            Err(e) => panic!("not closed properly: {e}"),
        }
    }
}

/// Sends a request on a new connection and returns its answer.
pub fn get(addr: SocketAddr, target: &str) -> String {
    Client::connect(addr).get(target)
}

/// Polls `done` until it returns true. For conditions that nothing announces.
pub fn wait_until(what: &str, server: &Server, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(
            Instant::now() < until,
            "timed out after {PATIENCE:?} waiting until {what}:\n{}",
            server.log().history()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Leaves a process only `free` more descriptors, as if another part of it had used up the others, which no connection limit
/// accounts for.
pub fn leave_descriptors(pid: u32, free: usize) {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is alive").count();
    let mut prlimit = Command::new("prlimit");
    let limited = prlimit.args([format!("--pid={pid}"), format!("--nofile={}", open + free)]).status();
    assert!(limited.expect("util-linux is installed").success());
}

pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Prints one line that says why a test is skipped. It bypasses libtest, which hides the output of a passing test; `.ci/run`
/// counts these lines.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
