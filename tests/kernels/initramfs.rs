//! The machine's file system, in memory: busybox, this executable, the programs under test, and the libraries with which they
//! are linked. Each has the same path as here, so a program is found at the same path inside and outside.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::harness::example;

use crate::HANDOVER;

/// The paths of the modules for sock_diag, in the order in which they are loaded.
pub(crate) const SOCK_DIAG: [&str; 2] = ["/inet_diag.ko", "/tcp_diag.ko"];

/// The path of the module for TUN devices, of which the test networks are made.
pub(crate) const TUN: &str = "/tun.ko";

/// Makes the initramfs in `folder`, with the modules of a kernel, and returns its path.
pub(crate) fn make(folder: &Path, busybox: &Path, modules: &Path) -> PathBuf {
    let root = folder.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("writable");
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("writable");
    for module in SOCK_DIAG.into_iter().chain([TUN]) {
        let name = module.trim_start_matches('/');
        fs::copy(modules.join(name), root.join(name)).expect("fetched with its kernel");
    }
    let me = std::env::current_exe().expect("the path of this executable");
    for program in [&me, &example("playground"), &HANDOVER.into()] {
        strip(program, &place(program, &root));
        for library in libraries(program) {
            fs::copy(&library, place(&library, &root)).expect("writable");
        }
    }
    symlink(&me, root.join("guest")).expect("writable");
    fs::write(root.join("init"), include_str!("init.sh")).expect("writable");
    fs::set_permissions(root.join("init"), PermissionsExt::from_mode(0o755)).expect("writable");
    let archive = folder.join("initramfs");
    let mut pack = Command::new(busybox);
    pack.args(["sh", "-c", "find . | cpio -o -H newc"]).current_dir(&root).stderr(Stdio::null());
    let packed = pack.stdout(fs::File::create(&archive).expect("writable")).status();
    assert!(packed.is_ok_and(|status| status.success()), "busybox does not pack");
    fs::remove_dir_all(root).expect("writable");
    archive
}

/// Returns the libraries with which a program is linked, by ldd(1).
fn libraries(program: &Path) -> Vec<PathBuf> {
    let said =
        Command::new("ldd").arg(program).stderr(Stdio::null()).output().expect("ldd is part of every Debian");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Returns the path of a file below `root`, and makes its folder.
fn place(file: &Path, root: &Path) -> PathBuf {
    let place = root.join(file.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(place.parent().expect("it has a folder")).expect("writable");
    place
}

/// Copies a program without its debug information, which is most of its size.
fn strip(program: &Path, to: &Path) {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(program).stderr(Stdio::null()).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(program, to).expect("copied");
    }
}
