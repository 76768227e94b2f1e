//! Real clients across handovers: curl and h2load (nghttp2-client in Debian).

use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use support::harness::{hand_over, skip, start, wait_until};
use support::process::{Server, command};

use crate::relay::Relay;

/// The output of `program --version`, if the program is installed.
pub(crate) fn version(program: &str) -> Option<String> {
    let Output { stdout, .. } = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs a client in the background.
pub(crate) fn run(program: &str, args: &[&str]) -> JoinHandle<Output> {
    let mut client = command(program);
    client.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    thread::spawn(move || client.output().expect("the client is installed"))
}

/// Runs `curl` with these arguments in the background.
fn curl(args: &[&str]) -> JoinHandle<Output> {
    run("curl", &[&["--fail", "--silent", "--show-error"], args].concat())
}

/// A server, and its latest generation.
struct Latest {
    server: Server,
    generation: u64,
    pid: u32,
}

impl Latest {
    fn start() -> Latest {
        let server = start(&[]);
        Latest { generation: 1, pid: server.first_pid(), server }
    }

    fn hand_over(&mut self) {
        self.pid = hand_over(&self.server, self.generation, self.pid);
        self.generation += 1;
    }

    /// Hands over repeatedly while the client runs, and returns the client's output.
    fn hand_over_during(&mut self, client: JoinHandle<Output>) -> Output {
        while !client.is_finished() {
            self.hand_over();
        }
        let output = client.join().expect("running a client does not panic");
        assert!(output.status.success(), "{output:?}\n{}", self.server.log().history());
        output
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn curl_gets_every_answer_of_a_long_series_without_a_retry() {
    if version("curl").is_none() {
        return skip("curl is not installed");
    }
    let mut latest = Latest::start();
    let urls = format!("http://{}/?[1-2000]", latest.server.address());
    let output = latest.hand_over_during(curl(&["--verbose", "--rate", "500/s", &urls]));
    let (answers, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(answers.lines().filter(|line| line.starts_with("generation=")).count(), 2000);
    // curl retries a request that was lost with its connection, and says so.
    assert!(!said.contains("retrying"), "{said}");
    assert!(latest.generation > 5, "only {} generations", latest.generation);
}

#[test]
fn an_upload_with_expect_100_continue_arrives_whole_across_handovers() {
    if version("curl").is_none() {
        return skip("curl is not installed");
    }
    let mut latest = Latest::start();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("upload");
    let sent: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(4 << 20).collect();
    std::fs::write(&file, &sent).expect("writable");
    let (data, url) = (format!("@{}", file.display()), format!("http://{}/echo", latest.server.address()));
    let upload = ["--header", "expect: 100-continue", "--limit-rate", "2M", "--data-binary"];
    let output = latest.hand_over_during(curl(&[&upload[..], &[&data, &url]].concat()));
    assert!(output.stdout == sent, "{} bytes of {} came back, or others", output.stdout.len(), sent.len());
    assert!(latest.generation > 3, "only {} generations", latest.generation);
}

#[test]
fn a_slow_answer_over_http2_reaches_curl_across_handovers() {
    if !version("curl").is_some_and(|version| version.contains("HTTP2")) {
        return skip("no curl that speaks HTTP/2 is installed");
    }
    let mut latest = Latest::start();
    let url = format!("http://{}/slow?ms=1500", latest.server.address());
    let output = latest.hand_over_during(curl(&["--http2-prior-knowledge", &url]));
    assert!(text(&output.stdout).starts_with("generation="), "{output:?}");
    assert!(latest.generation > 3, "only {} generations", latest.generation);
}

/// One number from the summary of h2load.
pub(crate) fn requests(output: &Output, name: &str) -> usize {
    let text = text(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("requests: ")).expect("a summary");
    let number = line.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no {name:?} in {line:?}"))
}

#[test]
fn h2load_loses_nothing_over_http1() {
    if version("h2load").is_none() {
        return skip("h2load is not installed");
    }
    let mut latest = Latest::start();
    let url = format!("http://{}/", latest.server.address());
    while latest.generation <= 10 {
        // A fixed number of requests: in its timed mode h2load does not count requests that were lost with a connection.
        let load = run("h2load", &["--h1", "-n", "40000", "-c", "20", &url]);
        let output = latest.hand_over_during(load);
        let summary = ["succeeded", "failed", "errored", "timeout"].map(|name| requests(&output, name));
        assert_eq!(summary, [40_000, 0, 0, 0], "{}", latest.server.log().history());
    }
}

#[test]
fn every_request_that_h2load_sends_over_http2_is_answered() {
    const CLIENTS: usize = 20;
    if version("h2load").is_none() {
        return skip("h2load is not installed");
    }
    let mut latest = Latest::start();
    let relay = Relay::start(latest.server.address());
    let url = format!("http://{}/", relay.address());
    while latest.generation <= 10 {
        // More requests than h2load can send before GOAWAY ends its connections.
        let load = run("h2load", &["-n", "10000000", "-c", &CLIENTS.to_string(), "-m", "50", &url]);
        wait_until("all clients of h2load are busy", &latest.server, || relay.is_busy(CLIENTS));
        latest.hand_over();
        let output = load.join().expect("running a client does not panic");
        let connections = relay.take();
        for seen in &connections {
            assert_eq!(seen.sent, seen.ended, "{}", latest.server.log().history());
            assert!(seen.reset.is_empty(), "{:?}", seen.reset);
        }
        let sent: usize = connections.iter().map(|seen| seen.sent.len()).sum();
        assert_eq!(requests(&output, "succeeded"), sent, "{}", text(&output.stdout));
        assert!(sent > 1000, "only {sent} requests");
    }
}
