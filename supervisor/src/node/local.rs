//! The node as the local API asks it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc, watch};

use super::session::session;
use super::{ExecRequest, Node, View};
use crate::api::{
    Attach, Backend, Change, Exec, Failure, ImageView, Manifest, NodeFacts, PodUsage, PodView, PullStep, Session,
};
use crate::desired::{Key, Pod, Source};
use crate::observed::{ContainerState, Event};
use crate::scheduler::Refused;

/// The node to the local API.
#[derive(Debug, Clone)]
pub struct LocalApi(pub Arc<Node>);

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::refused(refused.0)
    }
}

impl LocalApi {
    fn present(&self, key: &Key) -> Result<View, Failure> {
        self.0.pod(key).ok_or_else(|| Failure::missing(format!("there is no pod {key}")))
    }
}

#[async_trait]
impl Backend for LocalApi {
    async fn apply(&self, manifests: Vec<Manifest>, dry_run: bool) -> Result<Vec<Change>, Failure> {
        Ok(self.0.apply_manifests(manifests, dry_run).await)
    }

    async fn remove(&self, key: &Key, grace: Option<Duration>) -> Result<(), Failure> {
        self.present(key)?;
        self.0.remove(&Source::Api, key, grace).await?;
        Ok(())
    }

    async fn stop(&self, key: &Key, grace: Option<Duration>) -> Result<(), Failure> {
        self.present(key)?;
        Ok(self.0.stop(key, grace).await?)
    }

    async fn restart(&self, key: &Key, container: Option<&str>) -> Result<(), Failure> {
        let view = self.present(key)?;
        if let Some(container) = container
            && !view.pod.all_containers().any(|wanted| wanted.name == container)
        {
            return Err(Failure::missing(format!("{key} has no container {container}")));
        }
        Ok(self.0.restart(key, container).await?)
    }

    fn pods(&self) -> Vec<PodView> {
        let mut all: Vec<PodView> = self.0.pods().iter().map(told).collect();
        all.sort_by(|one, other| one.status.key.cmp(&other.status.key));
        all
    }

    fn pod(&self, key: &Key) -> Option<PodView> {
        self.0.pod(key).map(|view| told(&view))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    fn desired(&self, key: &Key) -> Option<Pod> {
        let view = self.0.pod(key).filter(|view| !view.status.terminating)?;
        Some(view.pod.as_ref().clone())
    }

    fn log_folder(&self, key: &Key, container: &str) -> Option<PathBuf> {
        let view = self.0.pod(key)?;
        view.pod.all_containers().find(|wanted| wanted.name == container)?;
        Some(self.0.config().logs(&view.pod.uid, container))
    }

    async fn exec(&self, key: &Key, container: &str, exec: Exec) -> Result<Session, Failure> {
        let view = self.present(key)?;
        match view.status.containers.get(container).map(|status| &status.state) {
            None => return Err(Failure::missing(format!("{key} has no container {container}"))),
            Some(ContainerState::Running { .. }) => {}
            Some(_) => return Err(Failure::not_now(format!("the container {container} of {key} does not run"))),
        }
        let request = ExecRequest {
            command: exec.command,
            tty: exec.tty,
            stdin: exec.stdin,
            env: exec.env,
            cwd: exec.cwd,
            user: exec.user,
            size: exec.size,
        };
        let executed = self.0.exec(key, container, &request).await;
        Ok(session(executed.map_err(|error| Failure::refused(format!("{error:#}")))?))
    }

    async fn attach(&self, key: &Key, container: &str, attach: Attach) -> Result<Session, Failure> {
        self.0.attach(key, container, attach)
    }

    async fn usage(&self) -> Vec<PodUsage> {
        let at = SystemTime::now();
        let mut all = Vec::new();
        for (key, containers) in self.0.usage().await {
            let limits = self.0.pod(&key).map(|view| {
                let limited = view
                    .pod
                    .all_containers()
                    .filter_map(|container| Some((container.name.clone(), container.resources.memory_limit?)));
                limited.collect::<BTreeMap<_, _>>()
            });
            all.push(PodUsage { key, at, containers, memory_limits: limits.unwrap_or_default() });
        }
        all
    }

    fn events(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        self.0.journal().follow()
    }

    async fn images(&self) -> Result<Vec<ImageView>, Failure> {
        let all = self.0.images().all().await.map_err(|error| Failure::broken(format!("{error:#}")))?;
        Ok(all.into_iter().map(|(record, bytes)| self.image(record, bytes)).collect())
    }

    async fn pull(&self, name: &str, steps: mpsc::Sender<PullStep>) -> Result<ImageView, Failure> {
        let reference = name.parse().map_err(|error: flint_bundle::Error| Failure::refused(error.to_string()))?;
        let pulled = self.0.images().pull(reference, None, Arc::new(Steps(steps))).await;
        let record = pulled.map_err(|reason| Failure::broken(reason.sentence))?;
        let bytes = self.0.images().size(&record).await.map_err(|error| Failure::broken(format!("{error:#}")))?;
        Ok(self.image(record, bytes))
    }

    async fn remove_image(&self, name: &str) -> Result<(), Failure> {
        let reference: flint_bundle::Reference =
            name.parse().map_err(|error: flint_bundle::Error| Failure::refused(error.to_string()))?;
        let users = self.users(&reference.to_string());
        if let Some(user) = users.first() {
            return Err(Failure::refused(format!("{} pods are made of {name}, {user} for one", users.len())));
        }
        match self.0.images().forget(reference).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::missing(format!("there is no image {name}"))),
            Err(error) => Err(Failure::broken(format!("{error:#}"))),
        }
    }

    fn node(&self) -> NodeFacts {
        self.0.facts()
    }
}

impl LocalApi {
    /// Pods that are made of an image.
    fn users(&self, name: &str) -> Vec<Key> {
        let is_of = |pod: &Pod| {
            pod.all_containers().any(|container| {
                container.image.parse::<flint_bundle::Reference>().is_ok_and(|reference| reference.to_string() == name)
            })
        };
        self.0.pods().iter().filter(|view| is_of(&view.pod)).map(|view| view.pod.key.clone()).collect()
    }

    fn image(&self, record: flint_bundle::store::ImageRecord, bytes: u64) -> ImageView {
        ImageView { pods: self.users(&record.name), digest: record.manifest.to_string(), bytes, name: record.name }
    }
}

fn told(view: &View) -> PodView {
    let pod = &view.pod;
    PodView {
        status: view.status.as_ref().clone(),
        source: (!view.status.terminating).then(|| pod.source.clone()),
        goal: pod.goal,
        labels: pod.labels.clone(),
        images: pod.all_containers().map(|container| (container.name.clone(), container.image.clone())).collect(),
        init_containers: pod.init_containers.iter().map(|container| container.name.clone()).collect(),
        quality: pod.quality(),
        restart: pod.restart,
    }
}

impl Node {
    /// What the node is and has.
    #[must_use]
    pub fn facts(&self) -> NodeFacts {
        let uname = rustix::system::uname();
        let description = self.describe();
        let capacity = self.capacity();
        let (milli_cpus, memory) = self.asked_for();
        let mut conditions = self.pressure.conditions();
        conditions.insert("Ready".to_owned(), (true, "flintd takes pods".to_owned()));
        let standings = super::locked(&self.standings).clone();
        NodeFacts {
            hostname: description.hostname,
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: description.architecture,
            version: description.version,
            started: Some(self.started()),
            milli_cpus: (capacity.milli_cpus + self.config().reserved.milli_cpus, capacity.milli_cpus),
            memory: (capacity.memory + self.config().reserved.memory, capacity.memory),
            pods: u64::from(capacity.pods),
            requested_milli_cpus: milli_cpus,
            requested_memory: memory,
            conditions,
            available: self.pressure.available(),
            schedulers: standings.iter().map(|(name, standing)| (name.clone(), standing.sentence.clone())).collect(),
            limitations: standings.into_values().flat_map(|standing| standing.limitations).collect(),
        }
    }
}

/// Tells each step of a pull; one that is not taken at once is left out.
struct Steps(mpsc::Sender<PullStep>);

impl flint_bundle::Progress for Steps {
    fn tell(&self, event: flint_bundle::Event<'_>) {
        use flint_bundle::Event::{Image, LayerBegins, LayerComes, LayerEnds, Retry};
        let step = match event {
            Image { layers, bytes, .. } => PullStep::Image { layers, bytes },
            LayerBegins { digest, bytes } => PullStep::Begins { layer: digest.to_string(), bytes },
            LayerComes { digest, bytes } => PullStep::Bytes { layer: digest.to_string(), done: bytes },
            LayerEnds { digest } => PullStep::Ends { layer: digest.to_string() },
            Retry { reason } => PullStep::Retry { reason: reason.to_owned() },
            _ => return,
        };
        let _ = self.0.try_send(step);
    }
}
