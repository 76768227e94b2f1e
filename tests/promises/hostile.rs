//! Hostile and broken clients harm only themselves, even during a handover: the server stays up, its memory stays bounded,
//! and honest clients lose nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{Traffic, is_alive, playground, wait_until};
use support::process::{Line, Log, PATIENCE, Server, signal};

mod files;
mod http1;
mod http2;
mod log;
mod silent;
mod smuggling;

/// A server with honest traffic, and a watch on its memory from beginning to end.
struct Siege {
    server: Server,
    traffic: Traffic,
    generation: u64,
    pid: u32,
    peak: Peak,
}

impl Siege {
    fn begin(args: &[&str]) -> Siege {
        Siege::of(playground(args))
    }

    fn of(command: Command) -> Siege {
        let server = Server::start(command);
        let traffic = Traffic::fresh(&server);
        let (pid, peak) = (server.first_pid(), Peak::watch(server.log().clone()));
        Siege { server, traffic, generation: 1, pid, peak }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Hands over, and returns when the old generation drains.
    fn hand_over(&mut self) {
        signal(self.pid, Signal::SIGHUP);
        self.pid = self.server.wait_serving(self.generation + 1);
        self.server.wait_state(self.generation, "draining");
        self.generation += 1;
    }

    /// Attacks repeatedly, at least once before, during and after a handover, and returns the number of attacks.
    fn attack_while_handing_over(&mut self, attack: impl Fn(SocketAddr) + Send + 'static) -> u64 {
        let (stop, attacks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let addr = self.address();
        let attacker = std::thread::spawn({
            let (stop, attacks) = (Arc::clone(&stop), Arc::clone(&attacks));
            move || {
                while !stop.load(Ordering::SeqCst) {
                    attack(addr);
                    attacks.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let one_more = || {
            let before = attacks.load(Ordering::SeqCst);
            // The attack that is running now began too early to count.
            wait_until("the attack goes on", &self.server, || {
                attacks.load(Ordering::SeqCst) > before + 1 || attacker.is_finished()
            });
        };
        one_more();
        signal(self.pid, Signal::SIGHUP);
        self.pid = self.server.wait_serving(self.generation + 1);
        self.server.wait_state(self.generation, "draining");
        one_more();
        self.generation += 1;
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = attacker.join() {
            eprintln!("{}", self.server.log().history());
            std::panic::resume_unwind(panic);
        }
        attacks.load(Ordering::SeqCst)
    }

    /// Asserts that the attacks harmed nothing: no honest request failed, every generation but the last retired without an
    /// error, the last one lives, and none ever took more than `mib` MiB.
    fn end(self, mib: u64) {
        let report = self.traffic.stop_lossless(&self.server);
        for generation in 1..self.generation {
            self.server.wait_retired(generation);
        }
        assert!(is_alive(self.pid), "{}", self.server.log().history());
        let bad = |line: &Line| line.json["level"] == "ERROR" || line.text.contains("panicked");
        let bad: Vec<_> = self.server.log().lines().into_iter().filter(bad).collect();
        assert!(bad.is_empty(), "{bad:?}");
        let (peak, honest) = (self.peak.stop(), report.samples.len());
        // Shown with `--nocapture`.
        println!("peak of a generation: {peak} KiB; honest requests: {honest}, failed: {}", report.failed());
        assert!(peak > 0 && peak < mib << 10, "a generation took {peak} KiB");
    }
}

/// The peak memory of all generations, as the kernel counts it (VmHWM, proc_pid_status(5)).
struct Peak {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<u64>,
}

impl Peak {
    fn watch(log: Log) -> Peak {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut peak = 0;
            loop {
                let last = stopped.load(Ordering::SeqCst);
                let lines = log.lines();
                let pids = lines.iter().filter(|l| l.message().starts_with("serving")).map(|l| l.pid());
                peak = pids.filter_map(|pid| memory(pid, "VmHWM:")).max().unwrap_or(0).max(peak);
                if last {
                    return peak;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Peak { stop, watcher }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.watcher.join().expect("reading /proc does not panic")
    }
}

/// One memory field of `/proc/PID/status`, in KiB.
fn memory(pid: u32, which: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    line.split_whitespace().next()?.parse().ok()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// Reads until the server ends the connection, which it must do.
fn rest(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut all = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (all, End::Closed),
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return (all, End::Reset),
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
}

/// Sends `bytes` and reads until the server closes.
fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr);
    stream.write_all(bytes).expect("the server reads");
    let (answer, end) = rest(&mut stream);
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(end, End::Closed, "not closed properly after {text:?}");
    text
}

/// The statuses of all answers in `text`.
fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}
