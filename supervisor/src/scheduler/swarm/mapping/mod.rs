//! A task's ContainerSpec as a pod of this node: one container, and every field honoured or refused by its name.
//!
//! A task with a field that flintd cannot honour is REJECTED: the manager tells the user which one, and tries another node. It is
//! never run otherwise than it says.

mod files;
mod health;
mod limits;
mod mounts;
mod ports;
mod security;
mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use self::template::Values;
use super::assignments::Payloads;
use super::seen::CONTAINER;
use super::wire::container::ContainerSpec;
use super::wire::node::NodeDescription;
use super::wire::task::{Driver, Task, TaskSpec};
use crate::desired::{
    Container, Dns, EnvVar, Goal, HostAlias, Key, Lifecycle, Network, Pids, Pod, PullPolicy, Resources, RestartPolicy,
    Source,
};
use crate::scheduler::HealthCheck;

pub(super) use ports::port_status;

/// The namespace of all pods of a swarm, and the name of their source.
pub(super) const SWARM: &str = "swarm";

/// docker's time between the stop signal and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// A field that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(super) struct Unmappable {
    /// The field, as swarmkit's .proto files call it.
    pub field: String,
    /// Why not.
    pub reason: String,
}

impl Unmappable {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// Refuses a field unless it is as if it were not given.
fn none(is_none: bool, field: &str, reason: &str) -> Result<(), Unmappable> {
    if is_none { Ok(()) } else { Err(Unmappable::new(field, reason)) }
}

/// The name of a task, and of its pod: `SERVICE.SLOT.TASK`, of a global service `SERVICE.NODE.TASK`.
#[must_use]
pub(super) fn task_name(task: &Task) -> String {
    let given = task.annotations.as_ref().map_or("", |annotations| annotations.name.as_str());
    if !given.is_empty() {
        return given.to_owned();
    }
    let service = task.service_annotations.as_ref().map_or("", |annotations| annotations.name.as_str());
    format!("{service}.{}.{}", slot(task), task.id)
}

fn slot(task: &Task) -> String {
    if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() }
}

/// The key of a task's pod.
#[must_use]
pub(super) fn key(task: &Task) -> Key {
    Key::new(SWARM, task_name(task))
}

/// The uid of a task's pod.
#[must_use]
pub(super) fn uid(task: &Task) -> String {
    format!("swarm-{}", task.id)
}

/// A task as a pod that is to be prepared. `image` is the health check of the task's image, when that is here and has one.
///
/// # Errors
///
/// The first field that cannot be honoured.
pub(super) fn pod(
    task: &Task,
    payloads: &Payloads,
    node: &NodeDescription,
    image: Option<&HealthCheck>,
) -> Result<Pod, Unmappable> {
    let absent = TaskSpec::default();
    let task_spec = task.spec.as_ref().unwrap_or(&absent);
    none(task_spec.attachment.is_none(), "attachment", "flintd attaches no containers of others to networks")?;
    none(task_spec.generic.is_none(), "generic", "flintd runs containers alone, no plugins")?;
    none(task.volumes.is_empty(), "volumes", "flintd has no CSI volumes")?;
    none(task.assigned_generic_resources.is_empty(), "assigned_generic_resources", "flintd has none to offer")?;
    log_driver(task.log_driver.as_ref().or(task_spec.log_driver.as_ref()))?;
    let Some(spec) = &task_spec.container else { return Err(Unmappable::new("container", "the task has none")) };
    none(spec.isolation == 0, "isolation", "it is of Windows")?;
    let values = values(task, node);
    let mut pod = shell(task, spec, &values)?;
    pod.network = ports::network(task)?;
    pod.ports = ports::host_ports(task, &pod.network)?;
    let mut container = container(spec, &values, image)?;
    container.resources = resources(task_spec, spec)?;
    mounts::add(spec, &values, &mut pod, &mut container)?;
    files::add(spec, payloads, &mut pod, &mut container)?;
    pod.containers = vec![container];
    Ok(pod)
}

fn log_driver(driver: Option<&Driver>) -> Result<(), Unmappable> {
    let Some(driver) = driver else { return Ok(()) };
    let known = matches!(driver.name.as_str(), "" | "json-file" | "local");
    none(known, "log_driver", "flintd has its own logs alone (it answers to json-file and local)")?;
    none(driver.options.is_empty(), "log_driver.options", "flintd rotates logs by its own configuration")
}

fn values(task: &Task, node: &NodeDescription) -> Values {
    let service = task.service_annotations.clone().unwrap_or_default();
    let platform = node.platform.clone().unwrap_or_default();
    let fields = [
        (".Service.ID", task.service_id.clone()),
        (".Service.Name", service.name),
        (".Node.ID", task.node_id.clone()),
        (".Node.Hostname", node.hostname.clone()),
        (".Node.Platform.Architecture", platform.architecture),
        (".Node.Platform.OS", platform.os),
        (".Task.ID", task.id.clone()),
        (".Task.Name", task_name(task)),
        (".Task.Slot", slot(task)),
    ];
    Values::new(fields, service.labels)
}

fn labels(task: &Task, spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    let service = task.service_annotations.as_ref().map_or("", |annotations| annotations.name.as_str());
    for (name, value) in [
        ("task", String::new()),
        ("task.id", task.id.clone()),
        ("task.name", task_name(task)),
        ("node.id", task.node_id.clone()),
        ("service.id", task.service_id.clone()),
        ("service.name", service.to_owned()),
    ] {
        labels.insert(format!("com.docker.swarm.{name}"), value);
    }
    labels
}

/// The pod without what is in it.
fn shell(task: &Task, spec: &ContainerSpec, values: &Values) -> Result<Pod, Unmappable> {
    let hostname = values.expand("hostname", &spec.hostname)?;
    Ok(Pod {
        key: key(task),
        uid: uid(task),
        source: Source::Scheduler(SWARM.to_owned()),
        goal: Goal::Prepared,
        labels: labels(task, spec),
        annotations: BTreeMap::new(),
        // docker takes the first letters of the container's id.
        hostname: if hostname.is_empty() { task.id.chars().take(12).collect() } else { hostname },
        network: Network::Node,
        ports: Vec::new(),
        // A process 1 that reaps, beside a program with the kernel's own defaults for signals: what docker's init is for.
        pids: if spec.init.is_some_and(|init| init.value) { Pids::Pod } else { Pids::Container },
        host_ipc: false,
        dns: spec.dns_config.clone().map_or_else(Dns::default, |dns| Dns {
            servers: dns.nameservers,
            searches: dns.search,
            options: dns.options,
        }),
        host_aliases: spec.hosts.iter().map(|line| host_alias(line)).collect::<Result<_, _>>()?,
        sysctls: spec.sysctls.clone(),
        volumes: Vec::new(),
        volume_group: None,
        init_containers: Vec::new(),
        containers: Vec::new(),
        restart: RestartPolicy::Never,
        grace: spec.stop_grace_period.map_or(GRACE, |span| span.duration()),
        active_deadline: None,
        rolling: None,
        priority: 0,
    })
}

/// `ADDRESS NAME NAME...`, as in /etc/hosts.
fn host_alias(line: &str) -> Result<HostAlias, Unmappable> {
    let mut words = line.split_whitespace().map(str::to_owned);
    let ip = words.next().and_then(|word| word.parse().ok());
    let names: Vec<String> = words.collect();
    match ip {
        Some(ip) if !names.is_empty() => Ok(HostAlias { ip, names }),
        _ => Err(Unmappable::new("hosts", format!("{line:?} is not an address and names"))),
    }
}

fn container(spec: &ContainerSpec, values: &Values, image: Option<&HealthCheck>) -> Result<Container, Unmappable> {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let entrypoint = some(&spec.command);
    // A command replaces the image's entrypoint and its CMD with it; arguments alone replace CMD.
    let args = if entrypoint.is_some() { Some(spec.args.clone()) } else { some(&spec.args) };
    let (startup, liveness) = health::probes(spec.healthcheck.as_ref(), image)?;
    Ok(Container {
        name: CONTAINER.to_owned(),
        image: spec.image.clone(),
        // A digest that is there is not asked for again; docker would ask for a tag each time, and go on if it gets no answer.
        pull: PullPolicy::IfNotPresent,
        pull_credentials: security::credentials(spec)?,
        entrypoint,
        args,
        cwd: text(&spec.dir),
        env: spec.env.iter().map(|line| env(line, values)).collect::<Result<_, _>>()?,
        mounts: Vec::new(),
        resources: Resources::default(),
        security: security::context(spec)?,
        liveness,
        readiness: None,
        startup,
        lifecycle: Lifecycle::default(),
        stop_signal: text(&spec.stop_signal),
        tty: spec.tty,
        stdin: spec.open_stdin,
        stdin_once: false,
        annotations: BTreeMap::new(),
        rlimits: limits::rlimits(&spec.ulimits)?,
        oom_score_adj: limits::oom_score_adj(spec.oom_score_adj)?,
        message_path: None,
    })
}

fn env(line: &str, values: &Values) -> Result<EnvVar, Unmappable> {
    let line = values.expand("env", line)?;
    let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(Unmappable::new("env", format!("{line:?} is not NAME=VALUE")));
    };
    Ok(EnvVar { name: name.to_owned(), value: value.to_owned(), is_secret: false })
}

/// Limits reach the container; reservations are the manager's own book-keeping.
fn resources(task: &TaskSpec, spec: &ContainerSpec) -> Result<Resources, Unmappable> {
    let requirements = task.resources.clone().unwrap_or_default();
    none(requirements.swap_bytes.is_none(), "resources.swap_bytes", "flintd does not limit swap by itself")?;
    none(requirements.memory_swappiness.is_none(), "resources.memory_swappiness", "flintd does not set it")?;
    let limits = requirements.limits.unwrap_or_default();
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Ok(Resources {
        // At least one thousandth: nothing would be no limit.
        cpu_limit: positive(limits.nano_cpus).map(|nanos| nanos.div_ceil(1_000_000)),
        memory_limit: positive(limits.memory_bytes),
        pids_limit: positive(spec.pids_limit),
        ..Resources::default()
    })
}

#[cfg(test)]
mod tests;
