//! The time from the signal until the successor serves, next to the time that the same program needs to start without a
//! predecessor.

use std::time::Instant;

use nix::sys::signal::Signal;
use serde::Serialize;
use support::process::signal;

use crate::measure::{median, ms};
use crate::progress::Progress;
use crate::workloads::start_playground;

#[derive(Debug, Serialize)]
pub(crate) struct Startup {
    rounds: u32,
    /// The time from `fork` until a first generation serves.
    alone_ms: f64,
    /// The time from the signal until a successor serves.
    handover_ms: f64,
    /// The median of the ratios of all rounds.
    ratio: f64,
}

pub(crate) fn startup(rounds: u32) -> Startup {
    println!("\nstartup: a successor next to a first generation, {rounds} rounds");
    let progress = Progress::of(rounds);
    let (mut alone, mut handover) = (vec![], vec![]);
    for round in 1..=rounds {
        progress.show(round.into(), 0);
        let began = Instant::now();
        let server = start_playground(&["--listen", "127.0.0.1:0", "--standby", "0s"]);
        let served = |generation: u64| {
            server.log().wait("it serves", |line| {
                let serves = line.generation() == generation && line.message().starts_with("serving");
                serves.then_some(line.at)
            })
        };
        alone.push(ms(served(1) - began));
        let asked = Instant::now();
        signal(server.first_pid(), Signal::SIGHUP);
        handover.push(ms(served(2) - asked));
    }
    drop(progress);
    let ratios: Vec<f64> = alone.iter().zip(&handover).map(|(alone, handover)| handover / alone).collect();
    let (alone_ms, handover_ms, ratio) = (median(&alone), median(&handover), median(&ratios));
    println!(
        "  alone {alone_ms:.2} ms   signal to serving {handover_ms:.2} ms   median of the ratios {ratio:.2}"
    );
    Startup { rounds, alone_ms, handover_ms, ratio }
}
