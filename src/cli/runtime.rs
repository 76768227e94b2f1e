//! The threads of the server. All of them are started before it serves: the system may refuse a thread later (`ulimit -u`,
//! TasksMax=, pids.max), and tokio panics when it is refused a thread that it needs.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use handover::control::plain;
use tokio::runtime::{Builder, Runtime};

/// Number of threads started in advance for reading files.
const FILES: usize = 4;
/// One thread each for the log, the access log and the stderr of a successor.
const OTHERS: usize = 3;
/// How long idle file threads are kept: for good, so that none has to be started again. (A much longer time overflows in the C
/// library.)
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Checks that the system allows as many threads as the server needs, by starting them; returns the reason if it does not.
pub(crate) fn check() -> Result<(), String> {
    let needed = workers() + FILES + OTHERS;
    let before = running();
    let end = Arc::new(Barrier::new(needed + 1));
    let mut started = vec![];
    for _ in 0..needed {
        let end = Arc::clone(&end);
        match thread::Builder::new().spawn(move || end.wait()) {
            Ok(one) => started.push(one),
            Err(error) => {
                let room = started.len();
                // The started threads stay blocked at the barrier, which is harmless: this process is about to exit.
                let error = plain(&error);
                return Err(format!(
                    "cannot start: {needed} threads are needed and there is room for {room}: {error}; raise the limit of \
                     processes (`ulimit -u`, TasksMax= of the unit, pids.max of the container)"
                ));
            }
        }
    }
    end.wait();
    started.into_iter().for_each(|one| drop(one.join()));
    // The kernel may still count a joined thread for a moment.
    let until = Instant::now() + Duration::from_secs(1);
    while running() > before && Instant::now() < until {
        thread::yield_now();
    }
    Ok(())
}

fn running() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Builds the runtime and starts its file threads: the barrier makes `FILES` blocking tasks run at the same time.
pub(crate) fn build() -> std::io::Result<Runtime> {
    let runtime = Builder::new_multi_thread().enable_all().thread_keep_alive(FOR_EVER).build()?;
    let all = Arc::new(Barrier::new(FILES));
    let reads = (0..FILES).map(|_| {
        let all = Arc::clone(&all);
        runtime.spawn_blocking(move || all.wait())
    });
    let reads: Vec<_> = reads.collect();
    runtime.block_on(async {
        for read in reads {
            let _ = read.await;
        }
    });
    Ok(runtime)
}
