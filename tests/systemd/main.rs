//! A service under a real systemd, in every available version: the units of the examples, with their hardening, on a
//! privileged port.

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

/// The unit with `ExecReload=handover reload`, for every version of systemd.
const NOTIFY: &str = "handover.service";
/// The unit with `Type=notify-reload`, since systemd 253: systemd sends SIGHUP and waits for the main process to report READY.
const NOTIFY_RELOAD: &str = "handover-notify-reload.service";

/// A standby that is long enough to be observed and short enough for a test.
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
