//! Handovers under clients that fetch small, medium and large files, over HTTP/1, HTTP/2 and TLS.

use std::time::Duration;

use support::load::{Clients, Load, Report};
use support::process::Server;

use super::site::{File, LARGE, MEDIUM, SMALL, Site};
use crate::measure::{AROUND, Measured};
use crate::restarts::{Seen, hand_over};
use crate::workloads::{Run, failed, stop};

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
    Tls,
}

/// The number of clients for each file: large files are few, so that they do not take up the whole machine.
const CLIENTS: [(File, usize); 3] = [(SMALL, 48), (MEDIUM, 14), (LARGE, 2)];
/// The same for HTTP/2, in connections.
const CONNECTIONS: [(File, usize); 3] = [(SMALL, 12), (MEDIUM, 3), (LARGE, 1)];
/// Shorter than the time between two handovers: HTTP/2 clients that never pause get GOAWAY only after this time.
const GOAWAY_DELAY: &str = "300ms";
/// The requests at a time on an HTTP/2 connection.
const STREAMS: usize = 4;

/// Measures each protocol with this number of handovers.
pub(super) async fn all(handovers: u32) -> Vec<Run> {
    let site = Site::new();
    let mut runs = vec![];
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Tls] {
        println!("\n  {}: {}; handovers: {handovers}", protocol.name(), protocol.title());
        runs.extend(protocol.run(&site, handovers).await);
    }
    runs
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "files-http1",
            Protocol::Http2 => "files-http2",
            Protocol::Tls => "files-tls",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Protocol::Http1 => "64 kept connections",
            Protocol::Http2 => "16 HTTP/2 connections with 4 requests at a time",
            Protocol::Tls => "64 kept connections with TLS and HTTP/1",
        }
    }

    fn clients(self) -> [(File, usize); 3] {
        if let Protocol::Http2 = self { CONNECTIONS } else { CLIENTS }
    }

    fn start(self, site: &Site) -> Server {
        let mut command = site.named_command();
        command.args(["--goaway-delay", GOAWAY_DELAY]);
        Server::start(if let Protocol::Tls = self { site.with_tls(command) } else { command })
    }

    fn load(self, site: &Site, server: &Server, file: File, count: usize) -> Load {
        let pause = Duration::ZERO;
        let clients = match self {
            Protocol::Http2 => Clients::Http2 { streams: STREAMS, pause },
            Protocol::Http1 | Protocol::Tls => Clients::KeepAlive { pause },
        };
        let connector = matches!(self, Protocol::Tls).then(|| site.connector());
        let target = site.target(file);
        Load::fetch(connector.as_ref(), server.address(), clients, count, move || target.clone())
    }

    async fn run(self, site: &Site, handovers: u32) -> Vec<Run> {
        let server = self.start(site);
        let loads: Vec<Load> =
            self.clients().map(|(file, count)| self.load(site, &server, file, count)).into();
        let name = |generation| site.name(generation);
        let seen = hand_over(&server, handovers, AROUND * 2, &|| failed(&loads), &name).await;
        self.finish(&stop(loads).await, &seen, &server)
    }

    /// Prints the outcome, and returns it for each file.
    fn finish(self, reports: &[Report], seen: &Seen, server: &Server) -> Vec<Run> {
        let mut whole = Report::default();
        reports.iter().for_each(|report| whole.add(report.clone()));
        let run = |((file, count), report): ((File, usize), &Report)| Run {
            workload: format!("{}-{}", self.name(), file.name.trim_end_matches(".bin")),
            title: format!("{count} of the {}, each fetches {}", self.title(), file.size),
            measured: Measured::of_part(report, &whole, &seen.asked),
            usage: None,
        };
        let mut runs: Vec<Run> = self.clients().into_iter().zip(reports).map(run).collect();
        self.print(&runs);
        Measured::of(&whole, &seen.asked).print_flips();
        let usage = seen.usage(server);
        usage.print();
        runs.last_mut().expect("there are three files").usage = Some(usage);
        runs
    }

    fn print(self, runs: &[Run]) {
        println!(
            "    file  connections  requests  failed         /s    steady p50 / p99      around p50 / p99  (ms)"
        );
        for ((file, count), run) in self.clients().into_iter().zip(runs) {
            let Measured { requests, failed, failures, per_second, steady, around, .. } = &run.measured;
            println!(
                "  {:>6}  {count:>11}  {requests:>8}  {failed:>6}  {per_second:>9.1}  {:>8.2} / {:>8.2}  {:>9.2} / {:>8.2}",
                file.size, steady.p50, steady.p99, around.p50, around.p99
            );
            failures.iter().for_each(|(kind, n)| println!("    {n} x {kind}"));
        }
    }
}
