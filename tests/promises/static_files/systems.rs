//! Systems that do not tell whether a file is in memory: all of them serve the same.

use nix::libc::{ENOSYS, EPERM, SYS_openat2, SYS_preadv2, SYS_statx};
use support::process::Server;

use super::{Bed, noise};
use crate::sandbox::{self, Refused};

/// Asserts that files of every size, their parts, a listing and what is missing are served.
fn assert_served(bed: &Bed) {
    std::fs::create_dir(bed.path("directory")).expect("writable");
    bed.write("directory/name", "");
    for (name, size) in [("empty", 0), ("small", 1000), ("medium", 100_000), ("large", 1 << 20)] {
        let content = noise(size, 1);
        bed.write(name, &content);
        bed.write(&format!("{name}.gz"), "compressed");
        // More than once, because the first request may be served in another way.
        for _ in 0..3 {
            let whole = bed.get(&format!("/{name}"), &[]);
            assert!(whole.status() == 200 && whole.body == content, "{name}: {}", whole.head);
            let tag = format!("if-none-match: {}", whole.field("etag"));
            assert_eq!(bed.get(&format!("/{name}"), &[&tag]).status(), 304, "{name}");
            assert_eq!(
                bed.get(&format!("/{name}"), &["accept-encoding: gzip"]).body,
                b"compressed",
                "{name}"
            );
            if size > 0 {
                let part = bed.get(&format!("/{name}"), &["range: bytes=-500"]);
                assert!(part.status() == 206 && part.body == content[size - 500..], "{name}: {}", part.head);
            }
            bed.replace(name, &content);
            assert_ne!(bed.get(&format!("/{name}"), &[]).field("etag"), whole.field("etag"), "{name}");
        }
    }
    let listing = bed.get("/directory/", &[]);
    assert!(String::from_utf8_lossy(&listing.body).contains("href=\"name\""), "{}", listing.head);
    assert_eq!(bed.get("/directory", &[]).status(), 307);
    assert_eq!(bed.get("/missing", &[]).status(), 404);
    assert_eq!(bed.get("/small/below", &[]).status(), 404);
}

#[test]
fn a_kernel_or_a_sandbox_that_refuses_to_tell_serves_the_same() {
    const CALLS: [&[i64]; 4] =
        [&[SYS_openat2], &[SYS_statx], &[SYS_preadv2], &[SYS_openat2, SYS_statx, SYS_preadv2]];
    // A filter refuses with the first, a kernel that is older than the call with the second.
    for (calls, errno) in CALLS.into_iter().flat_map(|calls| [(calls, EPERM), (calls, ENOSYS)]) {
        let refused = Refused::Calls(calls, errno);
        let start = |command| {
            let server = sandbox::launch(command, refused);
            server.wait_serving(1);
            server
        };
        let dir = tempfile::tempdir().expect("a directory");
        assert_served(&Bed::start_in(dir, &["--directory-listing"], start));
    }
}

#[test]
fn a_file_system_in_memory_serves_the_same() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return support::harness::skip("no /dev/shm here, so no file system in memory");
    };
    assert_served(&Bed::start_in(dir, &["--directory-listing"], Server::start));
}

#[test]
fn a_file_system_on_a_disk_serves_the_same() {
    assert_served(&Bed::start(&["--directory-listing"]));
}
