//! Attaching and detaching: who does what, in which order, and what is kept of it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::namespace::Namespace;
use super::record::{Folder, Record, is_uid};
use super::settings::Settings;
use super::{Attach, Attached, Error, Result};
use crate::desired::Network;

/// The networks of a node's pods.
#[derive(Debug)]
pub struct Networks {
    settings: Settings,
    folder: Folder,
    records: Mutex<HashMap<String, Record>>,
}

impl Networks {
    /// Opens the folder of records. Nothing is made on the host before a pod needs it.
    ///
    /// # Errors
    ///
    /// When the settings cannot be used, or the folder not be read.
    pub fn open(settings: Settings, folder: &Path) -> Result<Self> {
        settings.check()?;
        let (folder, records) = Folder::open(folder)?;
        Ok(Self { settings, folder, records: Mutex::new(records) })
    }

    /// Gives a pod its network. A second call for the same pod repairs what is missing and changes nothing else, so it is
    /// safe after a crash and while the pod runs.
    ///
    /// # Errors
    ///
    /// When the pod cannot have what it asks for, or a step fails; then nothing is left of the attempt.
    pub fn attach(&self, pod: &Attach<'_>) -> Result<Attached> {
        if !is_uid(pod.uid) {
            return Err(Error::Refused(format!("uid {:?}: 1 to 63 of a-z, 0-9 and - are needed", pod.uid)));
        }
        match pod.network {
            Network::Host => Ok(Attached { ports: pod.ports.to_vec(), ..Attached::default() }),
            Network::None => {
                if let Some(port) = pod.ports.first() {
                    return Err(Error::Refused(format!(
                        "host port {}: a pod without a network cannot be reached; leave the port out",
                        port.host
                    )));
                }
                Namespace::open(pod.netns)?.loopback_up()?;
                Ok(Attached::default())
            }
            Network::Node | Network::Cni(_) => {
                Err(Error::Settings(format!("{:?} is not there yet ({})", pod.network, self.settings.name)))
            }
        }
    }

    /// Takes a pod's network away; also when its namespace is gone, or there never was one.
    ///
    /// # Errors
    ///
    /// When a step fails; the record is kept then, and another call tries again.
    pub fn detach(&self, uid: &str, netns: &Path) -> Result<()> {
        let _ = netns;
        let record = self.records.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        if record.is_some() {
            self.folder.remove(uid)?;
        }
        Ok(())
    }

    /// Takes the networks of all pods away that are not in `uids`: what a crash has left. Pods in `uids` are not touched.
    ///
    /// # Errors
    ///
    /// The first step that failed; all others are tried.
    pub fn retain(&self, uids: &HashSet<String>) -> Result<()> {
        let gone: Vec<_> = {
            let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            records.values().filter(|record| !uids.contains(&record.uid)).cloned().collect()
        };
        gone.iter().map(|record| self.detach(&record.uid, &record.netns)).fold(Ok(()), Result::and)
    }
}
