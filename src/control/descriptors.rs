//! What the control socket does with descriptors besides to serve them: it keeps some in reserve, so that it answers when
//! every other one is taken, and looks whether a client is still there.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

/// So many clients are answered at the same time when no descriptor is free. One of them may take its time.
const SPARE: usize = 4;

/// Descriptors that are open for nothing but to be closed when there is need of one.
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

    /// Makes room for one, if there is any left.
    pub(super) fn give_up_one(&self) -> bool {
        self.lock().pop().is_some()
    }

    /// Closes a connection. Its descriptor becomes a spare one if one is missing: if it were free for a moment, another
    /// client of the site would get it.
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

/// The client of a connection that hyper has.
#[derive(Debug)]
pub(super) struct Client(Option<OwnedFd>);

impl Client {
    /// Where no descriptor is free it is thought to be there.
    pub(super) fn of(stream: &UnixStream) -> Client {
        Client(stream.as_fd().try_clone_to_owned().ok())
    }

    /// Whether it has closed the connection, or its side of it, also behind bytes that are not read yet.
    pub(super) fn gave_up(&self) -> bool {
        let Some(stream) = &self.0 else { return false };
        let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
            && polled[0].revents().intersects(gone)
    }
}
