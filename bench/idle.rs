//! Ten thousand idle connections: their cost, and the effect of their handover on other clients.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Serialize;
use support::load::{Clients, Load, Lost, Report};
use support::process::{Server, signal};
use support::resources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::bare;
use crate::measure::{AROUND, Measured};
use crate::workloads::{STANDBY, start_playground};

const IDLE: usize = 10_000;
/// Long enough that the server closes the idle connections only after the measurement.
const GRACE: &str = "2s";
/// Enough for the idle connections and the others; the default limit is half of the server's descriptors.
const LIMIT: &str = "15000";

#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    connections: usize,
    pub(crate) measured: Measured,
    /// The memory of each generation.
    rss_mib: Vec<f64>,
    kib_per_connection: f64,
    bare_hyper_kib_per_connection: f64,
}

pub(crate) async fn idle(handovers: u32) -> Idle {
    println!(
        "\nidle: {IDLE} silent keep-alive connections, 16 clients with fresh connections, handovers: {handovers}"
    );
    let server = start_playground(&[
        "--listen",
        "127.0.0.1:0",
        "--standby",
        STANDBY,
        "--idle-grace",
        GRACE,
        "--max-connections",
        LIMIT,
    ]);
    let mut pid = server.first_pid();
    let (mut report, mut asked, mut rss_mib) = (Report::default(), Vec::new(), Vec::new());
    let (mut kib_per_connection, mut bare_hyper_kib_per_connection) = (f64::NAN, f64::NAN);
    for generation in 1..=u64::from(handovers) {
        let (silent, kib) = connect(&server, pid).await;
        let load =
            Load::start(server.address(), Clients::FreshNowAndThen { pause: Duration::from_millis(10) }, 16);
        sleep(Duration::from_secs(2)).await;
        rss_mib.push(resources::rss_mib(pid));
        asked.push(Instant::now());
        signal(pid, Signal::SIGHUP);
        pid = tokio::task::block_in_place(|| server.wait_serving(generation + 1));
        sleep(AROUND * 2).await;
        report.add(load.stop().await);
        report.add(closed_properly(silent).await);
        tokio::task::block_in_place(|| server.wait_retired(generation));
        if generation == 1 {
            let bare = bare::start();
            (_, bare_hyper_kib_per_connection) = connect(&bare, bare.first_pid()).await;
            kib_per_connection = kib;
            println!(
                "  memory for each idle connection: {kib:.1} KiB, with bare hyper {bare_hyper_kib_per_connection:.1} KiB"
            );
        }
    }
    let measured = Measured::of(&report, &asked);
    measured.print();
    println!("  RSS of each generation, MiB: {rss_mib:.1?}");
    Idle { connections: IDLE, measured, rss_mib, kib_per_connection, bare_hyper_kib_per_connection }
}

/// Opens the connections and makes a request on each, so that it is kept alive and not merely open. Also returns the memory of
/// each connection in the server, in KiB.
async fn connect(server: &Server, pid: u32) -> (Vec<TcpStream>, f64) {
    let before = resources::rss_mib(pid);
    let mut all = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server accepts");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: load\r\n\r\n").await.expect("the server reads");
        let mut answer = [0; 1024];
        let n = stream.read(&mut answer).await.expect("the server answers");
        assert!(answer[..n].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..n]));
        all.push(stream);
    }
    (all, (resources::rss_mib(pid) - before) * 1024.0 / IDLE as f64)
}

/// Waits until the server has closed all connections, and reports those that were not closed with FIN.
async fn closed_properly(silent: Vec<TcpStream>) -> Report {
    let mut report = Report::default();
    for mut stream in silent {
        if !matches!(stream.read(&mut [0; 1]).await, Ok(0)) {
            let now = Instant::now();
            report.lost.push(Lost { kind: "idle, not closed properly", at: now, known: now });
        }
    }
    report
}
