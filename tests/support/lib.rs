//! Code shared by the tests and the bench of this project: the programs under test, load, attacks, other servers. This
//! package is not published.

use std::path::{Path, PathBuf};
use std::process::Command;

pub mod answer;
pub mod chaos;
pub mod frames;
pub mod harness;
pub mod http2;
pub mod load;
pub mod netns;
pub mod process;
pub mod resources;
pub mod servers;
pub mod siege;
pub mod steering;

/// The root directory of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The directory with the programs of this executable's build profile, such as `target/debug`.
pub fn profile_dir() -> PathBuf {
    let me = std::env::current_exe().expect("the path of this executable");
    me.ancestors().nth(2).expect("cargo puts it two folders deeper").to_owned()
}

/// Cargo's target directory, which may have any name.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("each profile is a folder in the target directory").to_owned()
}

/// A cargo command in the root of the repository. It does not inherit the package variables that cargo set for this executable:
/// build scripts (such as ring's) would see them as a change and rebuild.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        cargo.env_remove(name);
    }
    cargo.current_dir(root());
    cargo
}
