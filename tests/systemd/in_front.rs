//! Units in which systemd does not follow the main pid: a supervisor stays as the main pid, or a restart is refused.

use std::time::Duration;

use support::load::Clients;

use crate::machine::{Machine, Systemd};
use crate::{CONFIG, NOTIFY, lossless, skip, traffic};

const START: &str = "ExecStart=\nExecStart=/usr/local/bin/handover --config /etc/handover/handover.toml";

fn with_each(test: impl Fn(&Systemd)) {
    match Systemd::all() {
        Err(why) => skip(&why),
        Ok(versions) => versions.iter().for_each(test),
    }
}

/// Hands over three times under load, by a signal to the main pid, and asserts that the main pid stays the same.
#[track_caller]
fn hands_over_with_the_same_main_pid(machine: &mut Machine) {
    machine.must("systemctl start handover");
    machine.wait("it serves", |machine| machine.pid_of(1).is_some());
    let main = machine.unit().main_pid();
    let fresh = traffic(machine, Clients::Fresh);
    let kept = traffic(machine, Clients::KeepAlive { pause: Duration::from_millis(5) });
    for generation in 2..=4 {
        machine.must(&format!("kill -HUP {main}"));
        machine.wait("the next generation serves", |machine| machine.pid_of(generation).is_some());
        let last = machine.pid_of(generation).expect("it was logged");
        machine.wait("it is alone", |machine| machine.processes() == format!("{main}\n{last}\n"));
        assert_eq!(machine.unit().summary(), format!("{main} active 0"), "{}", machine.history());
    }
    let (fresh, kept) = (lossless(machine, fresh), lossless(machine, kept));
    println!("{} + {} requests, 0 failed", fresh.samples.len(), kept.samples.len());
    machine.must("systemctl stop handover");
    let unit = machine.unit();
    let seen = format!("{} {}", unit.summary(), unit.get("Result"));
    assert_eq!(seen, "0 inactive 0 success", "{}", machine.history());
}

#[test]
fn in_a_unit_to_which_systemd_does_not_listen_a_supervisor_stays_by_default() {
    with_each(|systemd| {
        let more = "Type=simple\nNotifyAccess=none\nWatchdogSec=0";
        let mut machine = Machine::boot(systemd, NOTIFY, more, CONFIG);
        hands_over_with_the_same_main_pid(&mut machine);
    });
}

#[test]
fn a_supervisor_passes_on_the_notifications_for_systemd() {
    with_each(|systemd| {
        let more = format!("{START} --supervise /srv/www");
        let mut machine = Machine::boot(systemd, NOTIFY, &more, CONFIG);
        hands_over_with_the_same_main_pid(&mut machine);
    });
}

#[test]
fn without_a_supervisor_a_restart_that_would_end_the_service_is_refused() {
    with_each(|systemd| {
        let more =
            format!("Type=simple\nNotifyAccess=none\nWatchdogSec=0\n{START} --supervise=false /srv/www");
        let mut machine = Machine::boot(systemd, NOTIFY, &more, CONFIG);
        machine.must("systemctl start handover");
        machine.wait("it serves", |machine| machine.pid_of(1).is_some());
        let load = traffic(&machine, Clients::Fresh);
        let main = machine.unit().main_pid();
        let (succeeded, said) = machine.told("systemctl reload handover");
        assert!(!succeeded, "{said}");
        let refused = |line: &serde_json::Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.starts_with("handover failed: systemd would end the service with this process")
                && message.contains("Type=notify")
                && message.contains("--supervise")
        };
        assert!(machine.log().iter().any(refused), "{}", machine.history());
        assert_eq!(machine.unit().summary(), format!("{main} active 0"), "{}", machine.history());
        lossless(&machine, load);
    });
}
