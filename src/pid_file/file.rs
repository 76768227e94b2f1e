//! A file that holds a pid, in a directory that may belong to another user. No symbolic link is followed, no file with a
//! second hard link is written to, and a draft has an unguessable name.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// The maximum size of a pid file. A larger file holds something else.
const LONGEST: u64 = 64;

/// Checks whether a pid file can be at `path`, without writing anything.
pub(super) fn look_at(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (path.is_dir(), fs::metadata(dir)?.is_dir()) {
        (true, _) => Err(io::ErrorKind::IsADirectory.into()),
        (false, false) => Err(io::ErrorKind::NotADirectory.into()),
        (false, true) => Ok(()),
    }
}

/// Checks whether the pid file can be written, by writing and removing a draft.
pub(super) fn try_out(path: &Path) -> io::Result<()> {
    look_at(path)?;
    draft(path, &text(std::process::id())).and_then(fs::remove_file)
}

/// Writes the pid file by rename, so that a reader sees the old or the new pid and never a part. On a full disk, an existing
/// file is overwritten in place.
pub(super) fn write(path: &Path, pid: u32) -> io::Result<()> {
    let text = text(pid);
    let renamed = draft(path, &text).and_then(|draft| {
        fs::rename(&draft, path).inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    });
    match renamed {
        Err(error) if is_full(&error) => overwrite(path, &text).map_err(|_| error),
        renamed => renamed,
    }
}

/// Reads the pid in the file.
pub(super) fn read(path: &Path) -> Option<u32> {
    let mut text = String::new();
    let file = OpenOptions::new().read(true).custom_flags(CAREFUL).open(path).ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Returns the pid in the file if it belongs to another server: a live process with the same program name that is neither
/// one of `ours` nor the parent.
pub(super) fn other_server(path: &Path, ours: &[u32]) -> Option<u32> {
    let named = read(path).filter(|pid| !ours.contains(pid))?;
    let program = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let is_parent = rustix::process::getppid().is_some_and(|p| p.as_raw_pid().cast_unsigned() == named);
    (!is_parent && program(&named.to_string())? == program("self")?).then_some(named)
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Flags to open a file without following a symbolic link and without waiting for the other end of a FIFO.
const CAREFUL: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

fn text(pid: u32) -> String {
    format!("{pid}\n")
}

/// Writes a new file with `text` beside the pid file, and returns its path. O_EXCL follows no symbolic link.
fn draft(path: &Path, text: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // The keys of a hash map come from the kernel's random numbers.
    let secret = RandomState::new().hash_one(std::process::id());
    let draft = path.with_file_name(format!(".{}.{secret:016x}", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create_new(true).custom_flags(CAREFUL).open(&draft)?;
    // Explicitly, so that this user can read the file again under any umask.
    let mode = file.metadata()?.mode() & 0o777 | 0o600;
    let written = file.set_permissions(fs::Permissions::from_mode(mode));
    written.and_then(|()| file.write_all(text.as_bytes())).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })?;
    Ok(draft)
}

/// Overwrites the file with a single write, padded to the length of the file. A concurrent reader sees at worst the new pid and
/// empty lines.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(CAREFUL).open(path)?;
    let about = file.metadata()?;
    let is_ours = about.is_file() && about.nlink() == 1 && about.uid() == geteuid().as_raw();
    if !is_ours || about.len() > LONGEST {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let length = usize::try_from(about.len()).unwrap_or(0);
    file.write_all_at(format!("{text:\n<length$}").as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_pid_is_written_in_place_where_there_is_no_room_for_another_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pid");
        fs::write(&path, "4194304\n").expect("writable");
        overwrite(&path, "77\n").expect("it fits");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "77\n");
        overwrite(&path, "123456\n").expect("it fits");
        assert_eq!(read(&path), Some(123_456));
    }

    #[test]
    fn a_file_that_may_belong_to_another_user_is_not_overwritten_in_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let (theirs, link, name) =
            (dir.path().join("theirs"), dir.path().join("link"), dir.path().join("name"));
        fs::write(&theirs, "precious").expect("writable");
        symlink(&theirs, &link).expect("writable");
        overwrite(&link, "77\n").expect_err("a symbolic link");
        fs::hard_link(&theirs, &name).expect("writable");
        overwrite(&name, "77\n").expect_err("a second name");
        assert_eq!(fs::read_to_string(&theirs).expect("readable"), "precious");
        assert_eq!(read(&link), None);
    }
}
