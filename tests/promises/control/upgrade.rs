//! `handover upgrade` puts a new file in place and hands over to it, or leaves everything as it was.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, get, install};
use support::process::{RUNTIME, Server, command, signal};

use super::{Operated, Said, handover, root};
use crate::HANDOVER;

/// Makes a release that reports version 9.9.9, accepts all arguments, and runs `what` when it is started.
pub(super) fn release(it: &Operated, name: &str, what: &str) -> PathBuf {
    it.script(
        name,
        &format!("case \"$1\" in --version) echo handover 9.9.9; exit;; --check) exit;; esac\n{what}"),
    )
}

pub(super) fn good() -> String {
    format!("exec {HANDOVER} \"$@\"")
}

pub(super) fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of the files beside the program, except those of the tests.
pub(super) fn beside(it: &Operated) -> Vec<String> {
    let names = std::fs::read_dir(it.dir.path()).expect("readable").flatten();
    let names = names.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> =
        names.filter(|name| !["control", "root", "new", "server"].contains(&&**name)).collect();
    names.sort();
    names
}

#[test]
fn an_upgrade_under_load_loses_nothing_and_keeps_the_old_file() {
    let it = Operated::start(&[]);
    let traffic = Traffic::fresh(&it.server);
    let before = bytes(&it.path("server"));
    let new = release(&it, "new", &good());
    let said = it.ask(&["upgrade", new.to_str().expect("UTF-8")]);
    let program = it.path("server");
    said.assert(
        0,
        &[
            "the new file runs: handover 9.9.9",
            "it accepts the current arguments",
            &format!("it is {} now; the one before is {}.old", program.display(), program.display()),
            "generation 2, pid",
            "upgraded",
        ],
    );
    assert_eq!(bytes(&program), bytes(&new));
    assert_eq!(bytes(&it.path("server.old")), before);
    assert_eq!(beside(&it), ["server.old"]);
    it.server.wait_retired(1);
    assert_eq!(it.status()[0]["generation"], 2);
    traffic.stop_lossless(&it.server);
}

#[test]
fn a_new_file_that_does_not_become_ready_is_taken_back_under_load() {
    let it = Operated::start(&[]);
    let traffic = Traffic::fresh(&it.server);
    let before = bytes(&it.path("server"));
    let new = release(&it, "new", "echo 'this release needs a newer kernel' >&2; exit 4");
    let said = it.ask(&["upgrade", new.to_str().expect("UTF-8")]);
    said.assert(
        1,
        &[
            "exit status: 4",
            "| this release needs a newer kernel",
            "is the old file again",
            "goes on serving",
        ],
    );
    assert_eq!(bytes(&it.path("server")), before);
    assert_eq!(beside(&it), Vec::<String>::new());
    it.ask(&["reload"]).assert(0, &["generation 2"]);
    traffic.stop_lossless(&it.server);
}

#[test]
fn a_new_file_that_crashes_in_standby_is_taken_back() {
    let it = Operated::start(&["--standby", "1h"]);
    let before = bytes(&it.path("server"));
    let new = release(&it, "new", &good());
    let mut upgrade = it.begin(&["upgrade", new.to_str().expect("UTF-8")]);
    upgrade.wait_for("generation 2, pid");
    assert_eq!(bytes(&it.path("server")), bytes(&new));
    signal(it.server.wait_serving(2), Signal::SIGKILL);
    upgrade.finish().assert(1, &["took over and crashed", "serves again", "is the old file again"]);
    assert_eq!(bytes(&it.path("server")), before);
    assert!(get(it.address(), "/").contains("200 OK"));
}

#[test]
fn an_upgrade_is_completed_or_undone_even_if_the_client_is_gone() {
    let it = Operated::start(&[]);
    let go = it.path("go");
    let new = release(&it, "new", &format!("while [ ! -e {} ]; do sleep 0.02; done; exit 4", go.display()));
    let before = bytes(&it.path("server"));
    let mut upgrade = it.begin(&["upgrade", new.to_str().expect("UTF-8")]);
    upgrade.wait_for("started generation 2");
    signal(upgrade.child.id(), Signal::SIGTERM);
    upgrade.finish();
    std::fs::write(go, "").expect("writable");
    it.server.log().wait_for("handover failed");
    support::harness::wait_until("the old file is back", &it.server, || bytes(&it.path("server")) == before);
}

#[test]
fn the_second_of_two_upgrades_is_refused() {
    let it = Operated::start(&[]);
    let go = it.path("go");
    let what = format!("while [ ! -e {} ]; do sleep 0.02; done; {}", go.display(), good());
    let new = release(&it, "new", &what);
    let new = new.to_str().expect("UTF-8");
    let mut first = it.begin(&["upgrade", new]);
    first.wait_for("started generation 2");
    it.ask(&["upgrade", new]).assert(1, &["another upgrade is under way"]);
    std::fs::write(go, "").expect("writable");
    first.finish().assert(0, &["upgraded"]);
}

#[test]
fn an_upgrade_right_after_a_reload_waits_for_the_end_of_standby() {
    // Long enough for the second command to arrive before standby ends, even on a busy machine.
    let it = Operated::start(&["--standby", "5s"]);
    let new = release(&it, "new", &good());
    it.ask(&["reload"]).assert(0, &[]);
    let said = it.ask(&["upgrade", new.to_str().expect("UTF-8")]);
    said.assert(0, &["waiting for the end of standby", "generation 3, pid", "upgraded"]);
}

#[test]
fn behind_a_symbolic_link_the_file_is_replaced_and_the_link_kept() {
    let it = Operated::start(&[]);
    it.ask(&["stop"]).assert(0, &[]);
    std::fs::create_dir(it.path("release-1")).expect("writable");
    install(HANDOVER, &it.path("release-1/server"));
    symlink("release-1", it.path("current")).expect("writable");
    let mut started = command(it.path("current").join("server"));
    started.args(QUICK).arg(root(it.dir.path())).env(RUNTIME, it.dir.path());
    let server = Server::start(started);
    let new = release(&it, "new", &good());
    let asked = |args: &[&str]| Said::of(handover(args).env(RUNTIME, it.dir.path()));
    asked(&["upgrade", new.to_str().expect("UTF-8")]).assert(0, &["release-1/server now", "upgraded"]);
    server.wait_serving(2);
    assert_eq!(std::fs::read_link(it.path("current")).expect("a link"), Path::new("release-1"));
    assert_eq!(bytes(&it.path("release-1/server")), bytes(&new));
    asked(&["stop"]).assert(0, &[]);
}

#[test]
fn a_post_request_can_name_a_file_beside_the_program() {
    let it = Operated::start(&[]);
    release(&it, "new one", &good());
    let mut curl = command("curl");
    curl.args(["-sS", "--max-time", "60", "-X", "POST", "--unix-socket"]).arg(it.socket());
    let said = Said::of(curl.arg("http://x/upgrade?file=new%20one"));
    said.assert(0, &["\"outcome\": \"upgraded\""]);
    assert_eq!(beside(&it), ["server.old"]);
}
