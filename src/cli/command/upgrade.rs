//! `handover upgrade`: puts a copy of the new file beside the program and leaves the rest to the server, which finishes or
//! undoes the upgrade even if this command is killed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover::control::plain;
use handover::control::runtime_dir::{has_capabilities, random_suffix};
use hyper::{Method, StatusCode};
use rustix::process::geteuid;

use super::client::ask;
use super::discover::{Generation, serving};
use super::reload::follow;
use super::{CommandError, ServerSelector, failed, say};

pub(super) fn run(which: &ServerSelector, new: &Path) -> Result<(), CommandError> {
    let cannot = |cause: &str| failed(format!("cannot upgrade to {}: {cause}", new.display()));
    let about = fs::metadata(new).map_err(|error| cannot(&plain(&error)))?;
    if !about.is_file() {
        return Err(cannot("it is not a file; give the path of the new program itself"));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o111 == 0 {
        return Err(cannot("it is not executable; `chmod +x` it"));
    }

    let dir = which.find()?;
    // Otherwise the path that the server of another user reports would decide where root writes a file.
    let owner = fs::metadata(&dir).map_err(|error| cannot(&plain(&error)))?.uid();
    if owner != geteuid().as_raw() {
        return Err(cannot(&format!(
            "the server belongs to uid {owner}; run this as that user: `sudo -u '#{owner}' handover upgrade`"
        )));
    }
    let server = after_standby(&dir)?;
    let program = server.status.as_ref().map_or("", |status| &status.program);
    let program = Path::new(program).canonicalize();
    let program = program
        .map_err(|error| cannot(&format!("the running program cannot be found: {}", plain(&error))))?;
    let place = program.with_file_name("");
    let (beside, how) = match StagedFile::link(new, &program) {
        Some(beside) => (beside, "linked"),
        None if has_capabilities(new) => {
            return Err(cannot(&format!(
                "it has file capabilities, which a copy loses: put it into {} yourself, with `setcap`, and name it there",
                place.display()
            )));
        }
        None => {
            let copied = StagedFile::put(new, mode, &program);
            let why = |error| cannot(&format!("it cannot be copied to {}: {error}", place.display()));
            (copied.map_err(why)?, "copied")
        }
    };
    say(format_args!("{how} {} beside {}", new.display(), program.display()));

    let answer = ask(&server.socket, Method::POST, &format!("/upgrade?file={}", beside.name), None)
        .map_err(|error| cannot(&format!("pid {} does not answer: {error}", server.pid)))?;
    if answer.status != StatusCode::OK {
        return Err(cannot(&answer.error()));
    }
    follow(answer.steps(), &server)
}

/// Waits for the end of standby, and returns the serving generation, which can hand over at once then.
fn after_standby(dir: &Path) -> Result<Generation, CommandError> {
    let mut said = false;
    loop {
        let server = serving(dir)?;
        let status = server.status.as_ref().filter(|status| status.predecessor_listens);
        let Some(predecessor) = status.and_then(|status| status.predecessor) else { return Ok(server) };
        if !said {
            say(format_args!("waiting for the end of standby: pid {predecessor} can still serve again"));
            said = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A temporary file beside the program, removed on drop unless the server has renamed it.
struct StagedFile {
    name: String,
    path: PathBuf,
}

impl StagedFile {
    fn named(program: &Path) -> StagedFile {
        // No character of the name needs escaping in a URL.
        let name = format!(".handover-new-{}", random_suffix());
        StagedFile { path: program.with_file_name(&name), name }
    }

    /// Makes a hard link if the file is in the program's directory already, which keeps its capabilities.
    fn link(new: &Path, program: &Path) -> Option<StagedFile> {
        let new = new.canonicalize().ok().filter(|new| new.parent() == program.parent())?;
        let beside = StagedFile::named(program);
        fs::hard_link(new, &beside.path).ok()?;
        Some(beside)
    }

    fn put(new: &Path, mode: u32, program: &Path) -> io::Result<StagedFile> {
        let beside = StagedFile::named(program);
        let mut options = OpenOptions::new();
        let mut to = options.write(true).create_new(true).mode(0o600).open(&beside.path)?;
        io::copy(&mut File::open(new)?, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(mode))?;
        to.sync_all()?;
        Ok(beside)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // Fails if the file has become the program, which is fine.
        let _ = fs::remove_file(&self.path);
    }
}
