//! What the page shows, as JSON.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::api::summary::{ready, status};
use crate::api::{Backend, PodUsage, PodView};
use crate::observed::Event;

/// Events that are shown.
const EVENTS: usize = 100;

/// All of it. Times are milliseconds since 1970, as browsers have them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    at: u64,
    node: Node,
    pods: Vec<Pod>,
    events: Vec<Told>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    hostname: String,
    version: String,
    kernel: String,
    architecture: String,
    started: Option<u64>,
    milli_cpus: u64,
    memory: u64,
    conditions: BTreeMap<String, (bool, String)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    namespace: String,
    name: String,
    status: String,
    why: Option<String>,
    ready: (usize, usize),
    restarts: u32,
    started: Option<u64>,
    addresses: Vec<String>,
    images: Vec<String>,
    /// CPU time in milliseconds, of all its containers.
    cpu: f64,
    /// Bytes.
    memory: u64,
    /// Bytes, if each container that runs has a limit.
    memory_limit: Option<u64>,
    /// When it was looked at; none: nothing of it runs.
    looked: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    at: u64,
    is_warning: bool,
    word: String,
    whose: String,
    sentence: String,
}

pub(super) fn state(backend: &dyn Backend, usage: &[PodUsage]) -> State {
    let facts = backend.node();
    let usage: BTreeMap<_, _> = usage.iter().map(|pod| (&pod.key, pod)).collect();
    let (events, _) = backend.events();
    State {
        at: millis(SystemTime::now()),
        pods: backend.pods().iter().map(|view| pod(view, usage.get(&view.status.key).copied())).collect(),
        events: events.iter().rev().take(EVENTS).map(told).collect(),
        node: Node {
            hostname: facts.hostname,
            version: facts.version,
            kernel: facts.kernel,
            architecture: facts.architecture,
            started: facts.started.map(millis),
            milli_cpus: facts.milli_cpus.0,
            memory: facts.memory.0,
            conditions: facts.conditions,
        },
    }
}

fn pod(view: &PodView, usage: Option<&PodUsage>) -> Pod {
    let (word, why) = status(view);
    let containers = || usage.into_iter().flat_map(|usage| usage.containers.iter());
    let limits = containers().map(|(name, _)| usage?.memory_limits.get(name).copied()).collect::<Option<Vec<u64>>>();
    Pod {
        namespace: view.status.key.namespace.clone(),
        name: view.status.key.name.clone(),
        status: word,
        why: why.filter(|why| !why.is_empty()),
        ready: ready(view),
        restarts: view.status.containers.values().map(|container| container.restarts).sum(),
        started: view.status.started.map(millis),
        addresses: view.status.addresses.iter().map(ToString::to_string).collect(),
        images: view.images.values().cloned().collect(),
        cpu: containers().map(|(_, usage)| usage.cpu.as_secs_f64() * 1000.0).sum(),
        memory: containers().map(|(_, usage)| usage.memory).sum(),
        memory_limit: limits.filter(|limits| !limits.is_empty()).map(|limits| limits.iter().sum()),
        looked: usage.map(|usage| millis(usage.at)),
    }
}

fn told(event: &Event) -> Told {
    let whose = match (&event.pod, &event.container) {
        (Some(pod), Some(container)) => format!("{pod}/{container}"),
        (Some(pod), None) => pod.to_string(),
        (None, _) => "node".to_owned(),
    };
    Told {
        at: millis(event.at),
        is_warning: event.is_warning,
        word: event.reason.word.clone(),
        whose,
        sentence: event.reason.sentence.clone(),
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
