//! A handover leaves nothing behind: no process, descriptor, zombie, variable or pid file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::harness::{QUICK, is_alive, start, wait_until};
use support::process::{Server, command, signal};

use crate::HANDOVER;

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

fn our_variables(pid: u32) -> BTreeMap<String, String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("the process lives");
    let text = String::from_utf8_lossy(&environment).into_owned();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    let ours = pairs.filter(|(name, _)| name.starts_with("HANDOVER_") && *name != "HANDOVER_HARNESS");
    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn zombies_of(pid: u32) -> usize {
    let stats = fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|e| fs::read_to_string(e.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!(") Z {pid} "))).count()
}

fn listeners(port: u16) -> usize {
    let tcp = fs::read_to_string("/proc/net/tcp").expect("proc");
    tcp.lines().filter(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A"))).count()
}

#[test]
fn twenty_handovers_leave_one_process_one_listener_and_no_descriptor_zombie_or_variable() {
    let server = start(&["--standby", "50ms"]);
    let mut pids = vec![server.first_pid()];
    // The server regularly looks for foreign listeners, and opens a socket for a moment to do so.
    let look = |_| {
        std::thread::sleep(Duration::from_millis(1));
        descriptors(server.first_pid())
    };
    let at_first = (0..100).map(look).min().expect("some");
    for generation in 2..=21 {
        let pid = *pids.last().expect("never empty");
        signal(pid, Signal::SIGHUP);
        pids.push(server.wait_serving(generation));
        server.wait_state(generation - 1, "draining");
        assert_eq!(zombies_of(pid), 0);
    }
    let last = pids.pop().expect("never empty");
    wait_until("all but the last have left", &server, || !pids.iter().any(|pid| is_alive(*pid)));
    assert_eq!(listeners(server.address().port()), 1);
    assert_eq!(zombies_of(last), 0);
    wait_until("the last has as many descriptors as the first", &server, || descriptors(last) == at_first);

    let variables = our_variables(last);
    assert_eq!(
        variables.keys().map(String::as_str).collect::<Vec<_>>(),
        handover::ENVIRONMENT
            .iter()
            .copied()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(variables["HANDOVER_GENERATION"], "20");
    assert!(variables["HANDOVER_PARENT"].starts_with(&format!("{}@", pids[pids.len() - 1])));
    // The variables of a dead parent mean nothing: a process that inherits them is a first generation.
    let mut heir = command(support::harness::example("playground"));
    heir.args(QUICK).envs(variables);
    Server::start(heir);
}

#[test]
fn a_first_generation_has_no_variable_of_ours() {
    let server = start(&[]);
    assert!(our_variables(server.first_pid()).is_empty());
}

#[test]
fn the_pid_file_moves_when_standby_ends_and_goes_when_the_service_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("handover.pid");
    let named = |path: &Path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let mut started = command(HANDOVER);
    started.args(QUICK).args(["--standby", "1s", "--pid-file"]).arg(&file);
    let server = Server::start(started);
    wait_until("the pid file is there", &server, || named(&file) == Some(server.first_pid()));
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "standby");
    assert_eq!(named(&file), Some(server.first_pid()), "in standby the old pid stands for the service");
    server.wait_state(1, "draining");
    wait_until("the pid file names the successor", &server, || named(&file) == Some(second));
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no draft is left");
    signal(second, Signal::SIGTERM);
    server.log().wait_for("stopped");
    wait_until("the pid file is gone", &server, || !file.exists());
}

#[test]
fn the_pid_file_names_the_successor_when_the_old_generation_dies_in_standby() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("handover.pid");
    let server = start(&["--standby", "30s", "--pid-file", file.to_str().expect("UTF-8")]);
    signal(server.first_pid(), Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "standby");
    signal(server.first_pid(), Signal::SIGKILL);
    wait_until("the pid file names the successor", &server, || {
        fs::read_to_string(&file).is_ok_and(|text| text.trim() == second.to_string())
    });
    signal(second, Signal::SIGHUP);
    server.wait_serving(3);
}
