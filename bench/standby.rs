//! The length of standby: the requests that fail over a slow network that loses packets, for several lengths of standby.
//! Prints the rows of the README's table. It takes five minutes, so it runs only when it is named.
//!
//! Each cell is measured in a separate process of this executable, because a network ends with its process.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use support::load::{Clients, Load, Report};
use support::netns::{self, Bed, LOSSY, SERVER, TERRIBLE, Wire};
use support::process::{Server, command, signal};

/// The first argument of a process that measures one cell; the wire, the standby and the number of handovers follow.
pub(crate) const CELL: &str = "--standby-cell";

/// A network, its name in the table, and the number of clients, which open a new connection for each request.
struct Path {
    name: &'static str,
    wire: Wire,
    clients: usize,
}

const PATHS: [Path; 2] = [
    Path { name: "80 to 120 ms round trip, 1 % lost, 400 clients", wire: LOSSY, clients: 400 },
    Path { name: "380 to 420 ms, 3 % lost, 200 clients", wire: TERRIBLE, clients: 200 },
];
const STANDBYS: [&str; 7] = ["0s", "200ms", "500ms", "1s", "2s", "3500ms", "5s"];
const DEFAULT: &str = "5s";

/// The outcome of one standby over one network.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    network: &'static str,
    standby: &'static str,
    restarts: u64,
    #[serde(flatten)]
    lost: Lost,
}

#[derive(Debug, Serialize, Deserialize)]
struct Lost {
    failed: u64,
    requests: u64,
}

/// Measures all cells. Failures are the result here, so they do not fail the bench.
pub(crate) fn sweep(quick: bool) -> Vec<Cell> {
    let (standbys, restarts) = if quick { (&["0s", "1s", DEFAULT][..], 2) } else { (&STANDBYS[..], 5) };
    println!("\nstandby: failed of all requests over {restarts} handovers\n");
    println!("| `--standby` | {} | {} |\n|---|---|---|", PATHS[0].name, PATHS[1].name);
    let mut cells = vec![];
    for &standby in standbys {
        let mut row = format!("| `{standby}`{} |", if standby == DEFAULT { " (default)" } else { "" });
        for (number, path) in PATHS.iter().enumerate() {
            match netns::run(CELL, &[CELL, &number.to_string(), standby, &restarts.to_string()], || {}) {
                Ok(said) => {
                    let lost: Lost = serde_json::from_str(&said).expect("the process of the cell wrote it");
                    row += &format!(" {} of {} |", grouped(lost.failed), grouped(lost.requests));
                    cells.push(Cell { network: path.name, standby, restarts, lost });
                }
                Err(why) => {
                    println!("skipped: {why}");
                    return cells;
                }
            }
        }
        println!("{row}");
    }
    cells
}

/// Measures one cell and prints it.
pub(crate) fn cell(args: &[String]) {
    let [path, standby, handovers] = args else { return };
    let path: usize = path.parse().expect("the sweep wrote it");
    let handovers = handovers.parse().expect("the sweep wrote it");
    let measure = || {
        let report = measure(&PATHS[path], standby, handovers);
        let failed = report.failed();
        let lost = Lost { failed, requests: report.samples.len() as u64 + failed };
        println!("{}", serde_json::to_string(&lost).expect("counts are plain data"));
    };
    // This process is inside the network already, so `measure` runs at once.
    let _ = netns::run(CELL, &[], measure);
}

fn measure(path: &Path, standby: &str, handovers: u64) -> Report {
    let bed = Bed::new(path.wire);
    let mut server = command(crate::playground());
    server.args(["--listen", &format!("{SERVER}:0"), "--log-format", "json", "--standby", standby]);
    let server = Server::start(server);
    let runtime = bed.client_runtime(1);
    let load = runtime.block_on(async { Load::start(server.address(), Clients::Fresh, path.clients) });
    let mut pid = server.first_pid();
    for generation in 1..=handovers {
        std::thread::sleep(Duration::from_secs(1));
        signal(pid, Signal::SIGHUP);
        pid = server.wait_serving(generation + 1);
        server.wait_state(generation, "draining");
    }
    std::thread::sleep(Duration::from_secs(1));
    runtime.block_on(load.stop())
}

/// Writes 12345 as 12,345.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
