//! The shims: what makes, holds and ends containers for flintd.
//!
//! ```text
//!  assign ─> ShimRecord in the store ─> `containerd-shim-flint-v1 start` ─> address ─> connection ─┬─> task API
//!            (before it is started)                                                              └─> flint.shim.v1.Node
//!  events.sock <── exits, want of memory <── each shim: repeated until they are in the store
//! ```
//!
//! A shim holds many pods; its id is its group. `start` answers the address of the group's shim whether it was there or not,
//! so a start that flintd's death interrupted is repeated. A connection that ends is a shim's death: it is told to whoever
//! listens, who has the containers adopted by the next shim of that id.
//!
//! It must not decide: what is to be made and ended is the reconciler's word.

mod calls;
mod events;
mod execs;
mod shim;
mod start;

pub use calls::{ContainerState, Failure, Found, Strangers, TakenOver, is_lost, is_missing};
pub use events::{Listener, Occurrence, Told};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::sync::mpsc;

use crate::node::Config;
use crate::store::{ShimRecord, Store, Table};
use shim::Shim;

/// All shims of the node.
#[derive(Debug)]
pub struct Executor {
    place: Arc<Place>,
    store: Store,
    pods_per_shim: usize,
    shims: Mutex<Shims>,
    /// Ids of shims that have died.
    lost: mpsc::UnboundedSender<String>,
    losses: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
}

/// Where the shims' things are.
#[derive(Debug)]
pub(crate) struct Place {
    program: PathBuf,
    run: PathBuf,
    namespace: String,
}

#[derive(Debug, Default)]
struct Shims {
    by_id: BTreeMap<String, Arc<Shim>>,
    /// Uids of pods by shim.
    pods: BTreeMap<String, BTreeSet<String>>,
    /// Those that are told to end: nobody else gets in.
    ending: BTreeSet<String>,
}

impl Executor {
    /// Nothing is started yet.
    ///
    /// # Errors
    ///
    /// The folders cannot be made.
    pub fn new(config: &Config, store: Store) -> Result<Self> {
        let place =
            Place { program: config.shim.clone(), run: config.run.clone(), namespace: config.namespace.clone() };
        for folder in ["shims", "s", "state", "netns"] {
            crate::node::make_private(&place.run.join(folder))?;
        }
        let (lost, losses) = mpsc::unbounded_channel();
        Ok(Self {
            place: Arc::new(place),
            store,
            pods_per_shim: config.pods_per_shim.max(1) as usize,
            shims: Mutex::default(),
            lost,
            losses: Mutex::new(Some(losses)),
        })
    }

    /// Ids of shims that have died, as they die; the first caller gets it.
    pub(crate) fn losses(&self) -> Option<mpsc::UnboundedReceiver<String>> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The shim for a pod: the one it has, else the first with a place, else a new one. It is the caller who writes it
    /// down.
    pub fn assign(&self, uid: &str) -> String {
        let mut shims = self.shims();
        if let Some((id, _)) = shims.pods.iter().find(|(_, pods)| pods.contains(uid)) {
            return id.clone();
        }
        let mut number = 0;
        loop {
            number += 1;
            let id = format!("node-{number}");
            let is_full = shims.pods.get(&id).is_some_and(|pods| pods.len() >= self.pods_per_shim);
            if !is_full && !shims.ending.contains(&id) {
                shims.pods.entry(id.clone()).or_default().insert(uid.to_owned());
                return id;
            }
        }
    }

    /// The pod has this shim: it was written down before.
    pub fn keep(&self, uid: &str, shim: &str) {
        self.shims().pods.entry(shim.to_owned()).or_default().insert(uid.to_owned());
    }

    /// The pod is gone. A shim without pods is told to end.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub async fn release(&self, uid: &str) -> Result<()> {
        let id = {
            let mut shims = self.shims();
            let Some(id) = shims.pods.iter_mut().find_map(|(id, pods)| pods.remove(uid).then(|| id.clone())) else {
                return Ok(());
            };
            if shims.pods.get(&id).is_some_and(|pods| !pods.is_empty()) {
                return Ok(());
            }
            shims.pods.remove(&id);
            shims.ending.insert(id.clone());
            id
        };
        let ended = self.end(&id).await;
        self.shims().ending.remove(&id);
        ended
    }

    /// Whether pods are in a shim, as far as is known here.
    pub(crate) fn has_pods(&self, id: &str) -> bool {
        self.shims().pods.get(id).is_some_and(|pods| !pods.is_empty())
    }

    /// Ids of shims that an earlier flintd started, as far as their folders are there.
    pub(crate) fn left(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.place.run.join("shims")).into_iter().flatten().flatten();
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Whether a shim of this id listens; none is started.
    pub(crate) async fn listens(&self, id: &str) -> bool {
        if self.shims().by_id.get(id).is_some_and(|shim| shim.is_alive()) {
            return true;
        }
        let address = std::fs::read_to_string(self.place.run.join("shims").join(id).join("address"));
        let Ok(address) = address else { return false };
        let Ok(shim) = Shim::connect(&self.place, id, &address, self.lost.clone()).await else { return false };
        self.shims().by_id.insert(id.to_owned(), shim);
        true
    }

    /// Ends a shim without pods, if it is there, and forgets it.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub(crate) async fn end(&self, id: &str) -> Result<()> {
        let known = self.shims().by_id.remove(id);
        if let Some(shim) = known {
            shim.end().await;
        } else if let Ok(address) = std::fs::read_to_string(self.place.run.join("shims").join(id).join("address")) {
            // One that an earlier flintd started: if nobody listens there, it has ended.
            if let Ok(shim) = Shim::connect(&self.place, id, &address, self.lost.clone()).await {
                shim.end().await;
            }
        }
        let _ = std::fs::remove_dir_all(self.place.run.join("shims").join(id));
        self.store.remove(Table::Shims, id).await
    }

    /// A shim that answers: the one that is there, else a new one. One that has died is nobody's until its containers are
    /// adopted ([`Executor::take_over`]): a call to the next one would hear that they are not there.
    ///
    /// # Errors
    ///
    /// It cannot be started, does not answer, or has died ([`is_lost`]).
    pub(crate) async fn shim(&self, id: &str) -> Result<Arc<Shim>> {
        let known = self.shims().by_id.get(id).cloned();
        match known {
            Some(shim) if shim.is_alive() => return Ok(shim),
            Some(_) => return Err(calls::Lost(id.to_owned()).into()),
            None => {}
        }
        let _lock = self.starting(id).await;
        let known = self.shims().by_id.get(id).filter(|shim| shim.is_alive()).cloned();
        if let Some(shim) = known {
            return Ok(shim);
        }
        let shim = self.start_shim(id).await?;
        self.shims().by_id.insert(id.to_owned(), shim.clone());
        Ok(shim)
    }

    /// Whether a shim has died, and its containers wait for the next one.
    pub(crate) fn is_dead(&self, id: &str) -> bool {
        self.shims().by_id.get(id).is_some_and(|shim| !shim.is_alive())
    }

    /// Whether a shim that is connected answers at all.
    pub(crate) async fn answers(&self, id: &str) -> bool {
        let Some(shim) = self.shims().by_id.get(id).cloned() else { return false };
        shim.answers().await
    }

    async fn start_shim(&self, id: &str) -> Result<Arc<Shim>> {
        self.store.put(Table::Shims, id, &ShimRecord { address: None }).await?;
        let address = start::start(&self.place, id).await?;
        self.store.put(Table::Shims, id, &ShimRecord { address: Some(address.clone()) }).await?;
        Shim::connect(&self.place, id, &address, self.lost.clone()).await
    }

    /// One start of a shim at a time.
    async fn starting(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        static LOCKS: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>> = Mutex::new(BTreeMap::new());
        let key = format!("{}/{id}", self.place.run.display());
        let lock = LOCKS.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        lock.lock_owned().await
    }

    fn shims(&self) -> MutexGuard<'_, Shims> {
        self.shims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pids of the shims that are connected, by id.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<String, u32> {
        self.shims().by_id.iter().map(|(id, shim)| (id.clone(), shim.pid())).collect()
    }
}

impl Place {
    /// Where shims bring their events.
    pub(crate) fn events(&self) -> PathBuf {
        self.run.join("events.sock")
    }

    /// Where a pod's network namespace is bound.
    pub(crate) fn network(&self, uid: &str) -> PathBuf {
        self.run.join("netns").join(uid)
    }
}
