//! Images and containers come.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use flint_shim_protocol::{Container as ShimContainer, Network as ShimNetwork, Sandbox as ShimSandbox};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{blocking, failed, of};
use crate::desired::{Container, Network, Pids, Pod};
use crate::executor::{Executor, is_lost};
use crate::images;
use crate::node::{Entry, Node, locked};
use crate::observed::{Exit, Reason};
use crate::store::{ContainerPhase, ContainerRecord, PodRecord, Retry};
use crate::volumes::Bind;

/// Bytes of the tmpfs that a pod's containers share at /dev/shm; docker's.
const SHM: u64 = 64 << 20;

/// So long the beginning of a line may wait for more before it is in the log of a container that somebody may type to. Who types
/// waits for it; a shorter one would make an entry of the log of each byte that a program writes alone.
const PROMPT: Duration = Duration::from_millis(5);

/// A pod's sandbox in the shim's words; the same at each call, so that a shim can take it over.
pub(crate) fn sandbox_of(node: &Node, pod: &Pod) -> ShimSandbox {
    let is_host = pod.network == Network::Host;
    ShimSandbox {
        id: pod.uid.clone(),
        folder: node.config.pod_run(&pod.uid).join("sandbox").display().to_string(),
        // With the host's network, the host's name is shown, too.
        hostname: if is_host { String::new() } else { pod.hostname.clone() },
        network: if is_host { ShimNetwork::Host } else { ShimNetwork::Own } as i32,
        network_path: if is_host { String::new() } else { node.executor.network(&pod.uid).display().to_string() },
        share_pids: pod.pids == Pids::Pod,
        host_ipc: pod.host_ipc,
        sysctls: pod.sysctls.clone(),
        shm_bytes: if pod.host_ipc { 0 } else { SHM },
        cgroup: String::new(),
    }
}

/// A container in the shim's words; None: it was never made.
pub(crate) fn container_of(node: &Node, record: &PodRecord, name: &str) -> Option<ShimContainer> {
    let id = record.runtime_id(name)?;
    let attempt = record.containers.get(name)?.attempt;
    let wanted = record.pod.all_containers().find(|container| container.name == name);
    let terminal = wanted.is_some_and(|container| container.tty);
    let log = node.config.logs(&record.pod.uid, name).join(format!("{attempt}.log"));
    let limits = &node.config.logs;
    let mut log = format!("cri-log://{}?max-size={}&max-files={}", log.display(), limits.max_size, limits.max_files);
    let has_input = wanted.is_some_and(|container| container.stdin);
    if terminal || has_input {
        let _ = write!(log, "&delay={}", PROMPT.as_millis());
    }
    let stdin = if has_input { input_of(node, &record.pod.uid, &id).display().to_string() } else { String::new() };
    Some(ShimContainer {
        bundle: bundle(node, &record.pod.uid, &id).display().to_string(),
        id,
        sandbox: record.pod.uid.clone(),
        stdin,
        stderr: if terminal { String::new() } else { log.clone() },
        stdout: log,
        terminal,
        rootfs: Vec::new(),
    })
}

/// The fifo that is a container's input, if it keeps one open. It goes with the bundle.
pub(crate) fn input_of(node: &Node, uid: &str, id: &str) -> std::path::PathBuf {
    bundle(node, uid, id).join("stdin.fifo")
}

pub(super) fn bundle(node: &Node, uid: &str, id: &str) -> std::path::PathBuf {
    node.config.pod_folder(uid).join("bundles").join(id)
}

fn wanted(pod: &Pod, name: &str) -> Option<Container> {
    pod.all_containers().find(|container| container.name == name).cloned()
}

/// Sees to it that a container's image is here. It is left alone when something changes: the pull goes on by itself, and is
/// joined again if it is still wanted.
pub(super) async fn pull(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let pod = entry.view().pod;
    let Some(container) = wanted(&pod, name) else { return Ok(()) };
    let ensured = node.images.ensure(&container.image, container.pull, container.pull_credentials.as_deref());
    let pulled = tokio::select! {
        pulled = ensured => pulled,
        () = entry.changed() => return Ok(()),
    };
    match pulled {
        Ok(image) => {
            let done = entry.change(node, |record| {
                let there = of(record, name);
                there.pulled_for = there.attempt + 1;
                there.image = Some(image.manifest.to_string());
                there.retry = Retry::default();
            });
            done.await
        }
        Err(why) => {
            node.tell(Some(&pod.key), Some(name), true, why.clone());
            entry.change(node, |record| of(record, name).retry.failed(why, false)).await
        }
    }
}

/// Makes a container and starts it.
pub(super) async fn create(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let pod = entry.view().pod;
    let Some(container) = wanted(&pod, name) else { return Ok(()) };
    let noted = entry.change(node, |record| {
        let generation = record.generation;
        let there = of(record, name);
        there.attempt += 1;
        if let ContainerPhase::Exited(exit) = std::mem::take(&mut there.phase) {
            there.restarts += 1;
            there.last_exit = Some(exit);
        }
        there.phase = ContainerPhase::Creating;
        there.is_left = true;
        there.spec = Some(container.spec_hash());
        there.resources = Some(container.resources.clone());
        there.generation = generation;
        there.pid = 0;
        there.stopping = None;
        there.started = container.startup.is_none();
        there.set_ready(false);
        there.hook_due = container.lifecycle.post_start.is_some();
        there.oom = false;
    });
    if let Err(error) = noted.await {
        // It is not there: it is to be made when this can be written.
        entry.change(node, |record| of(record, name).phase = ContainerPhase::Absent).await?;
        return Err(error);
    }
    let (shim, description) = entry.read(|record| (record.sandbox.shim.clone(), container_of(node, record, name)));
    let (Some(shim), Some(description)) = (shim, description) else { return Ok(()) };
    if let Err(error) = furnish(node, &pod, &container, &description).await {
        entry.change(node, |record| of(record, name).phase = ContainerPhase::Absent).await?;
        return failed(node, entry, name, "CreateContainerConfigError", &error).await;
    }
    let result = node.executor.run(&shim, description).await;
    started(node, entry, &container, result).await
}

/// The bundle, and the folder of the logs.
async fn furnish(node: &Arc<Node>, pod: &Arc<Pod>, container: &Container, description: &ShimContainer) -> Result<()> {
    let name: flint_bundle::Reference = container.image.parse()?;
    let image = node.images.find(&name).await.map_err(|why| anyhow!(why.sentence))?;
    let image = image.with_context(|| format!("the image {name} is not here any more"))?;
    let (node, pod, container, id) = (node.clone(), pod.clone(), container.clone(), description.id.clone());
    let (folder, logs) = (std::path::PathBuf::from(&description.bundle), node.config.logs(&pod.uid, &container.name));
    blocking(move || {
        crate::node::make_private(&logs)?;
        if let Some(above) = folder.parent() {
            crate::node::make_private(above)?;
        }
        let mut parts = files_of(&node, &pod);
        parts.extend(message_of(&node, &pod, &container)?);
        parts.extend(node.volumes.mounts(&pod, &container)?);
        let container = crate::node::with_addresses(&node, &pod.uid, container);
        node.images.make_bundle(&image, &folder, &pod, &container, &crate::node::cgroup(&node, &id), &parts)?;
        if container.stdin {
            let fifo = input_of(&node, &pod.uid, &id);
            mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .with_context(|| format!("make the fifo {}", fifo.display()))?;
        }
        Ok(())
    })
    .await
}

/// What is mounted into each container of a pod. A volume at the same place counts more.
fn files_of(node: &Node, pod: &Pod) -> Vec<Bind> {
    let run = node.config.pod_run(&pod.uid);
    let mut names = vec!["hosts", "resolv.conf"];
    if pod.network != Network::Host {
        names.push("hostname");
    }
    let bind = |name: &str| Bind {
        source: run.join(name),
        destination: format!("/etc/{name}"),
        options: ["rbind", "rprivate", "rw"].map(str::to_owned).to_vec(),
    };
    names.into_iter().map(bind).collect()
}

/// A new file for what a container has to say at its end, in which it may write whoever it is. On disk: what a container writes
/// there without end must not be taken from the host's memory.
fn message_of(node: &Node, pod: &Pod, container: &Container) -> Result<Option<Bind>> {
    let Some(destination) = container.message_path.clone() else { return Ok(None) };
    let folder = node.config.messages(&pod.uid, &container.name);
    crate::node::make_private(&folder)?;
    let source = folder.join("message");
    let made = || {
        std::fs::remove_file(&source).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        std::fs::File::create_new(&source)?.set_permissions(std::fs::Permissions::from_mode(0o666))
    };
    made().with_context(|| format!("make {}", source.display()))?;
    let options = ["rbind", "rprivate", "rw", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    Ok(Some(Bind { source, destination, options }))
}

/// Starts a container that was made, and whose maker died before he started it.
pub(super) async fn start(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let pod = entry.view().pod;
    let Some(container) = wanted(&pod, name) else { return Ok(()) };
    let (shim, id) = entry.read(|record| (record.sandbox.shim.clone(), record.runtime_id(name)));
    let (Some(shim), Some(id)) = (shim, id) else { return Ok(()) };
    let result = node.executor.start(&shim, &id).await;
    started(node, entry, &container, result).await
}

/// Writes down what came of a start.
async fn started(node: &Arc<Node>, entry: &Arc<Entry>, container: &Container, result: Result<u32>) -> Result<()> {
    let name = container.name.as_str();
    let key = entry.key();
    let pid = match result {
        Ok(pid) => pid,
        // What became of it is found out when the next shim adopts, or this one answers again.
        Err(error) if is_lost(&error) => {
            tracing::warn!(pod = %key, container = name, "start: the shim is lost: {error:#}");
            if let Some(shim) = entry.read(|record| record.sandbox.shim.clone()) {
                node.look_into(&shim);
            }
            return Ok(());
        }
        Err(error) => {
            let why = Reason { word: "StartError".to_owned(), sentence: format!("{error:#}") };
            node.tell(Some(&key), Some(name), true, why.clone());
            let exit = Exit {
                status: Some(128),
                oom: false,
                started: None,
                finished: SystemTime::now(),
                reason: why,
                message: String::new(),
            };
            return entry.change(node, |record| crate::node::ended(of(record, name), exit)).await;
        }
    };
    let is_ready = container.readiness.is_none() && container.startup.is_none();
    let done = entry.change(node, |record| {
        let there = of(record, name);
        there.pid = pid;
        there.retry = Retry::default();
        // One that ended at once was told already.
        if matches!(there.phase, ContainerPhase::Creating | ContainerPhase::Created) {
            there.phase = ContainerPhase::Running { started: SystemTime::now() };
            there.set_ready(is_ready);
        }
    });
    let written = done.await;
    let why = Reason { word: "Started".to_owned(), sentence: format!("started as process {pid}") };
    node.tell(Some(&key), Some(name), false, why);
    // It runs, whether that could be written or not.
    crate::node::watch(node, entry, name);
    begin_post_start(node, entry, name);
    written
}

/// Runs the hook after the start, if it is due and not on its way; again, if flintd died in it.
pub(crate) fn begin_post_start(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) {
    let Some(id) = hook_due(entry, name) else { return };
    if !locked(&node.post_start_hooks).insert(id.clone()) {
        return;
    }
    let (node, entry, name) = (node.clone(), entry.clone(), name.to_owned());
    tokio::spawn(async move {
        // One that was on its way a moment ago is due no more.
        if hook_due(&entry, &name).as_ref() == Some(&id) {
            run_post_start(&node, &entry, &name).await;
        }
        locked(&node.post_start_hooks).remove(&id);
    });
}

/// The id in the runtime of a container that runs and whose hook has not.
fn hook_due(entry: &Entry, name: &str) -> Option<String> {
    entry.read(|record| {
        let there = record.containers.get(name)?;
        let is_due = there.hook_due && matches!(there.phase, ContainerPhase::Running { .. });
        is_due.then(|| record.runtime_id(name)).flatten()
    })
}

/// A hook after the start that fails kills the container; its restart policy decides.
async fn run_post_start(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) {
    let attempt = entry.read(|record| record.containers.get(name).map(|there| there.attempt));
    let Err(sentence) = crate::node::after_start(node, entry, name).await else {
        let done = entry.change(node, |record| {
            let there = of(record, name);
            there.hook_due &= Some(there.attempt) != attempt;
        });
        if let Err(error) = done.await {
            tracing::error!(pod = %entry.key(), container = name, "write down that its hook has run: {error:#}");
        }
        return;
    };
    let why = Reason { word: "FailedPostStartHook".to_owned(), sentence };
    node.tell(Some(&entry.key()), Some(name), true, why.clone());
    // One that has ended meanwhile, or is told to, is what failed the hook.
    let runs = |there: &ContainerRecord| {
        Some(there.attempt) == attempt
            && there.stopping.is_none()
            && matches!(there.phase, ContainerPhase::Running { .. })
    };
    while entry.read(|record| record.containers.get(name).is_some_and(runs)) {
        let grace = entry.read(|record| record.pod.grace);
        match super::end::stop(node, entry, name, grace, why.clone()).await {
            Ok(()) => return,
            Err(error) => tracing::error!(pod = %entry.key(), container = name, "{error:#}"),
        }
        // Nobody else decides that it has to end.
        tokio::time::sleep(super::STORE_PAUSE).await;
    }
}

/// Gives a running container its new limits.
pub(super) async fn update(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let pod = entry.view().pod;
    let Some(container) = wanted(&pod, name) else { return Ok(()) };
    let (shim, id) = entry.read(|record| (record.sandbox.shim.clone(), record.runtime_id(name)));
    let (Some(shim), Some(id)) = (shim, id) else { return Ok(()) };
    let resources = images::limits(&container);
    match node.executor.update(&shim, &id, resources.to_string().into_bytes()).await {
        Ok(()) => {
            let done = entry.change(node, |record| {
                let there = of(record, name);
                there.resources = Some(container.resources.clone());
                there.retry = Retry::default();
            });
            done.await
        }
        Err(error) => failed(node, entry, name, "FailedUpdate", &error).await,
    }
}

/// What of a container that is left is known by its id.
pub(super) fn left(node: &Node, uid: &str, id: &str) -> ShimContainer {
    Executor::named(id, &bundle(node, uid, id))
}
