//! The config file: its values apply, each generation reads it again, and a mistake in it does not affect the generation
//! that serves.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use support::harness::{Traffic, get, hand_over, wait_until};
use support::process::{Server, command, signal};
use tempfile::TempDir;

use crate::HANDOVER;

mod access;
mod addresses;
mod check;
mod extras;
mod listing;
mod logs;
mod mistakes;

/// The settings of every server in these tests: JSON logs, a short standby and a free port.
const QUICK: &str = "log-format = 'json'\nstandby = '300ms'\nlisten = '127.0.0.1:0'\n";

/// A directory with a ROOT, and a config beside it.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn make() -> Bed {
        let bed = Bed { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(bed.path("root")).expect("writable");
        // The load generator expects an answer of this form from `/`.
        bed.file("root/index.html", "generation=0 ROOT\n");
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("writable");
    }

    /// Writes the config: [`QUICK`], ROOT and `more`.
    fn config(&self, more: &str) {
        self.file("handover.toml", format!("{QUICK}root = {:?}\n{more}", self.path("root")));
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = command(HANDOVER);
        command.arg("--config").arg(self.path("handover.toml")).args(flags);
        command
    }

    fn start(&self, config: &str, flags: &[&str]) -> Server {
        self.config(config);
        Server::start(self.command(flags))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// Runs a command to its end. Returns its exit status, stdout and stderr.
fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn has_header(addr: SocketAddr, target: &str, line: &str) -> bool {
    get(addr, target).split("\r\n\r\n").next().is_some_and(|head| head.lines().any(|l| l == line))
}

#[test]
fn values_of_the_file_apply_unless_a_flag_overrides_them() {
    let bed = Bed::make();
    std::fs::create_dir(bed.path("other")).expect("writable");
    bed.file("other/index.html", "the other ROOT");
    let server = bed.start("probes = true\nmax-connections = 99\n", &[]);
    assert!(get(server.address(), "/").ends_with("generation=0 ROOT\n"));
    assert!(get(server.address(), "/healthz").starts_with("HTTP/1.1 200"));
    drop(server);
    // Each flag replaces the value of the file, lists and switches included.
    let other = bed.path("other");
    let flags =
        ["--probes=false", "--listen", "[::1]:0", "-l", "127.0.0.1:0", other.to_str().expect("UTF-8")];
    let server = bed.start("probes = true\n", &flags);
    let addresses = server.addresses(1);
    assert!(addresses.len() == 2 && addresses[0].is_ipv6(), "{addresses:?}");
    assert!(get(addresses[0], "/").ends_with("the other ROOT"));
    assert!(get(addresses[1], "/healthz").starts_with("HTTP/1.1 404"));
}

#[test]
fn every_flag_is_a_config_key_except_those_for_a_single_start() {
    let (_, help, _) = finish(command(HANDOVER).arg("--help"));
    let long =
        |line: &str| Some(line.trim_start().split("--").nth(1)?.split(['[', ' ', '.']).next()?.to_owned());
    let options = help.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(long);
    let keys: Vec<_> = options
        .filter(|flag| !["config", "check", "verbose", "quiet", "help", "version"].contains(&&**flag))
        .collect();
    assert!(keys.len() > 15, "{keys:?}");
    let bed = Bed::make();
    bed.file("handover.toml", "unheard-of = 1\n");
    let (_, _, error) = finish(&mut bed.command(&[]));
    for key in keys {
        assert!(error.contains(&format!(" {key},")), "{key} is no key: {error}");
    }
}

#[test]
fn each_generation_reads_the_file_again_and_a_broken_one_changes_nothing() {
    let bed = Bed::make();
    let server = bed.start("[headers]\nx-config = 'one'\n", &[]);
    let addr = server.address();
    let traffic = Traffic::fresh(&server);
    for (n, broken) in ["backlog = '5'\n", "backlog = \n", "[headers]\n'no name' = ''\n"].iter().enumerate() {
        bed.config(broken);
        signal(server.first_pid(), Signal::SIGHUP);
        // The successor logs the reason, and the predecessor logs that it returns to serving.
        wait_until("the file is refused and the predecessor serves again", &server, || {
            let lines = server.log().lines();
            let why = lines.iter().filter(|l| l.generation() == 2 && l.message().contains("handover.toml:"));
            let back = lines.iter().filter(|l| l.json["from"] == "spawning" && l.json["to"] == "serving");
            why.count() > n && back.count() > n
        });
        assert!(has_header(addr, "/", "x-config: one"));
    }
    bed.config("[headers]\nx-config = 'two'\n");
    hand_over(&server, 1, server.first_pid());
    assert!(has_header(addr, "/", "x-config: two"));
    traffic.stop_lossless(&server);
}

#[test]
fn a_listen_that_is_changed_in_the_file_moves_the_next_generation() {
    let bed = Bed::make();
    let server = bed.start("", &[]);
    let first = server.address();
    let listen = |addresses: &str| {
        let rest = "log-format = 'json'\nstandby = '300ms'\n";
        bed.file("handover.toml", format!("{rest}listen = {addresses}\n"));
    };
    listen(&format!("['{first}', '[::1]:0']"));
    let pid = hand_over(&server, 1, server.first_pid());
    let both = server.addresses(2);
    assert_eq!((both.len(), both[0]), (2, first));
    both.iter().for_each(|addr| assert!(get(*addr, "/").contains("generation 2,")));
    listen("'[::1]:0'");
    hand_over(&server, 2, pid);
    server.wait_retired(2);
    assert_eq!(server.addresses(3), both[1..]);
    assert!(get(both[1], "/").contains("generation 3,"));
    TcpStream::connect(first).expect_err("no process listens there any more");
}

#[test]
fn a_path_in_the_file_is_relative_to_the_working_directory_as_in_a_flag() {
    let bed = Bed::make();
    std::fs::create_dir(bed.path("etc")).expect("writable");
    bed.file("etc/handover.toml", format!("{QUICK}root = 'root'\n"));
    let there = |dir: &Path| {
        let mut command = command(HANDOVER);
        command.arg("--config").arg(bed.path("etc/handover.toml")).current_dir(dir).env_remove("PWD");
        command
    };
    let server = Server::start(there(bed.dir.path()));
    hand_over(&server, 1, server.first_pid());
    assert!(get(server.address(), "/").ends_with("ROOT\n"));
    let (code, _, error) = finish(&mut there(&bed.path("etc")));
    assert!(code == Some(1) && error.contains("root: cannot serve root"), "{error}");
}
