//! `handover upgrade`: puts a copy of the new file beside the program and has the server do the rest, so that what is begun
//! is finished or undone also if this command is ended.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::ask::ask;
use super::find::{Generation, serving};
use super::reload::follow;
use super::{Trouble, Which, failed, say};
use crate::cli::control::place::secret;

pub(super) fn run(which: &Which, new: &Path) -> Result<(), Trouble> {
    let cannot = |cause: &str| failed(format!("cannot upgrade to {}: {cause}", new.display()));
    let about = fs::metadata(new).map_err(|error| cannot(&error.to_string()))?;
    if !about.is_file() {
        return Err(cannot("it is not a file; name the new program itself"));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o111 == 0 {
        return Err(cannot("it is not executable; `chmod +x` it"));
    }

    let server = after_standby(&which.find()?)?;
    let program = server.status.as_ref().and_then(|status| status["program"].as_str()).unwrap_or_default();
    let program = Path::new(program).canonicalize();
    let program = program.map_err(|error| cannot(&format!("the running program is not there: {error}")))?;
    let beside = Beside::put(new, mode, &program).map_err(|error| {
        cannot(&format!("it cannot be copied to {}: {error}", program.with_file_name("").display()))
    })?;
    say(format_args!("copied {} beside {}", new.display(), program.display()));

    let answer = ask(&server.socket, "POST", &format!("/upgrade?file={}", beside.name), None)
        .map_err(|error| cannot(&format!("pid {} does not answer: {error}", server.pid)))?;
    if answer.code != 200 {
        return Err(cannot(&answer.error()));
    }
    follow(answer.steps(), &server).map(drop)
}

/// Who serves, once it could hand over at once.
fn after_standby(dir: &Path) -> Result<Generation, Trouble> {
    let mut said = false;
    loop {
        let server = serving(dir)?;
        let status = server.status.clone().unwrap_or_default();
        let predecessor = &status["predecessor"];
        let listens = |member: &Value| member["pid"] == *predecessor && predecessor.is_u64();
        if !status["port_group"].as_array().is_some_and(|members| members.iter().any(listens)) {
            return Ok(server);
        }
        if !said {
            say(format_args!("waiting for the end of standby: pid {predecessor} can still serve again"));
            said = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A file beside the program, as long as nothing has become of it.
struct Beside {
    name: String,
    path: PathBuf,
}

impl Beside {
    fn put(new: &Path, mode: u32, program: &Path) -> io::Result<Beside> {
        // Nothing in it needs escaping.
        let name = format!(".handover-new-{}", secret());
        let path = program.with_file_name(&name);
        let mut options = OpenOptions::new();
        let mut to = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let beside = Beside { name, path };
        io::copy(&mut File::open(new)?, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(mode))?;
        to.sync_all()?;
        Ok(beside)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Not there any more if it is the program now.
        let _ = fs::remove_file(&self.path);
    }
}
