//! Half a minute of the siege that `cargo bench -- siege` makes for an hour. Alone on the machine, because it keeps it busy.

use std::time::Duration;

use support::siege::{self, Plan};

/// In a debug build a steady answer takes longer than the clients can tell.
const FLOOR_MS: f64 = 50.0;

#[test]
fn half_a_minute_of_every_attack_at_once_is_not_noticed_by_honest_clients() {
    let second = Duration::from_secs;
    let plan = Plan { steady: second(6), siege: second(32), apart: second(10) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let tally =
        runtime.expect("a runtime").block_on(siege::run(env!("CARGO_BIN_EXE_handover").as_ref(), plan));
    println!("{tally}");
    let broken = tally.broken(FLOOR_MS);
    assert!(broken.is_empty(), "{broken:#?}");
}
