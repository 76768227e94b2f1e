//! `WatchdogSec=`.

use std::time::Duration;

use crate::everywhere;
use crate::machine::Machine;

#[test]
fn the_watchdog_hears_every_generation_and_notices_one_that_hangs() {
    everywhere(|systemd, unit| {
        let more = "WatchdogSec=1s\nWatchdogSignal=SIGKILL\nRestartSec=100ms";
        let mut machine = Machine::boot(systemd, unit, more, "standby = \"1s\"");
        machine.must("systemctl start handover");
        for generation in 2..=3 {
            machine.must("systemctl reload handover");
            machine.wait("the log says so", |machine| machine.pid_of(generation).is_some());
            let next = machine.pid_of(generation).expect("it was there");
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
