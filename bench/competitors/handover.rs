//! This crate: the playground, also with one protection switched off.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::process::{Server, command};
use support::servers::{tell, wait_for};
use support::steering;

use super::{Competitor, Kind, Means};

/// The protection that is switched off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Without {
    Nothing,
    Hold,
    Standby,
    LameDuck,
}

pub(super) const ALL: &[Competitor] = &[
    Competitor {
        name: "handover",
        start: "playground --listen IP:PORT --standby TIME",
        restart: "kill -HUP PID",
        kind: Kind::Handover(Without::Nothing),
    },
    Competitor {
        name: "handover, no hold",
        start: "playground --listen IP:PORT --standby TIME, with SO_ATTACH_REUSEPORT_CBPF refused by seccomp",
        restart: "kill -HUP PID",
        kind: Kind::Handover(Without::Hold),
    },
    Competitor {
        name: "handover, no standby",
        start: "playground --listen IP:PORT --standby 0s",
        restart: "kill -HUP PID",
        kind: Kind::Handover(Without::Standby),
    },
    Competitor {
        name: "handover, no lame duck",
        start: "playground --listen IP:PORT --standby TIME --idle-grace 0s",
        restart: "kill -HUP PID",
        kind: Kind::Handover(Without::LameDuck),
    },
];

pub(super) fn start(without: Without, address: SocketAddr, standby: Duration) -> Result<Handover, String> {
    let mut command = match without {
        Without::Hold => {
            let me = std::env::current_exe().map_err(|error| format!("no path of this program: {error}"))?;
            let mut command = command(me);
            command.arg(REFUSE_STEERING).arg(crate::playground());
            command
        }
        _ => command(crate::playground()),
    };
    let standby = if without == Without::Standby { Duration::ZERO } else { standby };
    command.args(["--listen", &address.to_string(), "--log-format", "json"]);
    command.args(["--standby", &format!("{}ms", standby.as_millis())]);
    if without == Without::LameDuck {
        command.args(["--idle-grace", "0s"]);
    }
    Ok(Handover { server: Server::launch(command), generation: 1 })
}

pub(super) struct Handover {
    server: Server,
    generation: u64,
}

impl Means for Handover {
    fn restart(&mut self) -> Result<(), String> {
        let serves = format!("generation {} to serve", self.generation);
        let pid = wait_for(&serves, || {
            let lines = self.server.log().lines();
            lines
                .iter()
                .find(|l| l.generation() == self.generation && l.json["to"] == "serving")
                .map(|l| l.pid())
        })?;
        tell(pid, Signal::SIGHUP)?;
        self.generation += 1;
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.server.alive()
    }

    fn last_words(&self) -> String {
        self.server.log().lines().pop().map_or_else(|| "nothing".into(), |line| line.text)
    }
}

/// The first argument that makes this executable replace itself by a program that cannot steer connections; the program and its
/// arguments follow.
pub(crate) const REFUSE_STEERING: &str = "--refuse-steering";

/// Replaces this process by the program, with the steering option refused as in a sandbox, also for the program's children:
/// seccomp filters are inherited.
pub(crate) fn refuse_steering(args: &[String]) -> ExitCode {
    let Some((program, args)) = args.split_first() else { return ExitCode::FAILURE };
    let error = match steering::refuse() {
        Ok(()) => Command::new(program).args(args).exec().to_string(),
        Err(error) => error,
    };
    eprintln!("cannot run {program} with steering refused: {error}");
    ExitCode::FAILURE
}
