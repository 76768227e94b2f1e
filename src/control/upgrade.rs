//! An upgrade: a new file in the program's directory is checked, replaces the program, and takes over; if any of this fails, the
//! old program is put back. The program's path exists at every moment, so a restart always starts the old file or the new one.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use tokio::task::spawn_blocking;

use super::probe_binary;
use super::protocol::{Outcome, Step};
use super::runtime_dir::{has_capabilities, random_suffix};
use super::steps::{Steps, Until};
use crate::error::plain;
use crate::handle::Handle;
use crate::report::Phase;

const VERSION_WITHIN: Duration = Duration::from_secs(5);
const CHECK_WITHIN: Duration = Duration::from_secs(10);

/// An upgrade that has passed the first checks and has changed nothing yet.
pub(super) struct Upgrade {
    handle: Handle,
    files: Files,
    args: Vec<std::ffi::OsString>,
    began: Instant,
}

/// The paths of an upgrade, all in one directory.
#[derive(Debug, Clone)]
struct Files {
    program: PathBuf,
    old: PathBuf,
    new: PathBuf,
}

type Refused = (StatusCode, String);

impl Upgrade {
    /// Checks whether the upgrade can be tried. Changes nothing.
    pub(super) async fn prepare(handle: Handle, file: &str) -> Result<Upgrade, Refused> {
        let conflict = |reason: &str| (StatusCode::CONFLICT, reason.to_owned());
        let Some(status) = handle.status().await else { return Err(conflict("this generation has left")) };
        if status.phase != Phase::Serving {
            return Err(conflict(
                "this generation cannot hand over now: a handover is under way, or it is leaving",
            ));
        } else if status.predecessor_listens {
            return Err(conflict("the last handover is still in standby: try again when that is over"));
        }
        let (program, file) = (status.program, file.to_owned());
        let files = spawn_blocking(move || Files::find(&program, &file)).await;
        let bad = |reason| (StatusCode::BAD_REQUEST, reason);
        let files = files.map_err(|panic| bad(panic.to_string()))?.map_err(bad)?;
        Ok(Upgrade { handle, files, args: status.args, began: Instant::now() })
    }

    /// Performs the upgrade and passes each step to `tell`. The last step has the outcome.
    pub(super) async fn perform(self, tell: impl Fn(Step)) {
        let tell = |mut step: Step| {
            step.after_ms = (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
            tell(step);
        };
        let failed = |reason: String, stderr: Vec<String>| {
            let mut failed = Step::failed(reason);
            failed.failure.stderr = Some(stderr);
            failed
        };
        let (program, new) = (self.files.program.display().to_string(), self.files.new.clone());
        let name = new.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = probe_binary::run(&new, ["--version"], VERSION_WITHIN).await;
        match version {
            Ok(version) => {
                tell(Step { file: Some(name.clone()), version: Some(version), ..Step::named("runs") });
            }
            Err(unfit) => {
                let reason = format!("the new file does not run with --version: {}", unfit.reason);
                return tell(failed(reason, unfit.stderr));
            }
        }
        let args = [OsStr::new("--check")].into_iter().chain(self.args.iter().map(AsRef::as_ref));
        match probe_binary::run(&new, args, CHECK_WITHIN).await {
            Ok(_) => tell(Step { file: Some(name), ..Step::named("checked") }),
            Err(unfit) => {
                let reason = format!(
                    "the new file does not pass --check with the current arguments: {}",
                    unfit.reason
                );
                return tell(failed(reason, unfit.stderr));
            }
        }
        if let Err(reason) = self.files.change(Files::place).await {
            return tell(failed(reason, vec![]));
        }
        let old = self.files.old.display().to_string();
        let placed =
            |step| Step { program: Some(program.clone()), old: Some(old.clone()), ..Step::named(step) };
        tell(placed("placed"));

        match self.hand_over(&tell).await {
            Ok(()) => {
                // The new file is the program now; its other name is not needed any more.
                let _ = self.files.change(|files| fs::remove_file(&files.new)).await;
                tell(Step { outcome: Some(Outcome::Upgraded), ..placed("upgraded") });
            }
            Err(mut why) => {
                let restored = self.files.change(Files::restore).await;
                if let Err(problem) = &restored {
                    tracing::error!("the old program could not be put back in place: {problem}");
                    why.not_restored = Some(problem.clone());
                }
                why.restored = Some(restored.is_ok());
                why.program = Some(program);
                tell(why);
            }
        }
    }

    /// Hands over to the new file, which is in place by now. A handover that was under way before is an error, because it may
    /// have started the old file.
    async fn hand_over(&self, tell: impl Fn(Step)) -> Result<(), Step> {
        let under_way = self.handle.hand_over().await.map_err(|refused| Step::failed(refused.to_string()))?;
        if under_way.joined {
            return Err(Step::failed("another restart began at the same moment"));
        }
        let mut steps = Steps::new(under_way.events, Until::StandbyEnded);
        loop {
            match steps.next().await {
                (step, Some(false)) => return Err(step),
                (mut step, end) => {
                    // The outcome is not known before standby is over.
                    step.outcome = None;
                    tell(step);
                    if end.is_some() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl Files {
    /// Finds the files for an upgrade to `name`. Symbolic links to the program are followed: the file that runs is replaced, in
    /// its own directory.
    fn find(program: &Path, name: &str) -> Result<Files, String> {
        let name = unescaped(name).ok_or("the name of the new file is not valid percent-encoded UTF-8")?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(format!(
                "{name:?} does not name a file beside the program: use ?file=NAME, without a directory"
            ));
        }
        let program = program
            .canonicalize()
            .map_err(|error| format!("cannot find the program {}: {}", program.display(), plain(&error)))?;
        let new = program.with_file_name(&name);
        let mut old = program.clone().into_os_string();
        old.push(".old");
        if new == program || new == *old {
            return Err(format!("{name} is the name of the program or of the old program: choose another"));
        }
        let about = fs::symlink_metadata(&new);
        match about.map(|about| about.is_file()) {
            Ok(true) if has_capabilities(&program) && !has_capabilities(&new) => Err(format!(
                "cannot upgrade to {}: the program has file capabilities, and the new file has none: `getcap` shows them, \
                 and `setcap` gives them to a file that lies beside the program",
                new.display()
            )),
            Ok(true) => Ok(Files { program, old: old.into(), new }),
            Ok(false) => Err(format!("{} is not a regular file", new.display())),
            Err(error) => Err(format!("cannot upgrade to {}: {}", new.display(), plain(&error))),
        }
    }

    async fn change(&self, how: fn(&Files) -> io::Result<()>) -> Result<(), String> {
        let files = self.clone();
        let changed = spawn_blocking(move || how(&files)).await;
        changed
            .map_err(|panic| panic.to_string())?
            .map_err(|error| format!("cannot replace {}: {}", self.program.display(), plain(&error)))
    }

    fn place(&self) -> io::Result<()> {
        // Without this the program could be an empty file after a crash of the machine.
        File::open(&self.new)?.sync_all()?;
        replace_with_link(&self.program, &self.old)?;
        replace_with_link(&self.new, &self.program)?;
        self.sync()
    }

    fn restore(&self) -> io::Result<()> {
        fs::rename(&self.old, &self.program)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(self.program.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// Gives a file a second name, which replaces any file of that name. Copies the file where hard links are not supported or not
/// allowed.
fn replace_with_link(file: &Path, name: &Path) -> io::Result<()> {
    let draft = name.with_file_name(format!(".handover-draft-{}", random_suffix()));
    // Neither call follows a symbolic link at the draft's name or writes to an existing file.
    if fs::hard_link(file, &draft).is_err() {
        let copied = copy(file, &draft);
        copied.inspect_err(|_| drop(fs::remove_file(&draft)))?;
    }
    let renamed = fs::rename(&draft, name);
    // Needed because rename(2) does nothing if both names are the same file.
    let _ = fs::remove_file(&draft);
    renamed
}

fn copy(file: &Path, draft: &Path) -> io::Result<()> {
    if has_capabilities(file) {
        return Err(io::Error::other(
            "hard links do not work here, and a copy loses the file's capabilities",
        ));
    }
    let mut from = File::open(file)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(from.metadata()?.permissions())?;
    to.sync_all()
}

/// Decodes percent-encoding. A `%` without two hex digits is an error.
fn unescaped(text: &str) -> Option<String> {
    let escapes = text.split('%').skip(1);
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let is_whole = escapes.into_iter().all(is_escape);
    percent_decode_str(text).decode_utf8().ok().filter(|_| is_whole).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_name_of_another_file_beside_the_program_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("server");
        for name in ["server", "new one", "server.old"] {
            fs::write(dir.path().join(name), name).expect("writable");
        }
        fs::create_dir(dir.path().join("dir")).expect("writable");
        std::os::unix::fs::symlink("/bin/true", dir.path().join("link")).expect("writable");
        for bad in ["", ".", "..", "../server", "a/b", "a%2fb", "%2e%2e", "%", "%zz", "%f", "%ff", "a%00b"] {
            assert!(Files::find(&program, bad).is_err(), "{bad:?}");
        }
        for bad in ["server", "server.old", "dir", "link", "missing"] {
            assert!(Files::find(&program, bad).is_err(), "{bad:?}");
        }
        let found = Files::find(&program, "new%20one").expect("it is there");
        assert_eq!(found.new, dir.path().canonicalize().expect("exists").join("new one"));
    }

    #[test]
    fn what_was_replaced_comes_back_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        fs::write(dir.path().join("server"), "old").expect("writable");
        fs::write(dir.path().join("new"), "new").expect("writable");
        let files = Files::find(&dir.path().join("server"), "new").expect("it is there");
        for _ in 0..2 {
            files.place().expect("writable");
            assert_eq!([read("server"), read("server.old")], [Some("new".into()), Some("old".into())]);
            files.restore().expect("writable");
            assert_eq!([read("server"), read("server.old")], [Some("old".into()), None]);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2);
    }
}
