//! A zoo of real clients: programs that other people wrote, each with the connection pool that it has by default, ask a
//! server that is replaced again and again. The rule is 0 failed. A failure may be explained only by the source of the
//! client (`judgement.rs`), and only if nginx, reloaded at the same moments, made the same client fail as often.
//!
//! `tests/clients/fetch` installs what is no program of the distribution. A client that is missing is skipped and named.
//! Cargo does not build the examples for one test, so the zoo builds them itself.

mod browser;
mod front;
mod judgement;
mod keeper;
mod outcome;
mod program;
mod reset;
mod species;
mod table;
mod tools;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use judgement::judge;
use table::Table;

/// The program under test.
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");

/// The tests share two cores, and what they measure is time: one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The folder of the target directory for what `tests/clients/fetch` installs.
fn installed() -> PathBuf {
    support::target_dir().join("clients")
}

/// What is beside this file.
fn beside(name: &str) -> PathBuf {
    support::root().join("tests/clients").join(name)
}

/// Builds the examples in the profile of this executable.
fn build_examples() {
    let release = support::profile_dir().ends_with("release");
    let mut cargo = support::cargo();
    cargo.args(["build", "--locked", "--quiet", "--example", "playground", "--example", "tonic"]);
    cargo.args(release.then_some("--release")).arg("--target-dir").arg(support::target_dir());
    assert!(cargo.status().is_ok_and(|status| status.success()), "the examples do not build");
}

/// Writes past libtest, which hides what a passing test prints.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[test]
fn clients_of_others_lose_nothing_while_the_server_is_replaced() {
    let _turn = alone();
    build_examples();
    // A part of it, by name, for whoever looks for one client's trouble.
    let only = std::env::var("ZOO").unwrap_or_default();
    let mut table = Table::default();
    let mut history = String::new();
    for group in species::groups() {
        let here = group.only(&only);
        let Some(report) = keeper::visit(&here) else { continue };
        history.push_str(&report.history);
        table.extend(report.rows);
    }
    let text = table.to_string();
    say(&text);
    std::fs::write(installed().join("table.md"), &text).expect("writable");
    let wrong: Vec<String> = table.rows().iter().filter_map(judge).collect();
    assert!(wrong.is_empty(), "{history}\n{}", wrong.join("\n"));
}
