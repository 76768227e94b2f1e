//! A minute of chaos, as `cargo bench -- chaos` makes for ten.

use std::time::Duration;

use support::chaos;
use support::harness::example;

/// Another seed each time, unless `CHAOS_SEED` names the one to repeat.
#[test]
fn a_minute_of_chaos_loses_nothing_but_what_is_inside_of_killed_processes() {
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
