//! Tests on other kernels: those of three Debian releases, each booted in an emulated machine, in which this same executable
//! runs the scenarios and reports. Each takes about a minute: `.ci/run` boots one, `.ci/release` all.
//!
//! `tests/kernels/fetch` unpacks the kernels. A test is skipped with the reason if its kernel or qemu is missing.

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

/// Boots the newest kernel of a series and runs the test for that series in the machine; inside the machine, runs the
/// scenarios.
fn on_linux(series: &str) {
    // One machine at a time: each needs all processors.
    static TURN: Mutex<()> = Mutex::new(());
    if guest::is_here() {
        return guest::visit();
    }
    match Kernel::find(series) {
        Err(why) => skip(&format!("Linux {series}: {why}")),
        Ok(kernel) => {
            let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            let heard = kernel.boot(&format!("linux_{}_", series.replace('.', "_")));
            // Writes past libtest, which hides the output of a passing test.
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
