//! A node that does what tests tell it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, broadcast, mpsc, watch};

use crate::api::{
    Action, Attach, Backend, Change, Exec, Failure, ImageView, Manifest, NodeFacts, PodUsage, PodView, PullStep,
    Session, SessionControl,
};
use crate::desired::{Goal, Key, Pod, Quality, RestartPolicy, Source};
use crate::observed::{ContainerState, ContainerStatus, Event, Phase, PodStatus, Reason, Usage};

/// A node in memory.
pub(crate) struct Fake {
    pub(crate) pods: Mutex<Vec<PodView>>,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) logs: PathBuf,
    /// Calls that change something, as they came.
    pub(crate) calls: Mutex<Vec<String>>,
    /// Sessions whose client has gone.
    pub(crate) abandoned: Arc<AtomicUsize>,
    /// A change that is under way waits for it.
    pub(crate) slow: Notify,
    /// Whether a slow change came to its end.
    pub(crate) done: AtomicBool,
}

impl Fake {
    pub(crate) fn new(logs: &Path) -> Self {
        Self {
            pods: Mutex::default(),
            changes: watch::channel(0).0,
            events: broadcast::channel(16).0,
            logs: logs.to_owned(),
            calls: Mutex::default(),
            abandoned: Arc::default(),
            slow: Notify::new(),
            done: AtomicBool::new(false),
        }
    }

    fn called(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<PodView>)) {
        change(&mut self.pods.lock().unwrap());
        self.changes.send_modify(|number| *number += 1);
    }
}

/// A pod that runs, with one container `main`.
pub(crate) fn pod(name: &str) -> PodView {
    let mut status = PodStatus::new(Key::new("default", name), format!("{name}-uid"));
    status.phase = Phase::Running;
    status.containers.insert(
        "main".to_owned(),
        ContainerStatus {
            state: ContainerState::Running { started: SystemTime::UNIX_EPOCH },
            runtime_id: None,
            pid: 1,
            restarts: 0,
            last_exit: None,
            started: true,
            ready: true,
            image: None,
            spec: None,
        },
    );
    PodView {
        status,
        source: Some(Source::Api),
        goal: Goal::Running,
        labels: BTreeMap::new(),
        images: BTreeMap::from([("main".to_owned(), "web:1".to_owned())]),
        init_containers: Vec::new(),
        quality: Quality::BestEffort,
        restart: RestartPolicy::Always,
    }
}

pub(crate) fn event(word: &str) -> Event {
    let reason = Reason { word: word.to_owned(), sentence: format!("{word} happened") };
    Event { at: SystemTime::UNIX_EPOCH, pod: None, container: None, is_warning: false, reason }
}

struct Control {
    exit: watch::Receiver<Option<u32>>,
    size: watch::Sender<(u16, u16)>,
    abandoned: Arc<AtomicUsize>,
}

#[async_trait]
impl SessionControl for Control {
    async fn resize(&self, rows: u16, columns: u16) {
        self.size.send_replace((rows, columns));
    }

    async fn wait(&self) -> Result<u32, Failure> {
        let status = *self.exit.clone().wait_for(Option::is_some).await.map_err(|_| Failure::broken("lost"))?;
        Ok(status.unwrap())
    }

    async fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

/// Programs: `cat` (its input to its output, then 3), `zeros N` (N bytes and 0), `size` (the terminal's next size), `sleep` (for ever),
/// `deaf` (closes its input).
#[allow(clippy::needless_pass_by_value, reason = "each task has its own")]
fn program(command: Vec<String>, abandoned: Arc<AtomicUsize>) -> Session {
    let (stdin, mut input) = tokio::io::duplex(4096);
    let (mut output, stdout) = tokio::io::duplex(4096);
    let (mut errors, stderr) = tokio::io::duplex(4096);
    let (ended, exit) = watch::channel(None);
    let (size, mut sizes) = watch::channel((0, 0));
    tokio::spawn(async move {
        let status = match command[0].as_str() {
            "cat" => {
                let _ = errors.write_all(b"reading\n").await;
                let _ = tokio::io::copy(&mut input, &mut output).await;
                3
            }
            "zeros" => {
                let mut left: usize = command[1].parse().unwrap();
                while left > 0 {
                    let count = left.min(8192);
                    if output.write_all(&vec![0; count]).await.is_err() {
                        break;
                    }
                    left -= count;
                }
                0
            }
            "size" => {
                sizes.changed().await.unwrap();
                let (rows, columns) = *sizes.borrow();
                let _ = output.write_all(format!("{rows} {columns}\n").as_bytes()).await;
                0
            }
            "deaf" => {
                drop(input);
                tokio::time::sleep(Duration::from_millis(50)).await;
                7
            }
            _ => {
                let _ = input.read_to_end(&mut Vec::new()).await;
                std::future::pending::<u32>().await
            }
        };
        drop((output, errors));
        let _ = ended.send(Some(status));
    });
    Session {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        control: Box::new(Control { exit, size, abandoned }),
    }
}

#[async_trait]
impl Backend for Fake {
    async fn apply(&self, manifests: Vec<Manifest>, dry_run: bool) -> Result<Vec<Change>, Failure> {
        if manifests[0].text == "slow" {
            self.slow.notified().await;
            self.done.store(true, Ordering::SeqCst);
        }
        self.called(format!("apply {dry_run}"));
        let change = |manifest: Manifest| Change {
            file: manifest.name,
            kind: "Pod".to_owned(),
            key: Key::new("default", manifest.text),
            action: Action::Created,
        };
        Ok(manifests.into_iter().map(change).collect())
    }

    async fn remove(&self, key: &Key, grace: Option<Duration>) -> Result<(), Failure> {
        self.called(format!("remove {key} {grace:?}"));
        Err(Failure::missing(format!("there is no pod {key}")))
    }

    async fn stop(&self, key: &Key, _: Option<Duration>) -> Result<(), Failure> {
        Err(Failure::not_now(format!("{key} is of the manifests")))
    }

    async fn restart(&self, key: &Key, container: Option<&str>) -> Result<(), Failure> {
        self.called(format!("restart {key} {container:?}"));
        Ok(())
    }

    fn pods(&self) -> Vec<PodView> {
        self.pods.lock().unwrap().clone()
    }

    fn pod(&self, key: &Key) -> Option<PodView> {
        self.pods().into_iter().find(|view| view.status.key == *key)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn desired(&self, key: &Key) -> Option<Pod> {
        serde_json::from_value(serde_json::json!({
            "key": key, "uid": "u", "source": "api", "hostname": "web", "grace": {"secs": 1, "nanos": 0},
            "containers": [{"name": "main", "image": "i", "env": [{"name": "B", "value": "geheim", "is_secret": true}]}],
        }))
        .ok()
    }

    fn log_folder(&self, key: &Key, container: &str) -> Option<PathBuf> {
        Some(self.logs.join(&key.name).join(container))
    }

    async fn exec(&self, _: &Key, _: &str, exec: Exec) -> Result<Session, Failure> {
        if exec.command[0] == "missing" {
            return Err(Failure::refused("missing: no such program"));
        }
        Ok(program(exec.command, self.abandoned.clone()))
    }

    async fn attach(&self, _: &Key, _: &str, attach: Attach) -> Result<Session, Failure> {
        self.called(format!("attach {attach:?}"));
        let session = program(vec!["cat".to_owned()], self.abandoned.clone());
        Ok(if attach.stdin { session } else { Session { stdin: None, ..session } })
    }

    async fn usage(&self) -> Vec<PodUsage> {
        let usage = Usage { cpu: Duration::from_secs(1), memory: 1 << 20, pids: 2 };
        vec![PodUsage {
            key: Key::new("default", "web"),
            at: SystemTime::UNIX_EPOCH,
            containers: BTreeMap::from([("main".to_owned(), usage)]),
            memory_limits: BTreeMap::new(),
        }]
    }

    fn events(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        (vec![event("Before")], self.events.subscribe())
    }

    async fn images(&self) -> Result<Vec<ImageView>, Failure> {
        Ok(Vec::new())
    }

    async fn pull(&self, name: &str, steps: mpsc::Sender<PullStep>) -> Result<ImageView, Failure> {
        let _ = steps.send(PullStep::Image { layers: 1, bytes: 5 }).await;
        if name == "bad" {
            return Err(Failure::broken("the registry is on fire"));
        }
        Ok(ImageView { name: name.to_owned(), digest: "sha256:0".to_owned(), bytes: 5, pods: Vec::new() })
    }

    async fn remove_image(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn node(&self) -> NodeFacts {
        NodeFacts { hostname: "here".to_owned(), ..NodeFacts::default() }
    }
}
