//! `systemctl stop` in every phase of a handover.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::everywhere;
use crate::machine::Machine;

const HANGS: &str = "printf '#!/bin/sh\\nexec sleep 600\\n' >/usr/local/bin/draft && chmod 755 /usr/local/bin/draft && \
                     mv /usr/local/bin/draft /usr/local/bin/handover";

/// A request with an incomplete head, which `finish` completes.
pub(crate) struct Slow(TcpStream);

impl Slow {
    pub(crate) fn begin(machine: &Machine) -> Slow {
        let mut stream = TcpStream::connect(machine.addr).expect("the service listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n").expect("open");
        Slow(stream)
    }

    #[track_caller]
    fn finish(mut self, machine: &Machine) {
        self.0.write_all(b"\r\n").expect("open");
        let mut answer = String::new();
        let read = self.0.read_to_string(&mut answer);
        assert!(read.is_ok() && answer.contains("generation=0"), "{read:?} {answer}\n{}", machine.history());
    }
}

/// Stops the service while a request is in flight in the first generation, and asserts that no process is left.
#[track_caller]
fn stop(machine: &mut Machine, phase: &str, slow: Slow) {
    let main = machine.unit().main_pid();
    machine.must("systemctl stop --no-block handover");
    machine.wait("systemd has asked", |machine| machine.unit().get("ActiveState") == "deactivating");
    std::thread::sleep(Duration::from_millis(1500));
    slow.finish(machine);
    machine.wait("it has stopped", |machine| machine.unit().get("ActiveState") != "deactivating");
    let unit = machine.unit();
    let seen = format!("{} {}", unit.summary(), unit.get("Result"));
    println!("stop while {phase}, main pid {main}: {seen}");
    assert_eq!(seen, "0 inactive 0 success", "{phase}: {}", machine.history());
    assert_eq!(machine.processes(), "", "{phase}");
}

#[test]
fn a_stop_while_serving_answers_what_is_under_way() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", "");
        machine.must("systemctl start handover");
        let slow = Slow::begin(&machine);
        stop(&mut machine, "serving", slow);
    });
}

#[test]
fn a_stop_while_a_successor_starts_answers_what_is_under_way() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", "stop-timeout = \"5s\"");
        machine.must("systemctl start handover");
        let slow = Slow::begin(&machine);
        machine.must("cp /usr/local/bin/handover /usr/local/bin/old");
        machine.must(HANGS);
        machine.must("kill -HUP $(systemctl show --value -p MainPID handover)");
        machine.wait("a successor starts", |machine| {
            machine.log().iter().any(|line| line["message"] == "successor started")
        });
        stop(&mut machine, "spawning", slow);
    });
}

#[test]
fn a_stop_in_standby_answers_what_is_under_way_in_both() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", "standby = \"4s\"");
        machine.must("systemctl start handover");
        let old = Slow::begin(&machine);
        machine.must("systemctl reload handover");
        let new = Slow::begin(&machine);
        machine.must("systemctl stop --no-block handover");
        std::thread::sleep(Duration::from_millis(1000));
        new.finish(&machine);
        stop(&mut machine, "standby", old);
    });
}

#[test]
fn a_stop_while_an_old_generation_drains_lets_it_finish() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", "standby = \"300ms\"");
        machine.must("systemctl start handover");
        let slow = Slow::begin(&machine);
        let first = machine.unit().main_pid();
        for generation in 2..=3 {
            machine.must("systemctl reload handover");
            machine.wait("the generation serves", |machine| machine.pid_of(generation).is_some());
            let next = machine.pid_of(generation).expect("it was logged");
            machine.wait_main(next);
        }
        // Once the second has left, the third is a child of systemd, which notices when it leaves.
        let third = machine.unit().main_pid();
        machine.wait("the second has left", |machine| machine.processes() == format!("{first}\n{third}\n"));
        let new = Slow::begin(&machine);
        machine.must("systemctl stop --no-block handover");
        std::thread::sleep(Duration::from_millis(500));
        // The exit of the main process makes systemd send the stop signal to the remaining processes again.
        new.finish(&machine);
        stop(&mut machine, "draining", slow);
    });
}
