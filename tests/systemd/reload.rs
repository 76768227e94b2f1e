//! Reloads that succeed, that fail, and that crash later.

use std::time::{Duration, Instant};

use support::load::Clients;

use crate::machine::Machine;
use crate::{CONFIG, NOTIFY_RELOAD, everywhere, lossless, traffic};

#[test]
fn the_main_pid_follows_ten_reloads_and_no_request_is_lost() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", CONFIG);
        machine.must("systemctl start handover");
        let first = machine.unit();
        assert_eq!(first.get("StatusText"), format!("generation 1 serves {}", machine.addr));
        let load = traffic(&machine, Clients::Fresh);
        let kept = traffic(&machine, Clients::KeepAlive { pause: Duration::from_millis(5) });
        let mut main = first.main_pid();
        for generation in 2..=11 {
            let asked = Instant::now();
            machine.must("systemctl reload handover");
            let took = asked.elapsed();
            // By now the next generation serves, and the old one still stands for the service.
            machine.wait("the generation serves", |machine| machine.pid_of(generation).is_some());
            let next = machine.pid_of(generation).expect("it was logged");
            let unit = machine.unit();
            assert_eq!(unit.summary(), format!("{main} active 0"), "{}", machine.history());
            machine.wait_main(next);
            println!(
                "reload {generation}: 0, {took:.0?}, main pid {main} -> {next}, {}",
                machine.unit().summary()
            );
            main = next;
        }
        let (fresh, kept) = (lossless(&machine, load), lossless(&machine, kept));
        println!("{unit}: {} + {} requests, 0 failed", fresh.samples.len(), kept.samples.len());
        assert_eq!(machine.unit().summary(), format!("{main} active 0"));
        assert_eq!(machine.processes().trim(), main.to_string());
    });
}

#[test]
fn a_reload_that_fails_says_why_and_changes_nothing() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", CONFIG);
        machine.must("systemctl start handover");
        let load = traffic(&machine, Clients::Fresh);
        let main = machine.unit().main_pid();
        machine.configure("standby = 7");
        let (succeeded, said) = machine.told("systemctl reload handover");
        // With `Type=notify-reload`, systemd learns only that the reload is over, not that it failed.
        assert_eq!(succeeded, unit == NOTIFY_RELOAD, "{said}\n{}", machine.history());
        let after = machine.unit();
        assert_eq!(after.summary(), format!("{main} active 0"));
        let status = after.get("StatusText");
        let beginning = "handover failed: the successor left before it was ready: exit status: 1: ";
        assert!(status.starts_with(beginning) && status.contains("handover.toml:3:11: standby"), "{status}");
        assert!(status.ends_with(&format!("; generation 1 serves {}", machine.addr)), "{status}");
        println!("failing reload: {succeeded}, {}, {status}", after.summary());
        machine.configure(CONFIG);
        machine.must("systemctl reload handover");
        machine.wait("the generation serves", |machine| machine.pid_of(2).is_some());
        let next = machine.pid_of(2).expect("it was logged");
        machine.wait_main(next);
        lossless(&machine, load);
    });
}

#[test]
fn a_successor_that_crashes_in_standby_is_invisible_to_systemd() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", "standby = \"20s\"");
        machine.must("systemctl start handover");
        let main = machine.unit().main_pid();
        machine.must("systemctl reload handover");
        machine.wait("the generation serves", |machine| machine.pid_of(2).is_some());
        machine.must(&format!("kill -9 {}", machine.pid_of(2).expect("it was logged")));
        machine.wait("the old one serves again", |machine| {
            machine
                .unit()
                .get("StatusText")
                .starts_with("handover failed: the successor took over and crashed")
        });
        let load = traffic(&machine, Clients::Fresh);
        assert_eq!(machine.unit().summary(), format!("{main} active 0"), "{}", machine.history());
        println!("crash in standby: {}, {}", machine.unit().summary(), machine.unit().get("StatusText"));
        machine.configure(CONFIG);
        machine.must("systemctl reload handover");
        lossless(&machine, load);
        assert_eq!(machine.unit().summary(), format!("{main} active 0"), "{}", machine.history());
    });
}

#[test]
fn a_reload_asked_for_in_standby_is_over_when_its_own_successor_serves() {
    everywhere(|systemd, unit| {
        let mut machine = Machine::boot(systemd, unit, "", CONFIG);
        machine.must("systemctl start handover");
        let load = traffic(&machine, Clients::Fresh);
        machine.must("systemctl reload handover");
        // The first generation is in standby, so it passes this reload on.
        machine.must("systemctl reload handover");
        machine.wait("the third generation serves", |machine| machine.pid_of(3).is_some());
        let third = machine.pid_of(3).expect("it was logged");
        machine.wait_main(third);
        assert_eq!(machine.unit().summary(), format!("{third} active 0"), "{}", machine.history());
        lossless(&machine, load);
    });
}
