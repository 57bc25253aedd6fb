use std::time::{Duration, Instant, SystemTime};

use super::{Change, Machine};
use crate::desired::{Check, Key, Probe};
use crate::probes::{Kind, Target, Watch};

const SECOND: Duration = Duration::from_secs(1);

fn probe(delay: u64, failures: u32, successes: u32) -> Probe {
    Probe {
        check: Check::Tcp { host: None, port: 80 },
        initial_delay: SECOND * delay as u32,
        period: SECOND * 10,
        timeout: SECOND,
        success_threshold: successes,
        failure_threshold: failures,
        grace: Some(SECOND * 5),
    }
}

fn watch(startup: Option<Probe>, liveness: Option<Probe>, readiness: Option<Probe>) -> Watch {
    let target =
        Target { id: "1".to_owned(), pod: Key::new("default", "web"), container: "main".to_owned(), address: None };
    Watch { target, since: SystemTime::now(), started: false, ready: false, startup, liveness, readiness }
}

/// Asks what is due next, and gives the answer a second after it was due.
fn answer(machine: &mut Machine, kind: Kind, yes: impl Into<Option<bool>>) -> (Instant, Vec<Change>) {
    let (due, next) = machine.next().expect("something is due");
    assert_eq!(next, kind);
    machine.asked(kind);
    (due, machine.answered(kind, yes.into(), due + SECOND))
}

#[test]
fn without_probes_it_has_started_and_is_ready() {
    let now = Instant::now();
    let machine = Machine::new(&watch(None, None, None), now, now, 0);
    assert!(machine.is_started() && machine.is_ready());
    assert_eq!(machine.next(), None);
}

#[test]
fn the_others_wait_for_the_startup_probe() {
    let now = Instant::now();
    let probes = watch(Some(probe(3, 2, 1)), Some(probe(0, 1, 1)), Some(probe(0, 1, 1)));
    let mut machine = Machine::new(&probes, now, now, 0);
    assert!(!machine.is_started() && !machine.is_ready());
    assert_eq!(answer(&mut machine, Kind::Startup, false), (now + SECOND * 3, vec![]));
    assert_eq!(answer(&mut machine, Kind::Startup, true), (now + SECOND * 13, vec![Change::Started]));
    assert!(machine.is_started() && !machine.is_ready());
    let (due, changes) = answer(&mut machine, Kind::Liveness, true);
    assert_eq!((due, changes), (now + SECOND * 14, vec![]), "as soon as it has started");
    let (due, changes) = answer(&mut machine, Kind::Readiness, true);
    assert_eq!((due, changes), (now + SECOND * 14, vec![Change::Ready(true)]));
}

#[test]
fn a_startup_that_fails_too_often_kills_with_its_own_grace_period() {
    let now = Instant::now();
    let mut machine = Machine::new(&watch(Some(probe(0, 2, 1)), None, None), now, now, 0);
    assert_eq!(answer(&mut machine, Kind::Startup, false).1, []);
    assert_eq!(answer(&mut machine, Kind::Startup, false).1, [Change::Kill(Some(SECOND * 5))]);
    assert_eq!(machine.next(), None, "it is asked no more");
}

#[test]
fn only_failures_in_a_row_count_and_what_was_lost_is_neither() {
    let now = Instant::now();
    let mut machine = Machine::new(&watch(None, Some(probe(0, 3, 1)), None), now, now, 0);
    let (yes, no, lost) = (Some(true), Some(false), None);
    for told in [no, no, yes, no, lost, lost, no, lost] {
        assert_eq!(answer(&mut machine, Kind::Liveness, told).1, []);
    }
    let killed = answer(&mut machine, Kind::Liveness, false).1;
    assert_eq!(
        killed,
        [Change::Ready(false), Change::Kill(Some(SECOND * 5))],
        "without a readiness probe it was ready"
    );
}

#[test]
fn readiness_comes_after_its_successes_and_goes_after_its_failures() {
    let now = Instant::now();
    let mut machine = Machine::new(&watch(None, None, Some(probe(0, 2, 2))), now, now, 0);
    let changes: Vec<Vec<Change>> = [true, false, true, true, false, true, false, false, false]
        .into_iter()
        .map(|yes| answer(&mut machine, Kind::Readiness, yes).1)
        .collect();
    let (up, down) = (vec![Change::Ready(true)], vec![Change::Ready(false)]);
    assert_eq!(changes, [vec![], vec![], vec![], up, vec![], vec![], vec![], down, vec![]]);
}

#[test]
fn a_question_on_its_way_is_not_put_again_and_a_late_answer_delays_the_next() {
    let now = Instant::now();
    let mut machine = Machine::new(&watch(None, Some(probe(0, 3, 1)), None), now, now, 0);
    machine.asked(Kind::Liveness);
    assert_eq!(machine.next(), None);
    machine.answered(Kind::Liveness, Some(true), now + SECOND * 25);
    assert_eq!(machine.next(), Some((now + SECOND * 25, Kind::Liveness)), "at once, and not three times");
}

#[test]
fn an_adopted_container_keeps_its_state_and_is_asked_within_a_period() {
    let since = Instant::now();
    let now = since + SECOND * 3600;
    let mut probes = watch(Some(probe(0, 1, 1)), None, Some(probe(0, 1, 1)));
    (probes.started, probes.ready) = (true, true);
    let machine = Machine::new(&probes, since, now, 500);
    assert!(machine.is_started() && machine.is_ready());
    assert_eq!(machine.next(), Some((now + SECOND * 5, Kind::Readiness)));
}
