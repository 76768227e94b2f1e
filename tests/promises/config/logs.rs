//! One log for all generations: each line names its writer, and a log file is rotated by a rename and a HUP.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, hand_over, is_alive, wait_until};
use support::process::{Server, command, signal};

use super::{Bed, finish};
use crate::HANDOVER;

/// The lines of a log in which one handover fails, another succeeds, and connections end early.
fn eventful(format: &str) -> Vec<String> {
    let bed = Bed::make();
    bed.config("");
    let mut started = bed.command(&["-v", "--log-format", format]);
    started.arg("--pid-file").arg(bed.path("pid"));
    let server = Server::launch(started);
    let says =
        |what: &str| server.log().wait(what, |line| line.text.contains(what).then(|| line.text.clone()));
    let serving = says("serving; ");
    let addr: SocketAddr = serving.split(['"', ' ']).find_map(|word| word.parse().ok()).expect("an address");
    // The server notices the garbage while it reads the request.
    let garbage =
        || TcpStream::connect(addr).and_then(|mut s| s.write_all(b"\x01\r\n\r\n")).expect("it listens");
    garbage();
    says("a connection ended early");
    bed.file("handover.toml", "standby = 5\n");
    signal(server.first_pid(), Signal::SIGHUP);
    says("expected text in quotes");
    bed.config("");
    signal(server.first_pid(), Signal::SIGHUP);
    says("retired");
    garbage();
    server.log().lines().into_iter().map(|line| line.text).collect()
}

#[test]
fn each_line_of_a_text_log_says_once_which_generation_and_which_process_wrote_it() {
    let lines = eventful("text");
    for line in &lines {
        for field in [" generation=", " pid="] {
            assert_eq!(line.matches(field).count(), 1, "{line}");
        }
    }
    let of = |generation: &str, what: &str| {
        lines.iter().any(|l| l.contains(&format!(" generation={generation} pid=")) && l.contains(what))
    };
    assert!(of("1", "a connection ended early") && of("2", "expected text in quotes"), "{lines:#?}");
}

#[test]
fn each_line_of_a_json_log_says_once_which_generation_and_which_process_wrote_it() {
    let lines = eventful("json");
    for line in &lines {
        let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let said = |field: &str| json[field].as_u64().is_some_and(|value| value > 0);
        assert!(said("generation") && said("pid"), "{line}");
        for field in ["\"generation\":", "\"pid\":"] {
            assert_eq!(line.matches(field).count(), 1, "{line}");
        }
    }
    assert!(lines.len() > 8, "{lines:#?}");
}

#[test]
fn a_log_file_is_rotated_by_rename_and_restart_and_no_line_is_lost_or_in_the_wrong_file() {
    let bed = Bed::make();
    bed.config(&format!("log-file = {:?}\n", bed.path("log")));
    let server = Server::launch(bed.command(&[]));
    let has = |file: &str, what: &str| {
        wait_until(&format!("{file} says {what:?}"), &server, || bed.read(file).contains(what));
    };
    has("log", "\"to\":\"serving\"");
    let mode = std::fs::metadata(bed.path("log")).expect("the file exists").permissions().mode();
    assert_eq!(mode & 0o137, 0, "mode {mode:o}: more than 0640");
    let mut pid = server.first_pid();
    for old in 1..=3 {
        let kept = format!("log.{old}");
        std::fs::rename(bed.path("log"), bed.path(&kept)).expect("writable");
        signal(pid, Signal::SIGHUP);
        has(&kept, "retired");
        has("log", "\"to\":\"serving\"");
        let line = |file: &str, what: &str| -> serde_json::Value {
            let text = bed.read(file);
            let line = text.lines().find(|line| line.contains(what)).expect("waited for");
            serde_json::from_str(line).expect("JSON")
        };
        let only = |file: &str, generation: u64| {
            for line in bed.read(file).lines() {
                let line: serde_json::Value = serde_json::from_str(line).expect("a whole line of JSON");
                assert_eq!(line["generation"], generation, "in {file}: {line}");
            }
        };
        only(&kept, old);
        only("log", old + 1);
        // Each generation writes all of its lines, from the first to the last, to its own file.
        assert_eq!(line(&kept, "\"message\":\"serving")["pid"], pid);
        assert_eq!(line(&kept, "retired")["pid"], pid);
        let took_over = line("log", "\"message\":\"serving");
        assert_eq!(took_over["predecessor"], pid);
        pid = u32::try_from(took_over["pid"].as_u64().expect("a pid")).expect("a pid");
    }
    // No generation wrote to stderr.
    assert_eq!(server.log().history(), "");
}

#[test]
fn a_successor_that_cannot_open_its_log_file_fails_and_the_predecessor_serves_again() {
    let bed = Bed::make();
    std::fs::create_dir(bed.path("logs")).expect("writable");
    bed.config(&format!("log-file = {:?}\n", bed.path("logs/log")));
    let server = Server::launch(bed.command(&[]));
    wait_until("the server serves", &server, || bed.read("logs/log").contains("\"to\":\"serving\""));
    let first: serde_json::Value =
        serde_json::from_str(bed.read("logs/log").lines().next().expect("a line")).expect("JSON");
    let addr = first["listen"].as_str().and_then(|addr| addr.parse().ok()).expect("an address");
    let traffic = Traffic::start(addr, support::load::Clients::Fresh, 8);
    std::fs::rename(bed.path("logs"), bed.path("elsewhere")).expect("writable");
    signal(server.first_pid(), Signal::SIGHUP);
    let line = server.log().wait_for("cannot open the log file");
    assert!(line.message().contains("handover.toml:5:12: log-file: ") && line.generation() == 2, "{line:?}");
    wait_until("the predecessor serves again", &server, || {
        bed.read("elsewhere/log").contains("\"from\":\"spawning\",\"to\":\"serving\"")
    });
    assert!(is_alive(server.first_pid()) && get(addr, "/").ends_with("ROOT\n"));
    let report = traffic.stop();
    assert!(report.failed() == 0 && !report.samples.is_empty(), "{:?}", report.failures());
}

#[test]
fn v_and_q_start_from_the_log_level_of_the_file() {
    let bed = Bed::make();
    let server = bed.start("log-level = 'debug'\n", &[]);
    server.log().wait_for("not ready yet");
    drop(server);
    // `-q` makes info of debug, and `-v` makes debug of info.
    let server = bed.start("log-level = 'debug'\n", &["-q"]);
    hand_over(&server, 1, server.first_pid());
    server.wait_retired(1);
    assert!(!server.log().history().contains("not ready yet"));
    drop(server);
    let server = bed.start("log-level = 'trace'\n", &["--log-level", "info", "-v"]);
    server.log().wait_for("not ready yet");
    assert!(!server.log().history().contains("TRACE"));
    drop(server);
    let (code, _, _) = finish(&mut bed.command(&["-v", "-q"]));
    assert_eq!(code, Some(2));
}

/// A server with two log files and two generations: the first drains, and the second serves.
struct TwoGenerations {
    bed: Bed,
    server: Server,
    client: Client,
    second: u32,
}

impl TwoGenerations {
    fn start(flags: &[&str]) -> TwoGenerations {
        let bed = Bed::make();
        bed.config(&format!(
            "idle-grace = '1h'\ndrain-timeout = '1h'\ncontrol = {:?}\nlog-file = {:?}\naccess-log = 'json'\n\
             access-log-file = {:?}\n",
            bed.path("control"),
            bed.path("log"),
            bed.path("access"),
        ));
        let server = Server::launch(bed.command(flags));
        let line = |what: &str| -> serde_json::Value {
            wait_until(&format!("the log says {what}"), &server, || bed.read("log").contains(what));
            let text = bed.read("log");
            let line = text.lines().find(|line| line.contains(what)).expect("waited for");
            serde_json::from_str(line).expect("JSON")
        };
        let serving = line("serving; ");
        let addr = serving["listen"].as_str().and_then(|addr| addr.parse().ok()).expect("an address");
        let pid = u32::try_from(serving["pid"].as_u64().expect("a pid")).expect("a pid");
        let mut client = Client::connect(addr);
        client.get("/");
        signal(pid, Signal::SIGHUP);
        let second = line("serving, took over")["pid"].as_u64().expect("a pid");
        line("\"to\":\"draining\"");
        TwoGenerations { second: u32::try_from(second).expect("a pid"), bed, server, client }
    }

    fn rename(&self) {
        for name in ["log", "access"] {
            std::fs::rename(self.bed.path(name), self.bed.path(&format!("{name}.1"))).expect("writable");
        }
    }

    /// Asserts that both generations write to the new files and still work.
    fn assert_reopened(mut self) {
        wait_until("the new files are there", &self.server, || {
            self.bed.path("log").exists() && self.bed.path("access").exists()
        });
        let kept = ["log.1", "access.1"].map(|name| self.bed.read(name));
        assert!(self.client.get("/").contains("connection: close"));
        drop(self.client);
        wait_until("the old generation wrote to both new files", &self.server, || {
            self.bed.read("access").contains("\"generation\":1")
                && self.bed.read("log").contains("\"message\":\"retired\"")
        });
        signal(self.second, Signal::SIGTERM);
        wait_until("the new generation wrote to the new log", &self.server, || {
            self.bed.read("log").contains("\"message\":\"stopped\"")
        });
        assert_eq!(["log.1", "access.1"].map(|name| self.bed.read(name)), kept);
    }
}

#[test]
fn usr1_to_one_generation_reopens_the_logs_of_all_generations() {
    let it = TwoGenerations::start(&[]);
    it.rename();
    signal(it.second, Signal::SIGUSR1);
    it.assert_reopened();
}

#[test]
fn usr1_to_the_supervisor_reopens_the_logs_of_all_generations() {
    let it = TwoGenerations::start(&["--supervise"]);
    it.rename();
    signal(it.server.first_pid(), Signal::SIGUSR1);
    it.assert_reopened();
}

#[test]
fn usr1_to_the_supervisor_reaches_generations_without_a_control_socket() {
    let it = TwoGenerations::start(&["--supervise", "--no-control"]);
    it.rename();
    signal(it.server.first_pid(), Signal::SIGUSR1);
    it.assert_reopened();
}

#[test]
fn a_reopen_reports_which_files_were_reopened_and_which_could_not_be() {
    let it = TwoGenerations::start(&[]);
    let ask = || finish(command(HANDOVER).args(["reopen", "--control"]).arg(it.bed.path("control")));
    it.rename();
    // A directory takes the place of the log file.
    std::fs::create_dir(it.bed.path("log")).expect("writable");
    let (code, _, stderr) = ask();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("cannot reopen {}", it.bed.path("log").display())), "{stderr}");
    std::fs::remove_dir(it.bed.path("log")).expect("writable");
    let (code, stdout, stderr) = ask();
    assert_eq!(code, Some(0), "{stderr}");
    for generation in ["generation 1, pid ", "generation 2, pid "] {
        assert!(stdout.contains(generation), "{stdout}");
    }
    assert!(stdout.contains(it.bed.path("access").to_str().expect("UTF-8")), "{stdout}");
    it.assert_reopened();
}

#[test]
fn usr1_never_ends_a_process() {
    let bed = Bed::make();
    bed.config("");
    let server = bed.start("", &[]);
    let second = hand_over(&server, 1, server.first_pid());
    for _ in 0..20 {
        server.alive().into_iter().for_each(|pid| signal(pid, Signal::SIGUSR1));
    }
    assert!(get(server.address(), "/").ends_with("ROOT\n"));
    assert!(is_alive(second));
}

#[test]
fn a_log_at_the_file_size_limit_ends_no_server_and_dropped_lines_are_counted() {
    let bed = Bed::make();
    bed.config(&format!(
        "log-file = {:?}\naccess-log = 'common'\naccess-log-file = {:?}\n",
        bed.path("log"),
        bed.path("access")
    ));
    // The limit is 8 KiB. The default action of SIGXFSZ would end the server.
    let mut limited = command("prlimit");
    limited.args(["--fsize=8192", HANDOVER, "--config"]).arg(bed.path("handover.toml"));
    let server = Server::launch(limited);
    wait_until("the server serves", &server, || bed.read("log").contains("\"to\":\"serving\""));
    let first: serde_json::Value =
        serde_json::from_str(bed.read("log").lines().next().expect("a line")).expect("JSON");
    let addr: SocketAddr = first["listen"].as_str().and_then(|addr| addr.parse().ok()).expect("an address");
    let answered = 200;
    (0..answered).for_each(|_| assert!(get(addr, "/").ends_with("ROOT\n")));
    assert_eq!(std::fs::metadata(bed.path("access")).expect("the file exists").len(), 8192);
    std::fs::rename(bed.path("access"), bed.path("access.1")).expect("writable");
    signal(server.first_pid(), Signal::SIGUSR1);
    wait_until("the new file is there", &server, || bed.path("access").exists());
    get(addr, "/");
    let dropped = || {
        let text = bed.read("log");
        let line = text.lines().find(|line| line.contains("lines of the access log were dropped"))?;
        serde_json::from_str::<serde_json::Value>(line).expect("JSON")["dropped"].as_u64()
    };
    wait_until("the dropped lines are counted", &server, || dropped().is_some());
    let kept = bed.read("access.1").lines().filter(|line| line.contains("HTTP/1.1\" 200")).count() as u64;
    let dropped = dropped().expect("waited for");
    // The last line of the full file may be incomplete.
    assert!((answered..=answered + 1).contains(&(kept + dropped)), "{kept} + {dropped}");
    assert!(is_alive(server.first_pid()));
}
