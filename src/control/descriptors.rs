//! Descriptors of the control socket: a reserve, so that it can answer when the process has no free descriptor, and the check
//! whether a client is still connected.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

/// How many clients can be answered at the same time when no descriptor is free. More than one, because a client may be slow.
const SPARE: usize = 4;

/// Reserve descriptors: they are open only to be closed when the process has no free descriptor.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<OwnedFd>>);

impl Spare {
    pub(super) fn fill(&self) {
        let mut spare = self.lock();
        while spare.len() < SPARE {
            let Ok(one) =
                File::open("/dev/null").map(OwnedFd::from).or_else(|_| File::open("/").map(OwnedFd::from))
            else {
                return;
            };
            spare.push(one);
        }
    }

    /// Closes one reserve descriptor. Returns whether there was one.
    pub(super) fn give_up_one(&self) -> bool {
        self.lock().pop().is_some()
    }

    /// Ends a connection. Its descriptor refills the reserve if that is not full: if it were free for a moment, a new connection
    /// to the server would take it.
    pub(super) fn take(&self, stream: UnixStream) {
        let mut spare = self.lock();
        if spare.len() < SPARE
            && let Ok(stream) = stream.into_std()
        {
            let _ = stream.shutdown(Shutdown::Both);
            spare.push(stream.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A second descriptor of a connection that hyper owns, to check whether its client is still there.
#[derive(Debug)]
pub(super) struct Client(Option<OwnedFd>);

impl Client {
    /// Duplicates the descriptor. If none is free, the client is assumed to be connected.
    pub(super) fn of(stream: &UnixStream) -> Client {
        Client(stream.as_fd().try_clone_to_owned().ok())
    }

    /// Returns whether the client has closed the connection or its sending side, even if unread bytes precede the FIN.
    pub(super) fn gave_up(&self) -> bool {
        let Some(stream) = &self.0 else { return false };
        let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
            && polled[0].revents().intersects(gone)
    }
}
