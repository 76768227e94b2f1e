//! What the tests and the bench of this project share: the programs under test, load, attacks, other servers. It is not published.

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

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder that the programs of this executable's profile are in: `target/debug`.
pub fn profile_dir() -> PathBuf {
    let me = std::env::current_exe().expect("the path of this executable");
    me.ancestors().nth(2).expect("cargo builds it two folders deeper").to_owned()
}

/// The target directory, however it was named.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("the profile has a folder of its own").to_owned()
}

/// cargo, in the root of the project and without what the cargo that runs this executable says of its package, which build scripts
/// (that of ring) would take for a change.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        cargo.env_remove(name);
    }
    cargo.current_dir(root());
    cargo
}
