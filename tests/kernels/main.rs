//! Kernels that are not this machine's: Debian's of three releases, each booted in an emulated machine, in which this very
//! executable runs the scenarios and reports. It takes about a minute for each: `.ci/run` boots one, `.ci/release` all.
//!
//! `tests/kernels/fetch` unpacks the kernels. One that is missing, or a machine without qemu, is skipped and named.

mod guest;
mod initramfs;
mod machine;
mod verdict;

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use support::harness::skip;

use machine::Kernel;

/// The program under test.
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");

const HANDOVERS: u64 = 5;

/// Boots the newest kernel of a series for the test that is named after it, which is this one.
fn on_linux(series: &str) {
    // A machine has as many processors as it needs for itself.
    static TURN: Mutex<()> = Mutex::new(());
    if guest::is_here() {
        return guest::visit();
    }
    match Kernel::find(series) {
        Err(why) => skip(&format!("Linux {series}: {why}")),
        Ok(kernel) => {
            let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            let heard = kernel.boot(&format!("linux_{}_", series.replace('.', "_")));
            // Past libtest, which hides what a passing test prints.
            let _ = writeln!(std::io::stdout(), "{}", verdict::judge(series, &heard));
        }
    }
}

#[test]
fn linux_5_10_hands_over_without_loss_heals_a_crash_and_refuses_a_second_server() {
    on_linux("5.10");
}

#[test]
fn linux_6_1_hands_over_without_loss_heals_a_crash_and_refuses_a_second_server() {
    on_linux("6.1");
}

#[test]
fn linux_6_12_hands_over_without_loss_heals_a_crash_and_refuses_a_second_server() {
    on_linux("6.12");
}
