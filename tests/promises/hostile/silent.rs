//! Ten thousand clients that connect and never send a byte: their cost, and how they are closed.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::harness::{get, skip, wait_until};

use super::http1::CALM;
use super::{End, Siege, connect, memory, rest};

const SILENT: usize = 10_000;
/// Descriptors for everything else: other tests in this process, and honest traffic in the server.
const OTHERS: usize = 2_000;
/// The memory limit of a silent connection in KiB, in a debug build. hyper takes a connection over, with its buffers, at
/// the first byte or at the end: until then it takes 6 KiB, and 14 KiB while it is closed. A kept-alive connection takes
/// 13 KiB in a release build, according to `cargo bench`.
const WAITING: u64 = 10;
const CLOSING: u64 = 18;

/// Returns the number of connections that this process and a server that it starts can have. Raises the soft limit to the
/// hard limit, as the server does.
fn as_many_as_allowed() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // An unprivileged process may always raise its soft limit to the hard limit.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("not above the hard limit");
    let descriptors = limit.maximum.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    SILENT.min(descriptors.saturating_sub(OTHERS))
}

fn resident(pid: u32) -> u64 {
    memory(pid, "VmRSS:").expect("the process lives")
}

/// The number of open descriptors of a process.
fn open(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn ten_thousand_connections_that_say_nothing_are_closed_properly_when_their_generation_retires() {
    let count = as_many_as_allowed();
    if count < 100 {
        return skip("the hard limit of descriptors is too low for many connections");
    }
    let mut siege =
        Siege::begin(&["--idle-grace", "500ms", "--max-connections", &(count + OTHERS / 2).to_string()]);
    let (first, before) = (siege.pid, resident(siege.pid));
    let mut silent: Vec<_> = (0..count).map(|_| connect(siege.address())).collect();
    wait_until("all are accepted", &siege.server, || open(first) >= count);
    // The server may not yet have begun each accepted connection; one that is answered now came after all of them.
    assert!(get(siege.address(), "/").contains("generation=1 "));
    let each = resident(first).saturating_sub(before) / count as u64;
    siege.hand_over();
    for (n, stream) in silent.iter_mut().enumerate() {
        assert_eq!(rest(stream), (Vec::new(), End::Closed), "connection {n}");
    }
    drop(silent);
    let retired = siege.server.log().wait_for("retired");
    assert_eq!(retired.json["cut"].as_u64(), Some(0), "{}", siege.server.log().history());
    println!("{count} connections, {each} KiB each");
    assert!(each < WAITING, "{each} KiB for each connection");
    siege.end(CALM + CLOSING * count as u64 / 1024);
}
