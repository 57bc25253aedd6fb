//! The swarm's managers: where they are, and which of them is asked next.
//!
//! The list comes with each message of a session and is kept in `managers.json`, so that a restart finds a manager even when the one
//! that it joined at is gone. One that fails is asked less often, never never: it may be the only one left.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::identity::files;
use super::wire::node::WeightedPeer;

const FILE: &str = "managers.json";
const MOST: u32 = 64;

/// A number from 0 to 1 (exclusive) that nobody can foresee; not for keys.
#[must_use]
pub(super) fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(bits as u32) / (f64::from(u32::MAX) + 1.0)
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    managers: Vec<String>,
}

/// Addresses, `HOST:PORT`, and how well each did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers {
    weights: BTreeMap<String, u32>,
}

impl Managers {
    /// These, all alike.
    pub(super) fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self { weights: addresses.into_iter().map(|address| (address, MOST)).collect() }
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or there is none.
    pub(super) fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let content = files::read(&path)?
            .with_context(|| format!("{} is missing: leave the swarm, and join it again", path.display()))?;
        let kept: Kept = serde_json::from_slice(&content).with_context(|| format!("read {}", path.display()))?;
        Ok(Self::new(kept.managers))
    }

    /// Writes the list.
    ///
    /// # Errors
    ///
    /// Those of the filesystem.
    pub(super) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let kept = Kept { version: 1, managers: self.weights.keys().cloned().collect() };
        files::write(&folder.join(FILE), &serde_json::to_vec(&kept)?)
    }

    /// Forgets it.
    ///
    /// # Errors
    ///
    /// Those of the filesystem.
    pub(super) fn remove(folder: &Path) -> anyhow::Result<()> {
        files::remove(&folder.join(FILE))
    }

    /// Takes the list that a manager sent; whether it is another one. An empty one is no list.
    pub(super) fn replace(&mut self, peers: &[WeightedPeer]) -> bool {
        let addresses = peers.iter().filter_map(|peer| peer.peer.as_ref()).map(|peer| peer.addr.clone());
        let mut weights: BTreeMap<String, u32> =
            addresses.filter(|address| !address.is_empty()).map(|address| (address, MOST)).collect();
        if weights.is_empty() || weights.keys().eq(self.weights.keys()) {
            return false;
        }
        for (address, weight) in &mut weights {
            *weight = self.weights.get(address).copied().unwrap_or(*weight);
        }
        self.weights = weights;
        true
    }

    /// The one to ask next. `random` is from 0 to 1.
    #[must_use]
    pub(super) fn pick(&self, random: f64) -> Option<String> {
        let total: u32 = self.weights.values().sum();
        let mut at = (random * f64::from(total)) as u32;
        for (address, weight) in &self.weights {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return Some(address.clone()),
            }
        }
        self.weights.keys().next_back().cloned()
    }

    /// One has answered, or has not.
    pub(super) fn observe(&mut self, address: &str, is_good: bool) {
        if let Some(weight) = self.weights.get_mut(address) {
            *weight = if is_good { MOST } else { (*weight / 8).max(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::swarm::wire::node::Peer;

    fn peers(addresses: &[&str]) -> Vec<WeightedPeer> {
        let peer = |addr: &&str| Peer { node_id: String::new(), addr: (*addr).to_owned() };
        addresses.iter().map(|addr| WeightedPeer { peer: Some(peer(addr)), weight: 1 }).collect()
    }

    #[test]
    fn one_that_fails_is_asked_less_often_and_comes_back() {
        let mut managers = Managers::new(["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(managers.pick(0.49).unwrap(), "a:1");
        assert_eq!(managers.pick(0.51).unwrap(), "b:1");
        managers.observe("a:1", false);
        managers.observe("a:1", false);
        managers.observe("a:1", false);
        assert_eq!(managers.pick(0.05).unwrap(), "b:1");
        assert_eq!(managers.pick(0.0).unwrap(), "a:1", "but not never");
        managers.observe("a:1", true);
        assert_eq!(managers.pick(0.49).unwrap(), "a:1");
        assert!((0..100).all(|_| (0.0..1.0).contains(&random())));
    }

    #[test]
    fn the_list_is_replaced_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut managers = Managers::new(["a:1".to_owned()]);
        assert!(!managers.replace(&peers(&["a:1"])));
        assert!(!managers.replace(&[]), "no managers are no list");
        managers.observe("a:1", false);
        assert!(managers.replace(&peers(&["c:1", "a:1"])));
        assert_eq!(managers.pick(0.2).unwrap(), "c:1", "a is still the one that failed");
        managers.save(folder.path()).unwrap();
        assert_eq!(Managers::load(folder.path()).unwrap(), Managers::new(["a:1".to_owned(), "c:1".to_owned()]));
    }
}
