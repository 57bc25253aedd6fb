//! Attaching and detaching: who does what, in which order, and what is kept of it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::namespace::Namespace;
use super::node::{Node, Ported, Seat};
use super::pool::Pool;
use super::ports::Ports;
use super::record::{Folder, Place, Record, is_uid};
use super::settings::Settings;
use super::{Attach, Attached, Error, Result};
use crate::desired::{HostPort, Network};

/// The networks of a node's pods.
#[derive(Debug)]
pub struct Networks {
    folder: Folder,
    node: Node,
    state: Mutex<State>,
    /// Told when a uid is no longer busy.
    idle: Condvar,
}

/// What is given to whom. The lock is held for looking and choosing only, never while devices are made.
#[derive(Debug)]
struct State {
    records: HashMap<String, Record>,
    pool: Pool,
    ports: Ports,
    /// Pods that a call is at work for: calls for one pod wait for each other, those for others do not.
    busy: HashSet<String>,
}

/// A call's right to work for a pod.
struct Turn<'a> {
    networks: &'a Networks,
    uid: &'a str,
}

impl Networks {
    /// Opens the folder of records, and holds the host ports that they tell of. Nothing else is made on the host before a
    /// pod needs it.
    ///
    /// # Errors
    ///
    /// When the settings cannot be used, or the folder not be read.
    pub fn open(settings: &Settings, folder: &Path) -> Result<Self> {
        settings.check()?;
        let (folder, records) = Folder::open(folder)?;
        let mut pool = Pool::new(settings.ipv4.prefix);
        let mut ports = Ports::default();
        for record in records.values() {
            let Place::Node { offset } = &record.place;
            if !pool.take(*offset) {
                // The pod keeps what it has; nobody else is given it.
                tracing::warn!(pod = %record.key, offset, "a pod's address is outside of the node's network or another's, too");
            }
            ports.resume(&record.uid, &record.key, &record.ports);
        }
        let state = State { records, pool, ports, busy: HashSet::new() };
        Ok(Self { folder, node: Node::new(settings), state: Mutex::new(state), idle: Condvar::new() })
    }

    /// Gives a pod its network. A second call for the same pod repairs what is missing and changes nothing else, so it is
    /// safe after a crash and while the pod runs.
    ///
    /// # Errors
    ///
    /// When the pod cannot have what it asks for, or a step fails; then nothing is left of a first attempt.
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
            Network::Node => self.attach_to_node(pod),
            Network::Cni(_) => Err(Error::Settings("CNI is not there yet".to_owned())),
        }
    }

    /// Takes a pod's network away; also when its namespace is gone, or there never was one.
    ///
    /// # Errors
    ///
    /// When a step fails; the record is kept then, and another call tries again.
    pub fn detach(&self, uid: &str, netns: &Path) -> Result<()> {
        let _ = netns;
        let _turn = self.turn(uid);
        self.remove(uid)
    }

    /// Takes the networks of all pods away that are not in `uids`, and devices that no record tells of: what a crash has left.
    /// Pods in `uids` are not touched, but their host ports are made anew if somebody removed the table. Without any pod left,
    /// what they shared is removed, too.
    ///
    /// # Errors
    ///
    /// The first step that failed; all others are tried.
    pub fn retain(&self, uids: &HashSet<String>) -> Result<()> {
        let gone: Vec<String> = self.state().records.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        let mut result = Ok(());
        for uid in gone {
            let _turn = self.turn(&uid);
            result = result.and(self.remove(&uid));
        }
        let is_known = |wanted: u32| self.ported().iter().any(|(offset, _)| *offset == wanted);
        result = result.and(self.node.sweep(&is_known));
        let last =
            if self.state().records.is_empty() { self.node.clear() } else { self.node.repair(&|| self.ported()) };
        result.and(last)
    }

    fn attach_to_node(&self, pod: &Attach<'_>) -> Result<Attached> {
        let _turn = self.turn(pod.uid);
        let known = self.state().records.get(pod.uid).cloned();
        let (record, is_new) = match known {
            Some(record) if asks_for(pod.ports, &record.ports) => (record, false),
            Some(_) => {
                self.remove(pod.uid)?;
                (self.claim(pod)?, true)
            }
            None => (self.claim(pod)?, true),
        };
        let Place::Node { offset } = record.place;
        let seat = Seat { offset, key: &record.key, ports: &record.ports };
        let made = Namespace::open(pod.netns)
            .and_then(|mut namespace| self.node.attach(&seat, &mut namespace, &|| self.ported()));
        match made {
            Ok(()) => Ok(self.node.attached(&seat)),
            Err(error) if is_new => Err(match self.remove(pod.uid) {
                Ok(()) => error,
                Err(other) => {
                    Error::system(format!("{error}; and afterwards"), std::io::Error::other(other.to_string()))
                }
            }),
            Err(error) => Err(error),
        }
    }

    /// Chooses address and ports, and writes them down.
    fn claim(&self, pod: &Attach<'_>) -> Result<Record> {
        let record = {
            let mut state = self.state();
            let ports = state.ports.claim(pod.uid, pod.key, pod.ports)?;
            let offset = match state.pool.give() {
                Ok(offset) => offset,
                Err(error) => {
                    state.ports.free(pod.uid);
                    return Err(error);
                }
            };
            let record = Record::new(pod.uid, pod.key, pod.netns, ports, Place::Node { offset });
            state.records.insert(pod.uid.to_owned(), record.clone());
            record
        };
        if let Err(error) = self.folder.write(&record) {
            self.state().forget(pod.uid);
            return Err(error);
        }
        Ok(record)
    }

    /// Removes devices, then the record, then gives address and ports back.
    fn remove(&self, uid: &str) -> Result<()> {
        let Some(record) = self.state().records.get(uid).cloned() else { return Ok(()) };
        let Place::Node { offset } = record.place;
        self.node.detach(&Seat { offset, key: &record.key, ports: &record.ports })?;
        self.folder.remove(uid)?;
        self.state().forget(uid);
        Ok(())
    }

    fn ported(&self) -> Vec<Ported> {
        let of = |record: &Record| {
            let Place::Node { offset } = record.place;
            (offset, record.ports.clone())
        };
        self.state().records.values().map(of).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn<'a>(&'a self, uid: &'a str) -> Turn<'a> {
        let mut state = self.state();
        while state.busy.contains(uid) {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy.insert(uid.to_owned());
        Turn { networks: self, uid }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.networks.state().busy.remove(self.uid);
        self.networks.idle.notify_all();
    }
}

impl State {
    fn forget(&mut self, uid: &str) {
        if let Some(Record { place: Place::Node { offset }, .. }) = self.records.remove(uid) {
            self.pool.free(offset);
        }
        self.ports.free(uid);
    }
}

/// Whether ports that a record has are what is asked for: those that the node chose may be any.
fn asks_for(asked: &[HostPort], has: &[HostPort]) -> bool {
    let same = |(asked, has): (&HostPort, &HostPort)| {
        *asked == HostPort { host: asked.host, ..has.clone() } && [0, has.host].contains(&asked.host)
    };
    asked.len() == has.len() && asked.iter().zip(has).all(same)
}
