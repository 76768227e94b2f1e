//! Releases behind a link, `current -> releases/2`: a warning if the program and ROOT belong to different releases.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Warns if the program was started through the link and ROOT belongs to another release. That happens when the supervisor's
/// working directory is the old release and ROOT is relative.
pub(crate) fn warn_of_another(root: &Path) {
    let execfn = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    let Ok(program) = std::path::absolute(execfn) else { return };
    if let Some((link, meant, found)) = another(&program, root) {
        tracing::warn!(
            "ROOT is {}, of another release than the program, which was started through the link {}: use {} as ROOT, or \
             start the server where $PWD contains the link",
            found.display(),
            link.display(),
            meant.display()
        );
    }
}

/// Returns the link, the ROOT behind it, and the ROOT of another release that would be served instead.
fn another(program: &Path, root: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let link = program.ancestors().skip(1).find(|dir| dir.is_symlink())?;
    let release = link.canonicalize().ok()?;
    let root = root.canonicalize().ok()?;
    let mut below = root.strip_prefix(release.parent()?).ok()?.components();
    let other = below.next()?;
    let meant = link.join(below.as_path());
    // `/bin` is a link too, but a ROOT in `/usr/share` has no counterpart there.
    (Some(other.as_os_str()) != release.file_name() && meant.is_dir()).then(|| (link.to_owned(), meant, root))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_root_of_another_release_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().expect("/tmp is writable");
        let path = |name: &str| dir.path().canonicalize().expect("the directory exists").join(name);
        for below in ["releases/1/www", "releases/2/www", "releases/2/bin", "releases/share/doc", "www"] {
            fs::create_dir_all(path(below)).expect("the temporary directory is ours");
        }
        symlink("releases/2", path("current")).expect("the temporary directory is ours");
        let program = path("current/bin/handover");
        let found = another(&program, &path("releases/1/www"));
        assert_eq!(found, Some((path("current"), path("current/www"), path("releases/1/www"))));
        for right in ["releases/2/www", "current/www", "releases/share/doc", "www", "missing"] {
            assert_eq!(another(&program, &path(right)), None, "{right}");
        }
        assert_eq!(another(&path("releases/2/bin/handover"), &path("releases/1/www")), None);
    }
}
