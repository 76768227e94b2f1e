//! The control commands: each gets one answer, whatever state the server is in, and no request harms the server.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::harness::{QUICK, install};
use support::process::{Server, command};

use crate::HANDOVER;

mod broken_config;
mod moved;
mod place;
mod reload;
mod requests;
mod several;
mod status;
mod stop;
mod upgrade;
mod upgrade_refused;
mod which;

/// A server with its own control directory, started from a copy of the program that a test may replace. It serves a page
/// that the load generator understands.
struct Operated {
    server: Server,
    dir: tempfile::TempDir,
}

impl Operated {
    fn start(args: &[&str]) -> Operated {
        let dir = tempfile::tempdir().expect("a directory");
        install(HANDOVER, &dir.path().join("server"));
        let mut started = command(dir.path().join("server"));
        let root = root(dir.path());
        started.args(QUICK).arg("--control").arg(dir.path().join("control")).args(args).arg(root);
        Operated { server: Server::start(started), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control(&self) -> PathBuf {
        self.path("control")
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The socket of the first generation.
    fn socket(&self) -> PathBuf {
        self.control().join(format!("{}.sock", self.server.first_pid()))
    }

    /// `handover COMMAND --control DIR ARGS`
    fn command(&self, args: &[&str]) -> Command {
        let mut asked = handover(&args[..1]);
        asked.arg("--control").arg(self.control()).args(&args[1..]);
        asked
    }

    fn ask(&self, args: &[&str]) -> Said {
        Said::of(&mut self.command(args))
    }

    /// Starts a subcommand and returns while it runs.
    fn begin(&self, args: &[&str]) -> Begun {
        let mut asked = self.command(args);
        let mut child = asked.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Begun { child, lines, text: String::new() }
    }

    fn status(&self) -> Vec<Value> {
        let said = self.ask(&["status", "--json"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).expect("JSON")
    }

    /// Replaces the program by a script, which the next handover starts.
    fn next_is(&self, script: &str) {
        self.script("server", script);
    }

    fn script(&self, name: &str, script: &str) -> PathBuf {
        let draft = self.path("script");
        std::fs::write(&draft, format!("#!/bin/sh\n{script}\n")).expect("writable");
        std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).expect("we own it");
        install(&draft, &self.path(name));
        std::fs::remove_file(draft).expect("writable");
        self.path(name)
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.control()).expect("the control directory").flatten();
        files.map(|entry| entry.path()).collect()
    }
}

/// Creates a directory to serve, with a page that the load generator accepts as an answer.
fn root(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    std::fs::create_dir_all(&root).expect("writable");
    std::fs::write(root.join("index.html"), "generation=1 of a file\n").expect("writable");
    root
}

/// The program as a control client, ended after 60 s so that no test waits for ever.
fn handover(args: &[&str]) -> Command {
    let mut asked = command("timeout");
    asked.arg("60").arg(HANDOVER).args(args);
    asked
}

/// The exit status and the output of a subcommand.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(command: &mut Command) -> Said {
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let Output { status, stdout, stderr } = output.expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Asserts the exit status, and that the output contains each of these words.
    #[track_caller]
    fn assert(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            let all = format!("{}\n{}", self.stdout, self.stderr);
            assert!(all.contains(word), "{word:?} is missing: {self:?}");
        }
    }
}

/// A subcommand that is still running.
struct Begun {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    text: String,
}

impl Begun {
    /// Waits for a line of stdout that contains `word`, and returns it.
    fn wait_for(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let n = self.lines.read_line(&mut line).expect("UTF-8");
            self.text += &line;
            assert!(n > 0, "the subcommand ended without {word:?}: {}", self.text);
            if line.contains(word) {
                return line;
            }
        }
    }

    fn finish(mut self) -> Said {
        self.lines.read_to_string(&mut self.text).expect("UTF-8");
        let mut stderr = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("UTF-8");
        Said { code: self.child.wait().expect("a child").code(), stdout: self.text, stderr }
    }
}
