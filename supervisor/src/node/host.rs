//! The node as a scheduler sees it: its own pods alone.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::Node;
use crate::desired::{Key, Pod, Source};
use crate::observed::PodStatus;
use crate::scheduler::{HealthCheck, Host, LogLine, LogRequest, NodeDescription, NotHere, Refused, Standing};

/// The node to one source.
#[derive(Debug, Clone)]
pub struct HostOf {
    node: Arc<Node>,
    source: Source,
}

impl Node {
    /// The node to the scheduler of this name.
    #[must_use]
    pub fn host_of(self: &Arc<Self>, scheduler: &str) -> HostOf {
        HostOf { node: self.clone(), source: Source::Scheduler(scheduler.to_owned()) }
    }

    /// What the node is.
    #[must_use]
    pub fn describe(&self) -> NodeDescription {
        let uname = rustix::system::uname();
        NodeDescription {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            milli_cpus: self.capacity().milli_cpus,
            memory: self.capacity().memory,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.config().labels.clone(),
        }
    }
}

#[async_trait]
impl Host for HostOf {
    fn describe(&self) -> NodeDescription {
        self.node.describe()
    }

    async fn set(&self, pod: Pod) -> Result<(), Refused> {
        self.node.apply(Pod { source: self.source.clone(), ..pod }).await.map(drop)
    }

    async fn remove(&self, key: &Key) {
        // Another's pod is none of this scheduler's; a store that cannot be written is told there.
        if let Err(refused) = self.node.remove(&self.source, key, None).await {
            tracing::warn!("remove {key}: {refused}");
        }
    }

    fn pods(&self) -> Vec<Pod> {
        let own = self.node.pods_of(|source| *source == self.source);
        own.into_iter().map(|view| view.pod.as_ref().clone()).collect()
    }

    fn statuses(&self) -> Vec<PodStatus> {
        let own = self.node.pods().into_iter().filter(|view| view.pod.source == self.source);
        own.map(|view| view.status.as_ref().clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.node.changes()
    }

    async fn health_check(&self, image: &str) -> Result<Option<HealthCheck>, NotHere> {
        self.node.images().health_check(image).await
    }

    fn tell(&self, standing: Option<Standing>) {
        let Source::Scheduler(name) = &self.source else { return };
        let mut all = super::locked(&self.node.standings);
        match standing {
            Some(standing) => drop(all.insert(name.clone(), standing)),
            None => drop(all.remove(name)),
        }
    }

    async fn logs(&self, key: &Key, container: &str, request: LogRequest) -> mpsc::Receiver<LogLine> {
        let own = self.node.pod(key).is_some_and(|view| view.pod.source == self.source);
        if own { self.node.read_logs(key, container, &request).await } else { mpsc::channel(1).1 }
    }
}

impl Node {
    /// A container's lines, of all its attempts when they are followed; the channel closes at their end. One that is followed and
    /// was never started is waited for, as long as its pod is there.
    pub async fn read_logs(
        self: &Arc<Self>,
        key: &Key,
        container: &str,
        request: &LogRequest,
    ) -> mpsc::Receiver<LogLine> {
        let nothing = || mpsc::channel(1).1;
        let Some(view) = self.pod(key) else { return nothing() };
        let folder = self.config().logs(&view.pod.uid, container);
        if request.follow {
            there(&folder, self.changes(), || self.entry(&view.pod.uid).is_none()).await;
        }
        let (node, uid) = (self.clone(), view.pod.uid.clone());
        let over = async move {
            let mut changes = node.changes();
            while node.entry(&uid).is_some() && changes.changed().await.is_ok() {}
        };
        // Nothing was written yet: a container that was never started has no folder.
        self.logs.read(&folder, request, over).unwrap_or_else(|_| nothing())
    }
}

/// Waits until a folder is there, or nobody is who would make it.
async fn there(folder: &Path, mut changes: watch::Receiver<u64>, is_gone: impl Fn() -> bool + Send) {
    while !folder.is_dir() && !is_gone() && changes.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::FutureExt as _;
    use tokio::sync::watch;

    use super::there;

    #[tokio::test]
    async fn a_log_that_is_followed_is_waited_for_until_its_pod_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("main");
        let (changes, is_gone) = (watch::channel(0).0, AtomicBool::new(false));
        let mut waiting = Box::pin(there(&folder, changes.subscribe(), || is_gone.load(Ordering::Relaxed)));
        changes.send_replace(1);
        assert_eq!(waiting.as_mut().now_or_never(), None, "something else has changed");
        is_gone.store(true, Ordering::Relaxed);
        changes.send_replace(2);
        waiting.await;
        let mut waiting = Box::pin(there(&folder, changes.subscribe(), || false));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        std::fs::create_dir(&folder).unwrap();
        changes.send_replace(3);
        waiting.await;
    }
}
