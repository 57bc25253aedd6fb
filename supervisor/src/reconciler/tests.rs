use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Action, Decision, next, restart_pause, status};
use crate::desired::tests::{container, pod};
use crate::desired::{Goal, Pod, Resources, RestartPolicy, Source};
use crate::observed::{ContainerState, Exit, Phase, Reason};
use crate::store::{ContainerPhase, Ending, PodRecord, Removal, Sandbox, Stopping};

pub(super) const START: SystemTime = SystemTime::UNIX_EPOCH;

pub(super) fn after(seconds: u64) -> SystemTime {
    START + Duration::from_secs(seconds)
}

fn exit(status: u32, at: SystemTime) -> ContainerPhase {
    let reason = Reason::default();
    ContainerPhase::Exited(Exit {
        status: Some(status),
        oom: false,
        started: Some(START),
        finished: at,
        reason,
        message: String::new(),
    })
}

/// A pod whose container `main` is in this phase, in a sandbox that is ready.
fn with(phase: ContainerPhase) -> PodRecord {
    let mut record = PodRecord::new(Arc::new(pod("web")), 1, START);
    record.sandbox.state = Sandbox::Ready;
    record.sandbox.spec = Some(record.pod.sandbox_hash());
    record.sandbox.started = Some(START);
    let wanted = &record.pod.containers[0];
    let there = record.containers.entry("main".to_owned()).or_default();
    there.is_left = !matches!(phase, ContainerPhase::Absent);
    there.attempt = u32::from(there.is_left);
    there.pulled_for = there.attempt;
    there.spec = Some(wanted.spec_hash());
    there.resources = Some(wanted.resources.clone());
    there.phase = phase;
    record
}

pub(super) fn running() -> PodRecord {
    with(ContainerPhase::Running { started: START })
}

fn ended(status: u32, at: SystemTime) -> PodRecord {
    let mut record = with(exit(status, at));
    let there = record.containers.get_mut("main").unwrap();
    there.is_left = false;
    there.crashes = 1;
    record
}

pub(super) fn change(record: &mut PodRecord, change: impl FnOnce(&mut Pod)) {
    let mut pod = record.pod.as_ref().clone();
    change(&mut pod);
    record.pod = Arc::new(pod);
}

#[track_caller]
pub(super) fn assert_next(record: &PodRecord, now: SystemTime, expected: &str) {
    let said = match next(record, now) {
        Decision::Act(Action::Stop { container, grace, .. }) => format!("stop {container} in {} s", grace.as_secs()),
        Decision::Act(action) => {
            format!("{action:?}").replace("{ container: \"", "").replace("\" }", "").to_lowercase()
        }
        Decision::Wait(None) => "wait".to_owned(),
        Decision::Wait(Some(at)) => format!("wait until {}", at.duration_since(START).unwrap().as_secs()),
    };
    assert_eq!(said, expected);
}

#[test]
fn a_pod_comes_step_by_step() {
    let mut record = PodRecord::new(Arc::new(pod("web")), 1, START);
    assert_next(&record, START, "prepare");
    record.sandbox.retry.next = Some(after(10));
    assert_next(&record, after(1), "wait until 10");
    assert_next(&record, after(10), "prepare");
    record = with(ContainerPhase::Absent);
    assert_next(&record, START, "pull main");
    record.containers.get_mut("main").unwrap().pulled_for = 1;
    assert_next(&record, START, "create main");
    assert_next(&with(ContainerPhase::Creating), START, "wait");
    assert_next(&with(ContainerPhase::Created), START, "start main");
    assert_next(&running(), START, "wait");
}

#[test]
fn what_has_ended_is_started_again_as_its_policy_says() {
    assert_next(&with(exit(0, after(5))), after(5), "delete main");
    for (policy, code, expected) in [
        (RestartPolicy::Always, 0, "pull main"),
        (RestartPolicy::OnFailure, 1, "pull main"),
        (RestartPolicy::OnFailure, 0, "teardown"),
        (RestartPolicy::Never, 1, "teardown"),
    ] {
        let mut record = ended(code, after(5));
        change(&mut record, |pod| pod.restart = policy);
        assert_next(&record, after(5), expected);
    }
    let mut record = ended(1, after(5));
    record.containers.get_mut("main").unwrap().crashes = 3;
    assert_next(&record, after(6), "wait until 25");
    let ContainerState::Waiting(reason) = &status(&record, 0, after(6)).containers["main"].state else {
        panic!("it waits")
    };
    assert_eq!(reason.word, "CrashLoopBackOff");
    let pauses: Vec<u64> = (0..9).map(|crashes| restart_pause(crashes).as_secs()).collect();
    assert_eq!(pauses, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn a_removal_comes_before_all_else() {
    let mut record = running();
    record.removal = Some(Removal { since: START, grace: None, after: None });
    assert_next(&record, START, "stop main in 30 s");
    record.containers.get_mut("main").unwrap().stopping =
        Some(Stopping { until: after(30), killed: false, reason: Reason::default() });
    assert_next(&record, after(1), "wait until 30");
    assert_next(&record, after(30), "kill main");
    // A second word with less grace.
    record.removal = Some(Removal { since: after(2), grace: Some(3), after: None });
    assert_next(&record, after(3), "wait until 5");
    record.containers.get_mut("main").unwrap().phase = exit(137, after(5));
    assert_next(&record, after(5), "delete main");
    record.containers.get_mut("main").unwrap().is_left = false;
    assert_next(&record, after(5), "teardown");
    record.sandbox.state = Sandbox::Absent;
    assert_next(&record, after(5), "forget");
}

#[test]
fn changes_disrupt_as_little_as_they_can() {
    let mut record = running();
    change(&mut record, |pod| {
        pod.containers[0].resources = Resources { memory_limit: Some(1), ..Resources::default() }
    });
    assert_next(&record, START, "update main");
    change(&mut record, |pod| pod.containers[0].image = "other".to_owned());
    assert_next(&record, START, "stop main in 30 s");
    let mut record = ended(137, after(5));
    change(&mut record, |pod| pod.containers[0].image = "other".to_owned());
    record.containers.get_mut("main").unwrap().crashes = 7;
    assert_next(&record, after(5), "pull main");
    let mut record = running();
    change(&mut record, |pod| pod.containers.push(container("more")));
    assert_next(&record, START, "pull more");
    let mut record = running();
    change(&mut record, |pod| pod.containers[0].name = "other".to_owned());
    assert_next(&record, START, "stop main in 30 s");
    let mut record = ended(0, after(1));
    change(&mut record, |pod| pod.containers[0].name = "other".to_owned());
    assert_next(&record, after(1), "drop main");
    let mut record = running();
    change(&mut record, |pod| pod.hostname = "other".to_owned());
    assert_next(&record, START, "stop main in 30 s");
    let mut record = ended(143, after(1));
    change(&mut record, |pod| pod.hostname = "other".to_owned());
    assert_next(&record, after(1), "teardown");
}

#[test]
fn init_containers_come_one_after_the_other() {
    let mut record = with(ContainerPhase::Absent);
    change(&mut record, |pod| pod.init_containers = vec![container("first"), container("second")]);
    record.sandbox.spec = Some(record.pod.sandbox_hash());
    assert_next(&record, START, "pull first");
    let there = record.containers.entry("first".to_owned()).or_default();
    (there.phase, there.spec) = (exit(0, after(1)), Some(container("first").spec_hash()));
    assert_next(&record, after(1), "pull second");
    let there = record.containers.entry("second".to_owned()).or_default();
    (there.phase, there.spec) = (exit(1, after(1)), Some(container("second").spec_hash()));
    there.crashes = 2;
    assert_next(&record, after(1), "wait until 11");
    assert_eq!(status(&record, 0, after(1)).phase, Phase::Pending);
    change(&mut record, |pod| pod.restart = RestartPolicy::Never);
    assert_next(&record, after(1), "teardown");
    assert_eq!(status(&record, 0, after(1)).phase, Phase::Failed);
}

#[test]
fn goals_and_deadlines() {
    let mut record = with(ContainerPhase::Absent);
    change(&mut record, |pod| pod.goal = Goal::Prepared);
    assert_next(&record, START, "pull main");
    let there = record.containers.get_mut("main").unwrap();
    (there.pulled_for, there.image) = (1, Some("sha256:0".to_owned()));
    assert_next(&record, START, "wait");
    assert!(status(&record, 0, START).is_prepared);
    let mut record = running();
    change(&mut record, |pod| pod.goal = Goal::Stopped);
    assert_next(&record, START, "stop main in 30 s");
    let mut record = ended(0, after(1));
    change(&mut record, |pod| pod.goal = Goal::Stopped);
    assert_next(&record, after(1), "wait");
    let mut record = running();
    change(&mut record, |pod| pod.active_deadline = Some(Duration::from_secs(60)));
    assert_next(&record, after(1), "wait until 60");
    assert_next(&record, after(60), "expire");
    record.ending = Some(Ending { at: after(60), reason: Reason::default(), grace: None });
    assert_next(&record, after(60), "stop main in 30 s");
    assert_eq!(status(&record, 0, after(60)).phase, Phase::Failed);
    // One that was evicted has no time to spare, and one that is on its way out already gets no more by it.
    record.ending = Some(Ending { at: after(60), reason: Reason::default(), grace: Some(1) });
    assert_next(&record, after(60), "stop main in 1 s");
    record.containers.get_mut("main").unwrap().stopping =
        Some(Stopping { until: after(90), killed: false, reason: Reason::default() });
    assert_next(&record, after(60), "wait until 61");
    assert_next(&record, after(61), "kill main");
}

#[test]
fn changed_content_of_files_is_put_in_place_while_the_container_runs() {
    let mut record = running();
    record.sandbox.is_stale = true;
    assert_next(&record, START, "refresh");
    // What cannot be put in place is tried again, and holds up nothing else.
    record.sandbox.retry.next = Some(after(10));
    assert_next(&record, START, "wait until 10");
    change(&mut record, |pod| pod.containers[0].resources = Resources { cpu_limit: Some(1), ..Resources::default() });
    assert_next(&record, START, "update main");
}

#[test]
fn a_restart_that_was_asked_for_is_done_once() {
    let mut record = running();
    record.generation = 1;
    assert_next(&record, START, "stop main in 30 s");
    let mut record = ended(0, after(1));
    record.generation = 1;
    change(&mut record, |pod| pod.restart = RestartPolicy::Never);
    assert_next(&record, after(1), "pull main");
}

/// What there is, beside the record.
#[derive(Default)]
struct World {
    /// Runtime ids of what runs.
    runs: BTreeMap<String, String>,
    sandbox: bool,
    starts: u32,
}

/// Numbers that are the same for a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Does an action in the world; some fail.
fn act(record: &mut PodRecord, world: &mut World, action: Action, now: SystemTime, random: &mut Random) {
    let fails = random.below(5) == 0;
    let later = Some(now + Duration::from_secs(10));
    match action {
        Action::Prepare => {
            record.sandbox.state = Sandbox::Making;
            record.sandbox.spec = Some(record.pod.sandbox_hash());
            world.sandbox = true;
            if fails {
                record.sandbox.retry.next = later;
            } else {
                record.sandbox.state = Sandbox::Ready;
            }
        }
        Action::TearDown => {
            assert!(world.runs.is_empty(), "the sandbox goes last");
            world.sandbox = false;
            record.sandbox = crate::store::SandboxRecord::default();
        }
        Action::Forget => unreachable!("the caller takes it"),
        Action::Expire => record.ending = Some(Ending { at: now, reason: Reason::default(), grace: None }),
        Action::Drop { container } => drop(record.containers.remove(&container)),
        Action::Pull { container } => {
            let there = record.containers.entry(container).or_default();
            if fails { there.retry.next = later } else { there.pulled_for = there.attempt + 1 }
        }
        Action::Create { container } => {
            assert!(world.sandbox, "the sandbox comes first");
            let spec = record.pod.all_containers().find(|wanted| wanted.name == container).unwrap().clone();
            let generation = record.generation;
            let there = record.containers.get_mut(&container).unwrap();
            there.attempt += 1;
            (there.is_left, there.generation, there.stopping) = (true, generation, None);
            (there.spec, there.resources) = (Some(spec.spec_hash()), Some(spec.resources));
            if fails {
                there.phase = exit(128, now);
                there.crashes += 1;
            } else {
                let id = format!("{container}.{}", there.attempt);
                assert_eq!(world.runs.insert(container, id), None, "it is not started twice");
                world.starts += 1;
                there.phase = ContainerPhase::Running { started: now };
            }
        }
        Action::Start { container } => panic!("{container} was started with its creation"),
        Action::Stop { container, grace, reason } => {
            let there = record.containers.get_mut(&container).unwrap();
            there.stopping = Some(Stopping { until: now + grace, killed: false, reason });
        }
        Action::Kill { container } => {
            let there = record.containers.get_mut(&container).unwrap();
            there.stopping.as_mut().unwrap().killed = true;
            world.runs.remove(&container);
            there.phase = exit(137, now);
        }
        Action::Delete { container } => {
            assert!(!world.runs.contains_key(&container), "what runs is not deleted");
            let there = record.containers.get_mut(&container).unwrap();
            if fails { there.retry.next = later } else { (there.is_left, there.stopping) = (false, None) }
        }
        Action::Refresh => record.sandbox.is_stale = false,
        Action::TakeOver | Action::Delay => unreachable!("no pod is before it"),
        Action::Update { container } => {
            let spec = record.pod.all_containers().find(|wanted| wanted.name == container).unwrap().clone();
            record.containers.get_mut(&container).unwrap().resources = Some(spec.resources);
        }
    }
}

#[test]
fn whatever_happens_a_pod_gets_where_it_should_and_leaves_nothing() {
    for seed in 1..=300 {
        let (mut random, mut world) = (Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed)), World::default());
        let mut record = PodRecord::new(Arc::new(pod("web")), 1, START);
        change(&mut record, |pod| pod.init_containers = vec![container("init")]);
        let (mut now, mut gone) = (START, false);
        for step in 0..600 {
            match (random.below(25), step > 300) {
                (0, false) => change(&mut record, |pod| pod.containers[0].image = format!("image-{step}")),
                (1, false) => change(&mut record, |pod| pod.hostname = format!("name-{step}")),
                (2, false) => record.generation += 1,
                (3, false) => {
                    change(&mut record, |pod| pod.goal = if step % 2 == 0 { Goal::Stopped } else { Goal::Running });
                }
                (4..7, _) => {
                    if let Some((name, _)) = world.runs.pop_first() {
                        let there = record.containers.get_mut(&name).unwrap();
                        there.phase = exit(u32::from(name != "init"), now);
                        there.crashes += 1;
                    }
                }
                _ => {}
            }
            if step == 400 {
                record.removal = Some(Removal { since: now, grace: None, after: None });
            }
            match next(&record, now) {
                Decision::Act(Action::Forget) => {
                    gone = true;
                    break;
                }
                Decision::Act(action) => act(&mut record, &mut world, action, now, &mut random),
                Decision::Wait(Some(at)) => {
                    assert!(at > now, "seed {seed}: it waits for the past");
                    now = at;
                }
                Decision::Wait(None) => now += Duration::from_secs(1),
            }
        }
        assert!(gone, "seed {seed}: {record:#?}");
        assert!(world.runs.is_empty() && !world.sandbox, "seed {seed}: something is left");
        assert!(world.starts > 0, "seed {seed}: nothing ran");
    }
}

#[test]
fn how_a_container_ended_is_told_while_it_cannot_be_taken_away() {
    let mut record = with(exit(3, after(5)));
    change(&mut record, |pod| pod.restart = RestartPolicy::Never);
    let there = record.containers.get_mut("main").unwrap();
    there.retry.failed(Reason { word: "FailedRemove".to_owned(), sentence: "busy".to_owned() }, false);
    let state = |record: &PodRecord| status(record, 0, after(6)).containers["main"].state.clone();
    assert!(matches!(state(&record), ContainerState::Exited(Exit { status: Some(3), .. })), "{:?}", state(&record));
    // What hinders its next start is told.
    record.containers.get_mut("main").unwrap().is_left = false;
    assert!(matches!(state(&record), ContainerState::Waiting(reason) if reason.word == "FailedRemove"));
}

#[test]
fn after_a_restart_of_the_host_a_schedulers_container_is_over_and_others_are_started_again() {
    let rebooted = |source: Source| {
        let mut record = running();
        change(&mut record, |pod| (pod.restart, pod.source) = (RestartPolicy::Never, source));
        record.forget_the_world(after(5));
        record.containers.get_mut("main").unwrap().is_left = false;
        record
    };
    let own = rebooted(Source::Api);
    assert_next(&own, after(5), "prepare");
    assert_eq!(status(&own, 0, after(5)).phase, Phase::Running);
    let others = rebooted(Source::Scheduler("swarm".to_owned()));
    assert_next(&others, after(5), "wait");
    let status = status(&others, 0, after(5));
    assert_eq!(status.phase, Phase::Failed);
    assert!(
        matches!(&status.containers["main"].state, ContainerState::Exited(exit) if exit.reason.word == "NodeReboot")
    );
    // One that was only prepared is so again.
    let mut prepared = rebooted(Source::Scheduler("swarm".to_owned()));
    change(&mut prepared, |pod| pod.goal = Goal::Prepared);
    prepared.containers.get_mut("main").unwrap().phase = ContainerPhase::Absent;
    assert_next(&prepared, after(5), "prepare");
}

#[test]
fn a_sandbox_that_cannot_be_made_time_and_again_has_a_word_of_its_own() {
    let mut record = PodRecord::new(Arc::new(pod("web")), 1, START);
    let mut word = |was_lost| {
        let reason = Reason { word: "FailedCreatePodSandBox".to_owned(), sentence: "port 80 is taken".to_owned() };
        record.sandbox.retry.failed(reason, was_lost);
        status(&record, 0, START).reason.unwrap().word
    };
    let words = [true, true, true, false, false, true, false, true].map(&mut word);
    let (passing, lasting) = ("FailedCreatePodSandBox", "CreatePodSandboxError");
    assert_eq!(words, [passing, passing, passing, passing, passing, passing, lasting, lasting]);
}

#[test]
fn what_a_scheduler_has_stopped_gives_its_ports_back() {
    let stopped = |source: Source| {
        let mut record = ended(0, after(1));
        change(&mut record, |pod| (pod.goal, pod.source) = (Goal::Stopped, source));
        record
    };
    assert_next(&stopped(Source::Api), after(5), "wait");
    let mut dismissed = stopped(Source::Scheduler("swarm".to_owned()));
    assert_next(&dismissed, after(5), "teardown");
    dismissed.sandbox.state = Sandbox::Absent;
    assert_next(&dismissed, after(5), "wait");
    assert!(matches!(status(&dismissed, 0, after(5)).containers["main"].state, ContainerState::Exited(_)));
}
