//! The access log: one line for each request, across handovers too, and a stalled reader delays nothing.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use support::harness::{Client, Traffic, get, hand_over, wait_until};
use support::process::{Server, signal};

use super::Bed;

/// Sends `request` and reads until the server closes.
fn send(addr: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(addr);
    client.write(request);
    client.rest()
}

/// A request with characters in its target that could end a value or a line, or control a terminal.
const HOSTILE: &str =
    "GET /\"\\%0a\u{9b}31m\u{e4} HTTP/1.1\r\nhost: t\r\nuser-agent: \"\r\nconnection: close\r\n\r\n";
const HEAD: &str = "HEAD /index.html HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";

/// The access log lines of a server for a few requests.
fn lines(form: &str) -> Vec<String> {
    let bed = Bed::make();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    bed.config(&format!("access-log = '{form}'\nprobes = true\n"));
    let mut started = bed.command(&[]);
    started.stdout(writer);
    let server = Server::start(started);
    // Our copy of the write end was dropped with the command, so the pipe ends with the server.
    let addr = server.address();
    get(addr, "/?q=1");
    get(addr, "/missing");
    get(addr, "/healthz");
    send(addr, HEAD);
    send(addr, HOSTILE);
    signal(server.first_pid(), Signal::SIGTERM);
    server.log().wait_for("stopped");
    let mut text = String::new();
    BufReader::new(reader).read_to_string(&mut text).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_common_format_has_exactly_one_line_for_each_request() {
    let lines = lines("common");
    let expected = [
        "\"GET /?q=1 HTTP/1.1\" 200 18",
        "\"GET /missing HTTP/1.1\" 404 -",
        "\"GET /healthz HTTP/1.1\" 200 3",
        "\"HEAD /index.html HTTP/1.1\" 200 -",
        r#""GET /\"\\%0a\xc2\x9b31m\xc3\xa4 HTTP/1.1" 404 -"#,
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        // 127.0.0.1 - - [21/Nov/2026:08:42:09 +0000] "GET / HTTP/1.1" 200 451
        let (remote, rest) = line.split_once(" - - [").expect("a host and two dashes");
        let (time, request) = rest.split_once("] ").expect("a time in brackets");
        assert_eq!((remote, request), ("127.0.0.1", expected), "{line}");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert!(shape.starts_with("00/") && shape.ends_with("/0000:00:00:00 +0000"), "{line}");
    }
}

#[test]
fn the_json_format_has_one_complete_object_for_each_request() {
    let lines = lines("json");
    let read = |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let objects: Vec<_> = lines.iter().map(read).collect();
    let told: Vec<_> = objects
        .iter()
        .map(|o| {
            assert!(o["remote"].as_str().is_some_and(|r| r.starts_with("127.0.0.1:")), "{o}");
            assert!(o["time"].as_str().is_some_and(|t| t.len() == 24 && t.ends_with('Z')), "{o}");
            assert!(o["duration_ms"].as_f64().is_some_and(|d| d > 0.0), "{o}");
            assert!(o["version"] == "HTTP/1.1" && o["generation"] == 1 && o["pid"].is_u64(), "{o}");
            let text = |field: &str| o[field].as_str().unwrap_or_default().to_owned();
            (text("method"), text("target"), o["status"].as_u64(), o["bytes"].as_u64())
        })
        .collect();
    let line = |method: &str, target: &str, status, bytes| {
        (method.to_owned(), target.to_owned(), Some(status), Some(bytes))
    };
    let expected = [
        line("GET", "/?q=1", 200, 18),
        line("GET", "/missing", 404, 0),
        line("GET", "/healthz", 200, 3),
        line("HEAD", "/index.html", 200, 0),
        line("GET", "/\"\\%0a\u{9b}31m\u{e4}", 404, 0),
    ];
    assert_eq!(told, expected);
}

#[test]
fn every_request_of_a_load_has_its_line_in_the_file_of_the_generation_that_answered_it() {
    let bed = Bed::make();
    bed.config(&format!("access-log = 'json'\naccess-log-file = {:?}\n", bed.path("access")));
    let server = Server::start(bed.command(&[]));
    let traffic = Traffic::fresh(&server);
    let mut pid = server.first_pid();
    for generation in 1..=3 {
        std::fs::rename(bed.path("access"), bed.path(&format!("access.{generation}"))).expect("writable");
        pid = hand_over(&server, generation, pid);
        server.wait_retired(generation);
    }
    let report = traffic.stop_lossless(&server);
    signal(pid, Signal::SIGTERM);
    server.log().wait_for("stopped");
    let mut counted = 0;
    for (file, generation) in [("access.1", 1), ("access.2", 2), ("access.3", 3), ("access", 4)] {
        let text = bed.read(file);
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a whole line of JSON");
            assert_eq!(
                (&line["generation"], &line["bytes"]),
                (&generation.into(), &18.into()),
                "{file}: {line}"
            );
            counted += 1;
        }
    }
    assert_eq!(counted, report.samples.len(), "{}", server.log().history());
}

#[test]
fn a_stalled_reader_of_the_access_log_delays_nothing_and_dropped_lines_are_counted() {
    let bed = Bed::make();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    bed.config("access-log = 'common'\n");
    let mut started = bed.command(&[]);
    started.stdout(writer);
    let server = Server::start(started);
    let addr = server.address();
    // Many more lines than the pipe and the queue hold.
    let (round, rounds) = (500, 60);
    let requests = "HEAD / HTTP/1.1\r\nhost: t\r\n\r\n".repeat(round);
    let mut client = Client::connect(addr);
    for _ in 0..rounds {
        client.write(&requests);
        let (mut answers, mut text) = (0, Vec::new());
        while answers < round {
            let mut chunk = [0; 64 * 1024];
            let n = client.0.read(&mut chunk).expect("the server answers although its log is not read");
            assert!(n > 0, "closed after {answers} answers");
            text.extend_from_slice(&chunk[..n]);
            answers = text.windows(4).filter(|w| w == b"\r\n\r\n").count();
        }
    }
    let pid = hand_over(&server, 1, server.first_pid());
    assert!(get(addr, "/").ends_with("ROOT\n"));
    let reading = std::thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).count());
    let missed = server.log().wait("a warning", |line| line.json["dropped"].as_u64());
    drop(client);
    server.wait_retired(1);
    signal(pid, Signal::SIGTERM);
    server.log().wait_for("stopped");
    wait_until("all generations have exited", &server, || server.alive().is_empty());
    let read = reading.join().expect("reading does not panic");
    assert!(missed > 0);
    assert_eq!(read as u64 + missed, (round * rounds) as u64 + 1, "{}", server.log().history());
}
