//! One minute of the chaos that `cargo bench -- chaos` runs for ten minutes.

use std::time::Duration;

use support::chaos;
use support::harness::example;

/// The seed is random in each run; `CHAOS_SEED` repeats a given one.
#[test]
fn a_minute_of_chaos_loses_only_requests_inside_killed_processes() {
    let named = std::env::var("CHAOS_SEED").ok();
    let seed = named.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("CHAOS_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let playground = example("playground");
    let run = chaos::run(&playground, seed, Duration::from_secs(60));
    let tally = runtime.expect("a runtime").block_on(run).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{tally}");
    assert!(tally.requests > 1000 && tally.releases > 10 && tally.kills > 1 && tally.stops > 1, "{tally}");
}
