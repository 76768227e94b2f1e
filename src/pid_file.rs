//! The pid file, which holds the main pid of the service. It changes to the successor's pid when standby ends, not at the
//! flip. Under a supervisor it always holds the supervisor's pid. `pid_file::file` writes it safely.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::error::{Error, Kind};

mod file;

/// The interval at which writing a pid file is retried.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct PidFile {
    path: Option<PathBuf>,
    supervisor: Option<u32>,
    /// Whether this process is the main generation, also under a supervisor.
    is_ours: bool,
    /// The task that retries a failed write.
    trying: Option<AbortHandle>,
}

impl PidFile {
    /// Makes sure that the pid file can be written, without touching an existing one. A full disk does not prevent the start,
    /// because the service itself may not need the disk.
    pub(crate) fn prepare(path: Option<&Path>, supervisor: Option<u32>) -> Result<PidFile, Error> {
        let path = path
            .map(std::path::absolute)
            .transpose()
            .map_err(|source| Kind::PidFile { path: path.unwrap_or(Path::new("")).to_owned(), source })?;
        if let Some(path) = &path {
            match file::try_out(path) {
                Err(error) if file::is_full(&error) => {
                    tracing::warn!(
                        %error,
                        path = %path.display(),
                        "there is no room to write the pid file; it is overwritten in place if possible, and writing is \
                         retried until it succeeds"
                    );
                }
                tried => tried.map_err(|source| Kind::PidFile { path: path.clone(), source })?,
            }
        }
        Ok(PidFile { path, supervisor, is_ours: false, trying: None })
    }

    /// Checks whether a pid file can be at `path`, without writing it, because another user may run this check.
    pub(crate) fn check(path: &Path) -> Result<(), Error> {
        file::look_at(path).map_err(|source| Kind::PidFile { path: path.to_owned(), source }.into())
    }

    /// Makes `pid` the main pid of the service. A failure is logged and affects only the file. A process that writes its own
    /// pid retries until it succeeds; a successor writes its pid anyway once its predecessor has closed.
    pub(crate) fn move_to(&mut self, pid: u32) {
        self.is_ours = pid == std::process::id();
        self.stop_trying();
        let Some(path) = &self.path else { return };
        let named = self.supervisor.unwrap_or(pid);
        if let Some(other) = file::other_server(path, &[pid, named, std::process::id()]) {
            tracing::warn!(
                other,
                path = %path.display(),
                "another server keeps its pid in the same pid file: give each server a separate file"
            );
        }
        let Err(error) = file::write(path, named) else { return };
        tracing::warn!(
            %error,
            path = %path.display(),
            "cannot write the pid file; it may name the wrong process until it can be written"
        );
        if self.is_ours {
            self.trying = Some(tokio::spawn(try_again(path.clone(), named).in_current_span()).abort_handle());
        }
    }

    /// Removes the pid file, because the service has ended. A file that names another process is left alone.
    pub(crate) fn give_up(&mut self) {
        self.stop_trying();
        let Some(path) = &self.path else { return };
        let ours = self.supervisor.unwrap_or(std::process::id());
        // Not only if `is_ours`: the predecessor writes our pid a moment before we learn that it has closed, and a stop may come
        // in between.
        if (self.is_ours || self.supervisor.is_none()) && file::read(path) == Some(ours) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn stop_trying(&mut self) {
        if let Some(trying) = self.trying.take() {
            trying.abort();
        }
    }
}

async fn try_again(path: PathBuf, pid: u32) {
    loop {
        tokio::time::sleep(AGAIN).await;
        if file::write(&path, pid).is_ok() {
            tracing::info!(path = %path.display(), "the pid file is right again");
            return;
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        self.stop_trying();
    }
}
