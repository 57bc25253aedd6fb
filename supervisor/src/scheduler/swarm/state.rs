//! A task's life as one pure function: what the manager wants, where the task is, and what was seen of its pod.
//!
//! ```text
//!  ASSIGNED ─> ACCEPTED ─> PREPARING ─> READY ─> STARTING ─> RUNNING ─> COMPLETE
//!                  │           │          │          │          │
//!                  └───────────┴──────────┴─> REJECTED         FAILED     (a fatal error: before STARTING, from then on)
//!          wanted SHUTDOWN or more: the pod is stopped, then SHUTDOWN
//! ```
//!
//! A state never goes back, and one from COMPLETE on is the last: it is the manager that makes a new task, never this node. READY
//! is a stop: a task goes on from it only when more is wanted.

use super::wire::task::TaskState;

/// What is seen of a task's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node has no such pod.
    Absent,
    /// It is being made.
    Making,
    /// It is made; nothing has started.
    Prepared,
    /// Its container runs, and its health check has not said yes.
    Starting,
    /// Its container runs.
    Running,
    /// Its container has ended with status 0 by itself.
    Done,
    /// Its container has ended otherwise; how.
    Failed(String),
    /// The pod cannot be; why.
    Impossible(String),
}

/// What the node is to do with the pod. The same order again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    Nothing,
    /// It should be made, and not started.
    Prepare,
    /// It should run.
    Run,
    /// It should be stopped and kept.
    Stop,
    /// It should go: nothing of it has run.
    Discard,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The task's state, to be reported.
    pub state: TaskState,
    /// Why, if it ended badly.
    pub error: Option<String>,
    /// What to do.
    pub order: Order,
}

/// Whether it is over for good.
#[must_use]
pub fn is_final(state: TaskState) -> bool {
    state >= TaskState::Complete
}

/// What follows from what is wanted, where the task is, and what was seen.
#[must_use]
pub fn next(desired: TaskState, actual: TaskState, event: &Event) -> Next {
    let (state, error) = if is_final(actual) {
        (actual, None)
    } else if desired >= TaskState::Shutdown {
        (shut_down(actual, event), None)
    } else {
        go_on(desired, actual, event)
    };
    Next { state, error, order: order(desired, state, event) }
}

/// Nothing more is wanted of it: it is over when nothing of it can run any more.
fn shut_down(actual: TaskState, event: &Event) -> TaskState {
    match event {
        Event::Absent | Event::Done | Event::Failed(_) => TaskState::Shutdown,
        Event::Making | Event::Prepared | Event::Starting | Event::Running | Event::Impossible(_) => actual,
    }
}

fn go_on(desired: TaskState, actual: TaskState, event: &Event) -> (TaskState, Option<String>) {
    let fatal = |error: &str| {
        let state = if actual < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
        (state, Some(error.to_owned()))
    };
    let seen = match event {
        Event::Absent if actual >= TaskState::Starting => return fatal("the task's container is gone"),
        Event::Absent if desired > TaskState::Accepted => TaskState::Preparing,
        Event::Absent => TaskState::Accepted,
        Event::Making => TaskState::Preparing,
        Event::Prepared if desired > TaskState::Ready => TaskState::Starting,
        Event::Prepared => TaskState::Ready,
        Event::Starting => TaskState::Starting,
        Event::Running => TaskState::Running,
        Event::Done => TaskState::Complete,
        // Whatever was seen before: a container that has ended was started.
        Event::Failed(error) => return (TaskState::Failed, Some(error.clone())),
        Event::Impossible(error) => return fatal(error),
    };
    (seen.max(actual), None)
}

fn order(desired: TaskState, state: TaskState, event: &Event) -> Order {
    if is_final(state) || desired >= TaskState::Shutdown {
        return match event {
            Event::Absent | Event::Done | Event::Failed(_) => Order::Nothing,
            Event::Starting | Event::Running => Order::Stop,
            Event::Making | Event::Prepared | Event::Impossible(_) => Order::Discard,
        };
    }
    match desired {
        TaskState::New | TaskState::Pending | TaskState::Assigned | TaskState::Accepted => Order::Nothing,
        TaskState::Preparing | TaskState::Ready => Order::Prepare,
        _ => Order::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::{
        Accepted, Assigned, Complete, Failed, New, Orphaned, Pending, Preparing, Ready, Rejected, Remove, Running,
        Shutdown, Starting,
    };
    use super::*;

    const STATES: [TaskState; 14] = [
        New, Pending, Assigned, Accepted, Preparing, Ready, Starting, Running, Complete, Shutdown, Failed, Rejected,
        Remove, Orphaned,
    ];

    fn events() -> [Event; 8] {
        [
            Event::Absent,
            Event::Making,
            Event::Prepared,
            Event::Starting,
            Event::Running,
            Event::Done,
            Event::Failed("1".into()),
            Event::Impossible("no".into()),
        ]
    }

    /// Rows: where the task is. Columns: what was seen, in the order of [`events`].
    type Table = [(TaskState, [TaskState; 8]); 8];

    /// Wanted: ACCEPTED or less.
    const TAKE: Table = [
        (New, [Accepted, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Pending, [Accepted, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Assigned, [Accepted, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Accepted, [Accepted, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Preparing, [Preparing, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Ready, [Ready, Ready, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Starting, [Failed, Starting, Starting, Starting, Running, Complete, Failed, Failed]),
        (Running, [Failed, Running, Running, Running, Running, Complete, Failed, Failed]),
    ];

    /// Wanted: PREPARING or READY.
    const PREPARE: Table = [
        (New, [Preparing, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Pending, [Preparing, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Assigned, [Preparing, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Accepted, [Preparing, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Preparing, [Preparing, Preparing, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Ready, [Ready, Ready, Ready, Starting, Running, Complete, Failed, Rejected]),
        (Starting, [Failed, Starting, Starting, Starting, Running, Complete, Failed, Failed]),
        (Running, [Failed, Running, Running, Running, Running, Complete, Failed, Failed]),
    ];

    /// Wanted: STARTING, RUNNING or COMPLETE.
    const RUN: Table = [
        (New, [Preparing, Preparing, Starting, Starting, Running, Complete, Failed, Rejected]),
        (Pending, [Preparing, Preparing, Starting, Starting, Running, Complete, Failed, Rejected]),
        (Assigned, [Preparing, Preparing, Starting, Starting, Running, Complete, Failed, Rejected]),
        (Accepted, [Preparing, Preparing, Starting, Starting, Running, Complete, Failed, Rejected]),
        (Preparing, [Preparing, Preparing, Starting, Starting, Running, Complete, Failed, Rejected]),
        (Ready, [Ready, Ready, Starting, Starting, Running, Complete, Failed, Rejected]),
        (Starting, [Failed, Starting, Starting, Starting, Running, Complete, Failed, Failed]),
        (Running, [Failed, Running, Running, Running, Running, Complete, Failed, Failed]),
    ];

    fn table(desired: TaskState) -> Option<&'static Table> {
        match desired {
            New | Pending | Assigned | Accepted => Some(&TAKE),
            Preparing | Ready => Some(&PREPARE),
            Starting | Running | Complete => Some(&RUN),
            Shutdown | Failed | Rejected | Remove | Orphaned => None,
        }
    }

    /// What the tables say, and for the rest the two rules that have no exception.
    fn expected(desired: TaskState, actual: TaskState, seen: usize) -> TaskState {
        if actual >= Complete {
            return actual;
        }
        match table(desired) {
            Some(table) => table.iter().find(|(state, _)| *state == actual).unwrap().1[seen],
            // Absent, done, failed: nothing can run any more.
            None if [0, 5, 6].contains(&seen) => Shutdown,
            None => actual,
        }
    }

    #[test]
    fn every_wanted_and_actual_state_and_every_event() {
        let mut looked_at = 0;
        for desired in STATES {
            for actual in STATES {
                for (seen, event) in events().iter().enumerate() {
                    let next = next(desired, actual, event);
                    let what = format!("wanted {desired:?}, is {actual:?}, seen {event:?}");
                    assert_eq!(next.state, expected(desired, actual, seen), "{what}");
                    assert!(next.state >= actual, "{what}: a state goes back");
                    let ended_badly = matches!(next.state, Failed | Rejected) && next.state != actual;
                    assert_eq!(next.error.is_some(), ended_badly, "{what}: an error comes with its state, once");
                    looked_at += 1;
                }
            }
        }
        assert_eq!(looked_at, 14 * 14 * 8);
    }

    #[test]
    fn every_order() {
        use Order::{Discard, Nothing, Prepare, Run, Stop};
        let ends = [Nothing, Discard, Discard, Stop, Stop, Nothing, Nothing, Discard];
        for desired in STATES {
            for actual in STATES {
                for (seen, event) in events().iter().enumerate() {
                    let next = next(desired, actual, event);
                    let expected = if next.state >= Complete || desired >= Shutdown {
                        ends[seen]
                    } else if desired <= Accepted {
                        Nothing
                    } else if desired <= Ready {
                        Prepare
                    } else {
                        Run
                    };
                    assert_eq!(next.order, expected, "wanted {desired:?}, is {actual:?}, seen {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_task_is_never_run_again_once_it_has_ended() {
        for desired in STATES {
            for actual in STATES.into_iter().filter(|state| is_final(*state)) {
                for event in events() {
                    let order = next(desired, actual, &event).order;
                    assert!(!matches!(order, Order::Run | Order::Prepare), "{desired:?} {actual:?} {event:?}");
                }
            }
        }
    }
}
