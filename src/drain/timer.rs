//! A timer that is seldom set. To set one for each request would cost a lock each, so one that expires too early is left as it
//! is: it wakes its task once in vain, and is set anew then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// It wakes the task that has asked last.
    is_heard: bool,
}

impl Timer {
    /// Another task asks from now on.
    pub(super) fn forget_task(&mut self) {
        self.is_heard = false;
    }

    /// Ready at the deadline. The task is woken by then, or sooner.
    pub(super) fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                // To set it to a time that has passed would wake the task again and again.
                if Instant::now() >= deadline {
                    return Poll::Ready(());
                }
                sleep.as_mut().reset(deadline);
                self.is_heard = false;
            } else if self.is_heard && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.is_heard = true;
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() == deadline || Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
            self.is_heard = false;
        }
    }
}
