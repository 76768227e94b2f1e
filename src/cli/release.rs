//! Releases behind a link, `current -> releases/2`: whether the program and ROOT are of the same one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Warns if the program comes through a link and ROOT is that of another release: the supervisor started this where the old
/// release is, and ROOT begins there.
pub(crate) fn warn_of_another(root: &Path) {
    let execfn = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    let Ok(program) = std::path::absolute(execfn) else { return };
    if let Some((link, meant, found)) = another(&program, root) {
        tracing::warn!(
            "ROOT is {}, of another release than the program, which comes through the link {}: name {} as ROOT, or start \
             the server where the link is part of $PWD",
            found.display(),
            link.display(),
            meant.display()
        );
    }
}

/// The link, the ROOT that is behind it, and the ROOT of another release that would be served.
fn another(program: &Path, root: &Path) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let link = program.ancestors().skip(1).find(|dir| dir.is_symlink())?;
    let release = link.canonicalize().ok()?;
    let root = root.canonicalize().ok()?;
    let mut below = root.strip_prefix(release.parent()?).ok()?.components();
    let other = below.next()?;
    let meant = link.join(below.as_path());
    // `/bin` is a link as well; but nothing of `/usr/share` lies there.
    (Some(other.as_os_str()) != release.file_name() && meant.is_dir()).then(|| (link.to_owned(), meant, root))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_root_of_another_release_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().canonicalize().expect("it is there").join(name);
        for below in ["releases/1/www", "releases/2/www", "releases/2/bin", "releases/share/doc", "www"] {
            fs::create_dir_all(path(below)).expect("ours");
        }
        symlink("releases/2", path("current")).expect("ours");
        let program = path("current/bin/handover");
        let found = another(&program, &path("releases/1/www"));
        assert_eq!(found, Some((path("current"), path("current/www"), path("releases/1/www"))));
        for right in ["releases/2/www", "current/www", "releases/share/doc", "www", "missing"] {
            assert_eq!(another(&program, &path(right)), None, "{right}");
        }
        assert_eq!(another(&path("releases/2/bin/handover"), &path("releases/1/www")), None);
    }
}
