//! The file system of the machine, in memory: busybox, this executable, the programs under test, and the libraries they
//! are linked with, each at the path that it has here. So whoever looks for a program finds it, inside as outside.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::harness::example;

use crate::HANDOVER;

/// Where the modules are that answer questions about TCP sockets, in the order in which they are loaded.
pub(crate) const SOCK_DIAG: [&str; 2] = ["/inet_diag.ko", "/tcp_diag.ko"];

/// Where the module is that networks are made with.
pub(crate) const TUN: &str = "/tun.ko";

/// Makes it in `folder`, with the modules of a kernel, and gives the file to boot with.
pub(crate) fn make(folder: &Path, busybox: &Path, modules: &Path) -> PathBuf {
    let root = folder.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("writable");
    }
    fs::copy(busybox, root.join("bin/busybox")).expect("copied");
    for module in SOCK_DIAG.into_iter().chain([TUN]) {
        let name = module.trim_start_matches('/');
        fs::copy(modules.join(name), root.join(name)).expect("fetched with its kernel");
    }
    let me = std::env::current_exe().expect("the path of this executable");
    for program in [&me, &example("playground"), &HANDOVER.into()] {
        strip(program, &place(program, &root));
        for library in libraries(program) {
            fs::copy(&library, place(&library, &root)).expect("copied");
        }
    }
    symlink(&me, root.join("guest")).expect("writable");
    fs::write(root.join("init"), include_str!("init.sh")).expect("writable");
    fs::set_permissions(root.join("init"), PermissionsExt::from_mode(0o755)).expect("ours");
    let archive = folder.join("initramfs");
    let mut pack = Command::new(busybox);
    pack.args(["sh", "-c", "find . | cpio -o -H newc"]).current_dir(&root).stderr(Stdio::null());
    let packed = pack.stdout(fs::File::create(&archive).expect("writable")).status();
    assert!(packed.is_ok_and(|status| status.success()), "busybox does not pack");
    fs::remove_dir_all(root).expect("ours");
    archive
}

/// What a program is linked with: ldd(1).
fn libraries(program: &Path) -> Vec<PathBuf> {
    let said =
        Command::new("ldd").arg(program).stderr(Stdio::null()).output().expect("ldd is part of every Debian");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Where a file has its own path below `root`.
fn place(file: &Path, root: &Path) -> PathBuf {
    let place = root.join(file.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(place.parent().expect("it has a folder")).expect("writable");
    place
}

/// Copies a program without what only a debugger needs, which is most of it.
fn strip(program: &Path, to: &Path) {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(program).stderr(Stdio::null()).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(program, to).expect("copied");
    }
}
