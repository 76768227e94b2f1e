//! A connection from which nothing comes: it waits, is told to go, or is closed, unless something has arrived meanwhile.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::super::PAUSED;
use super::super::farewell::{Unfinished, Verdict};
use super::super::goaway::{self, Step};
use super::super::options::limit;
use super::super::requests::Protocol;
use super::{Arrived, Conn, cut};

/// What has become of the client's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It has not come, or it may be read.
    Open,
    /// hyper takes it for the end of the client, and drops the handler and what is not written yet. But a client may say with
    /// it that its request is the last (RFC 9112, section 9.6), so it waits until there is nothing left to write. The time
    /// is that of the last byte written.
    Held(Instant),
}

fn late(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<T: AsyncWrite + Unpin> Conn<T> {
    /// The client has ended. Whether that must wait: not in the middle of a body, whose reader has to learn of it.
    pub(super) fn hold_end(&mut self) -> bool {
        self.socket.ends.received = true;
        if matches!(self.end, End::Held(_)) {
            return true;
        }
        let holds = self.requests.protocol() == Protocol::Http1
            // The end of an answer may have been handed over and not be written yet.
            && (self.requests.are_in_flight() || self.write_blocked)
            && !self.framing.is_within_body()
            && !self.requests.options().half_close_timeout.is_zero();
        if holds {
            self.end = End::Held(Instant::now());
        }
        holds
    }

    /// There is nothing to read. Ready with end-of-file when the connection is to be closed.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unfinished = self.unfinished();
        let verdict = match self.farewell.poll(&self.requests, unfinished, cx) {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => {
                if self.requests.is_lame_duck() && self.requests.are_in_flight() {
                    // What arrives within a body is not a request.
                    let more = unfinished.head.is_some()
                        || !self.framing.is_within_body()
                            && matches!(self.socket.arrived(), Arrived::Something | Arrived::Part);
                    self.requests.set_more(more);
                    self.requests.wait(cx);
                }
                return Poll::Pending;
            }
        };
        match verdict {
            Verdict::Cut => Poll::Ready(Err(cut())),
            Verdict::Goaway(step) => self.poll_goaway(step, cx),
            Verdict::Abandon(deadline) if deadline.elapsed() > PAUSED => {
                self.end = End::Held(Instant::now());
                self.poll_wait(cx)
            }
            Verdict::Abandon(_) => {
                self.end = End::Open;
                Poll::Ready(Ok(()))
            }
            Verdict::MakeRoom => self.poll_make_room(cx),
            Verdict::Ping => {
                if let Some(ping) = self.farewell.expect_goaway().ask() {
                    self.inserted.extend(ping);
                    // What cannot be written now is written before anything else.
                    let _ = self.poll_insert(cx);
                }
                self.farewell.progress().pinged();
                self.poll_wait(cx)
            }
            Verdict::Late | Verdict::Gone if self.socket.arrived() == Arrived::Something => Poll::Pending,
            Verdict::Late => {
                self.socket.leave();
                Poll::Ready(Err(late("the rest of a body does not come")))
            }
            Verdict::Gone => {
                self.socket.set_reset(true);
                Poll::Ready(Err(late("the client does not answer a PING")))
            }
            Verdict::Retire => {
                self.farewell.retire();
                self.poll_wait(cx)
            }
            Verdict::Close if self.write_blocked => Poll::Pending,
            // What has arrived is served.
            Verdict::Close | Verdict::GiveUp => match (self.socket.arrived(), verdict) {
                (Arrived::Something | Arrived::End, _) => Poll::Pending,
                // The time of a head that has begun runs, and whatever comes of it, the verdict is another one.
                (Arrived::Part, Verdict::Close) if self.requests.protocol() != Protocol::Http2 => {
                    self.part_of_record = true;
                    self.poll_wait(cx)
                }
                _ => {
                    if self.requests.is_normal() {
                        self.socket.leave();
                    }
                    Poll::Ready(Ok(()))
                }
            },
        }
    }

    /// It was asked to go because it seemed to be idle. What has arrived meanwhile is served.
    fn poll_make_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_idle = self.requests.candidate().is_some()
            && self.requests.is_normal()
            && !self.write_blocked
            // A stream whose request has not come completely loses nothing.
            && (self.requests.total() == 0
                || !self.farewell.goaway().is_some_and(|goaway| goaway.has_open_streams()));
        if !is_idle || matches!(self.socket.arrived(), Arrived::Something | Arrived::Part) {
            self.requests.stay();
            return self.poll_wait(cx);
        }
        self.socket.leave();
        if self.requests.protocol() == Protocol::Http2 && self.requests.total() > 0 {
            self.inserted.extend(self.farewell.expect_goaway().last());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_goaway(&mut self, step: Step, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let goaway = self.farewell.expect_goaway();
        match step {
            Step::Gracefully => {
                goaway.tell();
                self.requests.set_goaway();
            }
            Step::Probe if !goaway.probe(|| self.socket.round_trip()) => {}
            Step::Probe => {
                self.inserted = goaway::probe();
                // What cannot be written now is written before anything else.
                let _ = self.poll_insert(cx);
            }
            Step::Acknowledge => {
                self.received = goaway.acknowledge();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Step::AtOnce if self.socket.arrived() == Arrived::Something => return Poll::Pending,
            Step::AtOnce => {
                self.inserted.extend(goaway.last());
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_wait(cx)
    }
}

impl<T> Conn<T> {
    pub(super) fn unfinished(&self) -> Unfinished {
        let is_head = self.framing.is_within_head() || self.part_of_record;
        Unfinished {
            head: is_head.then(|| self.framing.heads()),
            half_closed: match self.end {
                End::Held(progress) => Some(progress),
                End::Open => None,
            },
            body: self.framing.is_within_body(),
            blocked: self.write_blocked,
        }
    }

    /// Nothing could be written. Ready with an error when the client has taken nothing for too long. The kernel has room for more
    /// only when the client has taken much, so it is asked whether it still sends.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_http = matches!(self.requests.protocol(), Protocol::Http1 | Protocol::Http2);
        let Some(timeout) = limit(self.requests.options().send_timeout).filter(|_| is_http) else {
            return Poll::Pending;
        };
        loop {
            let deadline = *self.stalls.get_or_insert_with(|| Instant::now() + timeout);
            ready!(self.farewell.wait_until(deadline, cx));
            let left = match self.socket.last_sent() {
                _ if deadline.elapsed() > PAUSED => timeout,
                Some(last_sent) => timeout.saturating_sub(last_sent),
                None => Duration::ZERO,
            };
            if left.is_zero() {
                // What waits in the kernel would stay there for many minutes.
                self.socket.set_reset(true);
                self.socket.leave();
                return Poll::Ready(Err(late("the client takes nothing of its response")));
            }
            self.stalls = Some(Instant::now() + left);
        }
    }
}
