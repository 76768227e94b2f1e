//! What the tests and the bench of this project share: the programs under test, load, attacks, other servers. It is not published.

use std::path::Path;

pub mod answer;
pub mod bed;
pub mod chaos;
pub mod frames;
pub mod harness;
pub mod http2;
pub mod load;
pub mod process;
pub mod resources;
pub mod servers;
pub mod siege;
pub mod steering;

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
