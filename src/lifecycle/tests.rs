//! The state machine as one table for each state. For an event that a table does not list, the state must not change and
//! there must be no action. `world` runs the machine through random event sequences.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::Action::{self, *};
use super::Event::{self, *};
use super::State::{self, *};
use super::{
    ChildCommand, DrainMode, Exit, ExitMeaning, GenerationEnd, Notification, Phase, StopSource, Timings,
};

mod world;

/// No two durations are equal, so that deadlines cannot be confused; `KILL_GRACE` is 5 s.
const TIMINGS: Timings = Timings {
    ready_timeout: Duration::from_secs(60),
    standby: Duration::from_secs(7),
    drain_timeout: Duration::from_secs(300),
    stop_timeout: Duration::from_secs(25),
    stop_delay: Duration::ZERO,
};
const READY_ALONE: &[Event] = &[Ready { predecessor_listens: false }];
const READY_SECOND: &[Event] = &[Ready { predecessor_listens: true }];
const CRASHED: &[Event] = &[ChildExited(Exit::Crashed), ChildExited(Exit::Restarted)];
const LEFT: &[Event] = &[ChildExited(Exit::Told), ChildExited(Exit::Crashed)];
const EXITED: &[Event] = &[ChildExited(Exit::Told), ChildExited(Exit::Crashed), ChildExited(Exit::Restarted)];
const OPERATOR_ALONE: &[Event] = &[StopAsked { by: StopSource::Operator, shared: false }];
const OPERATOR_SHARED: &[Event] = &[StopAsked { by: StopSource::Operator, shared: true }];
const PREDECESSOR_ALONE: &[Event] = &[StopAsked { by: StopSource::Predecessor, shared: false }];
const PREDECESSOR_SHARED: &[Event] = &[StopAsked { by: StopSource::Predecessor, shared: true }];
const OPERATOR: &[Event] = &[OPERATOR_ALONE[0], OPERATOR_SHARED[0]];
const PREDECESSOR: &[Event] = &[PREDECESSOR_ALONE[0], PREDECESSOR_SHARED[0]];
const OTHERS: &[Event] =
    &[RestartAsked, ChildReady, SpawnFailed, PredecessorClosed, PortClosed, Drained, Deadline];
const EVERY: &[&[Event]] = &[READY_ALONE, READY_SECOND, EXITED, OPERATOR, PREDECESSOR, OTHERS];

const STOPPING: &[Action] = &[SetDrainMode(DrainMode::Stop), Notify(Notification::Stopping)];
const STOPPED: &[Action] = &[SetDrainMode(DrainMode::Stop), CloseListeners, Notify(Notification::Stopping)];
const SERVING: State = Serving { predecessor_listens: false, queued: false };

/// Returns the instant this many seconds after the start of the tables.
fn after(seconds: u64) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_secs(seconds)
}

fn spawning() -> State {
    Spawning { ready_by: after(60), queued: false }
}

fn lingering(until: u64, cut_at: u64, handed_back: bool, operator_asked: bool) -> State {
    Lingering { until: after(until), cut_at: after(cut_at), handed_back, operator_asked }
}

fn draining(end: GenerationEnd, cut_at: u64, operator_asked: bool) -> State {
    Draining { end, cut_at: after(cut_at), operator_asked }
}

/// Expects serving, or spawning if a restart is queued, after the actions in `first`, and the notification of observers.
fn alone(queued: bool, first: &[Action], notification: Notification) -> (State, Vec<Action>) {
    let told = Notify(notification);
    if queued {
        (spawning(), [first, &[Spawn, told, Notify(Notification::Reloading)]].concat())
    } else {
        (SERVING, [first, &[told]].concat())
    }
}

/// Checks all events on one state. A note is matched by its prefix.
#[track_caller]
fn table(from: State, cells: &[(&[Event], State, &[Action])]) {
    for event in EVERY.concat() {
        let cell = cells.iter().find(|(events, ..)| events.contains(&event));
        let (expected, actions) = cell.map_or((from, &[][..]), |(_, state, actions)| (*state, actions));
        let (state, did) = from.on(event, after(0), &TIMINGS);
        assert_eq!(state, expected, "{from:?} on {event:?}");
        let same = |(a, b): (&Action, &Action)| match (a, b) {
            (Note(said), Note(beginning)) => said.starts_with(beginning),
            _ => a == b,
        };
        let all_same = did.len() == actions.len() && did.iter().zip(actions).all(same);
        assert!(all_same, "{from:?} on {event:?} did {did:?} instead of {actions:?}");
    }
}

/// A state, its name and phase, whether the service stops, and whether a handover can be asked for.
type Answers = (State, &'static str, Phase, bool, Result<bool, &'static str>);

fn answers() -> Vec<Answers> {
    let starting = Starting { give_up: after(9), queued: false };
    let withdrawing = Withdrawing { kill_at: after(3), queued: false };
    let (until, cut_at) = (after(3), after(9));
    let standby = |stop_passed_on| Standby { until, cut_at, restart_passed_on: false, stop_passed_on };
    let beside = Serving { predecessor_listens: true, queued: false };
    let over = Err("this generation has handed over already: ask its successor");
    let stopping = Err("this generation is stopping");
    vec![
        (starting, "starting", Phase::Starting, false, Err("this generation is still starting")),
        (SERVING, "serving", Phase::Serving, false, Ok(false)),
        (beside, "serving", Phase::Serving, false, Ok(false)),
        (spawning(), "spawning", Phase::Spawning, false, Ok(true)),
        (withdrawing, "withdrawing", Phase::Spawning, false, Ok(true)),
        (standby(false), "standby", Phase::Standby, false, over),
        (standby(true), "standby", Phase::Standby, true, over),
        (lingering(3, 9, false, true), "lingering", Phase::Draining, true, stopping),
        (draining(GenerationEnd::Stopped, 9, true), "draining", Phase::Draining, true, stopping),
        (draining(GenerationEnd::Retired, 9, false), "draining", Phase::Draining, false, over),
    ]
}

#[test]
fn each_state_says_what_it_is_and_what_may_be_asked_of_it() {
    let beside = Serving { predecessor_listens: true, queued: false };
    for (state, name, phase, stopping, hand_over) in answers() {
        let said = (state.name(), state.phase(), state.is_stopping(), state.can_hand_over());
        assert_eq!(said, (name, phase, stopping, hand_over), "{state:?}");
        assert_eq!(state.is_starting(), name == "starting");
        assert_eq!(state.waits_for_predecessor(), state == beside);
        assert_eq!(state.waits_for_child(), state != draining(GenerationEnd::Retired, 9, false));
    }
}

#[test]
fn a_starting_generation_queues_restarts_and_gives_up_if_it_is_late() {
    for queued in [false, true] {
        let starting = |queued| Starting { give_up: after(9), queued };
        let (next, actions) = alone(queued, &[Hold, TakeMainPid], Notification::Serves);
        table(
            starting(queued),
            &[
                (READY_ALONE, next, &actions),
                (
                    READY_SECOND,
                    Serving { predecessor_listens: true, queued },
                    &[Notify(Notification::Serves)],
                ),
                (&[RestartAsked], starting(true), &[Note("restart queued")]),
                (OPERATOR, draining(GenerationEnd::Stopped, 25, true), STOPPED),
                (PREDECESSOR, draining(GenerationEnd::Stopped, 25, false), STOPPED),
                (&[Deadline], starting(queued), &[GiveUp]),
            ],
        );
    }
}

#[test]
fn a_serving_generation_spawns_unless_its_predecessor_still_listens() {
    for queued in [false, true] {
        let same = |predecessor_listens| Serving { predecessor_listens, queued };
        table(
            same(false),
            &[
                (&[RestartAsked], spawning(), &[Spawn, Notify(Notification::Reloading)]),
                (&[ChildReady], same(false), &[Note("ready signal ignored")]),
                (OPERATOR_ALONE, draining(GenerationEnd::Stopped, 25, true), STOPPED),
                (PREDECESSOR_ALONE, draining(GenerationEnd::Stopped, 25, false), STOPPED),
                (OPERATOR_SHARED, lingering(7, 25, false, true), STOPPING),
                (PREDECESSOR_SHARED, lingering(7, 25, false, false), STOPPING),
            ],
        );
        let (next, actions) = alone(queued, &[Hold, TakeMainPid], Notification::ServesAlone);
        let back = &[HandBack, SetDrainMode(DrainMode::Stop), Notify(Notification::Stopping)];
        let waiting = Serving { predecessor_listens: true, queued: true };
        table(
            same(true),
            &[
                (&[RestartAsked], waiting, &[Note("restart queued")]),
                (&[ChildReady], same(true), &[Note("ready signal ignored")]),
                (&[PredecessorClosed], next, &actions),
                (OPERATOR, lingering(7, 25, true, true), back),
                (PREDECESSOR, lingering(7, 25, true, false), back),
            ],
        );
    }
}

#[test]
fn a_spawning_generation_hands_over_or_serves_on() {
    for queued in [false, true] {
        let same = |queued| Spawning { ready_by: after(9), queued };
        let (until, cut_at) = (after(7), after(300));
        let standby = Standby { until, cut_at, restart_passed_on: queued, stop_passed_on: false };
        let handed_over = &[SetDrainMode(DrainMode::Handover), Notify(Notification::HandedOver)][..];
        let passed_on = &[
            SetDrainMode(DrainMode::Handover),
            TellChild(ChildCommand::Restart),
            Notify(Notification::HandedOver),
            Notify(Notification::Reloading),
        ][..];
        let note = Note("restart queued");
        let queue = if queued { vec![note] } else { vec![note, Notify(Notification::Reloading)] };
        let (next, unspawned) = alone(queued, &[Hold], Notification::HandoverFailed);
        let (_, exited) =
            alone(queued, &[ReportChildExit(ExitMeaning::BeforeReady), Hold], Notification::HandoverFailed);
        let (again, restarted) = alone(
            true,
            &[note, ReportChildExit(ExitMeaning::BeforeReady), Hold],
            Notification::HandoverFailed,
        );
        let late = Withdrawing { kill_at: after(5), queued };
        let stopped = &[
            TellChild(ChildCommand::Stop),
            SetDrainMode(DrainMode::Stop),
            CloseListeners,
            Notify(Notification::Stopping),
        ];
        table(
            same(queued),
            &[
                (&[RestartAsked], same(true), &queue),
                (&[ChildReady], standby, if queued { passed_on } else { handed_over }),
                (&[SpawnFailed], next, &unspawned),
                (LEFT, next, &exited),
                (&[ChildExited(Exit::Restarted)], again, &restarted),
                (&[Deadline], late, &[Hold, TellChild(ChildCommand::Stop)]),
                (OPERATOR, draining(GenerationEnd::Stopped, 25, true), stopped),
                (PREDECESSOR, draining(GenerationEnd::Stopped, 25, false), stopped),
            ],
        );
    }
}

#[test]
fn a_withdrawing_generation_serves_on_once_the_late_successor_is_gone() {
    for queued in [false, true] {
        let same = |queued| Withdrawing { kill_at: after(3), queued };
        let (next, actions) =
            alone(queued, &[ReportChildExit(ExitMeaning::Late), Hold], Notification::HandoverFailed);
        let (again, restarted) =
            alone(true, &[ReportChildExit(ExitMeaning::Late), Hold], Notification::HandoverFailed);
        table(
            same(queued),
            &[
                (&[RestartAsked], same(true), &[Note("restart queued")]),
                (
                    &[ChildReady],
                    Withdrawing { kill_at: after(7 + 25), queued },
                    &[Hold, Note("the successor became ready after the ready timeout")],
                ),
                (LEFT, next, &actions),
                (&[ChildExited(Exit::Restarted)], again, &restarted),
                (&[Deadline], Withdrawing { kill_at: after(5), queued }, &[KillChild]),
                (OPERATOR, draining(GenerationEnd::Stopped, 25, true), STOPPED),
                (PREDECESSOR, draining(GenerationEnd::Stopped, 25, false), STOPPED),
            ],
        );
    }
}

#[test]
fn a_generation_in_standby_serves_again_if_its_successor_crashes() {
    for restarted in [false, true] {
        let same = |restart_passed_on, stop_passed_on| {
            let (until, cut_at) = (after(3), after(if stop_passed_on { 25 } else { 200 }));
            Standby { until, cut_at, restart_passed_on, stop_passed_on }
        };
        let note = Note("this generation serves again");
        let crashed = [ReportChildExit(ExitMeaning::AfterReady), Hold, SetDrainMode(DrainMode::Normal), note];
        let (next, actions) = alone(restarted, &crashed, Notification::ServesAgain);
        let left = &[
            ReportChildExit(ExitMeaning::Expected),
            SetDrainMode(DrainMode::Stop),
            CloseListeners,
            Notify(Notification::Stopping),
        ];
        let passed_on = &[TellChild(ChildCommand::Restart), Notify(Notification::Reloading)];
        let over = &[MoveMainPid, CloseListeners, Notify(Notification::StandbyEnded)];
        table(
            same(restarted, false),
            &[
                (&[RestartAsked], same(true, false), passed_on),
                (CRASHED, next, &actions),
                (&[ChildExited(Exit::Told)], draining(GenerationEnd::Stopped, 25, false), left),
                (
                    OPERATOR,
                    same(restarted, true),
                    &[
                        TellChild(ChildCommand::Stop),
                        SetDrainMode(DrainMode::Stop),
                        Notify(Notification::Stopping),
                    ],
                ),
                (&[Deadline], draining(GenerationEnd::Retired, 200, false), over),
            ],
        );
        let at_once = &[KillChild, CloseListeners, Leave(GenerationEnd::Stopped)];
        table(
            same(restarted, true),
            &[
                (&[RestartAsked], same(true, true), passed_on),
                (EXITED, draining(GenerationEnd::Stopped, 25, true), &left[..3]),
                (OPERATOR, draining(GenerationEnd::Stopped, 0, true), at_once),
                (&[Deadline], draining(GenerationEnd::Retired, 25, true), over),
            ],
        );
    }
}

#[test]
fn a_lingering_generation_listens_until_its_time_is_up_or_its_predecessor_closes() {
    for (cut_at, sooner) in [(9, 9), (200, 25)] {
        for (asked, back) in [(false, false), (true, false), (false, true), (true, true)] {
            let same = lingering(3, cut_at, back, asked);
            let closing = draining(GenerationEnd::Stopped, cut_at, asked);
            let hurry: (_, _, &[Action]) = if asked {
                (OPERATOR, same, &[CloseListeners, Leave(GenerationEnd::Stopped)])
            } else {
                (OPERATOR, lingering(3, sooner, back, true), &[SetDrainMode(DrainMode::Stop)])
            };
            let closed = if back { (closing, &[CloseListeners][..]) } else { (same, &[][..]) };
            table(
                same,
                &[
                    (&[RestartAsked], same, &[Note("restart refused: this generation is stopping")]),
                    (&[Deadline], closing, &[CloseListeners]),
                    (&[PredecessorClosed], closed.0, closed.1),
                    (EXITED, same, &[ReportChildExit(ExitMeaning::Expected)]),
                    hurry,
                ],
            );
        }
    }
}

#[test]
fn a_hurried_generation_lingers_no_longer_than_its_stop_may_take() {
    assert_eq!(lingering(60, 25, true, true).deadline(), Some(after(25)));
    assert_eq!(lingering(7, 25, true, true).deadline(), Some(after(7)));
}

#[test]
fn a_draining_generation_refuses_restarts_and_leaves_now_if_asked_twice() {
    for (cut_at, sooner) in [(9, 9), (200, 25)] {
        for asked in [false, true] {
            for end in [GenerationEnd::Stopped, GenerationEnd::Retired] {
                let same = draining(end, cut_at, asked);
                let hurry: (_, _, &[Action]) = if asked {
                    (OPERATOR, same, &[CloseListeners, Leave(end)])
                } else {
                    (OPERATOR, draining(end, sooner, true), &[SetDrainMode(DrainMode::Stop)])
                };
                let (refused, gone, closed): (_, &[Action], &[Action]) = match end {
                    GenerationEnd::Stopped => (
                        "restart refused: this generation is stopping",
                        &[ReportChildExit(ExitMeaning::Expected)],
                        &[],
                    ),
                    GenerationEnd::Retired => (
                        "restart refused: this generation has retired",
                        &[ReportChildExit(ExitMeaning::Expected), Note("the successor crashed")],
                        &[TellChild(ChildCommand::Closed)],
                    ),
                };
                table(
                    same,
                    &[
                        (&[RestartAsked], same, &[Note(refused)]),
                        (CRASHED, same, gone),
                        (&[ChildExited(Exit::Told)], same, &[ReportChildExit(ExitMeaning::Expected)]),
                        (&[PortClosed], same, closed),
                        (&[Drained, Deadline], same, &[Leave(end)]),
                        hurry,
                    ],
                );
            }
        }
    }
}

#[test]
fn connections_are_never_cut_before_a_long_standby_is_over() {
    let t = Timings { standby: Duration::from_secs(999), ..TIMINGS };
    let (until, cut_at) = (after(999), after(999));
    let standby = Standby { until, cut_at, restart_passed_on: false, stop_passed_on: false };
    assert_eq!(spawning().on(ChildReady, after(0), &t).0, standby);
    assert_eq!(SERVING.on(OPERATOR_SHARED[0], after(0), &t).0, lingering(999, 999, false, true));
}

#[test]
fn a_stop_goes_on_accepting_for_its_delay_and_its_timeout_counts_from_there() {
    let t = Timings { stop_delay: Duration::from_secs(10), ..TIMINGS };
    let delayed = (lingering(10, 35, false, true), STOPPING.to_vec());
    for event in OPERATOR {
        assert_eq!(SERVING.on(*event, after(0), &t), delayed);
    }
    // The delay is longer than the standby of the predecessor, so nothing is handed back to it.
    let beside = Serving { predecessor_listens: true, queued: false };
    assert_eq!(beside.on(OPERATOR[0], after(0), &t), delayed);
    let (state, actions) = spawning().on(OPERATOR[0], after(0), &t);
    assert_eq!(state, delayed.0);
    assert_eq!(actions, [&[TellChild(ChildCommand::Stop)], STOPPING].concat());
    let starting = Starting { give_up: after(60), queued: false };
    assert_eq!(starting.on(OPERATOR[0], after(0), &t).0, draining(GenerationEnd::Stopped, 25, true));
}
