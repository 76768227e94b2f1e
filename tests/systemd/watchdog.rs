//! `WatchdogSec=`: systemd's watchdog across handovers.

use std::time::Duration;

use crate::everywhere;
use crate::machine::Machine;
use crate::stop::Slow;

#[test]
fn the_watchdog_hears_every_generation_and_notices_one_that_hangs() {
    everywhere(|systemd, unit| {
        let more = "WatchdogSec=1s\nWatchdogSignal=SIGKILL\nRestartSec=100ms";
        let mut machine = Machine::boot(systemd, unit, more, "standby = \"1s\"");
        machine.must("systemctl start handover");
        for generation in 2..=3 {
            machine.must("systemctl reload handover");
            machine.wait("the generation serves", |machine| machine.pid_of(generation).is_some());
            let next = machine.pid_of(generation).expect("it was logged");
            machine.wait_main(next);
            std::thread::sleep(Duration::from_millis(2500));
            assert_eq!(machine.unit().summary(), format!("{next} active 0"), "{}", machine.history());
        }
        machine.must("kill -STOP $(systemctl show --value -p MainPID handover)");
        machine.wait("it is started again", |machine| machine.unit().get("NRestarts") == "1");
        machine.wait("it serves", |machine| machine.unit().get("ActiveState") == "active");
        println!("a generation that hangs: {}", machine.unit().summary());
    });
}

/// systemd is told only of the exit of its own children, and the parent of this main process is still alive.
#[test]
fn the_watchdog_notices_a_main_process_that_dies_while_its_predecessor_drains() {
    everywhere(|systemd, unit| {
        let mut machine =
            Machine::boot(systemd, unit, "WatchdogSec=1s\nRestartSec=100ms", "standby = \"300ms\"");
        machine.must("systemctl start handover");
        let slow = Slow::begin(&machine);
        machine.must("systemctl reload handover");
        machine.wait("the generation serves", |machine| machine.pid_of(2).is_some());
        let main = machine.pid_of(2).expect("it was logged");
        machine.wait_main(main);
        machine.must(&format!("kill -9 {main}"));
        machine.wait("it is started again", |machine| machine.unit().get("NRestarts") == "1");
        machine.wait("it serves", |machine| machine.unit().get("ActiveState") == "active");
        println!("a main process that died: {}", machine.unit().summary());
        drop(slow);
    });
}
