//! Volumes, sandbox, network.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use super::make::sandbox_of;
use super::{blocking, reason};
use crate::desired::{Network, Pod};
use crate::executor::is_lost;
use crate::network::{Attach, Attached, files};
use crate::node::{Entry, Node, make_private};
use crate::store::{Retry, Sandbox};

/// Makes what a pod's containers share.
pub(super) async fn prepare(node: &Arc<Node>, entry: &Arc<Entry>) -> Result<()> {
    let pod = entry.view().pod;
    let shim = node.executor.assign(&pod.uid);
    let made_from = pod.sandbox_hash();
    let noted = entry.change(node, |record| {
        record.sandbox.state = Sandbox::Making;
        record.sandbox.shim = Some(shim.clone());
        record.sandbox.spec = Some(made_from);
    });
    noted.await?;
    let after = entry.read(|record| record.rollout.as_ref().map(|rollout| rollout.replaces.clone()));
    let result = make(node, &pod, &shim, after).await;
    let attached = match result {
        Ok(attached) => attached,
        Err(error) => {
            let why = reason("FailedCreatePodSandBox", &error);
            node.tell(Some(&pod.key), None, true, why.clone());
            return entry.change(node, |record| record.sandbox.retry.failed(why, is_lost(&error))).await;
        }
    };
    let network = (pod.network != Network::Host).then(|| node.executor.network(&pod.uid));
    let done = entry.change(node, |record| {
        let sandbox = &mut record.sandbox;
        sandbox.state = Sandbox::Ready;
        sandbox.retry = Retry::default();
        sandbox.started.get_or_insert_with(SystemTime::now);
        sandbox.addresses = attached.addresses;
        sandbox.ports = attached.ports;
        sandbox.network = network;
        sandbox.is_stale = record.pod.volumes != pod.volumes;
    });
    done.await
}

/// Puts changed content of files in place. Containers see all of the old or all of the new.
pub(super) async fn refresh(node: &Arc<Node>, entry: &Arc<Entry>) -> Result<()> {
    let pod = entry.view().pod;
    let (holder, wanted) = (node.clone(), pod.clone());
    let result = blocking(move || Ok(holder.volumes.refresh(&wanted)?)).await;
    if let Err(error) = result {
        let why = reason("FailedMount", &error);
        node.tell(Some(&pod.key), None, true, why.clone());
        return entry.change(node, |record| record.sandbox.retry.failed(why, false)).await;
    }
    let done = entry.change(node, |record| {
        record.sandbox.retry = Retry::default();
        // It may have changed once more meanwhile.
        record.sandbox.is_stale = record.pod.volumes != pod.volumes;
    });
    done.await
}

async fn make(node: &Arc<Node>, pod: &Arc<Pod>, shim: &str, after: Option<String>) -> Result<Attached> {
    let (holder, wanted) = (node.clone(), pod.clone());
    blocking(move || Ok(holder.volumes.prepare(&wanted)?)).await?;
    let sandbox = sandbox_of(node, pod);
    make_private(Path::new(&sandbox.folder))?;
    node.executor.make_sandbox(shim, sandbox).await?;
    let (node, pod) = (node.clone(), pod.clone());
    blocking(move || {
        let netns = node.executor.network(&pod.uid);
        let attached = node.networks.attach(&Attach {
            uid: &pod.uid,
            key: &pod.key,
            netns: &netns,
            network: &pod.network,
            ports: &pod.ports,
            hostname: &pod.hostname,
            after: after.as_deref(),
        })?;
        write_files(&node.config.pod_run(&pod.uid), &pod, &attached)?;
        Ok(attached)
    })
    .await
}

/// /etc/hosts, /etc/resolv.conf and /etc/hostname, which all containers of the pod share.
fn write_files(run: &Path, pod: &Pod, attached: &Attached) -> Result<()> {
    let is_host = pod.network == Network::Host;
    let of_host = if is_host { std::fs::read_to_string("/etc/hosts").ok() } else { None };
    let resolv_conf = files::host_resolv_conf(Path::new("/"));
    let texts = [
        ("hosts", files::hosts(&pod.hostname, &attached.addresses, &pod.host_aliases, of_host.as_deref())),
        ("resolv.conf", files::resolv_conf(&pod.dns, &resolv_conf, !is_host)),
        ("hostname", files::hostname(&pod.hostname)),
    ];
    for (name, text) in texts {
        let path = run.join(name);
        let told = || format!("write {}", path.display());
        std::fs::write(&path, text).with_context(told)?;
        // Users of the container read them.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).with_context(told)?;
    }
    Ok(())
}
