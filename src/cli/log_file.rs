//! Opening of log files safely in directories that another user may write to.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fcntl_getfl, fcntl_setfl, openat, statat};
use rustix::process::geteuid;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Opens a file for appending. With `create` a missing file is created, with mode 0640 because a log may contain private data.
///
/// A symbolic link is followed only where no other user could have made it: otherwise a server of root with its log in the
/// directory of another user could be made to write to any file. For the same reason a file with hard links is refused there.
pub(crate) fn append(path: &Path, create: bool) -> io::Result<File> {
    let (Some(name), parent) = (path.file_name(), path.parent()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let parent = parent.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = CString::new(name.as_bytes())?;
    // The directory is held open from here on, so that it cannot be replaced by another one.
    let dir =
        File::from(openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    // NONBLOCK makes opening a FIFO without a reader fail at once instead of waiting (fifo(7)). It is removed after the open.
    let mut flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    flags.set(OFlags::CREATE, create);
    let open = |flags| openat(&dir, &name, flags, Mode::from_raw_mode(0o640)).map(File::from);
    let about = dir.metadata()?;
    let trusted = |uid| uid == 0 || uid == geteuid().as_raw();
    let only_ours = trusted(about.uid()) && about.mode() & WRITABLE_BY_OTHERS == 0;
    let file = match open(flags | OFlags::NOFOLLOW) {
        Err(rustix::io::Errno::LOOP) => {
            let link = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            // In a sticky directory no other user can put another link there.
            let ours_for_good = about.mode() & STICKY != 0 && trusted(about.uid()) && trusted(link.st_uid);
            if FileType::from_raw_mode(link.st_mode) == FileType::Symlink && !only_ours && !ours_for_good {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it is a symbolic link in a directory that another user may write to",
                ));
            }
            open(flags)?
        }
        opened => opened?,
    };
    if !only_ours && about.mode() & STICKY == 0 && file.metadata().is_ok_and(|f| f.is_file() && f.nlink() > 1)
    {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it has a second name (a hard link), and is in a directory that another user may write to",
        ));
    }
    let found = file.metadata()?;
    if found.mode() & 0o600 != 0o600 && found.is_file() && found.uid() == geteuid().as_raw() {
        // With a umask that masks the owner's bits, the next generation could not open the file.
        fchmod(&file, Mode::from_raw_mode(found.mode() & 0o777 | 0o600))?;
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}
