//! One handover in detail: the picture in the README.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::load::{Clients, Load};
use support::process::{Line, signal};
use tokio::time::sleep;

use crate::plot::{Moment, timeline};
use crate::workloads::start_playground;

/// Hands over once, under fresh and kept connections at the same time. Returns the number of failed requests.
pub(crate) async fn one_handover(pictures: &Path) -> u64 {
    println!("\none handover: 16 clients with fresh connections, 64 that keep theirs, standby 1 s");
    let server = start_playground(&["--listen", "127.0.0.1:0", "--standby", "1s"]);
    let fresh = Load::start(server.address(), Clients::Fresh, 16);
    let kept = Load::start(server.address(), Clients::KeepAlive { pause: Duration::from_millis(5) }, 64);
    sleep(Duration::from_secs(2)).await;
    let asked = Instant::now();
    signal(server.first_pid(), Signal::SIGHUP);
    let at = |what: &str, is_it: &dyn Fn(&Line) -> bool| {
        server.log().wait(what, |line| is_it(line).then_some(line.at))
    };
    let moments = tokio::task::block_in_place(|| {
        let old = |line: &Line| line.generation() == 1;
        [
            ("signal", asked),
            ("flip", at("the flip", &|line| line.generation() == 2 && line.message().starts_with("serving"))),
            ("listener closed", at("the end of standby", &|line| old(line) && line.json["to"] == "draining")),
            ("old process gone", at("its exit", &|line| old(line) && line.message() == "retired")),
        ]
    });
    sleep(Duration::from_millis(1200)).await;
    let mut report = fresh.stop().await;
    report.add(kept.stop().await);
    println!("  requests {}   failed {}", report.samples.len() as u64 + report.failed(), report.failed());
    timeline(&pictures.join("handover.svg"), &report, &moments.map(|(what, at)| Moment { at, what }));
    report.failed()
}
