//! Half a minute of the siege that `cargo bench -- siege` runs for an hour. It needs the machine for itself, because it keeps
//! the machine busy.

use std::time::Duration;

use support::siege::{self, Plan};

/// The lowest p99 without the siege that is used for the comparison: in a debug build, smaller values are noise.
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
