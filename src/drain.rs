//! Connections from accept to drop: how many there are, and how each is treated once a successor serves.
//!
//! [`Drain`] is the one place that decides; [`Conn`] counts, and closes an idle HTTP connection when its time has
//! come; [`Attended`] marks requests in flight and says `Connection: close`. Nothing here knows processes or states.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

mod conn;
mod service;

pub use conn::{Conn, ConnectInfo};
pub(crate) use service::Attended;

/// The treatment in force. A lame duck is served normally, but its responses say `Connection: close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Normal,
    LameDuck { since: Instant, idle_grace: Duration },
}

/// All connections of one generation.
#[derive(Debug, Clone)]
pub(crate) struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    /// How often `mode` was set; raised just before.
    turns: AtomicUsize,
    /// The same as `mode`, for the path that every response takes.
    lame_duck: AtomicBool,
    open: AtomicUsize,
    closed: AtomicU64,
    /// `closed` when lame duck began.
    closed_before: AtomicU64,
    last_gone: Notify,
}

impl Drain {
    pub(crate) fn new() -> Drain {
        Drain(Arc::new(Shared {
            mode: watch::Sender::new(Mode::Normal),
            turns: AtomicUsize::new(0),
            lame_duck: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            closed: AtomicU64::new(0),
            closed_before: AtomicU64::new(0),
            last_gone: Notify::new(),
        }))
    }

    /// From now on every response says `Connection: close`, and a connection without a request in flight is closed
    /// once it has been quiet for `idle_grace`. Called again, it changes the grace and keeps the count.
    pub(crate) fn lame_duck(&self, idle_grace: Duration) {
        if !self.0.lame_duck.swap(true, Ordering::SeqCst) {
            self.0.closed_before.store(self.0.closed.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.turn(Mode::LameDuck { since: Instant::now(), idle_grace });
    }

    /// Keep-alive again: nobody took over after all.
    pub(crate) fn normal(&self) {
        self.0.lame_duck.store(false, Ordering::SeqCst);
        self.turn(Mode::Normal);
    }

    fn turn(&self, mode: Mode) {
        self.0.turns.fetch_add(1, Ordering::SeqCst);
        self.0.mode.send_replace(mode);
    }

    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    /// Connections that ended since lame duck began.
    pub(crate) fn finished(&self) -> u64 {
        self.0.closed.load(Ordering::SeqCst) - self.0.closed_before.load(Ordering::SeqCst)
    }

    /// Returns when no connection is open. Cancel safe.
    pub(crate) async fn empty(&self) {
        while self.open() > 0 {
            let gone = self.0.last_gone.notified();
            if self.open() == 0 {
                return;
            }
            gone.await;
        }
    }

    pub(crate) fn retiring(&self) -> Retiring {
        Retiring(self.0.mode.subscribe())
    }

    fn count(&self) -> Counted {
        self.0.open.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(&self.0))
    }

    fn is_lame_duck(&self) -> bool {
        self.0.lame_duck.load(Ordering::Relaxed)
    }
}

/// One open connection. What is counted is the I/O object, so an upgraded connection counts for as long as it lives.
#[derive(Debug)]
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.last_gone.notify_waiters();
        }
    }
}

/// Tells an application that this generation is on its way out: new connections go to a successor, or it was told to
/// stop. What the application holds open by itself (streams, its own protocol) should end soon; the drain deadline is
/// the last word.
///
/// If the successor crashes while this generation is in standby, it serves again and [`is_retiring`] is false again.
///
/// [`is_retiring`]: Retiring::is_retiring
#[derive(Debug, Clone)]
pub struct Retiring(watch::Receiver<Mode>);

impl Retiring {
    /// Whether this generation is retiring or stopping now.
    pub fn is_retiring(&self) -> bool {
        *self.0.borrow() != Mode::Normal
    }

    /// Returns when this generation begins to retire or stop, at once if it has begun. Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that the generation has left: that is as retired as can be.
        let _ = self.0.wait_for(|mode| *mode != Mode::Normal).await;
    }
}
