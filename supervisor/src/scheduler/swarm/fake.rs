//! A node for tests of this module: its pods are as a test says, and nothing of them moves by itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::desired::{Goal, Key, Pod};
use crate::observed::PodStatus;
use crate::scheduler::{HealthCheck, Host, LogLine, LogRequest, NodeDescription, NotHere, Refused, Standing, Stream};

/// Whoever asks more often than this asks for ever.
const OFTEN: usize = 1000;

/// What a test looks at and changes.
#[derive(Default)]
pub(super) struct State {
    /// What is set, and how it is.
    pub pods: BTreeMap<Key, (Pod, PodStatus)>,
    /// Whether all of them are on their way out.
    pub is_leaving: bool,
    /// A goal that no pod may have.
    pub refuses: Option<Goal>,
    /// What the scheduler said of itself last.
    pub standing: String,
    asked: usize,
}

/// See above.
pub(super) struct Fake {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::channel(0).0 }
    }
}

impl Fake {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes something, and tells it.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
    }

    fn asked(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.asked += 1;
        assert!(state.asked < OFTEN, "the node is asked without end");
        state
    }
}

#[async_trait]
impl Host for Fake {
    fn describe(&self) -> NodeDescription {
        NodeDescription {
            hostname: "host".into(),
            architecture: "x86_64".into(),
            milli_cpus: 1000,
            memory: 1 << 30,
            version: "0.0.0".into(),
            labels: BTreeMap::new(),
        }
    }

    async fn set(&self, pod: Pod) -> Result<(), Refused> {
        if self.asked().refuses == Some(pod.goal) {
            return Err(Refused("no space left on device".into()));
        }
        self.change(|state| {
            let before = state.pods.remove(&pod.key).map(|(_, status)| status);
            let status = before.unwrap_or_else(|| PodStatus::new(pod.key.clone(), pod.uid.clone()));
            state.pods.insert(pod.key.clone(), (pod, status));
        });
        Ok(())
    }

    async fn remove(&self, key: &Key) {
        self.change(|state| drop(state.pods.remove(key)));
    }

    fn pods(&self) -> Vec<Pod> {
        let state = self.asked();
        if state.is_leaving { Vec::new() } else { state.pods.values().map(|(pod, _)| pod.clone()).collect() }
    }

    fn statuses(&self) -> Vec<PodStatus> {
        self.asked().pods.values().map(|(_, status)| status.clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Images are here once a pod is prepared.
    async fn health_check(&self, _: &str) -> Result<Option<HealthCheck>, NotHere> {
        if self.state().pods.values().any(|(_, status)| status.is_prepared) { Ok(None) } else { Err(NotHere) }
    }

    fn tell(&self, standing: Option<Standing>) {
        self.state().standing = standing.map(|standing| standing.sentence).unwrap_or_default();
    }

    /// One line, of a pod that is there.
    async fn logs(&self, key: &Key, _: &str, _: LogRequest) -> mpsc::Receiver<LogLine> {
        let (sender, receiver) = mpsc::channel(1);
        if self.state().pods.contains_key(key) {
            let line = LogLine { at: SystemTime::now(), stream: Stream::Stdout, bytes: b"a line\n".to_vec() };
            sender.try_send(line).unwrap();
        }
        receiver
    }
}
