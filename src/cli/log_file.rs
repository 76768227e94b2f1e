//! Files that the program writes to, in directories that may belong to another user: where a symbolic link is
//! followed.

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

/// Opens a file for lines at its end. With `create` it is made if it is missing, with mode 0640, because a log may say more
/// than the world should know.
///
/// A symbolic link is followed only where no other user could have put it: a server of root whose log lies in the directory of
/// another user would write to any file otherwise. For the same reason a file there has no second name.
pub(crate) fn append(path: &Path, create: bool) -> io::Result<File> {
    let (Some(name), parent) = (path.file_name(), path.parent()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let parent = parent.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = CString::new(name.as_bytes())?;
    // Held from here on, so that another directory cannot take its place.
    let dir =
        File::from(openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    // A FIFO without a reader is an error at once, instead of a wait for its reader (fifo(7)). Only to open it.
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
            "it has a second name, and lies in a directory that another user may write to",
        ));
    }
    let found = file.metadata()?;
    if found.mode() & 0o600 != 0o600 && found.is_file() && found.uid() == geteuid().as_raw() {
        // A umask that leaves its owner nothing would refuse it to the next generation.
        fchmod(&file, Mode::from_raw_mode(found.mode() & 0o777 | 0o600))?;
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}
