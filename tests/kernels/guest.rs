//! The part that runs inside the machine: each scenario without the modules of sock_diag and then with them, with one report
//! per scenario. Nothing is judged here; a scenario that panics reports the reason, and the next one runs.

use std::any::Any;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::harness::{Client, Faulty, QUICK, Traffic, example, get, start, wait_until};
use support::load::{Clients, Report};
use support::netns::{Bed, SERVER, Wire};
use support::process::{Line, Server, command, signal};
use support::steering;

use crate::HANDOVER;
use crate::HANDOVERS;
use crate::initramfs::{SOCK_DIAG, TUN};
use crate::machine::GUEST;

/// The second serial line, which carries the reports.
const REPORTS: &str = "/dev/ttyS1";

type Scenario = fn(&Bed) -> Value;

const SCENARIOS: [(&str, Scenario); 4] = [
    ("handovers", handovers_under_load),
    ("crash", crash_in_standby),
    ("second server", second_server),
    ("refused", steering_refused),
];

pub(crate) fn is_here() -> bool {
    std::env::var_os(GUEST).is_some()
}

pub(crate) fn visit() {
    let mut reports = File::options().write(true).open(REPORTS).expect("the machine has two serial lines");
    let mut report = |what: Value| writeln!(reports, "{what}").expect("qemu listens");
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let up = read("/proc/uptime").split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    report(json!({ "kernel": read("/proc/sys/kernel/osrelease").trim(), "seconds_to_boot": up }));
    load(TUN);
    let bed = Bed::new(WIRE);
    for sock_diag in [false, true] {
        if sock_diag {
            SOCK_DIAG.iter().for_each(|module| load(module));
        }
        let modules = read("/proc/modules");
        for (name, scenario) in SCENARIOS {
            let since = Instant::now();
            let came = catch_unwind(AssertUnwindSafe(|| scenario(&bed)))
                .unwrap_or_else(|panic| json!({ "panic": said(&*panic) }));
            report(json!({
                "scenario": name,
                "sock_diag": sock_diag,
                "is_loaded": modules.contains("tcp_diag"),
                "seconds": since.elapsed().as_secs_f64(),
                "came": came,
            }));
        }
    }
}

fn load(module: &str) {
    let status = Command::new("/bin/busybox").args(["insmod", module]).status();
    assert!(status.is_ok_and(|status| status.success()), "{module} cannot be loaded");
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// The delay between two continents: loopback would hide packets in flight when a connection or a listener closes.
const WIRE: Wire =
    Wire { delay: Duration::from_millis(80), jitter: Duration::from_millis(20), loss: 0.0, seed: 1 };

/// The pause of the clients: an emulated processor is slow, and clients without pauses would starve a starting successor.
const PAUSE: Duration = Duration::from_millis(400);

/// Hands over under load, with fresh and with keep-alive connections.
fn handovers_under_load(bed: &Bed) -> Value {
    let mut started = command(example("playground"));
    started.args(["--listen", &format!("{SERVER}:0"), "--log-format", "json", "--standby", "2s"]);
    let server = Server::start(started);
    let (fresh, kept) = bed.at_the_client(|| {
        let traffic = |clients| Traffic::start(server.address(), clients, 20);
        (traffic(Clients::FreshNowAndThen { pause: PAUSE }), traffic(Clients::KeepAlive { pause: PAUSE }))
    });
    wait_until("every client has an answer", &server, || fresh.is_under_way() && kept.is_under_way());
    (1..=HANDOVERS).fold(server.first_pid(), |pid, generation| hand_over(&server, generation, pid));
    let (fresh, kept) = (fresh.stop(), kept.stop());
    json!({ "fresh": summary(&fresh), "kept": summary(&kept), "log": log(&server) })
}

/// Hands over from `generation`, waits until it drains, and returns the pid of the next generation.
fn hand_over(server: &Server, generation: u64, pid: u32) -> u32 {
    signal(pid, Signal::SIGHUP);
    let successor = wait(server, &format!("generation {} serves", generation + 1), |line| {
        let serves = line.generation() == generation + 1 && line.message().starts_with("serving");
        serves.then(|| line.pid())
    });
    wait(server, &format!("generation {generation} drains"), |line| {
        (line.generation() == generation && line.json["to"] == "draining").then_some(())
    });
    successor
}

/// The longest that a handover may take while other machines occupy the processor.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait<T>(server: &Server, what: &str, pick: impl Fn(&Line) -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = server.log().lines().iter().find_map(&pick) {
            return found;
        }
        assert!(
            Instant::now() < until,
            "waited {PATIENCE:?} in vain until {what}:\n{}",
            server.log().history()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn summary(report: &Report) -> Value {
    json!({
        "answered": report.samples.len(),
        "failed": report.failed(),
        "failures": report.failures(),
        "generations": report.first_answers().keys().collect::<Vec<_>>(),
    })
}

fn log(server: &Server) -> Value {
    server.log().lines().iter().map(|line| line.text.clone()).collect()
}

/// Hands over to a successor that crashes half a second after it took over, and then to one that does not.
fn crash_in_standby(_: &Bed) -> Value {
    let faulty = Faulty::start(&["--standby", "30s"]);
    let server = &faulty.server;
    let mut client = Client::connect(server.address());
    client.get("/");
    faulty.next_is("exit-after-ready=500");
    signal(server.first_pid(), Signal::SIGHUP);
    let crashed = server.wait_serving(2);
    server.log().wait_for("serves again");
    let (healed, kept) = (get(server.address(), "/"), client.get("/"));
    faulty.next_is("");
    signal(server.first_pid(), Signal::SIGHUP);
    server.log().wait("the next handover succeeds", |line| {
        let serves = line.generation() == 2 && line.message().starts_with("serving");
        (serves && line.pid() != crashed).then_some(())
    });
    let next = get(server.address(), "/");
    json!({ "healed": body(&healed), "kept": body(&kept), "next": body(&next), "log": log(server) })
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body)
}

/// Starts a second server instead of restarting the first, as an operator might by mistake.
fn second_server(_: &Bed) -> Value {
    let server = start(&[]);
    let mut second = command(HANDOVER);
    second.args(["--listen", &server.address().to_string()]);
    let second = second.stderr(Stdio::piped()).output().expect("it is built");
    json!({
        "status": second.status.code(),
        "said": String::from_utf8_lossy(&second.stderr),
        "holder": server.first_pid(),
        "after": body(&get(server.address(), "/")),
    })
}

/// Hands over where the steering program is refused, as in a sandbox.
fn steering_refused(_: &Bed) -> Value {
    let confined = thread::spawn(|| {
        steering::refuse().expect("this kernel has seccomp");
        let mut refused = command(example("playground"));
        refused.args(QUICK);
        Server::start(refused)
    });
    let server = confined.join().expect("the server serves");
    hand_over(&server, 1, server.first_pid());
    server.wait_retired(1);
    let warnings = |generation| {
        let lines = server.log().lines().into_iter();
        let warns =
            |line: &Line| line.generation() == generation && line.message().contains("cannot be steered");
        lines.filter(warns).count()
    };
    json!({
        "warnings": [warnings(1), warnings(2)],
        "after": body(&get(server.address(), "/")),
        "log": log(&server),
    })
}
