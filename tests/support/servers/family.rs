//! All processes of a server, found by their working directory.
//!
//! A mark in the environment, as in `process.rs`, does not work here: nginx overwrites it with its process title.

use std::fs::{File, OpenOptions, read_dir, read_link, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::{tell, wait_for};

const LOG: &str = "log";

pub struct Family {
    dir: PathBuf,
    /// The direct children, which must be reaped.
    children: Vec<Child>,
    _owned: tempfile::TempDir,
}

impl Family {
    pub fn new() -> Result<Family, String> {
        let made = tempfile::tempdir().and_then(|owned| Ok((owned.path().canonicalize()?, owned)));
        let (dir, owned) = made.map_err(|error| format!("cannot make a directory: {error}"))?;
        Ok(Family { dir, children: vec![], _owned: owned })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn write(&self, name: &str, text: &str) -> Result<(), String> {
        std::fs::write(self.dir.join(name), text).map_err(|error| format!("cannot write {name}: {error}"))
    }

    /// Starts a process in the family's directory, and returns its pid.
    pub fn spawn(&mut self, command: &mut Command) -> Result<u32, String> {
        let program = command.get_program().to_owned();
        let log = self.log().map_err(|error| format!("cannot write a log: {error}"))?;
        command.env_remove("RUST_LOG").current_dir(&self.dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid)
    }

    fn log(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.dir.join(LOG))
    }

    pub fn last_words(&self) -> String {
        let log = read_to_string(self.dir.join(LOG)).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" / ")
    }

    /// The pid in a file of the family's directory.
    pub fn pid_in(&self, name: &str) -> Option<u32> {
        read_to_string(self.dir.join(name)).ok()?.trim().parse().ok()
    }

    pub fn pids(&self) -> Vec<u32> {
        let processes = read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        // A zombie has no working directory.
        pids.filter(|pid: &u32| read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.dir))
            .collect()
    }

    /// Waits until a direct child has ended.
    pub fn wait_end(&mut self, pid: u32) -> Result<(), String> {
        let Some(child) = self.children.iter_mut().find(|child| child.id() == pid) else { return Ok(()) };
        wait_for("the old process to end", || child.try_wait().ok().flatten().map(drop))
    }
}

impl Drop for Family {
    /// Kills every process, including those that start meanwhile.
    fn drop(&mut self) {
        loop {
            let alive = self.pids();
            if alive.is_empty() {
                break;
            }
            for pid in alive {
                // An error means that the process has ended already.
                let _ = tell(pid, Signal::SIGKILL);
            }
            self.children.iter_mut().for_each(|child| drop(child.try_wait()));
        }
        self.children.iter_mut().for_each(|child| drop(child.wait()));
    }
}
