//! What pods use of what may be short, container by container; and who writes more to the disk than it may.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::capacity::Request;
use super::eviction::may_go;
use super::{Entry, Node};
use crate::desired::{Container, Pod, Volume, VolumeSource};
use crate::observed::Usage;
use crate::pod::blocking;
use crate::pressure::{Candidate, Share, Signal, quantity};
use crate::volumes::{TooBig, disk_usage};

/// Pods that wrote more than a limit of their own lets them, with the kubelet's sentence. In its order: an emptyDir's size, the
/// pod's storage, a container's.
pub(super) async fn over_limits(node: &Arc<Node>) -> Vec<(Arc<Entry>, String)> {
    let mut over = Vec::new();
    for entry in node.entries().into_iter().filter(|entry| may_go(entry)) {
        let pod = entry.view().pod;
        if !has_limits(&pod) {
            continue;
        }
        let folders = folders(node, &entry, &pod);
        let (holder, wanted) = (node.clone(), pod.clone());
        match blocking(move || Ok(over_limit(&holder, &wanted, &folders)?)).await {
            Ok(Some(why)) => over.push((entry, why)),
            Ok(None) => {}
            Err(error) => tracing::warn!(pod = %pod.key, "count what it has on the disk: {error:#}"),
        }
    }
    over
}

fn has_limits(pod: &Pod) -> bool {
    let is_limited = |volume: &Volume| matches!(volume.source, VolumeSource::EmptyDir { size_limit: Some(_) });
    pod.volumes.iter().any(is_limited) || pod.all_containers().any(|one| one.resources.storage_limit.is_some())
}

/// What a container writes to the disk: its writable layer (of an overlay), its logs and its message.
fn folders(node: &Node, entry: &Entry, pod: &Pod) -> BTreeMap<String, [PathBuf; 3]> {
    let of = |container: &Container| {
        let id = entry.read(|record| record.runtime_id(&container.name))?;
        let layer = node.config.pod_folder(&pod.uid).join("bundles").join(id).join("upper");
        let (logs, messages) =
            (node.config.logs(&pod.uid, &container.name), node.config.messages(&pod.uid, &container.name));
        Some((container.name.clone(), [layer, logs, messages]))
    };
    pod.all_containers().filter_map(of).collect()
}

/// Counting ends soon behind `enough`.
fn used(folders: &[PathBuf; 3], enough: u64) -> crate::volumes::Result<u64> {
    folders.iter().try_fold(0_u64, |sum, folder| Ok(sum.saturating_add(disk_usage(folder, enough)?)))
}

fn over_limit(
    node: &Node,
    pod: &Pod,
    folders: &BTreeMap<String, [PathBuf; 3]>,
) -> crate::volumes::Result<Option<String>> {
    if let Some(TooBig { volume, limit, .. }) = node.volumes.too_big(pod)? {
        return Ok(Some(format!("Usage of EmptyDir volume {volume:?} exceeds the limit {:?}.", quantity(limit))));
    }
    let limits: Vec<(&str, u64)> = pod
        .containers
        .iter()
        .filter_map(|container| Some((container.name.as_str(), container.resources.storage_limit?)))
        .collect();
    if limits.is_empty() {
        return Ok(None);
    }
    let most = limits.iter().fold(0_u64, |sum, (_, limit)| sum.saturating_add(*limit));
    let enough = most.saturating_add(1);
    let (mut layers, mut sum) = (BTreeMap::new(), node.volumes.disk_usage(pod, enough)?);
    for (name, folders) in folders {
        let used = used(folders, enough)?;
        sum = sum.saturating_add(used);
        layers.insert(name.as_str(), used);
    }
    if sum > most {
        return Ok(Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}.",
            quantity(most)
        )));
    }
    let over = limits.iter().find(|(name, limit)| layers.get(name).is_some_and(|used| used > limit));
    Ok(over.map(|(name, limit)| {
        format!("Container {name} exceeded its local ephemeral storage limit {:?}.", quantity(*limit))
    }))
}

/// Pods that may be evicted, with what they use of what is short.
pub(super) async fn candidates(node: &Arc<Node>, signal: Signal) -> Vec<Candidate> {
    let mut all = Vec::new();
    for entry in node.entries().into_iter().filter(|entry| may_go(entry)) {
        let pod = entry.view().pod;
        let candidate = match signal {
            Signal::Memory | Signal::AllocatableMemory | Signal::Pids => {
                let usage = node.usage_of(&entry).await;
                Ok(running(&pod, signal, &usage))
            }
            Signal::NodeDisk | Signal::NodeInodes => on_disk(node, &entry, &pod, signal).await,
            // Nothing that a pod writes is there: images alone mend it.
            Signal::ImageDisk | Signal::ImageInodes if !node.pressure.images_are_with_data() => continue,
            Signal::ImageDisk => on_disk(node, &entry, &pod, Signal::NodeDisk).await,
            Signal::ImageInodes => on_disk(node, &entry, &pod, Signal::NodeInodes).await,
        };
        match candidate {
            Ok(candidate) => all.push(candidate),
            Err(error) => tracing::warn!(pod = %pod.key, "find out what it uses: {error:#}"),
        }
    }
    all
}

fn running(pod: &Pod, signal: Signal, usage: &BTreeMap<String, Usage>) -> Candidate {
    let amount = |usage: &Usage| if signal == Signal::Pids { usage.pids } else { usage.memory };
    let share = |container: &Container| {
        let used = amount(usage.get(&container.name)?);
        Some(Share { name: container.name.clone(), used, requested: memory_request(container) })
    };
    let shares: Vec<Share> = pod.all_containers().filter_map(share).collect();
    Candidate {
        uid: pod.uid.clone(),
        priority: pod.priority,
        used: shares.iter().map(|share| share.used).sum(),
        requested: Request::of(pod).memory,
        shares,
    }
}

/// A limit without a request is one.
fn memory_request(container: &Container) -> u64 {
    container.resources.memory_request.or(container.resources.memory_limit).unwrap_or(0)
}

async fn on_disk(node: &Arc<Node>, entry: &Entry, pod: &Arc<Pod>, signal: Signal) -> anyhow::Result<Candidate> {
    let (holder, pod, folders) = (node.clone(), pod.clone(), folders(node, entry, pod));
    blocking(move || {
        let counts_inodes = signal == Signal::NodeInodes;
        let mut shares = Vec::new();
        for container in pod.all_containers() {
            let Some(folders) = folders.get(&container.name) else { continue };
            let requested = container.resources.storage_request.or(container.resources.storage_limit).unwrap_or(0);
            shares.push(Share { name: container.name.clone(), used: used(folders, u64::MAX)?, requested });
        }
        let all = if counts_inodes {
            crate::volumes::inodes(&holder.config.pod_folder(&pod.uid))?
        } else {
            shares.iter().map(|share| share.used).sum::<u64>() + holder.volumes.disk_usage(&pod, u64::MAX)?
        };
        let requested = Request::of(&pod).storage;
        Ok(Candidate { uid: pod.uid.clone(), priority: pod.priority, used: all, requested, shares })
    })
    .await
}
