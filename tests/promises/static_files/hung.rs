//! A file system that never answers takes only its own requests with it.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use support::harness::{Client, QUICK, skip};
use support::process::{Server, command};

use super::{get, noise, request};
use crate::HANDOVER;

/// Mounts a FUSE file system on `$1` that has no server, because this process holds its other end and never reads, and starts
/// the rest of the arguments.
const MOUNT: &str = "exec 3<>/dev/fuse; \
    mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$1\" || exit 9; shift; exec \"$@\"";
const IN_A_NAMESPACE: [&str; 5] = ["--user", "--map-root-user", "--mount", "sh", "-c"];
/// More than there are threads.
const REQUESTS: usize = 700;

#[test]
fn a_file_system_that_never_answers_leaves_threads_for_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("hung")).expect("writable");
    std::fs::create_dir_all(root.join("directory")).expect("writable");
    symlink("hung/a", root.join("link")).expect("writable");
    let (small, large) = (noise(1000, 1), noise(1 << 20, 2));
    std::fs::write(root.join("small"), &small).expect("writable");
    std::fs::write(root.join("large"), &large).expect("writable");
    let mut tried = command("unshare");
    tried.args(IN_A_NAMESPACE).args([MOUNT, "sh"]).arg(root.join("hung")).arg("true");
    if !tried.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skip("no FUSE in a user namespace here, so no file system that never answers");
    }
    let mut started = command("unshare");
    started.args(IN_A_NAMESPACE).args([MOUNT, "sh"]).arg(root.join("hung"));
    started.arg(HANDOVER).args(QUICK).args(["--directory-listing", "--drain-timeout", "1s"]).arg(&root);
    let server = Server::start(started);
    let addr = server.address();
    let targets = ["/hung/a", "/link", "/hung/"];
    let hung: Vec<Client> = (0..REQUESTS)
        .map(|n| {
            let mut client = Client(TcpStream::connect(addr).expect("the server listens"));
            client.write(request(targets[n % targets.len()], &[]));
            client
        })
        .collect();
    let opened = std::fs::File::open(root.join("large")).expect("readable");
    for n in 0..20 {
        // What is not in memory needs a thread.
        fadvise(&opened, 0, None, Advice::DontNeed).expect("a regular file");
        let began = Instant::now();
        assert!(get(addr, "/small", &[]).body == small);
        assert!(get(addr, "/large", &[]).body == large);
        assert_eq!(get(addr, &format!("/missing{n}"), &[]).status(), 404);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    for mut client in hung {
        client.0.set_nonblocking(true).expect("a socket");
        assert!(client.0.read(&mut [0; 1]).is_err(), "an answer from a file system that never answers");
    }
}
