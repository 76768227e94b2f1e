//! Servers of others, which the bench compares with and the tests put in front of ours.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::PATIENCE;

pub mod address;
pub mod family;
pub mod packages;

/// Polls, because what is waited for is a file, a listener or a process of somebody else.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(format!("waited {PATIENCE:?} in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn tell(pid: u32, signal: Signal) -> Result<(), String> {
    let target = i32::try_from(pid).map_err(|_| format!("{pid} is no pid"))?;
    kill(Pid::from_raw(target), signal).map_err(|error| format!("cannot send {signal} to {pid}: {error}"))
}
