//! Ten thousand clients that keep a connection and say nothing: what they cost, and what a handover of them does to others.

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
/// Long enough that the idle connections are closed after what is measured.
const GRACE: &str = "2s";
/// For the idle ones and the others; by default a server takes as many as half of its descriptors.
const LIMIT: &str = "15000";

#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    connections: usize,
    pub(crate) measured: Measured,
    /// Of each generation.
    rss_mib: Vec<f64>,
    kib_per_connection: f64,
    bare_hyper_kib_per_connection: f64,
}

pub(crate) async fn idle(handovers: u32) -> Idle {
    println!(
        "\nidle: {IDLE} silent keep-alive connections, 16 clients with connections of their own, handovers: {handovers}"
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

/// Each has made a request, so that it is a kept-alive connection and not merely an open one. Also says how many KiB each
/// of them takes in the server.
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

/// Waits until the server has closed all of them, each with FIN.
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
