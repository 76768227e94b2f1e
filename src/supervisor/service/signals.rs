//! The signals that the supervisor receives and passes on.

use tracing::{info, warn};

use super::{Restart, Service};
use crate::process::pidfd::PidFd;
use crate::signals::SupervisorSignal;

impl Service {
    pub(in crate::supervisor) fn on_signal(&mut self, signal: SupervisorSignal) {
        match signal {
            SupervisorSignal::Child => {}
            SupervisorSignal::Restart(signal) => {
                self.restart = Some(Restart { signal, is_passed_on: false });
                match &self.current {
                    None => self.refuse_restart(),
                    Some(one) if !one.spoke => {
                        info!(generation = self.number, "restart queued: the generation is still starting");
                    }
                    Some(_) => self.pass_on_restart(),
                }
            }
            SupervisorSignal::Stop(signal) => {
                self.told_to_stop(|process| process.signal(signal));
            }
            SupervisorSignal::SentToTerminalGroup { stop: true } => self.told_to_stop(|_| {}),
            SupervisorSignal::SentToTerminalGroup { stop: false } => {}
        }
    }

    fn told_to_stop(&mut self, tell: impl Fn(&PidFd)) {
        self.stop_asked = true;
        if let Some(current) = &mut self.current {
            tell(&current.process);
            current.told_to_stop = true;
        }
        for one in &mut self.leaving {
            tell(&one.process);
            one.told_to_stop = true;
        }
    }

    pub(super) fn pass_on_restart(&mut self) {
        if let Some(current) = self.current.as_ref().filter(|one| one.spoke)
            && let Some(restart) = self.restart.as_mut().filter(|restart| !restart.is_passed_on)
        {
            current.process.signal(restart.signal);
            restart.is_passed_on = true;
        }
    }

    pub(super) fn refuse_restart(&mut self) {
        if self.restart.take().is_some_and(|restart| !restart.is_passed_on) {
            warn!(generation = self.number, "restart refused: the service has ended");
        }
    }
}
