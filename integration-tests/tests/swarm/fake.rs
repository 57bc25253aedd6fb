//! A host that makes nothing: its pods do what their images' names say, and it keeps what it was asked and what was true.
//!
//! | image | what it does |
//! |---|---|
//! | `done` | ends with 0 |
//! | `fails` | ends with 3 |
//! | `missing` | cannot be pulled |
//! | `unhealthy` | runs, and never becomes healthy |
//! | anything else | runs until it is stopped |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use flintd::desired::{Goal, Key, Pod};
use flintd::observed::{ContainerState, ContainerStatus, Exit, Phase, PodStatus, Reason};
use flintd::scheduler::{HealthCheck, Host, LogLine, LogRequest, NodeDescription, NotHere, Refused, Standing, Stream};
use tokio::sync::{mpsc, watch};

/// The container's name in a swarm's pods.
const CONTAINER: &str = "task";

struct Held {
    pod: Pod,
    status: PodStatus,
    is_leaving: bool,
}

#[derive(Default)]
struct Pods {
    held: BTreeMap<Key, Held>,
    /// States that were true, by the pod's uid, in a swarm's words.
    truths: BTreeMap<String, BTreeSet<&'static str>>,
    /// How often a container was started, by the pod's uid.
    starts: BTreeMap<String, u32>,
    lines: BTreeMap<String, Vec<LogLine>>,
    standing: String,
}

/// See above.
pub(crate) struct Fake {
    name: String,
    pods: Mutex<Pods>,
    changes: watch::Sender<u64>,
    is_over: AtomicBool,
    /// Whether its disk is full: then nothing can be set.
    is_full: AtomicBool,
}

impl Fake {
    /// A node with a name, whose pods begin to move.
    pub(crate) fn new(name: &str) -> Arc<Self> {
        let fake = Arc::new(Self {
            name: name.to_owned(),
            pods: Mutex::default(),
            changes: watch::channel(0).0,
            is_over: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&fake);
        std::thread::spawn(move || {
            while let Some(fake) = weak.upgrade() {
                if fake.is_over.load(Ordering::Relaxed) {
                    return;
                }
                fake.tick();
                drop(fake);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        fake
    }

    fn with<R>(&self, act: impl FnOnce(&mut Pods) -> R) -> R {
        act(&mut self.pods.lock().expect("no test panics in it"))
    }

    /// Each pod makes one step.
    fn tick(&self) {
        let changed = self.with(|pods| {
            let mut changed = false;
            let gone: Vec<Key> =
                pods.held.iter().filter(|(_, held)| held.is_leaving).map(|(key, _)| key.clone()).collect();
            for key in gone {
                changed = true;
                pods.held.remove(&key);
            }
            let Pods { held, truths, starts, lines, .. } = pods;
            for held in held.values_mut() {
                if let Some(truth) = step(held, starts, lines) {
                    changed = true;
                    held.status.revision += 1;
                    truths.entry(held.pod.uid.clone()).or_default().insert(truth);
                }
            }
            changed
        });
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Keys of all pods that run.
    pub(crate) fn running(&self) -> BTreeSet<String> {
        self.with(|pods| {
            let runs = |held: &&Held| {
                let container = held.status.containers.get(CONTAINER);
                container.is_some_and(|container| matches!(container.state, ContainerState::Running { .. }))
            };
            pods.held.values().filter(runs).map(|held| held.pod.key.name.clone()).collect()
        })
    }

    /// All pods that are there.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.with(|pods| pods.held.keys().map(|key| key.name.clone()).collect())
    }

    /// Whether a state was ever true of a task.
    pub(crate) fn was(&self, task: &str, state: &str) -> bool {
        self.with(|pods| pods.truths.get(&format!("swarm-{task}")).is_some_and(|truths| truths.contains(state)))
    }

    /// What the scheduler last said of itself.
    pub(crate) fn standing(&self) -> String {
        self.with(|pods| pods.standing.clone())
    }

    /// Asserts that no container was started twice.
    #[track_caller]
    pub(crate) fn assert_started_once(&self) {
        let twice = self.with(|pods| {
            pods.starts.iter().filter(|(_, count)| **count > 1).map(|(uid, _)| uid.clone()).collect::<Vec<_>>()
        });
        assert!(twice.is_empty(), "started twice: {twice:?}");
    }

    /// Fills its disk, or makes room.
    pub(crate) fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// The pod of a task.
    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        self.with(|pods| pods.held.iter().find(|(key, _)| key.name.starts_with(name)).map(|(_, held)| held.pod.clone()))
    }

    /// A running container ends by itself.
    pub(crate) fn end(&self, name: &str, code: u32) {
        self.with(|pods| {
            let held = pods.held.iter_mut().find(|(key, _)| key.name.starts_with(name)).map(|(_, held)| held);
            let held = held.expect("a pod of that name");
            held.status.containers.insert(CONTAINER.into(), exited(code, "Error"));
            held.status.phase = if code == 0 { Phase::Succeeded } else { Phase::Failed };
            held.status.revision += 1;
            let uid = held.pod.uid.clone();
            pods.truths.entry(uid).or_default().insert(if code == 0 { "Complete" } else { "Failed" });
        });
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn container(state: ContainerState, started: bool) -> ContainerStatus {
    ContainerStatus {
        state,
        runtime_id: None,
        pid: 0,
        restarts: 0,
        last_exit: None,
        started,
        ready: started,
        image: None,
        spec: None,
    }
}

fn exited(code: u32, word: &str) -> ContainerStatus {
    let reason = Reason { word: word.into(), sentence: String::new() };
    let exit = Exit {
        status: Some(code),
        oom: false,
        started: None,
        finished: SystemTime::now(),
        reason,
        message: String::new(),
    };
    container(ContainerState::Exited(exit), true)
}

fn line(text: &str) -> LogLine {
    LogLine { at: SystemTime::now(), stream: Stream::Stdout, bytes: format!("{text}\n").into_bytes() }
}

/// One step of a pod; what is true of it then.
fn step(
    held: &mut Held,
    starts: &mut BTreeMap<String, u32>,
    lines: &mut BTreeMap<String, Vec<LogLine>>,
) -> Option<&'static str> {
    let (pod, status) = (&held.pod, &mut held.status);
    let image = pod.containers[0].image.split(':').next().unwrap_or_default().to_owned();
    let now = status.containers.get(CONTAINER).map(|container| container.state.clone());
    match (pod.goal, now) {
        (_, None) if image == "missing" => {
            if status.reason.is_some() {
                return None;
            }
            let sentence = "pull missing: there is no such image".to_owned();
            status.reason = Some(Reason { word: "ErrImagePull".into(), sentence });
            Some("Rejected")
        }
        (Goal::Prepared | Goal::Running, None) if !status.is_prepared => {
            status.is_prepared = true;
            Some("Ready")
        }
        (Goal::Running, None) => {
            *starts.entry(pod.uid.clone()).or_default() += 1;
            lines.entry(pod.key.name.clone()).or_default().push(line("started"));
            let is_healthy = image != "unhealthy";
            let mut running = container(ContainerState::Running { started: SystemTime::now() }, is_healthy);
            running.pid = 4711;
            running.runtime_id = Some(format!("{}.task.0", pod.uid));
            status.containers.insert(CONTAINER.into(), running);
            status.phase = Phase::Running;
            status.ports.clone_from(&pod.ports);
            for port in &mut status.ports {
                port.host = if port.host == 0 { 40_000 } else { port.host };
            }
            Some(if is_healthy { "Running" } else { "Starting" })
        }
        (Goal::Running, Some(ContainerState::Running { .. })) if image == "done" || image == "fails" => {
            let code = if image == "done" { 0 } else { 3 };
            status.containers.insert(CONTAINER.into(), exited(code, "Completed"));
            status.phase = if code == 0 { Phase::Succeeded } else { Phase::Failed };
            Some(if code == 0 { "Complete" } else { "Failed" })
        }
        (Goal::Stopped, Some(ContainerState::Running { .. })) => {
            status.containers.insert(CONTAINER.into(), exited(143, "Error"));
            status.phase = Phase::Failed;
            Some("Shutdown")
        }
        _ => None,
    }
}

#[async_trait::async_trait]
impl Host for Fake {
    fn describe(&self) -> NodeDescription {
        NodeDescription {
            hostname: self.name.clone(),
            architecture: "x86_64".into(),
            milli_cpus: 8000,
            memory: 16 << 30,
            version: "0.0.0".into(),
            labels: [("rack".to_owned(), self.name.clone())].into(),
        }
    }

    async fn set(&self, pod: Pod) -> Result<(), Refused> {
        if pod.hostname == "refused" {
            return Err(Refused("this node takes nobody of that name".into()));
        }
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Refused("no space left on device".into()));
        }
        self.with(|pods| {
            let status = PodStatus::new(pod.key.clone(), pod.uid.clone());
            let held = pods.held.entry(pod.key.clone()).or_insert_with(|| Held {
                pod: pod.clone(),
                status,
                is_leaving: false,
            });
            held.pod = pod;
        });
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn remove(&self, key: &Key) {
        self.with(|pods| {
            if let Some(held) = pods.held.get_mut(key) {
                held.is_leaving = true;
                held.status.terminating = true;
                pods.truths.entry(held.pod.uid.clone()).or_default().insert("Shutdown");
            }
        });
        self.changes.send_modify(|count| *count += 1);
    }

    fn pods(&self) -> Vec<Pod> {
        self.with(|pods| pods.held.values().filter(|held| !held.is_leaving).map(|held| held.pod.clone()).collect())
    }

    fn statuses(&self) -> Vec<PodStatus> {
        self.with(|pods| pods.held.values().map(|held| held.status.clone()).collect())
    }

    async fn health_check(&self, image: &str) -> Result<Option<HealthCheck>, NotHere> {
        if image.starts_with("missing") { Err(NotHere) } else { Ok(None) }
    }

    fn tell(&self, standing: Option<Standing>) {
        self.with(|pods| pods.standing = standing.map(|standing| standing.sentence).unwrap_or_default());
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn logs(&self, key: &Key, _: &str, request: LogRequest) -> mpsc::Receiver<LogLine> {
        let lines = self.with(|pods| pods.lines.get(&key.name).cloned().unwrap_or_default());
        let skip = request.tail.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            for line in lines.into_iter().skip(skip) {
                let _ = sender.send(line).await;
            }
            let mut count = 0;
            while request.follow && sender.send(line(&format!("goes on {count}"))).await.is_ok() {
                count += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        receiver
    }
}
