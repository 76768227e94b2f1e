//! The threads of the server. They are all there before it serves: the system may refuse one later on (`ulimit -u`,
//! TasksMax=, pids.max), and tokio panics where it is refused one that it cannot do without.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use handover::control::plain;
use tokio::runtime::{Builder, Runtime};

/// Files are read by these at least.
const FILES: usize = 4;
/// For the log, the access log, and the stderr of a successor.
const OTHERS: usize = 3;
/// Threads for files stay, so that none is needed again. (Whatever is much longer overflows somewhere in the C library.)
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Fails with the reason if the system has no room for the threads that are needed.
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
                // No thread comes to the barrier in place of those that are missing, but this process is about to leave.
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
    // A thread that was joined may count for a moment longer.
    let until = Instant::now() + Duration::from_secs(1);
    while running() > before && Instant::now() < until {
        thread::yield_now();
    }
    Ok(())
}

fn running() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

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
