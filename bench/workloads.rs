//! Handovers of this server under each kind of load, on loopback and over a slow network that loses packets.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use support::harness::example;
use support::load::{Clients, Load, Report};
use support::netns::{self, Bed, LOSSY, SERVER};
use support::process::{Server, command};

use crate::measure::{AROUND, Measured};
use crate::restarts::{Seen, Usage, hand_over};

/// Short, so that restarts can follow each other quickly, but long enough for any handshake on loopback.
pub(crate) const STANDBY: &str = "500ms";

/// The first argument of a process that runs one workload in a separate network; the workload's name and the number of handovers
/// follow.
pub(crate) const IN_NETNS: &str = "--on-the-bed";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 64 clients, a connection for each request
    Fresh,
    /// 256 clients that keep their connections, with pauses of 10 ms
    KeepAlive,
    /// 64 clients that keep their connections, without pauses
    Busy,
    /// 16 HTTP/2 connections with 32 requests at a time
    Http2,
    /// 5,000 requests a second on 256 connections, even if earlier ones are unanswered
    Paced,
    /// Uploads, downloads, WebSockets, HTTP/2, kept and fresh connections at the same time
    Mixed,
    /// Fresh connections of 400 clients over 80 to 120 ms and 1 % loss
    LossyFresh,
    /// Kept connections of 400 clients, with pauses of 100 ms, over the same network
    LossyKeepAlive,
    /// 50 HTTP/2 connections with 4 requests at a time over the same network
    LossyHttp2,
}

/// The outcome for one kind of client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) title: String,
    pub(crate) measured: Measured,
    /// The usage of the server, only in the last run of a workload, for all kinds of clients together.
    #[serde(flatten)]
    pub(crate) usage: Option<Usage>,
}

/// The clients of one kind in a workload.
struct Part {
    /// The suffix to the name of the workload.
    name: &'static str,
    title: &'static str,
    clients: Clients,
    count: usize,
}

impl Workload {
    pub(crate) const ALL: &[Workload] = &[
        Workload::Fresh,
        Workload::KeepAlive,
        Workload::Busy,
        Workload::Http2,
        Workload::Paced,
        Workload::Mixed,
        Workload::LossyFresh,
        Workload::LossyKeepAlive,
        Workload::LossyHttp2,
    ];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }

    pub(crate) fn title(self) -> String {
        self.to_possible_value().expect("none is hidden").get_help().expect("each is documented").to_string()
    }

    /// The clients and their number; `None` for a workload with several kinds of clients.
    pub(crate) fn clients(self) -> Option<(Clients, usize)> {
        let pause = Duration::from_millis;
        Some(match self {
            Workload::Fresh => (Clients::Fresh, 64),
            Workload::KeepAlive => (Clients::KeepAlive { pause: pause(10) }, 256),
            Workload::Busy => (Clients::KeepAlive { pause: Duration::ZERO }, 64),
            Workload::Http2 => (Clients::Http2 { streams: 32, pause: Duration::ZERO }, 16),
            Workload::Paced => (Clients::Paced { every: Duration::from_micros(51_200) }, 256),
            Workload::Mixed => return None,
            Workload::LossyFresh => (Clients::FreshNowAndThen { pause: pause(100) }, 400),
            Workload::LossyKeepAlive => (Clients::KeepAlive { pause: pause(100) }, 400),
            Workload::LossyHttp2 => (Clients::Http2 { streams: 4, pause: Duration::ZERO }, 50),
        })
    }

    fn parts(self) -> Vec<Part> {
        let one = |(clients, count)| vec![Part { name: "", title: "", clients, count }];
        self.clients().map_or_else(mixed, one)
    }

    pub(crate) fn is_lossy(self) -> bool {
        matches!(self, Workload::LossyFresh | Workload::LossyKeepAlive | Workload::LossyHttp2)
    }

    /// The pause between two handovers, with steady traffic.
    fn pause(self) -> Duration {
        match self {
            // Together with standby, longer than any body takes, so that an old generation has sent its bodies before the next
            // one retires.
            Workload::Mixed => BODY.mul_f64(1.6),
            _ if self.is_lossy() => Duration::from_secs(1),
            _ => AROUND * 2,
        }
    }

    /// Runs the workload; returns the outcome for each kind of client, or why the workload cannot run here.
    pub(crate) async fn run(self, handovers: u32) -> Result<Vec<Run>, String> {
        println!("\n{}: {}", self.name(), self.title());
        let runs: Vec<Run> = if self.is_lossy() {
            // Standby takes 5 s each time.
            let handovers = handovers.div_ceil(4).to_string();
            let args = [IN_NETNS, &self.name(), &handovers];
            let said = tokio::task::block_in_place(|| netns::run(IN_NETNS, &args, || {}))?;
            serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))?
        } else {
            let args = ["--listen", "127.0.0.1:0", "--standby", STANDBY];
            let server = start_playground(&args);
            let loads = self.start(&server);
            let seen = hand_over(&server, handovers, self.pause(), &|| failed(&loads), &|_| {}).await;
            self.finish(&stop(loads).await, &seen, &server)
        };
        for run in &runs {
            if runs.len() > 1 {
                println!("\n  {}: {}", run.workload, run.title);
            }
            run.measured.print();
            run.usage.iter().for_each(Usage::print);
        }
        Ok(runs)
    }

    fn start(self, server: &Server) -> Vec<Load> {
        let start = |part: Part| Load::start(server.address(), part.clients, part.count);
        self.parts().into_iter().map(start).collect()
    }

    fn finish(self, reports: &[Report], seen: &Seen, server: &Server) -> Vec<Run> {
        let mut whole = Report::default();
        reports.iter().for_each(|report| whole.add(report.clone()));
        let parts = self.parts();
        let run = |(part, report): (&Part, &Report)| Run {
            workload: self.name() + part.name,
            title: if part.title.is_empty() { self.title() } else { part.title.to_owned() },
            measured: Measured::of_part(report, &whole, &seen.asked),
            usage: None,
        };
        let mut runs: Vec<Run> = parts.iter().zip(reports).map(run).collect();
        runs.last_mut().expect("there are clients").usage = Some(seen.usage(server));
        runs
    }
}

/// The mean time of a body. No body takes more than twice as long.
const BODY: Duration = Duration::from_secs(1);

/// The mixed clients, in numbers such that no kind takes up two cores.
fn mixed() -> Vec<Part> {
    let pause = Duration::from_millis(10);
    let part = |name, title, clients, count| Part { name, title, clients, count };
    vec![
        part(
            "-fresh",
            "16 clients, a connection for each request, with pauses of 10 ms",
            Clients::FreshNowAndThen { pause },
            16,
        ),
        part(
            "-keep-alive",
            "32 clients that keep their connections, with pauses of 10 ms",
            Clients::KeepAlive { pause },
            32,
        ),
        part(
            "-http2",
            "4 HTTP/2 connections with 8 requests at a time, with pauses of 10 ms",
            Clients::Http2 { streams: 8, pause },
            4,
        ),
        part(
            "-upload",
            "32 clients that upload 64 KiB each time, over 0 to 2 s",
            Clients::Upload { bytes: 64 << 10, over: BODY },
            32,
        ),
        part(
            "-download",
            "16 clients that download 4 MiB each time, over 0 to 2 s",
            Clients::Download { bytes: 4 << 20, over: BODY },
            16,
        ),
        part(
            "-websocket",
            "32 WebSockets with messages that are echoed, with pauses of 10 ms",
            Clients::WebSocket { pause },
            32,
        ),
    ]
}

pub(crate) fn failed(loads: &[Load]) -> u64 {
    loads.iter().map(Load::failed).sum()
}

/// Stops all loads at the same time: one after another, the later ones would have the server to themselves.
pub(crate) async fn stop(loads: Vec<Load>) -> Vec<Report> {
    let ending: Vec<_> = loads.into_iter().map(|load| tokio::spawn(load.stop())).collect();
    let mut reports = vec![];
    for load in ending {
        reports.push(load.await.expect("clients do not panic"));
    }
    reports
}

/// Runs one workload in a process that [`Workload::run`] has started, and prints its outcome as JSON.
pub(crate) fn on_the_bed(args: &[String]) {
    let [name, handovers] = args else { return };
    let workload = Workload::from_str(name, false).expect("the parent process wrote it");
    let handovers = handovers.parse().expect("the parent process wrote it");
    let measure = || {
        let network = Bed::new(LOSSY);
        let server = start_playground(&["--listen", &format!("{SERVER}:0"), "--standby", "5s"]);
        let runtime = network.client_runtime(2);
        let loads = runtime.block_on(async { workload.start(&server) });
        let here = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let seen =
            here.block_on(hand_over(&server, handovers, workload.pause(), &|| failed(&loads), &|_| {}));
        let runs = workload.finish(&runtime.block_on(stop(loads)), &seen, &server);
        println!("{}", serde_json::to_string(&runs).expect("runs are plain data"));
    };
    // This process is inside the network already, so `measure` runs at once.
    netns::run(IN_NETNS, &[], measure).expect("this process was started there");
}

pub(crate) fn start_playground(args: &[&str]) -> Server {
    let mut command = command(playground());
    command.args(["--log-format", "json"]).args(args);
    Server::start(command)
}

pub(crate) fn playground() -> std::path::PathBuf {
    example("playground")
}
