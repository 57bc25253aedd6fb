//! The tasks of this node: what is assigned, the pods that they are, and what is reported of them.
//!
//! ```text
//!  assignments ─┐
//!               ├─> state::next ─> record on disk ─> order to the host ─> report
//!  pod statuses ┘
//! ```
//!
//! It is a task of its own that lives longer than any session: a lost manager stops no work, and what happened meanwhile is told to
//! the next. Nothing is reported that is not on disk, and no pod is made before its task's record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::assignments::{Changes, Payloads};
use super::entry::{Entry, Work};
use super::mapping::SWARM;
use super::reports::Reports;
use super::roster::RosterSender;
use super::store::{Record, Store};
use super::wire::dispatcher::{AssignmentsMessage, Extent};
use super::wire::node::NodeDescription;
use super::wire::task::Task;
use crate::desired::{Goal, Pod, Source};
use crate::observed::PodStatus;
use crate::scheduler::{HealthCheck, Host, Refused};

/// So many pods are handed over at the same time.
const TOGETHER: usize = 64;

/// Statuses of a full node are looked at this often at most.
const PAUSE: Duration = Duration::from_millis(50);

/// When the node could not do something, as to write down that something has to stop, it is asked again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What the session asks of the worker.
#[derive(Debug)]
pub(super) enum Command {
    /// A message that follows on the ones before.
    Assign(Extent, AssignmentsMessage, oneshot::Sender<()>),
    /// The node is no member any more: everything goes.
    RemoveAll(oneshot::Sender<()>),
}

/// See above.
pub(super) struct Worker {
    host: Arc<dyn Host>,
    node: NodeDescription,
    store: Store,
    reports: Reports,
    roster: RosterSender,
    payloads: Payloads,
    entries: BTreeMap<String, Entry>,
    /// Whether a manager has said since the start what is assigned: before, secrets are missing.
    is_assigned: bool,
    /// Whether the node could not do what it was asked to, and is asked again.
    is_behind: bool,
}

impl Worker {
    /// A worker with the tasks of before.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(super) fn new(
        host: Arc<dyn Host>,
        node: NodeDescription,
        store: Store,
        reports: Reports,
        roster: RosterSender,
    ) -> anyhow::Result<Self> {
        let mut goals: BTreeMap<String, Goal> = host.pods().into_iter().map(|pod| (pod.uid, pod.goal)).collect();
        let mut entries = BTreeMap::new();
        for record in store.records()? {
            let task = record.task.unwrap_or_default();
            let status = record.status.unwrap_or_default();
            let mut entry = Entry::new(task, status);
            entry.goal = goals.remove(&entry.uid);
            entry.is_inherited = entry.goal.is_some();
            reports.put(&entry.task.id, entry.status.clone());
            entries.insert(entry.task.id.clone(), entry);
        }
        let worker = Self {
            host,
            node,
            store,
            reports,
            roster,
            payloads: Payloads::default(),
            entries,
            is_assigned: false,
            is_behind: false,
        };
        worker.list();
        Ok(worker)
    }

    /// Works until there is nobody left to ask for anything.
    ///
    /// # Errors
    ///
    /// When tasks cannot be written down: nothing may be done or reported then.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        let mut statuses: watch::Receiver<u64> = self.host.changes();
        self.step(None).await?;
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Assign(extent, message, done)) => {
                        self.assign(extent, message).await?;
                        let _ = done.send(());
                    }
                    Some(Command::RemoveAll(done)) => {
                        self.remove_all().await?;
                        let _ = done.send(());
                    }
                    None => return Ok(()),
                },
                changed = statuses.changed() => {
                    changed.context("the node's statuses come no more")?;
                    self.step(None).await?;
                    tokio::time::sleep(PAUSE).await;
                }
                () = tokio::time::sleep(AGAIN), if self.is_behind => {
                    self.is_behind = false;
                    self.step(None).await?;
                }
            }
        }
    }

    async fn assign(&mut self, extent: Extent, message: AssignmentsMessage) -> anyhow::Result<()> {
        let Changes { tasks, mut removed, is_complete } = self.payloads.apply(extent, message);
        self.is_assigned = true;
        let ids: BTreeSet<String> = tasks.iter().map(|task| task.id.clone()).collect();
        let mut uids = BTreeSet::new();
        if is_complete {
            removed.extend(self.entries.keys().filter(|id| !ids.contains(*id)).cloned());
            uids = self.host.pods().into_iter().map(|pod| pod.uid).collect();
        }
        let mut records = Vec::new();
        for task in tasks {
            let entry = self.take(task);
            uids.remove(&entry.uid);
            records.push(entry.record());
        }
        // The pods before their records: a crash between leaves a record, which the next complete message takes up again.
        self.remove(&removed).await;
        self.store.write(records, removed.into_iter().collect()).await?;
        if !uids.is_empty() {
            self.remove_strangers(&uids).await;
        }
        self.list();
        self.step(Some(&ids)).await
    }

    /// A task that is new, or is wanted otherwise.
    fn take(&mut self, task: Task) -> &mut Entry {
        let id = task.id.clone();
        // Where it is this node knows better than the manager, who was told by it.
        let entry = self.entries.entry(id).or_insert_with(|| {
            let status = task.status.clone().unwrap_or_default();
            Entry::new(task.clone(), status)
        });
        entry.task = task;
        entry
    }

    async fn remove(&mut self, ids: &BTreeSet<String>) {
        let entries: Vec<Entry> = ids.iter().filter_map(|id| self.entries.remove(id)).collect();
        for entry in &entries {
            self.reports.forget(&entry.task.id);
        }
        let host = &self.host;
        stream::iter(&entries).for_each_concurrent(TOGETHER, |entry| host.remove(&entry.key)).await;
    }

    /// Pods of a swarm that no task of it stands for.
    async fn remove_strangers(&self, uids: &BTreeSet<String>) {
        let is_stranger = |pod: &Pod| uids.contains(&pod.uid) && pod.source == Source::Scheduler(SWARM.to_owned());
        for pod in self.host.pods().into_iter().filter(is_stranger) {
            tracing::warn!(pod = %pod.key, "the swarm knows nothing of this pod: it is removed");
            self.host.remove(&pod.key).await;
        }
    }

    async fn remove_all(&mut self) -> anyhow::Result<()> {
        let ids: BTreeSet<String> = self.entries.keys().cloned().collect();
        self.remove(&ids).await;
        self.store.write(Vec::new(), ids.into_iter().collect()).await?;
        let all = self.host.pods().into_iter().map(|pod| pod.uid).collect();
        self.remove_strangers(&all).await;
        self.payloads = Payloads::default();
        self.list();
        Ok(())
    }

    fn list(&self) {
        let listed = self.entries.values().map(|entry| (entry.task.id.clone(), entry.listed()));
        self.roster.send_replace(Arc::new(listed.collect()));
    }

    /// Goes on with these tasks (None: with all), as far as they go without waiting for the host. What is refused is looked at once
    /// more at once, to be told; whatever is refused then, too, is so later.
    async fn step(&mut self, ids: Option<&BTreeSet<String>>) -> anyhow::Result<()> {
        let mut ids: BTreeSet<String> = ids.map_or_else(|| self.entries.keys().cloned().collect(), Clone::clone);
        for _ in 0..2 {
            if ids.is_empty() {
                break;
            }
            let statuses = self.statuses();
            let (mut records, mut work) = (Vec::new(), Vec::new());
            for id in &ids {
                let Some(entry) = self.entries.get_mut(id) else { continue };
                let status = statuses.get(&entry.uid);
                let is_changed = entry.look(status, self.is_assigned, SystemTime::now());
                if is_changed {
                    records.push(entry.record());
                }
                work.extend(entry.work(status.is_some()).map(|work| (id.clone(), work)));
            }
            let told: Vec<String> =
                records.iter().filter_map(|record| Some(record.task.as_ref()?.id.clone())).collect();
            self.store.write(records, Vec::new()).await?;
            for id in &told {
                self.reports.put(id, self.entries[id].status.clone());
            }
            ids = self.act(work).await;
        }
        self.is_behind |= !ids.is_empty();
        Ok(())
    }

    fn statuses(&self) -> BTreeMap<String, PodStatus> {
        let mut statuses: BTreeMap<String, PodStatus> =
            self.host.statuses().into_iter().map(|status| (status.uid.clone(), status)).collect();
        // What is set and not yet looked at is there.
        let is_missing = |entry: &&Entry| entry.goal.is_some() && !statuses.contains_key(&entry.uid);
        if self.entries.values().any(|entry| is_missing(&entry)) {
            for pod in self.host.pods() {
                let empty = || PodStatus::new(pod.key.clone(), pod.uid.clone());
                statuses.entry(pod.uid.clone()).or_insert_with(empty);
            }
        }
        statuses
    }

    /// Of each image that is here and that something is to run of, the health check that it brings along.
    async fn health_checks(&self, work: &[(String, Work)]) -> BTreeMap<String, Option<HealthCheck>> {
        let runs = work.iter().filter(|(_, work)| *work == Work::Set(Goal::Running));
        let names: BTreeSet<&str> = runs.filter_map(|(id, _)| Some(self.entries.get(id)?.image())).collect();
        let mut found = BTreeMap::new();
        for name in names {
            if let Ok(health_check) = self.host.health_check(name).await {
                found.insert(name.to_owned(), health_check);
            }
        }
        found
    }

    /// Does what has to be done; returns the tasks that the node refused, which have to be looked at again.
    async fn act(&mut self, work: Vec<(String, Work)>) -> BTreeSet<String> {
        let mut again = BTreeSet::new();
        let mut sets = Vec::new();
        let mut removals = Vec::new();
        let images = self.health_checks(&work).await;
        for (id, work) in work {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let image = images.get(entry.image());
            let work = match (work, entry.goal) {
                // Its health check may be the image's, which comes first. Each change of the pod's status leads here again.
                (Work::Set(Goal::Running), None) if image.is_none() => Work::Set(Goal::Prepared),
                (Work::Set(Goal::Running), Some(Goal::Prepared)) if image.is_none() && entry.is_making => {
                    // And its secrets come before its image.
                    if !entry.is_inherited {
                        continue;
                    }
                    Work::Set(Goal::Prepared)
                }
                (work, _) => work,
            };
            match work {
                Work::Discard => {
                    entry.is_discarded = true;
                    entry.goal = None;
                    removals.push(entry.key.clone());
                }
                Work::Set(goal) => {
                    match entry.pod(goal, &self.payloads, &self.node, &self.host, image.and_then(Option::as_ref)) {
                        Ok(pod) => {
                            entry.goal = Some(goal);
                            entry.is_inherited = false;
                            sets.push((id, pod));
                        }
                        Err(reason) => {
                            entry.refused = Some(reason);
                            again.insert(id);
                        }
                    }
                }
            }
        }
        let host = &self.host;
        let set = |(id, pod): (String, Pod)| async move { (id, host.set(pod).await) };
        let done: Vec<_> = stream::iter(sets).map(set).buffer_unordered(TOGETHER).collect().await;
        stream::iter(&removals).for_each_concurrent(TOGETHER, |key| host.remove(key)).await;
        for (id, result) in done {
            if let (Err(Refused(reason)), Some(entry)) = (result, self.entries.get_mut(&id)) {
                if entry.goal == Some(Goal::Stopped) {
                    tracing::error!(task = %entry.key.name, "it is not stopped yet: {reason}");
                    entry.goal = Some(Goal::Running);
                    self.is_behind = true;
                    continue;
                }
                entry.goal = None;
                entry.refused = Some(reason);
                again.insert(id);
            }
        }
        again
    }
}

/// All of a swarm's pods go: for a node that was taken out of it.
pub(super) async fn remove_pods(host: &Arc<dyn Host>) {
    let is_ours = |pod: &Pod| pod.source == Source::Scheduler(SWARM.to_owned());
    for pod in host.pods().into_iter().filter(is_ours) {
        host.remove(&pod.key).await;
    }
}

impl Entry {
    fn record(&self) -> Record {
        Record { task: Some(self.task.clone()), status: Some(self.status.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::wire::container::ContainerSpec;
    use super::super::wire::dispatcher::{Action, Assignment, AssignmentChange};
    use super::super::wire::task::{TaskSpec, TaskState};
    use super::*;
    use crate::observed::{ContainerState, ContainerStatus, Reason};

    fn task(desired: TaskState) -> Task {
        let container = Some(ContainerSpec { image: "web".into(), ..ContainerSpec::default() });
        let spec = Some(TaskSpec { container, ..TaskSpec::default() });
        Task { id: "a".into(), spec, desired_state: desired.into(), ..Task::default() }
    }

    fn assigned(desired: TaskState) -> AssignmentsMessage {
        let assignment = Assignment { task: Some(task(desired)), ..Assignment::default() };
        let change = AssignmentChange { assignment: Some(assignment), action: Action::Update.into() };
        AssignmentsMessage { changes: vec![change], ..AssignmentsMessage::default() }
    }

    /// A worker of a folder.
    fn worker(fake: &Arc<Fake>, folder: &std::path::Path) -> Worker {
        let (host, store): (Arc<dyn Host>, _) = (fake.clone(), Store::open(folder).unwrap());
        let roster = watch::channel(Arc::default()).0;
        Worker::new(host, NodeDescription::default(), store, Reports::default(), roster).unwrap()
    }

    fn state(worker: &Worker) -> (TaskState, &str) {
        let entry = &worker.entries["a"];
        (entry.state(), entry.status.err.as_str())
    }

    #[tokio::test]
    async fn a_prepared_pod_that_the_node_takes_no_further_is_an_end() {
        let (fake, folder) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
        let mut worker = worker(&fake, folder.path());
        worker.assign(Extent::Complete, assigned(TaskState::Running)).await.unwrap();
        assert_eq!((state(&worker).0, fake.state().pods.len()), (TaskState::Preparing, 1));
        fake.change(|fake| {
            fake.refuses = Some(Goal::Running);
            fake.pods.values_mut().for_each(|(_, status)| status.is_prepared = true);
        });
        worker.step(None).await.unwrap();
        assert_eq!(state(&worker), (TaskState::Failed, "no space left on device"));
        assert!(fake.state().pods.is_empty() && !worker.is_behind, "it is discarded");
        worker.step(None).await.unwrap();
        assert!(fake.state().pods.is_empty(), "nor is it set again");
    }

    #[tokio::test]
    async fn what_is_refused_again_is_asked_for_again_after_a_pause() {
        let (fake, folder) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
        let mut worker = worker(&fake, folder.path());
        worker.assign(Extent::Complete, assigned(TaskState::Running)).await.unwrap();
        let running = ContainerStatus {
            state: ContainerState::Running { started: SystemTime::now() },
            runtime_id: None,
            pid: 0,
            restarts: 0,
            last_exit: None,
            started: true,
            ready: true,
            image: None,
            spec: None,
        };
        // Somebody takes it away, and it runs still.
        fake.change(|fake| {
            fake.is_leaving = true;
            let status = &mut fake.pods.values_mut().next().unwrap().1;
            status.containers.insert(super::super::seen::CONTAINER.into(), running);
        });
        worker.assign(Extent::Incremental, assigned(TaskState::Shutdown)).await.unwrap();
        assert!(worker.is_behind);
        fake.change(|fake| fake.pods.clear());
        worker.step(None).await.unwrap();
        assert_eq!(state(&worker).0, TaskState::Shutdown);
    }

    #[tokio::test]
    async fn a_pod_from_before_waits_for_its_secrets_and_for_nothing_else() {
        let (fake, folder) = (Arc::new(Fake::default()), tempfile::tempdir().unwrap());
        let mut before = worker(&fake, folder.path());
        before.assign(Extent::Complete, assigned(TaskState::Running)).await.unwrap();
        drop(before);
        fake.change(|fake| {
            let reason = Reason { word: "CreatePodSandboxError".into(), sentence: "it is missing".into() };
            fake.pods.values_mut().for_each(|(_, status)| status.reason = Some(reason.clone()));
        });
        let mut worker = worker(&fake, folder.path());
        worker.step(None).await.unwrap();
        assert_eq!(state(&worker).0, TaskState::Preparing);
        // The first assignments set it again.
        worker.assign(Extent::Complete, assigned(TaskState::Running)).await.unwrap();
        assert_eq!(state(&worker).0, TaskState::Preparing);
        worker.step(None).await.unwrap();
        assert_eq!(state(&worker), (TaskState::Rejected, "it is missing"));
    }
}
