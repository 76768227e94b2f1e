//! Programs of the distribution, from PATH or from the packages that `bench/peers/fetch` has unpacked.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder for the peers, inside the target directory.
pub fn peers() -> PathBuf {
    crate::target_dir().join("peers")
}

/// A command that starts the program, or how to install it.
pub fn command(program: &str) -> Result<Command, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks the directory of the administrator's programs.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    if let Some(installed) = in_folders(program, folders) {
        return Ok(Command::new(installed));
    }
    let packages = peers().join("packages");
    let folders = ["usr/sbin", "usr/bin"].map(|folder| packages.join(folder));
    let unpacked =
        in_folders(program, folders).ok_or_else(|| "not installed: run bench/peers/fetch".to_owned())?;
    let mut command = Command::new(unpacked);
    command.env("LD_LIBRARY_PATH", libraries(&packages.join("usr/lib")));
    Ok(command)
}

/// The version that `program -v` prints: the word after the first `prefix`.
pub fn version(program: &str, prefix: &str) -> Result<String, String> {
    let output = command(program)?.arg("-v").output().map_err(|error| format!("does not start: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let version = said.lines().find_map(|line| line.split_once(prefix)?.1.split_whitespace().next());
    let first = said.lines().next().unwrap_or_default();
    version.map(|version| format!("{program} {version}")).ok_or_else(|| format!("does not start: {first}"))
}

fn in_folders(program: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The folder with the libraries, which Debian names after the architecture.
fn libraries(lib: &Path) -> PathBuf {
    let folders = lib.read_dir().into_iter().flatten().flatten().map(|folder| folder.path());
    let named = |folder: &PathBuf| folder.to_str().is_some_and(|name| name.ends_with("-linux-gnu"));
    folders.into_iter().find(named).unwrap_or_else(|| lib.to_owned())
}
