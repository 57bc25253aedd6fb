//! Containers and pods go.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::make::{left, sandbox_of};
use super::{blocking, failed, of, reason};
use crate::executor::{is_lost, is_missing};
use crate::node::{Entry, Node, locked};
use crate::observed::Reason;
use crate::store::{ContainerPhase, ContainerRecord, Ending, PodRecord, Retry, Sandbox, SandboxRecord, Stopping};

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

/// Begins to end a container: it gets its signal, and SIGKILL when its grace is over.
pub(super) async fn stop(node: &Arc<Node>, entry: &Arc<Entry>, name: &str, grace: Duration, why: Reason) -> Result<()> {
    node.tell(Some(&entry.key()), Some(name), false, Reason { word: "Killing".to_owned(), ..why.clone() });
    let until = SystemTime::now() + grace;
    let noted = entry.change(node, |record| {
        of(record, name).stopping = Some(Stopping { until, killed: false, reason: why });
    });
    if let Err(error) = noted.await {
        // It is begun when this can be written.
        entry.change(node, |record| of(record, name).stopping = None).await?;
        return Err(error);
    }
    if !grace.is_zero() {
        signal_again(node, entry, name);
    }
    Ok(())
}

/// Sends its signal to a container that is being stopped. Twice does no harm.
pub(crate) fn signal_again(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) {
    // This run of it: another one may have begun when the hook is done.
    let (Some(shim), Some(id)) = entry.read(|record| place(record, name)) else { return };
    let (node, entry, name) = (node.clone(), entry.clone(), name.to_owned());
    // The hook before it may take the whole grace.
    tokio::spawn(async move {
        if !locked(&node.pre_stop_hooks).insert(id.clone()) {
            // Who waits for its hook sends the signal.
            return;
        }
        crate::node::before_stop(&node, &entry, &name).await;
        locked(&node.pre_stop_hooks).remove(&id);
        let signal = signal(&node, &entry, &name).await;
        if let Err(error) = node.executor.kill(&shim, &id, "", signal).await
            && !is_missing(&error)
        {
            tracing::warn!(pod = %entry.key(), container = name, "signal {signal}: {error:#}");
        }
    });
}

/// The container's, else the image's, else SIGTERM.
async fn signal(node: &Node, entry: &Entry, name: &str) -> u32 {
    let pod = entry.view().pod;
    let Some(container) = pod.all_containers().find(|container| container.name == name) else { return SIGTERM };
    let mut signal = container.stop_signal.clone();
    if signal.is_none()
        && let Ok(reference) = container.image.parse()
        && let Ok(Some(record)) = node.images.find(&reference).await
    {
        let store = node.images.store().clone();
        let image = tokio::task::spawn_blocking(move || store.image(&record)).await;
        signal =
            image.ok().and_then(Result::ok).and_then(|image| image.config.config().as_ref()?.stop_signal().clone());
    }
    signal.as_deref().and_then(number).unwrap_or(SIGTERM)
}

/// `SIGTERM`, `TERM` or `15`.
fn number(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse::<u32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Some(offset) = full.strip_prefix("SIGRTMIN") {
        let offset: u32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return (offset <= 30).then_some(34 + offset);
    }
    full.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as u32)
}

/// The shim of a pod, and a container's id there.
fn place(record: &PodRecord, name: &str) -> (Option<String>, Option<String>) {
    (record.sandbox.shim.clone(), record.runtime_id(name))
}

/// SIGKILL. One that never ran is taken away as a whole.
pub(super) async fn kill(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let runs = entry.change(node, |record| note_kill(of(record, name)));
    match runs.await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => {
            entry.change(node, |record| unkilled(record, name)).await?;
            return Err(error);
        }
    }
    let (Some(shim), Some(id)) = entry.read(|record| place(record, name)) else { return Ok(()) };
    match node.executor.kill(&shim, &id, "", SIGKILL).await {
        Ok(()) => Ok(()),
        // Its exit is told, or was.
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => {
            entry.change(node, |record| unkilled(record, name)).await?;
            failed(node, entry, name, "FailedKillPod", &error).await
        }
    }
}

/// Writes down that a container is killed; whether there is a process to be killed.
fn note_kill(there: &mut ContainerRecord) -> bool {
    match there.phase {
        ContainerPhase::Running { .. } => {}
        ContainerPhase::Creating | ContainerPhase::Created => {
            there.phase = ContainerPhase::Absent;
            return false;
        }
        // It has ended while this waited for its turn: its status is known, and stays.
        ContainerPhase::Exited(_) | ContainerPhase::Absent => return false,
    }
    match &mut there.stopping {
        Some(stopping) => stopping.killed = true,
        None => {
            there.stopping = Some(Stopping { until: SystemTime::now(), killed: true, reason: Reason::default() });
        }
    }
    true
}

/// It has to be killed again, a moment later.
fn unkilled(record: &mut PodRecord, name: &str) {
    if let Some(stopping) = &mut of(record, name).stopping {
        stopping.killed = false;
        stopping.until = SystemTime::now() + Duration::from_secs(1);
    }
}

/// Takes away what an ended container left.
pub(super) async fn delete(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let uid = entry.uid();
    let (shim, id) = entry.read(|record| place(record, name));
    if let Some(id) = id {
        let container = left(node, &uid, &id);
        let (images, bundle) = (node.images.clone(), std::path::PathBuf::from(&container.bundle));
        let result = async {
            // Without a shim the host was started anew, and the runtime's state is gone.
            if let Some(shim) = shim {
                match node.executor.remove(&shim, container).await {
                    Err(error) if !is_missing(&error) => return Err(error),
                    _ => {}
                }
            }
            blocking(move || images.remove_bundle(&bundle)).await
        };
        if let Err(error) = result.await {
            return failed(node, entry, name, "FailedRemove", &error).await;
        }
    }
    let done = entry.change(node, |record| {
        let there = of(record, name);
        there.is_left = false;
        there.stopping = None;
        there.pid = 0;
        there.retry = Retry::default();
    });
    done.await?;
    prune_logs(node, entry, name);
    Ok(())
}

/// The logs of the last attempt and of the one before it stay.
fn prune_logs(node: &Node, entry: &Entry, name: &str) {
    let (uid, attempt) =
        entry.read(|record| (record.pod.uid.clone(), record.containers.get(name).map_or(0, |there| there.attempt)));
    let Ok(files) = std::fs::read_dir(node.config.logs(&uid, name)) else { return };
    for file in files.flatten() {
        let of_attempt = file.file_name().to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
        if of_attempt.is_some_and(|of_attempt| of_attempt + 1 < attempt) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Forgets a container that the pod has no more.
pub(super) async fn drop_container(node: &Arc<Node>, entry: &Arc<Entry>, name: &str) -> Result<()> {
    let logs = node.config.logs(&entry.uid(), name);
    let _ = std::fs::remove_dir_all(logs);
    entry.change(node, |record| drop(record.containers.remove(name))).await
}

/// Takes the sandbox, the network and the volumes away.
pub(super) async fn tear_down(node: &Arc<Node>, entry: &Arc<Entry>) -> Result<()> {
    let pod = entry.view().pod;
    let shim = entry.change(node, |record| {
        record.sandbox.state = Sandbox::Making;
        record.sandbox.shim.clone()
    });
    let shim = shim.await?;
    let result = async {
        let (holder, wanted) = (node.clone(), pod.clone());
        blocking(move || Ok(holder.networks.detach(&wanted.uid, &holder.executor.network(&wanted.uid))?)).await?;
        if let Some(shim) = shim {
            node.executor.remove_sandbox(&shim, sandbox_of(node, &pod)).await?;
        }
        let (holder, wanted) = (node.clone(), pod.clone());
        blocking(move || {
            holder.volumes.release(&wanted.uid)?;
            remove_own(&holder.config.pod_run(&wanted.uid), &["sandbox", "hosts", "resolv.conf", "hostname"])
        })
        .await
    };
    if let Err(error) = result.await {
        let why = reason("FailedKillPod", &error);
        node.tell(Some(&pod.key), None, true, why.clone());
        return entry.change(node, |record| record.sandbox.retry.failed(why, is_lost(&error))).await;
    }
    let done = entry.change(node, |record| {
        let is_made_anew = record.removal.is_none()
            && record.ending.is_none()
            && record.sandbox.spec.as_ref().is_some_and(|spec| *spec != record.pod.sandbox_hash());
        // When it was started is part of what is told of a pod that has ended.
        record.sandbox = SandboxRecord { started: record.sandbox.started, ..SandboxRecord::default() };
        for container in record.containers.values_mut().filter(|_| is_made_anew) {
            container.phase = ContainerPhase::Absent;
        }
    });
    done.await?;
    node.executor.release(&pod.uid).await
}

/// Removes what is flintd's own in a folder of a pod, and the folder if that was all. Volumes are never removed so: something of
/// somebody else may be mounted there.
pub(crate) fn remove_own(folder: &Path, names: &[&str]) -> Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound};
    for path in names.iter().map(|name| folder.join(name)) {
        let removed = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() == NotADirectory => std::fs::remove_file(&path),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir(folder) {
        Err(error) if !matches!(error.kind(), NotFound | DirectoryNotEmpty) => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The pod's time is over.
pub(super) async fn expire(node: &Arc<Node>, entry: &Arc<Entry>) -> Result<()> {
    let why = Reason {
        word: "DeadlineExceeded".to_owned(),
        sentence: "the pod was active on the node longer than its active deadline".to_owned(),
    };
    node.tell(Some(&entry.key()), None, true, why.clone());
    entry.change(node, |record| record.ending = Some(Ending { at: SystemTime::now(), reason: why, grace: None })).await
}

/// Nothing of the pod runs or is mounted any more: its folder and its record go.
pub(super) async fn forget(node: &Arc<Node>, entry: &Arc<Entry>) -> Result<()> {
    let uid = entry.uid();
    let holder = node.clone();
    let gone = uid.clone();
    blocking(move || {
        // Of a pod that failed before its sandbox was there.
        holder.volumes.release(&gone)?;
        remove_own(&holder.config.pod_folder(&gone), &["bundles", "logs", "messages"])
    })
    .await?;
    // A sandbox that was never made has a shim perhaps.
    node.executor.release(&uid).await?;
    node.forget(entry).await?;
    crate::node::remove_cgroups(node).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::note_kill;
    use crate::observed::{Exit, Reason};
    use crate::store::{ContainerPhase, ContainerRecord};

    #[test]
    fn a_container_that_has_ended_before_it_is_killed_keeps_its_status() {
        let of = |phase| ContainerRecord { phase, ..ContainerRecord::default() };
        let exit = Exit {
            status: Some(3),
            oom: false,
            started: None,
            finished: SystemTime::UNIX_EPOCH,
            reason: Reason::default(),
            message: String::new(),
        };
        let mut ended = of(ContainerPhase::Exited(exit.clone()));
        assert!(!note_kill(&mut ended));
        assert_eq!((ended.phase, ended.stopping), (ContainerPhase::Exited(exit), None));
        for phase in [ContainerPhase::Creating, ContainerPhase::Created] {
            let mut unstarted = of(phase);
            assert!(!note_kill(&mut unstarted));
            assert_eq!(unstarted.phase, ContainerPhase::Absent);
        }
        let mut running = of(ContainerPhase::Running { started: SystemTime::UNIX_EPOCH });
        assert!(note_kill(&mut running));
        assert!(running.stopping.unwrap().killed);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, signal) in [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34)] {
            assert_eq!(super::number(name), Some(signal), "{name}");
        }
        for name in ["", "0", "65", "SIGNOTHING", "SIGRTMIN+31"] {
            assert_eq!(super::number(name), None, "{name}");
        }
    }
}
