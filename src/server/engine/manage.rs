//! What the service manager hears of: it starts the service, may ask for a reload and wait for its end, and follows the pid
//! that stands for the service. A process that no longer is that one says nothing: see [`crate::notify`].

use super::Engine;
use crate::notify;
use crate::process::Child;
use crate::report::HandoverResult;
use crate::succession::News;

impl Engine {
    /// Called when all that led to the news is done.
    pub(super) fn tell_manager(&mut self, news: News) {
        let serves = || format!("generation {} serves {}", self.generation.number, self.listen());
        let ready = || "READY=1".to_owned();
        let fields = match news {
            News::Serves => vec![ready(), status(&serves())],
            // Whether a reload goes on is not its to say.
            News::ServesAlone => vec![status(&serves())],
            News::Reloading => notify::reloading(),
            News::HandedOver => {
                let successor = self.child.as_ref().map_or(0, Child::pid);
                let next = self.generation.number + 1;
                vec![ready(), status(&format!("generation {next} serves, pid {successor}"))]
            }
            News::HandoverFailed => vec![ready(), status(&self.failure(&serves()))],
            News::ServesAgain => vec![status(&self.failure(&serves()))],
            News::Stopping => vec![notify::STOPPING.to_owned(), status("stopping")],
            News::StandbyEnded => return,
        };
        self.notify.tell(&fields);
    }

    fn failure(&self, serves: &str) -> String {
        match self.outside.last_result() {
            Some(HandoverResult::Failed(failure) | HandoverResult::TakenBack(failure)) => {
                let words = failure.stderr.last().map_or_else(String::new, |line| format!(": {line}"));
                format!("handover failed: {}{words}; {serves}", failure.reason)
            }
            _ => serves.to_owned(),
        }
    }
}

fn status(text: &str) -> String {
    format!("STATUS={}", text.replace('\n', " "))
}
