//! A timer that is seldom reset. Resetting it for each request would take a lock each time, so a timer that is due too early stays
//! set: it wakes its task once for nothing, and is reset then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the timer wakes the task that asked last.
    wakes_current_task: bool,
}

impl Timer {
    /// Notes that another task asks from now on.
    pub(super) fn forget_task(&mut self) {
        self.wakes_current_task = false;
    }

    /// Waits until the deadline. The task is woken at the deadline or earlier.
    pub(super) fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                // A reset to a time in the past would wake the task again and again.
                if Instant::now() >= deadline {
                    return Poll::Ready(());
                }
                sleep.as_mut().reset(deadline);
                self.wakes_current_task = false;
            } else if self.wakes_current_task && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.wakes_current_task = true;
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() == deadline || Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
            self.wakes_current_task = false;
        }
    }
}
