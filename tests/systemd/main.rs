//! A service under a real systemd, of every version that is here: the units of the examples as they are, with their
//! hardening, on a port that needs a privilege.

mod in_front;
mod machine;
mod reload;
mod stop;
mod watchdog;

use support::harness::{Traffic, skip};
use support::load::{Clients, Report};

use machine::{Machine, Systemd};

/// The program under test.
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");

/// `ExecReload=handover reload`, for every systemd.
const NOTIFY: &str = "handover.service";
/// systemd sends SIGHUP and waits for the word of the main process, since 253.
const NOTIFY_RELOAD: &str = "handover-notify-reload.service";

/// Long enough to look at, short enough to wait for.
const CONFIG: &str = "standby = \"1s\"";

/// Runs a test for each version of systemd and each unit that it understands.
fn everywhere(test: impl Fn(&Systemd, &'static str)) {
    match Systemd::all() {
        Err(why) => skip(&why),
        Ok(versions) => versions.iter().for_each(|systemd| {
            println!("systemd {}", systemd.version);
            test(systemd, NOTIFY);
            if systemd.version >= 253 {
                test(systemd, NOTIFY_RELOAD);
            }
        }),
    }
}

fn traffic(machine: &Machine, clients: Clients) -> Traffic {
    Traffic::start(machine.addr, clients, 8)
}

#[track_caller]
fn lossless(machine: &Machine, traffic: Traffic) -> Report {
    let report = traffic.stop();
    assert_eq!(report.failed(), 0, "{:?}\n{}", report.failures(), machine.history());
    assert!(report.samples.len() > 50, "only {} requests", report.samples.len());
    report
}
