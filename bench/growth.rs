//! The cost of a handover by the number of open connections, and by the number of listening addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use support::load::{Clients, Load};
use support::process::{Server, signal};
use support::resources::cpu_seconds;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::measure::{AROUND, ms};
use crate::plot;
use crate::progress::Progress;
use crate::workloads::{STANDBY, start_playground};

const CONNECTIONS: [usize; 5] = [10, 100, 1_000, 10_000, 50_000];
const ADDRESSES: [usize; 5] = [1, 2, 4, 8, 16];
const GRACE: Duration = Duration::from_secs(2);
/// Connections per client address, which has 28,000 ephemeral ports.
const PER_SOURCE: usize = 20_000;

/// The measurements of one handover.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    connections: usize,
    addresses: usize,
    /// The time from the signal until the successor serves.
    handover_ms: f64,
    /// The slowest new connection, including its request, in the 500 ms around that.
    slowest_ms: f64,
    /// The time from the flip until the old process has exited, without standby and the grace of idle connections.
    drain_ms: f64,
    /// The CPU time of the old process from the flip to its exit.
    drain_cpu_ms: f64,
    failed: u64,
}

pub(crate) async fn growth(quick: bool, pictures: Option<&Path>) -> Vec<Point> {
    println!("\ngrowth: a handover with more and more connections, and with more and more addresses");
    let room = raise_descriptors() - 1_500;
    let (sizes, addresses): (&[usize], &[usize]) =
        if quick { (&[10, 1_000], &[1, 16]) } else { (&CONNECTIONS, &ADDRESSES) };
    // Capped by the limit on open files.
    let mut sizes: Vec<usize> = sizes.iter().map(|connections| room.min(*connections)).collect();
    sizes.dedup();
    let most = sizes.len();
    let mut points = vec![];
    println!("  connections  addresses  handover  slowest connect  drain  CPU of the drain   (ms)");
    let all = sizes.iter().map(|connections| (*connections, 1));
    let all: Vec<_> = all.chain(addresses.iter().map(|addresses| (100, *addresses))).collect();
    let progress = Progress::of(all.len() as u32);
    for (n, (connections, addresses)) in (1..).zip(all) {
        progress.show(n, 0);
        points.push(handover(connections, addresses).await);
    }
    drop(progress);
    if !quick && room < CONNECTIONS[CONNECTIONS.len() - 1] {
        println!("  more connections than {room} need more open files than this user may have");
    }
    if let Some(dir) = pictures {
        let (by_connections, by_addresses) = points.split_at(most);
        let of = |points: &[Point], of: fn(&Point) -> usize| {
            let line =
                |value: fn(&Point) -> f64| points.iter().map(|p| (of(p) as f64, value(p).max(0.1))).collect();
            vec![
                ("signal until the successor serves", line(|p| p.handover_ms)),
                ("slowest new connection around the flip", line(|p| p.slowest_ms)),
                ("drain, without standby and grace", line(|p| p.drain_ms)),
                ("CPU of the drain", line(|p| p.drain_cpu_ms)),
            ]
        };
        let draw = |name: &str, what: &str, lines: Vec<_>| {
            plot::growth(
                &dir.join(format!("growth-{name}.svg")),
                &format!("A handover and the {what}"),
                name,
                &lines,
            );
        };
        draw("connections", "connections that are open", of(by_connections, |p| p.connections));
        draw("addresses", "addresses that are listened on", of(by_addresses, |p| p.addresses));
    }
    points
}

/// Raises the limit on open files as far as allowed, also for the servers that inherit it, and returns it.
pub(crate) fn raise_descriptors() -> usize {
    let wanted = Some(CONNECTIONS[CONNECTIONS.len() - 1] as u64 * 2 + 10_000);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted });
    let allowed = getrlimit(Resource::Nofile);
    // Without root, the hard limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: allowed.maximum, ..allowed });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

async fn handover(connections: usize, addresses: usize) -> Point {
    let limit = (connections + 1000).to_string();
    let grace = format!("{}s", GRACE.as_secs());
    let mut args = vec!["--idle-grace", &grace, "--max-connections", &limit, "--standby", STANDBY];
    (0..addresses).for_each(|_| args.extend(["--listen", "127.0.0.1:0"]));
    let server = start_playground(&args);
    let idle = connect(&server.addresses(1), connections).await;
    let clients = Clients::FreshNowAndThen { pause: Duration::from_millis(5) };
    let load = Load::start(server.address(), clients, 4);
    sleep(Duration::from_millis(500)).await;
    let pid = server.first_pid();
    let asked = Instant::now();
    signal(pid, Signal::SIGHUP);
    let at = |what: &str, line: &dyn Fn(&support::process::Line) -> bool| {
        server.log().wait(what, |found| line(found).then_some(found.at))
    };
    let served = tokio::task::block_in_place(|| {
        at("the successor serves", &|line| line.generation() == 2 && line.message().starts_with("serving"))
    });
    let cpu_at_flip = cpu_seconds(pid);
    sleep(AROUND).await;
    let report = load.stop().await;
    let cpu = last_cpu(&server, pid).await;
    let left = at("the old one leaves", &|line| line.generation() == 1 && line.message() == "retired");
    drop(idle);
    let around = report.samples.iter().filter(|s| s.at + AROUND > served && s.at < served + AROUND);
    let waited = Duration::from_millis(500).max(GRACE);
    let point = Point {
        connections,
        addresses,
        handover_ms: ms(served - asked),
        slowest_ms: around.map(|s| ms(s.took)).fold(0.0, f64::max),
        drain_ms: ms((left - served).saturating_sub(waited)),
        drain_cpu_ms: (cpu - cpu_at_flip) * 1000.0,
        failed: report.failed(),
    };
    println!(
        "  {:>11}  {:>9}  {:>8.1}  {:>15.1}  {:>5.0}  {:>16.0}",
        connections, addresses, point.handover_ms, point.slowest_ms, point.drain_ms, point.drain_cpu_ms
    );
    point
}

/// The CPU time of a process at its exit, in seconds.
async fn last_cpu(server: &Server, pid: u32) -> f64 {
    let mut last = cpu_seconds(pid);
    while server.alive().contains(&pid) {
        let now = cpu_seconds(pid);
        last = if now.is_nan() { last } else { now };
        sleep(Duration::from_millis(5)).await;
    }
    last
}

/// Opens connections and makes a request on each, so that it is kept alive.
async fn connect(addresses: &[SocketAddr], count: usize) -> Vec<JoinHandle<()>> {
    let mut all = Vec::with_capacity(count);
    for n in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, u8::try_from(n / PER_SOURCE).expect("at most 2")));
        socket.bind(SocketAddr::new(source, 0)).expect("a port");
        let mut stream = socket.connect(addresses[n % addresses.len()]).await.expect("the server accepts");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: load\r\n\r\n").await.expect("the server reads");
        let answered = stream.read(&mut [0; 1024]).await.expect("the server answers");
        assert!(answered > 0, "the server closed");
        // Closes when the server closes, as clients do.
        all.push(tokio::spawn(async move { drop(stream.read(&mut [0; 1]).await) }));
    }
    all
}
