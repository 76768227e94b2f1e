//! Servers of other projects: the bench compares with them, the tests put them in front of ours.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::PATIENCE;

pub mod address;
pub mod family;
pub mod packages;

/// Polls until `look` returns a value: a file, a listener or a process of another program gives no notice.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(format!("timed out after {PATIENCE:?} waiting for {what}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn tell(pid: u32, signal: Signal) -> Result<(), String> {
    let target = i32::try_from(pid).map_err(|_| format!("{pid} is not a valid pid"))?;
    kill(Pid::from_raw(target), signal).map_err(|error| format!("cannot send {signal} to {pid}: {error}"))
}
