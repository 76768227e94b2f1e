//! The files that the besieged server serves.

use std::path::Path;

/// A text that compresses badly.
pub const LARGE: &str = "/large.txt";
/// A directory with as many names as a listing shows.
pub const NAMES: &str = "/names/";

const MIB: usize = 1 << 20;

/// Creates the files in `dir`.
pub fn make(dir: &Path) {
    // The answer that the load generator expects from `/`.
    std::fs::write(dir.join("index.html"), "generation=0 ROOT\n").expect("writable");
    let mut random = fastrand::Rng::with_seed(15);
    let mut piece = vec![0; MIB];
    random.fill(&mut piece);
    piece.iter_mut().for_each(|byte| *byte = b' ' + *byte % 64);
    std::fs::write(dir.join(&LARGE[1..]), piece.repeat(32)).expect("writable");
    let names = dir.join(&NAMES[1..]);
    std::fs::create_dir(&names).expect("writable");
    for n in 0..10_000 {
        std::fs::write(names.join(format!("a-name-of-some-length-{n}")), "").expect("writable");
    }
}
