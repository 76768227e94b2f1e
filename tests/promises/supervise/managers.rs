//! The supervisor under the real supervisord, runit and s6: a start, a reload, a failed reload, a kill and a stop.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, is_alive, skip, wait_until};
use support::load::Clients;
use support::process::{Line, Server, command, signal};

use super::{site, wait_gone};
use crate::HANDOVER;

/// A service manager: how to define a service for it, and how to ask it to act on that service.
struct Kind {
    program: &'static str,
    /// Writes the definition of a service that runs a command, and returns the command that starts the service manager.
    define: fn(&Path, &str) -> Command,
    ask: fn(&Path, Wish) -> Command,
}

#[derive(Clone, Copy)]
enum Wish {
    Hup,
    Stop,
}

#[test]
fn supervisord() {
    walk(&Kind {
        program: "supervisord",
        define: |dir, run| {
            let place = dir.display();
            let text = format!(
                "[supervisord]\nnodaemon=true\nlogfile={place}/log\npidfile={place}/pid\n\
                 [unix_http_server]\nfile={place}/sock\n[supervisorctl]\nserverurl=unix://{place}/sock\n\
                 [rpcinterface:supervisor]\n\
                 supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
                 [program:site]\ncommand={run}\nautorestart=true\nstopwaitsecs=40\nstdout_logfile=NONE\n\
                 stderr_logfile=/dev/stderr\nstderr_logfile_maxbytes=0\n"
            );
            fs::write(dir.join("conf"), text).expect("writable");
            let mut supervisor = command("supervisord");
            supervisor.arg("-c").arg(dir.join("conf"));
            supervisor
        },
        ask: |dir, wish| {
            let mut asked = command("supervisorctl");
            asked.arg("-c").arg(dir.join("conf"));
            match wish {
                Wish::Hup => asked.args(["signal", "HUP", "site"]),
                Wish::Stop => asked.args(["stop", "site"]),
            };
            asked
        },
    });
}

#[test]
fn runit() {
    walk(&Kind {
        program: "runsv",
        define: |dir, run| {
            script(&dir.join("site"), run);
            let mut supervisor = command("runsv");
            supervisor.arg(dir.join("site"));
            supervisor
        },
        ask: |dir, wish| {
            let mut asked = command("sv");
            match wish {
                Wish::Hup => asked.arg("hup"),
                Wish::Stop => asked.args(["-w", "40", "stop"]),
            };
            asked.arg(dir.join("site"));
            asked
        },
    });
}

#[test]
fn s6() {
    walk(&Kind {
        program: "s6-supervise",
        define: |dir, run| {
            script(&dir.join("site"), run);
            let mut supervisor = command("s6-supervise");
            supervisor.arg(dir.join("site"));
            supervisor
        },
        ask: |dir, wish| {
            let mut asked = command("s6-svc");
            match wish {
                Wish::Hup => asked.arg("-h"),
                Wish::Stop => asked.args(["-wD", "-T", "40000", "-d"]),
            };
            asked.arg(dir.join("site"));
            asked
        },
    });
}

fn script(service: &Path, run: &str) {
    fs::create_dir(service).expect("writable");
    let path = service.join("run");
    fs::write(&path, format!("#!/bin/sh\nexec {run}\n")).expect("writable");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("writable");
}

/// The server as a service of a service manager.
struct Managed<'a> {
    kind: &'a Kind,
    server: Server,
    dir: tempfile::TempDir,
    address: SocketAddr,
    since: Instant,
}

fn walk(kind: &Kind) {
    let there = command("sh").args(["-c", "command -v \"$0\" >/dev/null", kind.program]).status();
    if !there.is_ok_and(|status| status.success()) {
        return skip(&format!("no {} here", kind.program));
    }
    let it = Managed::start(kind);
    let first = it.front();

    let fresh = Traffic::fresh(&it.server);
    let kept = Traffic::start(it.address, Clients::KeepAlive { pause: Duration::from_millis(5) }, 16);
    it.asked("handover reload", &it.handover(&["reload", "--wait-drained"]), Some(0), "generation 2");
    it.hup();
    it.server.wait_serving(3);
    it.server.wait_retired(2);
    it.says("generation 3 serves");

    it.config("standby = 'soon'\n");
    it.asked("handover reload", &it.handover(&["reload"]), Some(1), "standby");
    it.hup();
    let failed = |line: &Line| line.message().starts_with("handover failed");
    let failures = || it.server.log().lines().iter().filter(|line| failed(line)).count();
    wait_until("both have failed", &it.server, || failures() == 2);
    it.config("");
    let reports = [fresh.stop_lossless(&it.server), kept.stop_lossless(&it.server)];
    it.says(&format!("{} requests, 0 failed", reports.iter().map(|r| r.samples.len()).sum::<usize>()));
    assert_eq!(it.front(), first);
    assert!(get(it.address, "/").contains("generation=1 of a file"));

    let orphan = it.server.wait_serving(3);
    signal(first, Signal::SIGKILL);
    it.says(&format!("kill -KILL {first}"));
    let again = |line: &Line| line.generation() == 1 && line.message().starts_with("serving");
    let serves = || it.server.log().lines().iter().filter(|line| again(line)).count() == 2;
    wait_until("another one serves", &it.server, serves);
    wait_until("the orphan has left", &it.server, || !is_alive(orphan));
    assert_ne!(it.front(), first);
    let begun = it.fronts().len() - 1;
    it.says(&format!("pid {} is the supervisor; {begun} were started until one served", it.front()));

    // Transfers in flight are finished.
    let mut client = Client::connect(it.address);
    client.write("GET /large HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let mut some = [0];
    assert_eq!(client.0.peek(&mut some).expect("it answers"), 1);
    let stop = (kind.ask)(it.dir.path(), Wish::Stop).stderr(Stdio::null()).spawn();
    it.server.log().wait("the stop has begun", |line| {
        (line.pid() != orphan && line.json["cause"] == "stop asked").then_some(())
    });
    assert!(client.rest().len() > LARGE);
    assert!(stop.expect("it starts").wait().expect("a child").success());
    it.says("stopped by its service manager: a download in flight is complete");
    assert!(!is_alive(it.front()));
    let Managed { mut server, .. } = it;
    wait_until("only the service manager is left", &server, || server.alive() == [server.first_pid()]);
    signal(server.first_pid(), Signal::SIGTERM);
    server.first_exit();
    wait_gone(&server);
}

/// More than the kernel keeps for a client that does not read.
const LARGE: usize = 32 * 1024 * 1024;

impl Managed<'_> {
    fn start(kind: &Kind) -> Managed<'_> {
        let dir = tempfile::tempdir().expect("a directory");
        // A fixed address: the service is started several times.
        let address =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let (config, control) = (dir.path().join("config"), dir.path().join("control"));
        let args = [config.to_str(), Some("--control"), control.to_str(), Some("--supervise")];
        let args = args.map(|arg| arg.expect("UTF-8"));
        let listen = ["--listen", &address.to_string(), "--config"].map(str::to_owned);
        let run =
            site(command(HANDOVER), &dir, &[&listen.each_ref().map(String::as_str)[..], &args].concat());
        fs::write(dir.path().join("root/large"), vec![b'x'; LARGE]).expect("writable");
        let words: Vec<_> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
        // Replaces the address of `QUICK`.
        let words = words.iter().map(|word| word.to_str().expect("UTF-8")).collect::<Vec<_>>().join(" ");
        let words = words.replacen("--listen 127.0.0.1:0 ", "", 1);
        let since = Instant::now();
        fs::write(&config, CONFIG).expect("writable");
        let server = Server::start((kind.define)(dir.path(), &words));
        let it = Managed { kind, server, dir, address, since };
        it.says(&format!("started {words}"));
        it
    }

    fn config(&self, more: &str) {
        fs::write(self.path("config"), format!("{CONFIG}{more}")).expect("writable");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the pid of each supervisor that has logged its start.
    fn fronts(&self) -> Vec<u32> {
        let lines = self.server.log().lines();
        lines.iter().filter(|line| line.message().starts_with("supervising the")).map(Line::pid).collect()
    }

    fn front(&self) -> u32 {
        *self.fronts().last().expect("one")
    }

    fn handover(&self, words: &[&str]) -> Output {
        let mut asked = command("timeout");
        asked.args(["60", HANDOVER]).args(words).arg("--control").arg(self.path("control"));
        asked.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it starts")
    }

    fn asked(&self, what: &str, answer: &Output, code: Option<i32>, word: &str) {
        let text = [&answer.stdout[..], &answer.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().replace('\n', "\n    ");
        assert_eq!(answer.status.code(), code, "{what}: {text}\n{}", self.server.log().history());
        assert!(text.contains(word), "{what}: {word:?} is missing: {text}");
        self.says(&format!("{what}: {}\n    {text}", answer.status));
    }

    fn hup(&self) {
        let asked = (self.kind.ask)(self.dir.path(), Wish::Hup);
        let words: Vec<_> = asked.get_args().map(|word| word.to_string_lossy()).collect();
        self.says(&format!("{} {}", asked.get_program().display(), words.join(" ")));
        let mut asked = asked;
        assert!(asked.status().expect("it starts").success());
    }

    /// Prints a line of the transcript.
    fn says(&self, what: &str) {
        println!("{:5.1} s  {what}", self.since.elapsed().as_secs_f64());
    }
}

const CONFIG: &str = "stop-idle-grace = '100ms'\nidle-grace = '300ms'\n";
