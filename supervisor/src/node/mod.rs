//! The node: what the API, schedulers, the folder of manifests and metrics call.
//!
//! ```text
//!  apply, replace, remove ─> Entry (record, in the store) ─> worker of the pod ─> executor, images, network, volumes
//!  pods, changes, journal <─ Entry <─ exits (events of the shims), probes
//! ```
//!
//! A change is on the disk when its call returns. Statuses are looked at, never asked for: whoever wants to know more than
//! [`Node::pods`] waits for [`Node::changes`].

mod addresses;
mod adoption;
mod apply;
mod attach;
mod capacity;
mod cgroup;
mod config;
mod entry;
mod eviction;
mod exits;
mod following;
mod host;
mod images;
mod journal;
mod local;
mod manifests;
mod pressure;
mod probing;
mod process;
mod rollout;
mod session;
mod storage;
mod usage;

pub(crate) use addresses::with_addresses;
pub use apply::Applied;
pub use capacity::Capacity;
pub(crate) use cgroup::{path as cgroup, remove_cgroups};
pub use config::{Config, Eviction, ImageConfig, LogConfig, Reserved};
pub use entry::{Entry, View};
pub(crate) use exits::ended;
pub use following::follow_manifests;
pub use host::HostOf;
pub use journal::Journal;
pub use local::LocalApi;
pub(crate) use probing::{after_start, before_stop, watch};
pub(crate) use process::Fifos;
pub use process::{ExecRequest, Executed};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tokio::sync::{RwLock, Semaphore, watch};

use crate::desired::{Key, Source};
use crate::executor::Executor;
use crate::images::Images;
use crate::logs::Logs;
use crate::manifest::{Object, Objects};
use crate::network::Networks;
use crate::observed::{Event, Reason};
use crate::probes;
use crate::scheduler::{Refused, Standing};
use crate::store::{Store, Table};
use crate::volumes::{self, Volumes};

/// A node with its pods.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) executor: Executor,
    pub(crate) images: Images,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    capacity: Capacity,
    pressure: pressure::Pressure,
    pods: Mutex<Pods>,
    /// One change of the set of pods at a time: what is looked at before is true when it is written.
    changing: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
    journal: Journal,
    /// Steps that may be under way at a time.
    pub(crate) steps: Semaphore,
    /// Taken alone while containers of a dead shim are adopted.
    pub(crate) adopting: RwLock<()>,
    /// Ids of shims that live and did not answer a call.
    doubted: Mutex<BTreeSet<String>>,
    /// Shims whose containers are being taken over again, and how the one who does it is told to begin anew.
    taking_over: Mutex<BTreeMap<String, Arc<tokio::sync::Notify>>>,
    /// Programs that a flintd before this one had started, until their shims are taken over.
    old_execs: Mutex<Vec<process::Program>>,
    /// Containers, by their ids in the runtime, whose hook after the start is on its way.
    pub(crate) post_start_hooks: Mutex<BTreeSet<String>>,
    /// The same of the hook before the signal.
    pub(crate) pre_stop_hooks: Mutex<BTreeSet<String>>,
    logs: Arc<Logs>,
    /// What pods of the local API refer to.
    objects: tokio::sync::Mutex<Objects>,
    probes: OnceLock<probes::Scheduler>,
    /// What schedulers say of themselves, by their names.
    standings: Mutex<BTreeMap<String, Standing>>,
    started: SystemTime,
}

#[derive(Default)]
struct Pods {
    by_uid: BTreeMap<String, Arc<Entry>>,
    /// Of a rolling update and of one that leaves there are several.
    by_key: BTreeMap<Key, Vec<Arc<Entry>>>,
    order: u64,
}

impl Pods {
    fn insert(&mut self, entry: &Arc<Entry>) {
        self.by_uid.insert(entry.uid(), entry.clone());
        self.by_key.entry(entry.key()).or_default().push(entry.clone());
    }

    fn remove(&mut self, uid: &str) {
        let Some(entry) = self.by_uid.remove(uid) else { return };
        let key = entry.key();
        if let Some(named) = self.by_key.get_mut(&key) {
            named.retain(|other| !Arc::ptr_eq(other, &entry));
            if named.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }
}

/// Nothing panics under these locks.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Node({} pods)", locked(&self.pods).by_uid.len())
    }
}

impl Node {
    /// Opens the node: reads what was written down, takes over what runs, and goes on.
    ///
    /// # Errors
    ///
    /// A store that cannot be opened, folders that cannot be made, a socket for events that cannot be bound.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        for folder in [&config.root, &config.run] {
            make_private(folder)?;
        }
        let (store, damage) = Store::open(&config.store())?;
        // Never closed as long as flintd lives: redb looks at the checksums of all pages of a file that was left open, and
        // trusts one that was closed, damaged or not.
        std::mem::forget(store.clone());
        let images = Images::open(&config.images, config.seccomp_profiles())?;
        let volumes = Volumes::open(volumes::Config { data: config.root.clone(), run: config.run.clone() })?;
        let networks = Networks::open(&config.network, &config.run.join("network"))?;
        let executor = Executor::new(&config, store.clone())?;
        let capacity = Capacity::measure(&config).context("measure what the host has")?;
        let pressure = pressure::Pressure::open(&config, images.store().root(), &capacity)?;
        let loaded = store.load::<Object>(Table::Objects)?;
        for sentence in &loaded.damaged {
            tracing::error!("{sentence}");
        }
        let objects = loaded.records.into_iter().map(|(_, object)| object).collect();
        let node = Arc::new(Self {
            steps: Semaphore::new(config.parallel.max(1)),
            config,
            store,
            executor,
            images,
            networks,
            volumes,
            capacity,
            pressure,
            pods: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            changes: watch::channel(0).0,
            journal: Journal::default(),
            adopting: RwLock::default(),
            doubted: Mutex::default(),
            taking_over: Mutex::default(),
            old_execs: Mutex::default(),
            post_start_hooks: Mutex::default(),
            pre_stop_hooks: Mutex::default(),
            logs: Arc::new(Logs::new().context("watch folders of logs (inotify)")?),
            objects: tokio::sync::Mutex::new(objects),
            probes: OnceLock::new(),
            standings: Mutex::default(),
            started: SystemTime::now(),
        });
        if let Some(sentence) = damage {
            node.tell(None, None, true, Reason { word: "DamagedStore".to_owned(), sentence });
        }
        node.probes.get_or_init(|| probing::begin(&node));
        node.adopt().await?;
        tokio::spawn(eviction::keep(node.clone()));
        tokio::spawn(images::keep(node.clone()));
        Ok(node)
    }

    /// All pods, also those on their way out, in the order in which they came.
    #[must_use]
    pub fn pods(&self) -> Vec<View> {
        let mut all: Vec<(u64, View)> = self.entries().iter().map(|entry| (entry.order(), entry.view())).collect();
        all.sort_by_key(|(order, _)| *order);
        all.into_iter().map(|(_, view)| view).collect()
    }

    /// A pod by its name; of several the one that is not on its way out.
    #[must_use]
    pub fn pod(&self, key: &Key) -> Option<View> {
        self.find(key).map(|entry| entry.view())
    }

    /// Changes when any pod or status has.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What happened lately.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What the host has for pods.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Readers of logs.
    #[must_use]
    pub fn logs(&self) -> Arc<Logs> {
        self.logs.clone()
    }

    /// When this flintd was started.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The images of the node.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Where the log of a container's last attempt is (CRI's format); older parts lie beside, with a suffix.
    ///
    /// # Errors
    ///
    /// There is no such pod or container, or nothing of it was started yet.
    pub fn log_file(&self, key: &Key, container: &str) -> Result<PathBuf, Refused> {
        let entry = self.find(key).ok_or_else(|| Refused(format!("there is no pod {key}")))?;
        entry.read(|record| match record.containers.get(container) {
            Some(there) if there.attempt > 0 => {
                Ok(self.config.logs(&record.pod.uid, container).join(format!("{}.log", there.attempt)))
            }
            Some(_) => Err(Refused(format!("the container {container} of {key} was not started yet"))),
            None if record.pod.all_containers().any(|wanted| wanted.name == container) => {
                Err(Refused(format!("the container {container} of {key} was not started yet")))
            }
            None => Err(Refused(format!("{key} has no container {container}"))),
        })
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        locked(&self.pods).by_uid.values().cloned().collect()
    }

    pub(crate) fn entry(&self, uid: &str) -> Option<Arc<Entry>> {
        locked(&self.pods).by_uid.get(uid).cloned()
    }

    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        self.named(key).into_iter().max_by_key(|entry| (!entry.is_leaving(), entry.order()))
    }

    /// All pods of a name.
    fn named(&self, key: &Key) -> Vec<Arc<Entry>> {
        locked(&self.pods).by_key.get(key).cloned().unwrap_or_default()
    }

    fn insert(&self, entry: &Arc<Entry>) {
        locked(&self.pods).insert(entry);
        self.tell_change();
    }

    /// Nothing of a pod is left.
    pub(crate) async fn forget(&self, entry: &Entry) -> Result<()> {
        let uid = entry.uid();
        self.store.remove(Table::Pods, &uid).await?;
        locked(&self.pods).remove(&uid);
        self.tell_change();
        // Another pod of this name may have waited.
        for waiting in self.named(&entry.key()) {
            waiting.wake();
        }
        Ok(())
    }

    /// Whether another pod of the same name has to go first.
    pub(crate) fn is_behind(&self, entry: &Entry) -> bool {
        if entry.read(|record| record.rollout.is_some()) {
            return false;
        }
        let order = entry.order();
        self.named(&entry.key()).iter().any(|other| other.order() < order)
    }

    pub(crate) fn tell_change(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    /// Tells something worth telling.
    pub(crate) fn tell(&self, pod: Option<&Key>, container: Option<&str>, is_warning: bool, reason: Reason) {
        match (is_warning, pod) {
            (true, Some(pod)) => tracing::warn!(%pod, container, reason = reason.word, "{}", reason.sentence),
            (true, None) => tracing::warn!(reason = reason.word, "{}", reason.sentence),
            (false, Some(pod)) => tracing::info!(%pod, container, reason = reason.word, "{}", reason.sentence),
            (false, None) => tracing::info!(reason = reason.word, "{}", reason.sentence),
        }
        self.journal.add(Event {
            at: SystemTime::now(),
            pod: pod.cloned(),
            container: container.map(str::to_owned),
            is_warning,
            reason,
        });
    }

    /// Pods that are wanted by a source.
    #[must_use]
    pub fn pods_of(&self, is_source: impl Fn(&Source) -> bool) -> Vec<View> {
        self.pods().into_iter().filter(|view| is_source(&view.pod.source) && !view.status.terminating).collect()
    }

    /// Waits until nothing of a pod of this uid is left, or the time is over; whether it is gone.
    pub async fn gone(&self, uid: &str, patience: Duration) -> bool {
        let mut changes = self.changes();
        let gone = async {
            while self.entry(uid).is_some() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, gone).await.is_ok()
    }
}

/// Makes a folder that nobody else gets into.
pub(crate) fn make_private(folder: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make the folder {}", folder.display()))
}
