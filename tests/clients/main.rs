//! A zoo of real clients: third-party programs, each with its default connection pool, send requests to a server that is
//! replaced again and again. The rule is 0 failed. A failure is excused only if the source of the client explains it
//! (`judgement.rs`), and only if the same client fails about as often with nginx, reloaded at the same moments.
//!
//! `tests/clients/fetch` installs the clients that Debian does not package. A missing client is skipped and named.
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

/// Makes the tests run one after the other: they share two cores, and depend on timing.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The folder in the target directory into which `tests/clients/fetch` installs.
fn installed() -> PathBuf {
    support::target_dir().join("clients")
}

/// The path of a file or folder beside this file.
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
fn third_party_clients_lose_nothing_while_the_server_is_replaced() {
    let _turn = alone();
    build_examples();
    // `ZOO` selects clients by name or protocol, to investigate one of them.
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
