//! Changes of what is wanted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::entry::Entry;
use super::{Node, locked};
use crate::desired::{Goal, Key, Pod, Source};
use crate::observed::Reason;
use crate::scheduler::Refused;
use crate::store::{PodRecord, Removal, Rollout, Table};

/// What became of a pod that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is new.
    Created,
    /// Containers or limits of it change; the sandbox stays.
    Changed,
    /// It is made anew: what its containers share has changed.
    Replaced,
    /// It is as it was.
    Unchanged,
}

/// What is to be done, and with whom.
enum Change {
    Insert(Pod),
    Alter(Arc<Entry>, Pod, Applied),
    Replace(Arc<Entry>, Pod),
    /// A rolling update; the entry goes first, if it never served.
    Roll(Option<Arc<Entry>>, Rollout, Pod),
    /// A rolling update is taken back.
    Back(Arc<Entry>),
    Nothing,
}

impl Node {
    /// Adds a pod, or changes the one of the same key. It is in the store when this returns.
    ///
    /// A pod with an empty uid keeps that of the pod of its key while the sandbox can stay, and gets a new one otherwise. A
    /// pod with a uid of its own is the pod of that uid: another uid replaces what there is.
    ///
    /// # Errors
    ///
    /// The key is another source's; the pod does not fit; it is not a pod; the store cannot be written.
    pub async fn apply(self: &Arc<Self>, pod: Pod) -> Result<Applied, Refused> {
        let _changing = self.changing.lock().await;
        let change = self.plan(pod)?;
        let applied = change.applied();
        match change {
            Change::Insert(pod) => self.add(pod, None).await?,
            Change::Alter(entry, pod, _) => {
                let stop_by = entry.read(|record| record.stop_by).filter(|_| pod.goal == Goal::Stopped);
                self.alter(&entry, pod, stop_by).await?;
            }
            Change::Replace(entry, pod) => {
                self.add(pod, None).await?;
                self.dismiss(&entry, None).await?;
            }
            Change::Roll(unused, rollout, pod) => {
                if let Some(entry) = unused {
                    self.dismiss(&entry, None).await?;
                }
                self.add(pod, Some(rollout)).await?;
            }
            Change::Back(entry) => {
                self.dismiss(&entry, None).await?;
                let sentence = format!("taken back: the pod {} goes, and the one before stays", entry.uid());
                self.tell(Some(&entry.key()), None, false, Reason { word: "RollingUpdate".to_owned(), sentence });
            }
            Change::Nothing => {}
        }
        Ok(applied)
    }

    /// What [`Node::apply`] would do; nothing is done.
    ///
    /// # Errors
    ///
    /// As [`Node::apply`].
    pub fn dry_run(&self, pod: Pod) -> Result<Applied, Refused> {
        self.plan(pod).map(|change| change.applied())
    }

    /// Removes a pod of a source, with its containers and logs. It is in the store when this returns; the pod goes when
    /// nothing of it is left. Whether there was one.
    ///
    /// # Errors
    ///
    /// It is another source's; the store cannot be written.
    pub async fn remove(&self, source: &Source, key: &Key, grace: Option<Duration>) -> Result<bool, Refused> {
        let _changing = self.changing.lock().await;
        let Some(entry) = self.find(key) else { return Ok(false) };
        let owner = entry.read(|record| record.pod.source.clone());
        if !same(&owner, source) {
            return Err(belongs(key, &owner));
        }
        self.dismiss(&entry, grace).await?;
        // Of a rolling update there are two.
        for other in self.all_present(key) {
            self.dismiss(&other, grace).await?;
        }
        Ok(true)
    }

    /// Makes the pods of a source be just these: the others of it are removed. What became of each.
    ///
    /// # Errors
    ///
    /// The store cannot be written; of each pod, as [`Node::apply`].
    pub async fn replace(
        self: &Arc<Self>,
        is_source: impl Fn(&Source) -> bool,
        pods: Vec<Pod>,
    ) -> Result<Vec<(Key, Result<Applied, Refused>)>, Refused> {
        let wanted: Vec<Key> = pods.iter().map(|pod| pod.key.clone()).collect();
        for view in self.pods_of(is_source) {
            if !wanted.contains(&view.pod.key) {
                self.remove(&view.pod.source, &view.pod.key, None).await?;
            }
        }
        let mut all = Vec::new();
        for pod in pods {
            let key = pod.key.clone();
            all.push((key, self.apply(pod).await));
        }
        Ok(all)
    }

    /// Stops a pod's containers and keeps it, whoever wants it; `grace` in place of its own. A second word may shorten the time
    /// that the first one gave.
    ///
    /// # Errors
    ///
    /// There is no such pod; the store cannot be written.
    pub async fn stop(&self, key: &Key, grace: Option<Duration>) -> Result<(), Refused> {
        let _changing = self.changing.lock().await;
        self.present(key)?;
        let until = grace.map(|grace| SystemTime::now() + grace);
        for entry in self.all_present(key) {
            let (pod, before) = entry.read(|record| (record.pod.as_ref().clone(), record.stop_by));
            let before = before.filter(|_| pod.goal == Goal::Stopped);
            let stop_by = before.into_iter().chain(until).min();
            self.alter(&entry, Pod { goal: Goal::Stopped, ..pod }, stop_by).await?;
        }
        Ok(())
    }

    /// Stops a pod's containers, or one of them, and starts them again without a pause; a stopped pod is started.
    ///
    /// # Errors
    ///
    /// There is no such pod; the store cannot be written.
    pub async fn restart(&self, key: &Key, container: Option<&str>) -> Result<(), Refused> {
        let entry = self.present(key)?;
        if entry.read(|record| record.ending.is_some()) {
            // It was evicted perhaps, and would be again.
            self.pressure.admit(&entry.view().pod)?;
        }
        self.start_anew(&entry, container).await?;
        // Of a rolling update the other one serves: it was stopped with this one perhaps, and is else left alone.
        for other in self.all_present(key) {
            if other.read(|record| record.pod.goal == Goal::Stopped) {
                self.start_anew(&other, None).await?;
            }
        }
        Ok(())
    }

    async fn start_anew(&self, entry: &Entry, container: Option<&str>) -> Result<(), Refused> {
        let changed = entry.change(self, |record| {
            record.generation += 1;
            record.ending = None;
            record.stop_by = None;
            if record.pod.goal == Goal::Stopped {
                record.pod = Arc::new(Pod { goal: Goal::Running, ..record.pod.as_ref().clone() });
            }
            for (name, there) in &mut record.containers {
                if container.is_some_and(|container| container != name) {
                    there.generation = record.generation;
                    continue;
                }
                there.crashes = 0;
                there.retry = crate::store::Retry::default();
            }
        });
        changed.await.map_err(|error| Refused(format!("{error:#}")))
    }

    fn present(&self, key: &Key) -> Result<Arc<Entry>, Refused> {
        let entry = self.find(key).ok_or_else(|| Refused(format!("there is no pod {key}")))?;
        if entry.is_leaving() { Err(Refused(format!("the pod {key} is being removed"))) } else { Ok(entry) }
    }

    fn plan(&self, mut pod: Pod) -> Result<Change, Refused> {
        check(&pod)?;
        let there = self.find(&pod.key).filter(|entry| !entry.is_leaving());
        let Some(entry) = there else {
            self.capacity.admit(self, &pod, None)?;
            self.pressure.admit(&pod)?;
            if pod.uid.is_empty() {
                pod.uid = new_uid();
            } else if let Some(other) = self.entry(&pod.uid) {
                return Err(Refused(format!("the uid {} is still the one of {}", pod.uid, other.key())));
            }
            return Ok(Change::Insert(pod));
        };
        let old = entry.view().pod;
        if !same(&old.source, &pod.source) {
            return Err(belongs(&pod.key, &old.source));
        }
        let is_same_uid = pod.uid == old.uid;
        let given = pod.uid.clone();
        if given.is_empty() {
            pod.uid.clone_from(&old.uid);
        }
        if pod == *old {
            return Ok(Change::Nothing);
        }
        let unused = entry.read(|record| record.rollout.is_some());
        if pod.rolling.is_some() && pod.goal == Goal::Running && old.is_made_anew_for(&pod) {
            let Some((rollout, pod)) = self.plan_rollout(&entry, &pod)? else { return Ok(Change::Back(entry)) };
            self.capacity.admit(self, &pod, unused.then_some(old.uid.as_str()))?;
            self.pressure.admit(&pod)?;
            return Ok(Change::Roll(unused.then_some(entry), rollout, pod));
        }
        self.capacity.admit(self, &pod, Some(&old.uid))?;
        if is_same_uid || (given.is_empty() && pod.sandbox_hash() == old.sandbox_hash()) {
            let applied = if pod.sandbox_hash() == old.sandbox_hash() { Applied::Changed } else { Applied::Replaced };
            return Ok(Change::Alter(entry, pod, applied));
        }
        self.pressure.admit(&pod)?;
        if given.is_empty() {
            pod.uid = new_uid();
        }
        Ok(Change::Replace(entry, pod))
    }

    async fn add(self: &Arc<Self>, pod: Pod, rollout: Option<Rollout>) -> Result<(), Refused> {
        let order = {
            let mut pods = locked(&self.pods);
            pods.order += 1;
            pods.order
        };
        let record = PodRecord { rollout, ..PodRecord::new(Arc::new(pod), order, SystemTime::now()) };
        self.store.put(Table::Pods, &record.pod.uid, &record).await.map_err(|error| Refused(format!("{error:#}")))?;
        let sentence = match &record.rollout {
            None => "the pod is going to run here".to_owned(),
            Some(Rollout { replaces, .. }) => format!("the pod takes the place of {replaces} as soon as it is ready"),
        };
        let reason = Reason { word: "Accepted".to_owned(), sentence };
        self.tell(Some(&record.pod.key), None, false, reason);
        self.take_up(record);
        Ok(())
    }

    /// Has a worker for a pod.
    pub(super) fn take_up(self: &Arc<Self>, record: PodRecord) {
        let entry = Entry::new(record);
        self.insert(&entry);
        tokio::spawn(crate::pod::work(self.clone(), entry));
    }

    async fn alter(&self, entry: &Entry, pod: Pod, stop_by: Option<SystemTime>) -> Result<(), Refused> {
        let old = entry.read(|record| (record.pod.clone(), record.stop_by));
        let changed = entry.change(self, |record| {
            // What failed may go well now.
            record.sandbox.retry = crate::store::Retry::default();
            for container in record.containers.values_mut() {
                container.retry = crate::store::Retry::default();
            }
            record.sandbox.is_stale |= record.pod.volumes != pod.volumes;
            (record.pod, record.stop_by) = (Arc::new(pod), stop_by);
        });
        if let Err(error) = changed.await {
            // It is not promised, so it does not happen.
            let _ = entry.change(self, |record| (record.pod, record.stop_by) = old).await;
            return Err(Refused(format!("{error:#}")));
        }
        Ok(())
    }

    async fn dismiss(&self, entry: &Entry, grace: Option<Duration>) -> Result<(), Refused> {
        let changed = entry.change(self, |record| {
            let grace = grace.map(|grace| grace.as_secs());
            match &mut record.removal {
                // A second word may shorten the first, not lengthen it.
                Some(removal) => {
                    removal.after = None;
                    if grace.is_some_and(|grace| removal.grace.is_none_or(|before| grace < before)) {
                        removal.grace = grace;
                    }
                }
                None => record.removal = Some(Removal { since: SystemTime::now(), grace, after: None }),
            }
        });
        changed.await.map_err(|error| Refused(format!("{error:#}")))
    }
}

impl Change {
    fn applied(&self) -> Applied {
        match self {
            Self::Insert(_) => Applied::Created,
            Self::Alter(_, _, applied) => applied.clone(),
            Self::Replace(..) | Self::Roll(..) | Self::Back(_) => Applied::Replaced,
            Self::Nothing => Applied::Unchanged,
        }
    }
}

/// A pod that moved to another file of the folder is still the folder's.
fn same(one: &Source, other: &Source) -> bool {
    matches!((one, other), (Source::Manifest(_), Source::Manifest(_))) || one == other
}

fn belongs(key: &Key, owner: &Source) -> Refused {
    let owner = match owner {
        Source::Manifest(file) => format!("the manifest {}", file.display()),
        Source::Api => "the local API (flintctl)".to_owned(),
        Source::Scheduler(name) => format!("the scheduler {name}"),
    };
    Refused(format!("the pod {key} belongs to {owner}: change it there, or choose another name"))
}

/// What names of cgroups, folders and runtime ids are made of.
fn check(pod: &Pod) -> Result<(), Refused> {
    let is_name = |name: &str, more: &str| {
        !name.is_empty()
            && name.len() <= 63
            && name
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || more.contains(letter))
    };
    if !pod.uid.is_empty() && !is_name(&pod.uid, "-") {
        return Err(Refused(format!("the uid {:?} is not 1 to 63 of a-z, 0-9 and -", pod.uid)));
    }
    if pod.containers.is_empty() {
        return Err(Refused(format!("the pod {} has no containers", pod.key)));
    }
    let mut seen = std::collections::BTreeSet::new();
    for container in pod.all_containers() {
        if !is_name(&container.name, "-_") {
            return Err(Refused(format!(
                "the container's name {:?} is not 1 to 63 of a-z, 0-9, - and _",
                container.name
            )));
        }
        if !seen.insert(&container.name) {
            return Err(Refused(format!("two containers of {} are called {}", pod.key, container.name)));
        }
        for mount in &container.mounts {
            if !pod.volumes.iter().any(|volume| volume.name == mount.volume) {
                return Err(Refused(format!(
                    "{} mounts a volume {} that the pod has not",
                    container.name, mount.volume
                )));
            }
        }
    }
    Ok(())
}

pub(super) fn new_uid() -> String {
    // The kernel's own; it cannot fail where /proc is.
    let kernels = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    kernels.map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("{:x}-{}", now.as_nanos(), std::process::id())
        },
        |uid| uid.trim().to_owned(),
    )
}
