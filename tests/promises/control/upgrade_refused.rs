//! A file that cannot replace the program is refused in one line, and nothing is touched.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use support::harness::{Traffic, install, skip};

use super::Operated;
use super::upgrade::{beside, bytes, good, release};
use crate::HANDOVER;

/// Asserts that an upgrade to `new` is refused in one line with these words, and that the program is not touched.
#[track_caller]
fn assert_refused(it: &Operated, new: &Path, words: &[&str]) {
    let inode = || std::fs::metadata(it.path("server")).expect("the file exists").ino();
    let before = inode();
    let said = it.ask(&["upgrade", new.to_str().expect("UTF-8")]);
    said.assert(1, words);
    assert_eq!(said.stderr.lines().filter(|line| !line.starts_with("  | ")).count(), 1, "{said:?}");
    assert_eq!(inode(), before, "{said:?}");
    assert_eq!(beside(it), Vec::<String>::new());
    assert_eq!(it.status()[0]["generation"], 1);
}

#[test]
fn a_file_that_is_not_executable_is_refused_under_load() {
    let it = Operated::start(&[]);
    let traffic = Traffic::fresh(&it.server);
    assert_refused(&it, Path::new("/no/such/file"), &["/no/such/file", "no such file"]);
    assert_refused(&it, Path::new("/tmp"), &["/tmp", "not a file"]);
    assert_refused(&it, Path::new("/etc/passwd"), &["/etc/passwd", "not executable"]);
    let new = it.path("new");
    std::fs::write(&new, "just some text, and no program\n").expect("writable");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("we own it");
    assert_refused(&it, &new, &["not an executable for this machine"]);
    // As if built for a machine that does not exist (e_machine, elf(5)).
    let mut other = bytes(Path::new(HANDOVER));
    other[18..20].copy_from_slice(&[0xff, 0x7f]);
    std::fs::write(&new, other).expect("writable");
    assert_refused(&it, &new, &["not an executable for this machine"]);
    traffic.stop_lossless(&it.server);
}

#[test]
fn a_file_that_does_not_run_or_does_not_accept_the_arguments_is_refused() {
    let it = Operated::start(&[]);
    let new = it.script("new", "echo no libfoo.so >&2; exit 127");
    assert_refused(&it, &new, &["--version", "exit status: 127", "| no libfoo.so"]);
    let new = it.script(
        "new",
        "case $1 in --version) echo 9; exit;; --check) echo \"no such flag: $2\" >&2; exit 2;; esac",
    );
    assert_refused(&it, &new, &["--check", "exit status: 2", "| no such flag: --listen"]);
}

#[test]
fn a_file_that_hangs_on_version_is_ended_with_what_it_has_started() {
    let it = Operated::start(&[]);
    let started = it.path("new.pid");
    let new = it.script("new", &format!("sleep 1000 & echo $! > {}; wait", started.display()));
    let said = it.ask(&["upgrade", new.to_str().expect("UTF-8")]);
    said.assert(1, &["--version", "did not exit within 5s", "goes on serving"]);
    let pid = std::fs::read_to_string(&started).expect("the file ran").trim().parse().expect("a pid");
    support::harness::wait_until("the child is gone", &it.server, || !support::harness::is_alive(pid));
}

#[test]
fn a_file_on_another_file_system_is_taken() {
    let it = Operated::start(&[]);
    let device = |path: &Path| std::fs::metadata(path).map(|about| about.dev()).ok();
    let shm = Path::new("/dev/shm");
    let elsewhere = tempfile::tempdir_in(shm).ok().filter(|_| device(shm) != device(it.dir.path()));
    let Some(elsewhere) = elsewhere else { return skip("/dev/shm is not another file system") };
    let new = elsewhere.path().join("new");
    install(release(&it, "new", &good()), &new);
    it.ask(&["upgrade", new.to_str().expect("UTF-8")]).assert(0, &["upgraded"]);
    assert_eq!(bytes(&it.path("server")), bytes(&new));
}

const CAPABILITY: &std::ffi::CStr = c"security.capability";

/// Gives a file CAP_NET_BIND_SERVICE, permitted and effective, as `setcap` does (VFS_CAP_REVISION_2).
fn give_capability(file: &Path) -> bool {
    let value: Vec<u8> =
        [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let given = rustix::fs::setxattr(file, CAPABILITY, &value, rustix::fs::XattrFlags::empty()).is_ok();
    if !given {
        skip("may not give a file capabilities");
    }
    given
}

fn has_capability(file: &Path) -> bool {
    rustix::fs::getxattr(file, CAPABILITY, &mut [0; 64]).is_ok()
}

#[test]
fn a_file_beside_the_program_keeps_its_capabilities() {
    let it = Operated::start(&[]);
    let new = it.path("new");
    install(HANDOVER, &new);
    if !give_capability(&new) {
        return;
    }
    it.ask(&["upgrade", new.to_str().expect("UTF-8")]).assert(0, &["linked", "beside", "upgraded"]);
    assert!(has_capability(&it.path("server")) && has_capability(&new));
    // A program with capabilities is not replaced by a file without them.
    install(HANDOVER, &new);
    let inode = std::fs::metadata(it.path("server")).expect("the file exists").ino();
    let said = it.ask(&["upgrade", new.to_str().expect("UTF-8")]);
    said.assert(1, &["the program has file capabilities, and the new file has none", "setcap"]);
    assert_eq!(std::fs::metadata(it.path("server")).expect("the file exists").ino(), inode);
    assert_eq!(beside(&it), ["server.old"]);
}

#[test]
fn a_file_whose_capabilities_a_copy_would_lose_is_refused_before_anything_is_touched() {
    let it = Operated::start(&[]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let new = elsewhere.path().join("new");
    install(HANDOVER, &new);
    if give_capability(&new) {
        let dir = it.dir.path().to_str().expect("UTF-8").to_owned();
        assert_refused(&it, &new, &["it has file capabilities, which a copy loses", &dir]);
    }
}
