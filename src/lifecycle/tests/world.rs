//! Runs the state machine of one generation through random events, in a model that knows the true state of the world.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::Action::{self, *};
use super::super::Event::{self, *};
use super::super::State::{self, *};
use super::super::{ChildCommand, DrainMode, Exit, GenerationEnd, StopSource};
use super::{EVERY, TIMINGS, after};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Us,
    Child,
    Predecessor,
}

#[derive(Debug, Default)]
struct Child {
    ready: bool,
    told_restart: bool,
    told_stop: bool,
    killed: bool,
}

struct World {
    seed: u64,
    rng: fastrand::Rng,
    now: Instant,
    state: State,
    child: Option<Child>,
    predecessor_listens: bool,
    we_listen: bool,
    /// The process that gets new connections.
    steered_to: Who,
    /// Whether the kernel keeps new connections away from a listener that joins.
    held: bool,
    lame_duck: bool,
    main_pid_is_ours: bool,
    /// Whether a restart was asked for, and since then neither a generation was started nor a successor told.
    restart_owed: bool,
    stopping: bool,
    operator_stops: u32,
    keep_open_until: Instant,
    left: bool,
    history: Vec<(Event, State)>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let predecessor_listens = rng.bool();
        World {
            seed,
            rng,
            now: after(0),
            state: Starting { give_up: after(60), queued: false },
            child: None,
            predecessor_listens,
            we_listen: true,
            steered_to: if predecessor_listens { Who::Predecessor } else { Who::Us },
            held: false,
            lame_duck: false,
            main_pid_is_ours: false,
            restart_owed: false,
            stopping: false,
            operator_stops: 0,
            keep_open_until: after(0),
            left: false,
            history: vec![],
        }
    }

    #[track_caller]
    fn check(&self, holds: bool, promise: &str) {
        let line = |(event, state): &(Event, State)| format!("{event:?}: {}", state.name());
        let history = || self.history.iter().map(line).collect::<Vec<_>>().join("\n");
        assert!(holds, "broken with seed {}: {promise}\n{}", self.seed, history());
    }

    /// Returns the probability in percent that an offered event happens. 0: the event would contradict the model. 1: the
    /// event makes no sense in this state, but may come.
    fn likelihood(&self, event: Event) -> u8 {
        let starting = matches!(self.state, Starting { .. });
        let draining = matches!(self.state, Draining { .. });
        match (event, &self.child) {
            (Ready { predecessor_listens }, _) if starting => {
                40 * u8::from(predecessor_listens == self.predecessor_listens)
            }
            (RestartAsked, _) => 30,
            (ChildReady, Some(child)) if !child.ready => 40,
            (ChildExited(Exit::Crashed), Some(child)) if child.killed => 90,
            (ChildExited(Exit::Crashed), Some(_)) => 8,
            (ChildExited(Exit::Told), Some(child)) if child.told_stop => 40,
            (SpawnFailed, Some(_)) => 0,
            (PredecessorClosed, _) if self.predecessor_listens => 20,
            (StopAsked { shared: false, .. }, Some(_)) => 0,
            (StopAsked { shared: false, .. }, None) if self.predecessor_listens => 0,
            (StopAsked { .. }, _) if self.stopping => 8,
            (Drained, Some(_)) if draining => 0,
            (Drained, None) if draining => 20,
            (Deadline, _) if self.state.deadline().is_some() => 15,
            _ => 1,
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(..2000));
        let events = EVERY.concat();
        loop {
            let event = events[self.rng.usize(..events.len())];
            if self.rng.u8(..100) < self.likelihood(event) {
                return self.feed(event);
            }
        }
    }

    fn feed(&mut self, event: Event) {
        self.check(!self.left, "nothing is fed to a generation that has left");
        if event == Deadline {
            self.now = self.state.deadline().map_or(self.now, |at| at.max(self.now));
        }
        let before = self.state;
        self.happened(event);
        let (state, actions) = before.on(event, self.now, &TIMINGS);
        self.state = state;
        self.history.push((event, state));
        actions.iter().for_each(|action| self.perform(*action));
        if actions.contains(&Spawn) && self.rng.u8(..8) == 0 {
            return self.feed(SpawnFailed);
        }
        if matches!((before, event), (Spawning { .. }, SpawnFailed | ChildExited(_) | Deadline)) {
            let on = matches!(state, Serving { .. } | Spawning { .. } | Withdrawing { .. });
            self.check(on, "a failed handover changes nothing");
        }
        if !self.left {
            self.check_state();
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Ready { .. } if matches!(self.state, Starting { .. }) => self.steered_to = Who::Us,
            Ready { .. } | PortClosed | Drained | Deadline => {}
            RestartAsked => self.restart_owed = !matches!(self.state, Lingering { .. } | Draining { .. }),
            ChildReady => {
                if let Some(child) = self.child.as_mut().filter(|c| !c.ready) {
                    (child.ready, self.steered_to, self.held) = (true, Who::Child, false);
                    if matches!(self.state, Spawning { .. }) {
                        self.keep_open_until = self.now + TIMINGS.standby;
                    }
                }
            }
            SpawnFailed => self.child = None,
            ChildExited(exit) => {
                if let Some(child) = self.child.take() {
                    let crashed = exit != Exit::Told && !child.told_stop;
                    self.restart_owed |= crashed && child.told_restart;
                    self.stopping |= child.ready && !crashed && matches!(self.state, Standby { .. });
                    // The child may have flipped the steering just before it died, without a ready signal.
                    (self.steered_to, self.held) = (Who::Us, false);
                    self.keep_open_until = self.now;
                }
            }
            PredecessorClosed => {
                let closed = std::mem::take(&mut self.predecessor_listens);
                self.steered_to = if self.steered_to == Who::Predecessor { Who::Us } else { self.steered_to };
                self.keep_open_until =
                    if closed && self.child.is_none() { self.now } else { self.keep_open_until };
            }
            StopAsked { by, shared } => {
                self.stopping |= by == StopSource::Operator || !matches!(self.state, Standby { .. });
                self.operator_stops += u32::from(by == StopSource::Operator);
                if shared && matches!(self.state, Serving { .. }) {
                    self.keep_open_until = self.now + TIMINGS.standby;
                }
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match (action, &mut self.child) {
            (Spawn, _) => {
                let room = self.child.is_none() && !self.predecessor_listens;
                self.check(room, "at most two generations listen");
                self.check(self.we_listen && self.held, "a spawning generation holds new connections");
                (self.child, self.restart_owed) = (Some(Child::default()), false);
            }
            (TellChild(ChildCommand::Restart), Some(child)) => {
                (child.told_restart, self.restart_owed) = (true, false);
            }
            (TellChild(ChildCommand::Stop), Some(child)) => child.told_stop = true,
            // The child may have died just before.
            (TellChild(ChildCommand::Closed), _) => {}
            (KillChild, Some(child)) => child.killed = true,
            (MoveMainPid, Some(_)) => self.main_pid_is_ours = false,
            (TellChild(_) | KillChild | MoveMainPid, None) => {
                self.check(false, "only a living child is told anything");
            }
            (Hold, _) => (self.steered_to, self.held) = (Who::Us, true),
            (HandBack, _) => {
                self.check(self.predecessor_listens, "only a process that listens gets new connections");
                self.steered_to = Who::Predecessor;
            }
            (SetDrainMode(mode), _) => self.lame_duck = mode != DrainMode::Normal,
            (TakeMainPid, _) => self.main_pid_is_ours = true,
            (CloseListeners, _) => {
                let over = self.now >= self.keep_open_until || self.operator_stops > 1;
                let away = self.stopping || self.steered_to == Who::Child;
                self.check(over && away, "a listener closes after its standby, and only to stop or retire");
                self.we_listen = false;
            }
            (Leave(end), _) => {
                self.check(!self.we_listen, "a leaving generation has closed its listeners");
                self.check(
                    self.stopping || end == GenerationEnd::Retired,
                    "without a stop a generation retires",
                );
                self.left = true;
            }
            (GiveUp, _) => self.left = true,
            (Note(_) | ReportChildExit(_) | Notify(_), _) => {}
        }
    }

    fn check_state(&self) {
        let (child, p) = (self.child.as_ref(), self.predecessor_listens);
        self.check(child.is_none() || !p, "at most two generations listen");
        let due = self.state.deadline().is_some_and(|at| at <= self.now + TIMINGS.drain_timeout);
        self.check(due != matches!(self.state, Serving { .. }), "every state but serving has a deadline");
        let ours = self.we_listen && self.steered_to == Who::Us && !self.lame_duck;
        let serving = ours && self.held && self.main_pid_is_ours && !self.stopping;
        let (owed, leaves) = (self.restart_owed, self.lame_duck && self.stopping);
        let (holds, promise) = match self.state {
            Starting { queued, .. } => {
                (child.is_none() && queued == owed, "a starting generation has no child and queues restarts")
            }
            Serving { predecessor_listens, queued } => {
                let truth = child.is_none()
                    && predecessor_listens == p
                    && if p { ours && !self.stopping } else { serving };
                let promise = "a serving generation gets all connections, and owes no restart";
                (truth && queued == owed && (p || !owed), promise)
            }
            Spawning { queued, .. } => {
                let waits = child.is_some_and(|c| !c.ready && !c.told_stop);
                (waits && serving && queued == owed, "a spawning generation serves until the child is ready")
            }
            Withdrawing { queued, .. } => {
                let told = child.is_some_and(|c| c.told_stop);
                (told && serving && queued == owed, "a late child is told to leave and gets no connections")
            }
            Standby { .. } => {
                let hands_over = self.steered_to == Who::Child && child.is_some_and(|c| c.ready);
                let can_return = self.we_listen && self.lame_duck && self.main_pid_is_ours;
                (hands_over && can_return && !owed, "in standby the child serves and we can take over again")
            }
            Lingering { .. } => {
                let away = !p || self.steered_to == Who::Predecessor;
                (self.we_listen && leaves && away, "a lingering generation listens, and hands back")
            }
            Draining { end, .. } => {
                let why =
                    leaves || (end == GenerationEnd::Retired && self.lame_duck && !self.main_pid_is_ours);
                (!self.we_listen && why, "a draining generation has closed its listeners, to stop or retire")
            }
        };
        self.check(holds, promise);
    }

    /// Feeds only deadlines and what follows from them, until the generation serves alone or has left. A child leaves only
    /// when it is killed.
    fn settle(&mut self) {
        for _ in 0..8 {
            match self.state {
                _ if self.left => return,
                Serving { predecessor_listens: false, .. } => return,
                Serving { .. } => self.feed(PredecessorClosed),
                _ if self.child.as_ref().is_some_and(|c| c.killed) => self.feed(ChildExited(Exit::Crashed)),
                _ => self.feed(Deadline),
            }
        }
        self.check(false, "deadlines lead back to serving, or out");
    }

    fn restart(&mut self) {
        while self.child.is_none() {
            self.feed(RestartAsked);
        }
        self.feed(ChildReady);
        self.check(matches!(self.state, Standby { .. }), "the next restart can succeed");
    }
}

#[test]
fn no_random_life_breaks_a_promise() {
    let mut seen = BTreeMap::new();
    for seed in 0..12_000 {
        let mut world = World::new(seed);
        while !world.left && world.history.len() < 200 {
            world.step();
            if !world.left && world.rng.u8(..40) == 0 {
                world.settle();
                if !world.left {
                    world.restart();
                }
            }
        }
        for (_, state) in world.history {
            *seen.entry(state.name()).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == 7 && seen.values().all(|n| *n > 1000), "a state is rarely visited: {seen:?}");
    assert!(seen.values().sum::<u32>() >= 100_000, "too few events: {seen:?}");
}
