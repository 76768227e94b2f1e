//! How far a connection has come, and how long it may stay there in normal times.

use std::time::Duration;

use tokio::time::Instant;

use super::farewell::{Unfinished, Verdict};
use super::goaway::Goaway;
use super::options::limit;
use super::requests::{Protocol, Requests};

/// How long a client of HTTP/2 may be silent after a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Progress {
    accepted: Instant,
    /// When all that was asked had been answered, and how many requests that were.
    idle: (u64, Instant),
    /// The number of a head that is not complete, and since when it is waited for.
    head: Option<(u64, Instant)>,
    /// Something has come since `last_received` was learnt.
    received: bool,
    /// Where that matters: within a body, and on HTTP/2.
    last_received: Instant,
    /// When the last request came, or a part of a response was written, on HTTP/2.
    got_on: Instant,
    pinged: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Progress {
        Progress {
            accepted: now,
            idle: (0, now),
            head: None,
            received: false,
            last_received: now,
            got_on: now,
            pinged: None,
        }
    }

    /// Something has come from the client.
    pub(super) fn received(&mut self) {
        self.received = true;
    }

    /// The client of HTTP/2 was sent a PING, or cannot be sent one because it takes nothing at all.
    pub(super) fn pinged(&mut self) {
        self.pinged = Some(Instant::now());
    }

    /// Since when this head is waited for. The time of the first one begins with the connection.
    pub(super) fn waits_for(&mut self, head: u64, requests: &Requests) -> Instant {
        match self.head {
            _ if requests.total() == 0 => self.accepted,
            Some((number, since)) if number == head => since,
            _ => self.head.insert((head, Instant::now())).1,
        }
    }

    /// All that was asked may be answered and written by now. Returns whether it has just become idle.
    pub(super) fn note_idle(&mut self, requests: &Requests, goaway: Option<&Goaway>) -> bool {
        let total = requests.total();
        let is_idle = !requests.are_in_flight() && !goaway.is_some_and(Goaway::has_open_streams);
        let has_become = is_idle && total != self.idle.0;
        if has_become {
            let now = Instant::now();
            self.idle = (total, now);
            requests.set_idle(now);
        }
        has_become
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.idle.1
    }

    /// Learns the times that matter. A request of HTTP/1 needs none but the end of its response.
    pub(super) fn note(&mut self, requests: &Requests, unfinished: Unfinished, goaway: Option<&mut Goaway>) {
        // It is not idle before all is written.
        if !unfinished.blocked {
            self.note_idle(requests, goaway.as_deref());
        }
        let Some(goaway) = goaway else {
            if unfinished.body && std::mem::take(&mut self.received) {
                self.last_received = Instant::now();
            }
            return;
        };
        let (received, got_on) = (std::mem::take(&mut self.received), goaway.has_got_on());
        if !received && !got_on {
            return;
        }
        let now = Instant::now();
        if received {
            self.last_received = now;
            self.pinged = None;
        }
        if got_on {
            self.got_on = now;
        }
    }

    /// What comes next in normal times if nothing happens, and when.
    pub(super) fn deadline(
        &mut self,
        requests: &Requests,
        unfinished: Unfinished,
        goaway: Option<&Goaway>,
    ) -> Option<(Instant, Verdict)> {
        let options = requests.options();
        let after = |since: Instant, time: Duration, verdict| Some((since + limit(time)?, verdict));
        // What is blocked has a time of its own.
        if unfinished.blocked || matches!(requests.protocol(), Protocol::Other | Protocol::Handshake) {
            return None;
        }
        if requests.total() == 0 {
            return after(self.accepted, options.header_timeout, Verdict::GiveUp);
        }
        let in_flight = requests.are_in_flight();
        let Some(goaway) = goaway else {
            return match unfinished {
                Unfinished { body: true, .. } if in_flight && !requests.is_answered() => {
                    after(self.last_received, options.body_timeout, Verdict::Late)
                }
                _ if in_flight => None,
                Unfinished { head: Some(head), .. } => {
                    after(self.waits_for(head, requests), options.header_timeout, Verdict::GiveUp)
                }
                // What comes is discarded until hyper closes it.
                _ => after(self.idle.1, options.keep_alive_timeout, Verdict::Close),
            };
        };
        let in_flight = in_flight || requests.has_tunnel() && goaway.has_open_streams();
        match self.pinged {
            _ if !in_flight && goaway.has_open_streams() => {
                // What was in flight until now may be reset in this moment.
                let since = self.got_on.max(requests.idle_since().unwrap_or(self.got_on));
                after(since, options.send_timeout, Verdict::GiveUp)
            }
            _ if !in_flight => after(self.idle.1, options.keep_alive_timeout, Verdict::Retire),
            Some(at) => Some((at + PING_TIMEOUT, Verdict::Gone)),
            None => after(self.last_received, options.http2_ping_interval, Verdict::Ping),
        }
    }
}
