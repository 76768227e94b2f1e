//! The pid that stands for the service: the pid file. It names the process that answers for the service to whoever
//! supervises it, and moves to the successor when standby ends, not at the flip. Behind a process in front it names that
//! one for ever.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind};

#[derive(Debug)]
pub(crate) struct Identity {
    pid_file: Option<PathBuf>,
    in_front: Option<u32>,
    /// This process stands for the service, as far as it is a generation's to do so.
    is_ours: bool,
}

impl Identity {
    /// Makes sure that the pid file can be written, without touching the one that is there.
    pub(crate) fn prepare(pid_file: Option<&Path>, in_front: Option<u32>) -> Result<Identity, Error> {
        let pid_file = pid_file
            .map(std::path::absolute)
            .transpose()
            .map_err(|source| Kind::PidFile { path: pid_file.unwrap_or(Path::new("")).to_owned(), source })?;
        if let Some(path) = &pid_file {
            let probe = || match path.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => draft(path, std::process::id()).and_then(fs::remove_file),
            };
            probe().map_err(|source| Kind::PidFile { path: path.clone(), source })?;
        }
        Ok(Identity { pid_file, in_front, is_ours: false })
    }

    /// `pid` stands for the service from now on. A failure is logged and loses nothing but the file.
    pub(crate) fn move_to(&mut self, pid: u32) {
        self.is_ours = pid == std::process::id();
        let Some(path) = &self.pid_file else { return };
        let pid = self.in_front.unwrap_or(pid);
        if let Err(error) = draft(path, pid).and_then(|draft| fs::rename(draft, path)) {
            tracing::warn!(%error, path = %path.display(), "cannot write the pid file; it names the wrong process now");
        }
    }

    /// Nobody stands for the service any more. A file that names another process is left alone.
    pub(crate) fn give_up(&self) {
        let Some(path) = &self.pid_file else { return };
        let ours = self.in_front.unwrap_or(std::process::id()).to_string();
        if self.is_ours && fs::read_to_string(path).is_ok_and(|text| text.trim() == ours) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A file beside the pid file, complete, to be renamed over it: a reader sees one pid or the other, never half of one.
fn draft(path: &Path, pid: u32) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let draft = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    fs::write(&draft, format!("{pid}\n")).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })?;
    Ok(draft)
}
