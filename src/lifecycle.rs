//! The state machine of one generation.
//!
//! [`State::on`] maps a state and an event to the next state and the actions to take. This file does no
//! I/O, reads no clock, starts no task and knows no process: the event loop in `server` feeds it events and
//! performs its actions. The table of transitions and the invariants are in `lib.rs`.

use std::time::{Duration, Instant};

mod types;
pub(crate) use types::{Action, ChildCommand, DrainMode, Event, Exit, ExitMeaning, Notification, StopSource};

use crate::report::{GenerationEnd, Phase};

/// How long a child that was told to leave may take before it is killed, and the interval at which the kill is repeated.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(5);

/// The durations that the state machine turns into deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timings {
    pub(crate) ready_timeout: Duration,
    pub(crate) standby: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) stop_delay: Duration,
}

/// Where one generation is in its life. Each variant owns the data of its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Listening, not yet ready: the application's readiness check runs.
    Starting { give_up: Instant, queued: bool },
    /// New connections come to this generation. While the predecessor still listens, no successor is started.
    Serving { predecessor_listens: bool, queued: bool },
    /// A successor was started and is not ready yet.
    Spawning { ready_by: Instant, queued: bool },
    /// The successor was not ready in time and was told to leave; nothing was steered to it.
    Withdrawing { kill_at: Instant, queued: bool },
    /// The successor serves; our listener is open and steered away from.
    Standby { until: Instant, cut_at: Instant, restart_passed_on: bool, stop_passed_on: bool },
    /// Stopping, but still accepting. Either a load balancer needs time to notice, or another process listens on our port and
    /// gets the new connections while we finish the handshakes under way.
    Lingering { until: Instant, cut_at: Instant, handed_back: bool, operator_asked: bool },
    /// The listener is closing or closed, and the remaining connections are finishing.
    Draining { end: GenerationEnd, cut_at: Instant, operator_asked: bool },
}

use Action::{
    CloseListeners, GiveUp, HandBack, Hold, KillChild, Leave, MoveMainPid, Note, Notify, ReportChildExit,
    SetDrainMode, Spawn, TakeMainPid, TellChild,
};

impl State {
    /// Returns when [`Event::Deadline`] is due, unless another event comes first.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match *self {
            State::Serving { .. } => None,
            State::Starting { give_up: at, .. }
            | State::Spawning { ready_by: at, .. }
            | State::Withdrawing { kill_at: at, .. }
            | State::Standby { until: at, .. }
            | State::Draining { cut_at: at, .. } => Some(at),
            State::Lingering { until, cut_at, .. } => Some(until.min(cut_at)),
        }
    }

    /// Returns whether the whole service is stopping, and not only this generation.
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(
            self,
            State::Lingering { .. }
                | State::Draining { end: GenerationEnd::Stopped, .. }
                | State::Standby { stop_passed_on: true, .. }
        )
    }

    /// Returns whether the application's readiness check is still running.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self, State::Starting { .. })
    }

    /// Returns whether the predecessor was told that this generation is ready, and still listens.
    pub(crate) fn waits_for_predecessor(&self) -> bool {
        matches!(self, State::Serving { predecessor_listens: true, .. })
    }

    /// Returns whether a generation that has finished its connections still has to wait for its child to exit. Only a retired
    /// generation leaves its child running.
    pub(crate) fn waits_for_child(&self) -> bool {
        !matches!(self, State::Draining { end: GenerationEnd::Retired, .. })
    }

    /// Returns whether a handover is already under way, if one can be asked for at all.
    ///
    /// # Errors
    ///
    /// The reason why no handover can be asked for.
    pub(crate) fn can_hand_over(&self) -> Result<bool, &'static str> {
        match self {
            State::Serving { .. } => Ok(false),
            State::Spawning { .. } | State::Withdrawing { .. } => Ok(true),
            State::Starting { .. } => Err("this generation is still starting"),
            State::Standby { .. } | State::Draining { end: GenerationEnd::Retired, .. } => {
                Err("this generation has handed over already: ask its successor")
            }
            State::Lingering { .. } | State::Draining { end: GenerationEnd::Stopped, .. } => {
                Err("this generation is stopping")
            }
        }
    }

    /// Returns the public phase of this state.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            State::Starting { .. } => Phase::Starting,
            State::Serving { .. } => Phase::Serving,
            State::Spawning { .. } | State::Withdrawing { .. } => Phase::Spawning,
            State::Standby { .. } => Phase::Standby,
            State::Lingering { .. } | State::Draining { .. } => Phase::Draining,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            State::Starting { .. } => "starting",
            State::Serving { .. } => "serving",
            State::Spawning { .. } => "spawning",
            State::Withdrawing { .. } => "withdrawing",
            State::Standby { .. } => "standby",
            State::Lingering { .. } => "lingering",
            State::Draining { .. } => "draining",
        }
    }

    pub(crate) fn on(self, event: Event, now: Instant, t: &Timings) -> (State, Vec<Action>) {
        match self {
            State::Starting { give_up, queued } => starting(give_up, queued, event, now, t),
            State::Serving { predecessor_listens, queued } => {
                serving(predecessor_listens, queued, event, now, t)
            }
            State::Spawning { ready_by, queued } => spawning(ready_by, queued, event, now, t),
            State::Withdrawing { kill_at, queued } => withdrawing(kill_at, queued, event, now, t),
            State::Standby { .. } => self.standby(event, now, t),
            State::Lingering { .. } => self.lingering(event, now, t),
            State::Draining { .. } => self.draining(event, now, t),
        }
    }

    fn standby(self, event: Event, now: Instant, t: &Timings) -> (State, Vec<Action>) {
        let State::Standby { until, cut_at, restart_passed_on, stop_passed_on } = self else {
            return (self, vec![]);
        };
        match event {
            Event::RestartAsked => {
                let next = State::Standby { until, cut_at, restart_passed_on: true, stop_passed_on };
                (next, vec![TellChild(ChildCommand::Restart), Notify(Notification::Reloading)])
            }
            Event::ChildExited(Exit::Crashed | Exit::Restarted) if !stop_passed_on => {
                let note = Note("this generation serves again");
                let actions = vec![
                    ReportChildExit(ExitMeaning::AfterReady),
                    Hold,
                    SetDrainMode(DrainMode::Normal),
                    note,
                ];
                serve_or_spawn(restart_passed_on, now, t, actions, Notification::ServesAgain)
            }
            Event::ChildExited(_) => {
                let stopping = if stop_passed_on { vec![] } else { vec![Notify(Notification::Stopping)] };
                let next = State::Draining {
                    end: GenerationEnd::Stopped,
                    cut_at: cut_at.min(now + t.stop_timeout),
                    operator_asked: stop_passed_on,
                };
                (
                    next,
                    [
                        vec![
                            ReportChildExit(ExitMeaning::Expected),
                            SetDrainMode(DrainMode::Stop),
                            CloseListeners,
                        ],
                        stopping,
                    ]
                    .concat(),
                )
            }
            Event::Deadline => {
                let next =
                    State::Draining { end: GenerationEnd::Retired, cut_at, operator_asked: stop_passed_on };
                (next, vec![MoveMainPid, CloseListeners, Notify(Notification::StandbyEnded)])
            }
            Event::StopAsked { by: StopSource::Operator, .. } if stop_passed_on => {
                let next = State::Draining { end: GenerationEnd::Stopped, cut_at: now, operator_asked: true };
                (next, vec![KillChild, CloseListeners, Leave(GenerationEnd::Stopped)])
            }
            Event::StopAsked { by: StopSource::Operator, .. } => {
                let cut_at = cut_at.min(until.max(now + t.stop_timeout));
                let next = State::Standby { until, cut_at, restart_passed_on, stop_passed_on: true };
                (
                    next,
                    vec![
                        TellChild(ChildCommand::Stop),
                        SetDrainMode(DrainMode::Stop),
                        Notify(Notification::Stopping),
                    ],
                )
            }
            _ => (self, vec![]),
        }
    }

    fn lingering(self, event: Event, now: Instant, t: &Timings) -> (State, Vec<Action>) {
        let State::Lingering { cut_at, handed_back, operator_asked, .. } = self else {
            return (self, vec![]);
        };
        let closing =
            (State::Draining { end: GenerationEnd::Stopped, cut_at, operator_asked }, vec![CloseListeners]);
        match event {
            Event::Deadline => closing,
            // The predecessor no longer listens, so waiting saves no connection.
            Event::PredecessorClosed if handed_back => closing,
            _ => self.leaving(event, now, t),
        }
    }

    fn draining(self, event: Event, now: Instant, t: &Timings) -> (State, Vec<Action>) {
        let State::Draining { end, .. } = self else { return (self, vec![]) };
        match event {
            Event::Drained | Event::Deadline => (self, vec![Leave(end)]),
            Event::PortClosed if end == GenerationEnd::Retired => {
                (self, vec![TellChild(ChildCommand::Closed)])
            }
            Event::ChildExited(Exit::Crashed | Exit::Restarted) if end == GenerationEnd::Retired => {
                let note = "the successor crashed, but this generation has closed its listener and cannot serve again";
                (self, vec![ReportChildExit(ExitMeaning::Expected), Note(note)])
            }
            _ => self.leaving(event, now, t),
        }
    }

    /// Handles the events common to `Lingering` and `Draining`: a stop can only be sped up, never taken back.
    fn leaving(self, event: Event, now: Instant, t: &Timings) -> (State, Vec<Action>) {
        let (end, cut_at, asked) = match self {
            State::Lingering { cut_at, operator_asked, .. } => {
                (GenerationEnd::Stopped, cut_at, operator_asked)
            }
            State::Draining { end, cut_at, operator_asked } => (end, cut_at, operator_asked),
            _ => return (self, vec![]),
        };
        match event {
            Event::StopAsked { by: StopSource::Operator, .. } if asked => {
                (self, vec![CloseListeners, Leave(end)])
            }
            Event::StopAsked { by: StopSource::Operator, .. } => {
                let cut_at = cut_at.min(now + t.stop_timeout);
                let next = match self {
                    State::Lingering { until, handed_back, .. } => {
                        State::Lingering { until, cut_at, handed_back, operator_asked: true }
                    }
                    _ => State::Draining { end, cut_at, operator_asked: true },
                };
                (next, vec![SetDrainMode(DrainMode::Stop)])
            }
            Event::RestartAsked if end == GenerationEnd::Retired => {
                (self, vec![Note("restart refused: this generation has retired, ask its successor")])
            }
            Event::RestartAsked => (self, vec![Note("restart refused: this generation is stopping")]),
            Event::ChildExited(_) => (self, vec![ReportChildExit(ExitMeaning::Expected)]),
            _ => (self, vec![]),
        }
    }
}

fn starting(give_up: Instant, queued: bool, event: Event, now: Instant, t: &Timings) -> (State, Vec<Action>) {
    match event {
        Event::Ready { predecessor_listens: true } => {
            (State::Serving { predecessor_listens: true, queued }, vec![Notify(Notification::Serves)])
        }
        Event::Ready { predecessor_listens: false } => {
            serve_or_spawn(queued, now, t, vec![Hold, TakeMainPid], Notification::Serves)
        }
        Event::RestartAsked => (
            State::Starting { give_up, queued: true },
            vec![Note("restart queued: this generation is still starting")],
        ),
        Event::StopAsked { by, .. } => {
            // No connection has been steered here yet, so there is no reason to linger.
            stop(by, now, &Timings { stop_delay: Duration::ZERO, ..*t }, Duration::ZERO, false)
        }
        Event::Deadline => (State::Starting { give_up, queued }, vec![GiveUp]),
        _ => (State::Starting { give_up, queued }, vec![]),
    }
}

fn serving(
    predecessor_listens: bool,
    queued: bool,
    event: Event,
    now: Instant,
    t: &Timings,
) -> (State, Vec<Action>) {
    let same = State::Serving { predecessor_listens, queued };
    match event {
        Event::RestartAsked if predecessor_listens => {
            let note = Note("restart queued: the predecessor is still in standby");
            (State::Serving { predecessor_listens, queued: true }, vec![note])
        }
        Event::RestartAsked => {
            let next = State::Spawning { ready_by: now + t.ready_timeout, queued: false };
            (next, vec![Spawn, Notify(Notification::Reloading)])
        }
        Event::PredecessorClosed if predecessor_listens => {
            serve_or_spawn(queued, now, t, vec![Hold, TakeMainPid], Notification::ServesAlone)
        }
        Event::StopAsked { by, shared } => {
            let linger = if shared || predecessor_listens { t.standby } else { Duration::ZERO };
            let handed_back = predecessor_listens && t.stop_delay.is_zero();
            let steer = if handed_back { vec![HandBack] } else { vec![] };
            let (next, actions) = stop(by, now, t, linger, handed_back);
            (next, [steer, actions].concat())
        }
        Event::ChildReady => {
            (same, vec![Note("ready signal ignored: its sender is not a child of this generation")])
        }
        _ => (same, vec![]),
    }
}

fn spawning(
    ready_by: Instant,
    queued: bool,
    event: Event,
    now: Instant,
    t: &Timings,
) -> (State, Vec<Action>) {
    match event {
        Event::RestartAsked => {
            let note = Note("restart queued: a successor is starting");
            // RELOADING=1 may be sent again while a reload is under way.
            let actions = if queued { vec![note] } else { vec![note, Notify(Notification::Reloading)] };
            (State::Spawning { ready_by, queued: true }, actions)
        }
        Event::ChildReady => {
            let next = State::Standby {
                until: now + t.standby,
                cut_at: now + t.drain_timeout.max(t.standby),
                restart_passed_on: queued,
                stop_passed_on: false,
            };
            let mut actions = vec![SetDrainMode(DrainMode::Handover)];
            if queued {
                actions.push(TellChild(ChildCommand::Restart));
            }
            actions.push(Notify(Notification::HandedOver));
            if queued {
                actions.push(Notify(Notification::Reloading));
            }
            (next, actions)
        }
        Event::SpawnFailed => serve_or_spawn(queued, now, t, vec![Hold], Notification::HandoverFailed),
        Event::ChildExited(exit) => {
            let (queued, mut actions) =
                (queued || exit == Exit::Restarted, vec![ReportChildExit(ExitMeaning::BeforeReady), Hold]);
            if exit == Exit::Restarted {
                actions.insert(0, Note("restart queued: a successor is starting"));
            }
            serve_or_spawn(queued, now, t, actions, Notification::HandoverFailed)
        }
        Event::Deadline => {
            let next = State::Withdrawing { kill_at: now + KILL_GRACE, queued };
            (next, vec![Hold, TellChild(ChildCommand::Stop)])
        }
        Event::StopAsked { by, .. } => {
            let (next, actions) = stop(by, now, t, Duration::ZERO, false);
            (next, [vec![TellChild(ChildCommand::Stop)], actions].concat())
        }
        _ => (State::Spawning { ready_by, queued }, vec![]),
    }
}

fn withdrawing(
    kill_at: Instant,
    queued: bool,
    event: Event,
    now: Instant,
    t: &Timings,
) -> (State, Vec<Action>) {
    match event {
        Event::RestartAsked => (
            State::Withdrawing { kill_at, queued: true },
            vec![Note("restart queued: a failed successor is leaving")],
        ),
        // The successor may have received connections before it was told to leave, so it gets the time of a stop.
        Event::ChildReady => (
            State::Withdrawing { kill_at: now + t.standby + t.stop_timeout, queued },
            vec![Hold, Note("the successor became ready after the ready timeout: it is not used")],
        ),
        Event::ChildExited(exit) => {
            let queued = queued || exit == Exit::Restarted;
            serve_or_spawn(
                queued,
                now,
                t,
                vec![ReportChildExit(ExitMeaning::Late), Hold],
                Notification::HandoverFailed,
            )
        }
        Event::Deadline => (State::Withdrawing { kill_at: now + KILL_GRACE, queued }, vec![KillChild]),
        Event::StopAsked { by, .. } => stop(by, now, t, Duration::ZERO, false),
        _ => (State::Withdrawing { kill_at, queued }, vec![]),
    }
}

/// Returns to serving alone, with these actions and this notification, or performs a queued restart.
fn serve_or_spawn(
    queued: bool,
    now: Instant,
    t: &Timings,
    mut actions: Vec<Action>,
    notification: Notification,
) -> (State, Vec<Action>) {
    if queued {
        actions.extend([Spawn, Notify(notification), Notify(Notification::Reloading)]);
        (State::Spawning { ready_by: now + t.ready_timeout, queued: false }, actions)
    } else {
        actions.push(Notify(notification));
        (State::Serving { predecessor_listens: false, queued: false }, actions)
    }
}

/// Stops without a successor: at once, or after the longer of `linger` and the stop delay.
fn stop(
    by: StopSource,
    now: Instant,
    t: &Timings,
    linger: Duration,
    handed_back: bool,
) -> (State, Vec<Action>) {
    let operator_asked = by == StopSource::Operator;
    let until = now + t.stop_delay.max(linger);
    let cut_at = until.max(now + t.stop_delay + t.stop_timeout);
    if until > now {
        let next = State::Lingering { until, cut_at, handed_back, operator_asked };
        (next, vec![SetDrainMode(DrainMode::Stop), Notify(Notification::Stopping)])
    } else {
        let next = State::Draining { end: GenerationEnd::Stopped, cut_at, operator_asked };
        (next, vec![SetDrainMode(DrainMode::Stop), CloseListeners, Notify(Notification::Stopping)])
    }
}

#[cfg(test)]
mod tests;
