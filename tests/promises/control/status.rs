//! `handover status` shows every generation that is alive.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::harness::{Client, get};
use support::process::signal;

use super::Operated;

#[test]
fn in_standby_the_table_shows_both_generations_and_is_not_wide() {
    let it = Operated::start(&["--standby", "1h"]);
    let mut client = Client::connect(it.address());
    client.get("/");
    it.ask(&["reload"]).assert(0, &[]);
    let (first, second) = (it.server.first_pid(), it.server.wait_serving(2));
    let said = it.ask(&["status"]);
    let address = it.address().to_string();
    let handed = format!("generation 1: handed over to pid {second}");
    let took = format!("generation 2: took over from pid {first}");
    said.assert(0, &["GEN", "standby", "serving", env!("CARGO_PKG_VERSION"), &address, &handed, &took]);
    let row = |pid: u32| {
        let pid = pid.to_string();
        let found = said.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(&*pid));
        found.unwrap_or_else(|| panic!("no row of {pid}: {said:?}")).to_owned()
    };
    assert!(row(first).contains("standby") && row(first).contains("60m"), "{said:?}");
    assert!(row(second).contains("serving"), "{said:?}");
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 80), "{said:?}");
}

#[test]
fn the_json_status_is_complete() {
    let it = Operated::start(&["--standby", "1h"]);
    let mut client = Client::connect(it.address());
    client.get("/");
    it.ask(&["reload"]).assert(0, &[]);
    let (first, second) = (it.server.first_pid(), it.server.wait_serving(2));
    let all = it.status();
    assert_eq!(all.len(), 2, "{all:#?}");
    let (old, new) = (&all[0], &all[1]);
    for (status, generation, pid, phase) in [(old, 1, first, "standby"), (new, 2, second, "serving")] {
        assert_eq!(status["generation"], generation);
        assert_eq!(status["pid"], pid);
        assert_eq!(status["phase"], phase);
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["listen"][0], it.address().to_string());
        assert_eq!(status["program"], it.path("server").to_str().expect("UTF-8"));
        assert_eq!(status["args"][0], "--listen");
        let members = status["port_group"].as_array().expect("a list");
        let mut pids: Vec<_> = members.iter().filter_map(|m| m["pid"].as_u64()).collect();
        pids.sort_unstable();
        let mut both = [u64::from(first), u64::from(second)];
        both.sort_unstable();
        assert_eq!(pids, both, "{status:#}");
    }
    assert!(old["deadline_s"].as_f64().expect("standby ends") > 3000.0);
    assert_eq!(old["connections"]["open"], 1);
    assert_eq!(old["requests"]["total"], 1);
    assert_eq!(old["last_handover"]["outcome"], "handed over");
    assert_eq!(new["last_handover"]["outcome"], "took over");
    assert_eq!(new["predecessor"], first);
    assert_eq!(new["connections"]["open"], 0);
}

#[test]
fn the_status_says_why_the_last_handover_failed() {
    let it = Operated::start(&[]);
    it.next_is("echo no disk >&2; exit 9");
    it.ask(&["reload"]).assert(1, &["exit status: 9"]);
    it.ask(&["status"])
        .assert(0, &["generation 1: handover failed", "exit status: 9", "| no disk", "serving"]);
    let last = &it.status()[0]["last_handover"];
    assert_eq!(last["stderr"][0], "no disk");
    assert_eq!(last["status"], "exit status: 9");
}

#[test]
fn a_generation_that_hangs_is_shown_and_delays_the_answer_by_only_a_second() {
    let it = Operated::start(&["--standby", "1h"]);
    it.ask(&["reload"]).assert(0, &[]);
    let first = it.server.first_pid();
    signal(first, Signal::SIGSTOP);
    let asked = Instant::now();
    let said = it.ask(&["status"]);
    let took = asked.elapsed();
    let silent = it.status().into_iter().find(|status| status["pid"] == first);
    let second = get(it.address(), "/");
    signal(first, Signal::SIGCONT);
    said.assert(0, &["does not answer", "serving", &first.to_string()]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(silent.expect("the first generation is listed")["error"], "does not answer");
    assert!(second.contains("200 OK"));
}

#[test]
fn a_foreign_listener_on_the_port_is_shown_as_one() {
    let it = Operated::start(&[]);
    let me = std::process::id();
    let stranger = crate::faults::strangers::join(it.address()).expect("the same user may join");
    it.ask(&["status"])
        .assert(0, &[&format!("pid {me} (none of this server's, and may get its connections)")]);
    drop(stranger);
    let said = it.ask(&["status"]);
    assert!(!said.stdout.contains("none of this server's"), "{said:?}");
}
