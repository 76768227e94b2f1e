//! The wall clock jumps by hours, as it does when a machine wakes or its time is set: no wait depends on it, and nothing is
//! lost. libfaketime (faketime in Debian) shows the server a CLOCK_REALTIME that differs from the machine's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, is_alive, playground, skip, wait_until};
use support::load::Clients;
use support::process::{Line, Server, signal};

use crate::faults::{assert_next_restart, restart, wait_is, wait_said};

const HOUR: i64 = 3600;
const SLOW_START: Duration = Duration::from_millis(1500);
const STANDBY: Duration = Duration::from_secs(2);
const IDLE_GRACE: Duration = Duration::from_secs(4);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// The delay that a busy machine may add to a wait, far below the jump of an hour.
const LATE: Duration = Duration::from_secs(3);

/// The path of libfaketime on Debian and its derivatives, for any architecture.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let candidates = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    candidates.into_iter().find(|library| library.exists())
}

/// The clock of one server and of its successors.
struct Clock {
    dir: tempfile::TempDir,
}

impl Clock {
    fn start(library: &Path, args: &[&str]) -> (Clock, Server) {
        let clock = Clock { dir: tempfile::tempdir().expect("a directory") };
        clock.set(0);
        let mut command = playground(args);
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock.path("now"));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        // The name of this variable in older versions.
        command.env("DONT_FAKE_MONOTONIC", "1");
        (clock, Server::start(command))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets the clock to `offset` seconds from the true time. The file is replaced by a rename, because the library ends a
    /// process that reads half a number.
    fn set(&self, offset: i64) {
        std::fs::write(self.path("draft"), format!("{offset:+}")).expect("writable");
        std::fs::rename(self.path("draft"), self.path("now")).expect("writable");
    }

    /// Jumps to both offsets, and leaves every timer the time to notice.
    fn jump(&self, [first, last]: [i64; 2]) {
        for offset in [first, last] {
            self.set(offset);
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

/// The offset in seconds of the clock of a process when it wrote this line, which must have been just now.
fn error_of(line: &Line) -> i64 {
    let written = line.json["timestamp"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
    let written = written.unwrap_or_else(|| panic!("no time in {}", line.text));
    let now = SystemTime::now();
    let seconds = |d: Duration| i64::try_from(d.as_secs()).expect("some hours");
    written.duration_since(now).map_or_else(|e| -seconds(e.duration()), seconds)
}

/// Asserts that the line was written with this clock offset, which shows that the server saw the jump.
fn assert_wrong_by(offset: i64, line: &Line) {
    assert!((error_of(line) - offset).abs() < 60, "not {offset} s from the true time: {}", line.text);
}

fn assert_took(what: &str, expected: Duration, since: Instant) {
    let took = since.elapsed();
    // `since` was taken a little after the event that it stands for.
    let least = expected.mul_f64(0.9);
    assert!(took >= least && took < expected + LATE, "{what} took {took:?} instead of {expected:?}");
}

/// Jumps in every phase of a handover, and asserts that no wait changes. The line that ends a phase shows its last jump.
fn assert_indifferent(jumps: [i64; 2]) {
    let Some(library) = library() else { return skip("libfaketime is not installed") };
    let time = |d: Duration| format!("{}ms", d.as_millis());
    let (clock, mut server) = Clock::start(
        &library,
        &[
            "-v",
            "--fault",
            &format!("slow-start={}", SLOW_START.as_millis()),
            "--standby",
            &time(STANDBY),
            "--idle-grace",
            &time(IDLE_GRACE),
            "--drain-timeout",
            &time(DRAIN_TIMEOUT),
        ],
    );
    let first = server.first_pid();
    let fresh = Traffic::fresh(&server);
    let pause = Duration::from_millis(20);
    let kept = Traffic::start(server.address(), Clients::KeepAlive { pause }, 8);
    let mut idle = Client::connect(server.address());
    idle.get("/");
    let mut endless = Client::connect(server.address());
    endless.send("/slow?ms=600000");

    clock.jump(jumps);
    let second = restart(&server, first);
    assert_wrong_by(jumps[1], &wait_is(&server, first, "spawning"));

    let began = Instant::now();
    clock.jump(jumps);
    let ready = wait_said(&server, second, "serving, took over");
    assert_wrong_by(jumps[1], &ready);
    wait_is(&server, first, "standby");
    assert_took("the start", SLOW_START, began);

    let flip = Instant::now();
    clock.jump(jumps);
    assert_wrong_by(jumps[1], &wait_is(&server, first, "draining"));
    assert_took("standby", STANDBY, flip);

    clock.jump(jumps);
    idle.wait_closed();
    drop(idle);
    assert_took("the grace of an idle connection", IDLE_GRACE, flip);
    assert!(server.first_exit().success());
    assert_took("the drain", DRAIN_TIMEOUT, flip);
    let retired = server.log().wait_for("retired");
    assert_wrong_by(jumps[1], &retired);
    assert_eq!(retired.json["cut"], 1, "{}", retired.text);

    let third = assert_next_restart(&server, second);
    for traffic in [fresh, kept] {
        println!("{} requests, 0 failed", traffic.stop_lossless(&server).samples.len());
    }
    // The library leaves a file in /dev/shm if its process is killed.
    signal(third, Signal::SIGTERM);
    wait_until("the last generation has stopped", &server, || !is_alive(third));
}

#[test]
fn a_clock_that_jumps_an_hour_ahead_and_two_back_delays_and_hastens_nothing() {
    assert_indifferent([HOUR, -HOUR]);
}

#[test]
fn a_clock_that_jumps_an_hour_back_and_two_ahead_delays_and_hastens_nothing() {
    assert_indifferent([-HOUR, HOUR]);
}
