//! The node's metrics. They are put together when they are asked for: between two scrapes they cost nothing.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::UNIX_EPOCH;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::timings::timings;
use crate::api::{Backend, NodeFacts, PodUsage, PodView};
use crate::observed::Phase;

type Labels = Vec<(&'static str, String)>;
type Numbers = Family<Labels, Gauge<f64, AtomicU64>>;
type Sums = Family<Labels, Counter<f64, AtomicU64>>;

/// The text of all metrics.
#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles")]
pub(super) fn text(backend: &dyn Backend, usage: &[PodUsage]) -> String {
    let mut registry = Registry::with_prefix("flint");
    let facts = backend.node();
    let pods = backend.pods();
    node(&mut registry, &facts);
    phases(&mut registry, &pods);
    containers(&mut registry, &pods, usage);
    process(&mut registry, &facts);
    registry.register_with_unit("step", "How long steps of pods' lives took", Unit::Seconds, timings().steps.clone());
    registry.register("evictions", "Pods that were evicted, by what was short", timings().evictions.clone());
    let mut text = String::new();
    // A String takes all that is written to it.
    let _ = encode(&mut text, &registry);
    text
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles")]
fn node(registry: &mut Registry, facts: &NodeFacts) {
    registry.register("build", "The version of flintd", Info::new(vec![("version", facts.version.clone())]));
    let cpus = |milli: u64| milli as f64 / 1000.0;
    let plain = [
        ("node_cpus", "CPUs of the host", cpus(facts.milli_cpus.0)),
        ("node_allocatable_cpus", "CPUs that pods may ask for", cpus(facts.milli_cpus.1)),
        ("node_requested_cpus", "CPUs that pods have asked for", cpus(facts.requested_milli_cpus)),
        ("node_allocatable_pods", "Pods that the node may have", facts.pods as f64),
    ];
    for (name, help, value) in plain {
        number(registry, name, help, value);
    }
    let bytes = [
        ("node_memory", "Memory of the host", facts.memory.0),
        ("node_allocatable_memory", "Memory that pods may ask for", facts.memory.1),
        ("node_requested_memory", "Memory that pods have asked for", facts.requested_memory),
    ];
    for (name, help, value) in bytes {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value as f64);
        registry.register_with_unit(name, help, Unit::Bytes, gauge);
    }
    let conditions = Numbers::default();
    for (name, (holds, _)) in &facts.conditions {
        conditions.get_or_create(&vec![("condition", name.clone())]).set(f64::from(u8::from(*holds)));
    }
    let available = Numbers::default();
    for (signal, left) in &facts.available {
        available.get_or_create(&vec![("signal", signal.clone())]).set(*left as f64);
    }
    registry.register("node_available", "What is left of memory, disks, inodes and process ids", available);
    registry.register("node_condition", "Whether a condition of the node holds", conditions);
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles")]
fn phases(registry: &mut Registry, pods: &[PodView]) {
    let all = [
        ("Pending", Phase::Pending),
        ("Running", Phase::Running),
        ("Succeeded", Phase::Succeeded),
        ("Failed", Phase::Failed),
    ];
    let family = Numbers::default();
    for (name, phase) in all {
        let count = pods.iter().filter(|view| view.status.phase == phase).count();
        family.get_or_create(&vec![("phase", name.to_owned())]).set(count as f64);
    }
    registry.register("pods", "Pods of the node", family);
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles")]
fn containers(registry: &mut Registry, pods: &[PodView], usage: &[PodUsage]) {
    let (ready, restarts) = (Numbers::default(), Sums::default());
    for view in pods {
        let key = &view.status.key;
        // Of a rolling update the other one serves.
        if view.status.replaces.is_none() {
            let is_ready = f64::from(u8::from(view.status.is_ready()));
            ready.get_or_create(&labels(&key.namespace, &key.name, None)).set(is_ready);
        }
        for (name, container) in &view.status.containers {
            restarts
                .get_or_create(&labels(&key.namespace, &key.name, Some(name)))
                .inc_by(f64::from(container.restarts));
        }
    }
    registry.register("pod_ready", "Whether a pod may be sent requests", ready);
    registry.register("container_restarts", "How often a container was started again", restarts);
    let (cpu, memory, limits, processes) =
        (Sums::default(), Numbers::default(), Numbers::default(), Numbers::default());
    for pod in usage {
        for (name, used) in &pod.containers {
            let labels = labels(&pod.key.namespace, &pod.key.name, Some(name));
            cpu.get_or_create(&labels).inc_by(used.cpu.as_secs_f64());
            memory.get_or_create(&labels).set(used.memory as f64);
            processes.get_or_create(&labels).set(used.pids as f64);
            if let Some(limit) = pod.memory_limits.get(name) {
                limits.get_or_create(&labels).set(*limit as f64);
            }
        }
    }
    registry.register_with_unit("container_cpu", "CPU time of a container's run", Unit::Seconds, cpu);
    registry.register_with_unit("container_memory", "Memory of a container", Unit::Bytes, memory);
    registry.register_with_unit("container_memory_limit", "What it may have", Unit::Bytes, limits);
    registry.register("container_processes", "Processes and threads of a container", processes);
}

fn labels(namespace: &str, pod: &str, container: Option<&str>) -> Labels {
    let mut labels = vec![("namespace", namespace.to_owned()), ("pod", pod.to_owned())];
    labels.extend(container.map(|container| ("container", container.to_owned())));
    labels
}

/// flintd's own.
#[allow(clippy::cast_precision_loss, reason = "Prometheus has doubles")]
fn process(registry: &mut Registry, facts: &NodeFacts) {
    if let Some(started) = facts.started.and_then(|started| started.duration_since(UNIX_EPOCH).ok()) {
        number(registry, "flintd_start_time_seconds", "When flintd was started", started.as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let resident = fields.get("VmRSS").and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    if let Some(resident) = resident {
        number(registry, "flintd_resident_memory_bytes", "flintd's own memory", (resident << 10) as f64);
    }
}

fn number(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}
