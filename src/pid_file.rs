//! The pid that stands for the service: the pid file. It names the process that answers for the service to its
//! supervisor, and moves to the successor when standby ends, not at the flip. Behind a supervisor it names that
//! one for ever. How the file is written safely is `pid_file::file`'s to know.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::error::{Error, Kind};

mod file;

/// How often a pid file is tried again that could not be written.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct PidFile {
    path: Option<PathBuf>,
    supervisor: Option<u32>,
    /// This process stands for the service, as far as it is a generation's to do so.
    is_ours: bool,
    /// It tries again what could not be written.
    trying: Option<AbortHandle>,
}

impl PidFile {
    /// Makes sure that the pid file can be written, without touching the one that is there. A full disk is no reason to
    /// refuse a start, because it says nothing of the service.
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
                        "there is no room to write the pid file; it is overwritten in place if it can be, and tried \
                         again until it is right"
                    );
                }
                tried => tried.map_err(|source| Kind::PidFile { path: path.clone(), source })?,
            }
        }
        Ok(PidFile { path, supervisor, is_ours: false, trying: None })
    }

    /// Whether a pid file can lie there, as far as it can be told without writing it: a check may be another user's.
    pub(crate) fn check(path: &Path) -> Result<(), Error> {
        file::look_at(path).map_err(|source| Kind::PidFile { path: path.to_owned(), source }.into())
    }

    /// `pid` stands for the service from now on. A failure is logged and loses nothing but the file; for itself a process
    /// tries again until the file is right, and a successor does so when it is told that its predecessor has closed.
    pub(crate) fn move_to(&mut self, pid: u32) {
        self.is_ours = pid == std::process::id();
        self.stop_trying();
        let Some(path) = &self.path else { return };
        let named = self.supervisor.unwrap_or(pid);
        if let Some(other) = file::other_server(path, &[pid, named, std::process::id()]) {
            tracing::warn!(
                other,
                path = %path.display(),
                "another server keeps its pid in the same pid file: give each a file of its own"
            );
        }
        let Err(error) = file::write(path, named) else { return };
        tracing::warn!(
            %error,
            path = %path.display(),
            "cannot write the pid file; it names the wrong process until there is room for it"
        );
        if self.is_ours {
            self.trying = Some(tokio::spawn(try_again(path.clone(), named).in_current_span()).abort_handle());
        }
    }

    /// No process stands for the service any more. A file that names another process is left alone.
    pub(crate) fn give_up(&mut self) {
        self.stop_trying();
        let Some(path) = &self.path else { return };
        let ours = self.supervisor.unwrap_or(std::process::id());
        // The predecessor writes our pid a moment before we learn that it has closed, and we may be told to stop in between.
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
