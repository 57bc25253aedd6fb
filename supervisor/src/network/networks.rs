//! Attaching and detaching: who does what, in which order, and what is kept of it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::cni::{self, Container, List, Plugins};
use super::namespace::Namespace;
use super::node::{Node, Ported, Seat, forget_nobody};
use super::pool::Pool;
use super::ports::Ports;
use super::record::{Folder, Heir, Place, Record, is_uid};
use super::settings::Settings;
use super::{Attach, Attached, Error, Result};
use crate::desired::{HostPort, Network};

/// The networks of a node's pods.
#[derive(Debug)]
pub struct Networks {
    folder: Folder,
    node: Node,
    plugins: Plugins,
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
        let closed = closed(&records);
        for record in records.values() {
            if let Place::Node { offset } = record.place
                && !pool.take(offset)
            {
                // The pod keeps what it has; nobody else is given it.
                tracing::warn!(pod = %record.key, offset, "a pod's address is outside of the node's network or another's, too");
            }
            ports.resume(&record.uid, &record.key, &record.ports, closed.get(record.uid.as_str()).copied());
        }
        let state = State { records, pool, ports, busy: HashSet::new() };
        let (node, plugins) = (Node::new(settings), Plugins::new(&settings.cni));
        Ok(Self { folder, node, plugins, state: Mutex::new(state), idle: Condvar::new() })
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
            Network::Cni(name) => self.attach_by_plugins(pod, self.plugins.list(name)?),
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
        let ported = || self.ported();
        let last = if ported().is_empty() { self.node.clear() } else { self.node.repair(&ported) };
        result.and(last).and(self.collect())
    }

    /// Lets the host ports of the pod `from` lead to the pod `uid`, which was attached after it: packets of new connections go to
    /// one or the other, and those of connections that there are go on as before. The ports as they are. A second call repairs
    /// what is missing.
    ///
    /// # Errors
    ///
    /// When a step fails; another call tries again.
    pub fn take_over(&self, uid: &str, from: &str) -> Result<Vec<HostPort>> {
        // Nobody else holds two turns.
        let (_former, _turn) = (self.turn(from), self.turn(uid));
        let Some(mut record) = self.state().records.get(uid).cloned() else { return Ok(Vec::new()) };
        let former = self.open_ports(from);
        if record.heir.as_ref().is_some_and(|heir| !heir.has_them) {
            record.heir = Some(Heir { of: from.to_owned(), has_them: true });
            self.folder.write(&record)?;
            let mut state = self.state();
            state.records.insert(uid.to_owned(), record.clone());
            state.ports.pass(from, uid);
        }
        if let Place::Node { offset } = record.place {
            let seat = Seat { offset, key: &record.key, ports: &record.ports };
            self.node.switch(former, &seat, &|| self.ported())?;
            forget_nobody(&record.ports)?;
        }
        Ok(record.ports)
    }

    /// The host ports that lead to a pod of the node's network now.
    fn open_ports(&self, uid: &str) -> Option<Ported> {
        let state = self.state();
        open(state.records.get(uid)?, &closed(&state.records))
    }

    fn attach_to_node(&self, pod: &Attach<'_>) -> Result<Attached> {
        let _turn = self.turn(pod.uid);
        let (record, is_new) = self.record(pod, None)?;
        let Place::Node { offset } = record.place else { return Ok(Attached::default()) };
        let open = self.open_ports(pod.uid).map(|(_, ports)| ports).unwrap_or_default();
        let seat = Seat { offset, key: &record.key, ports: &open };
        let made = Namespace::open(pod.netns)
            .and_then(|mut namespace| self.node.attach(&seat, &mut namespace, &|| self.ported()))
            .and_then(|()| forget_nobody(&open));
        match made {
            Ok(()) => Ok(self.node.attached(&seat)),
            Err(error) if is_new => Err(self.undone(pod.uid, error)),
            Err(error) => Err(error),
        }
    }

    fn attach_by_plugins(&self, pod: &Attach<'_>, list: List) -> Result<Attached> {
        let _turn = self.turn(pod.uid);
        let (mut record, is_new) = self.record(pod, Some(list))?;
        let Place::Cni { list, result } = &mut record.place else { return Ok(Attached::default()) };
        let container = Container { uid: pod.uid, key: pod.key, netns: pod.netns, ports: &record.ports };
        let mut namespace = match Namespace::open(pod.netns) {
            Ok(namespace) => namespace,
            Err(error) if is_new => return Err(self.undone(pod.uid, error)),
            Err(error) => return Err(error),
        };
        if !result.is_null() && namespace.has(cni::DEVICE)? {
            // What CHECK says is told and no more: portmap of 1.1.1 fails it for every pod without IPv6, and to make a network
            // anew would cut the connections of a pod that works.
            if let Err(error) = self.plugins.check(list, &container, result) {
                tracing::warn!(pod = %pod.key, %error, "a plugin says that the pod's network is not as it was made");
            }
            return Ok(cni::attached(result, &record.ports));
        }
        if !is_new {
            // A call before this one did not come to its end, or the pod has another namespace, or lost its device.
            self.plugins.delete(list, &container, result)?;
        }
        let made = namespace.loopback_up().and_then(|()| self.plugins.add(list, &container));
        *result = match made {
            Ok(result) => result,
            Err(error) => return Err(self.undone(pod.uid, error)),
        };
        let attached = cni::attached(result, &record.ports);
        if let Err(error) = self.folder.write(&record) {
            return Err(self.undone(pod.uid, error));
        }
        self.state().records.insert(pod.uid.to_owned(), record);
        Ok(attached)
    }

    /// The record of a pod, and whether it is new. One that says something else than what is asked for goes first.
    fn record(&self, pod: &Attach<'_>, list: Option<List>) -> Result<(Record, bool)> {
        let known = self.state().records.get(pod.uid).cloned();
        if let Some(record) = known {
            let same = match (&record.place, pod.network) {
                (Place::Node { .. }, Network::Node) => true,
                (Place::Cni { list: has, .. }, Network::Cni(name)) => has.is(name),
                _ => false,
            };
            if same && asks_for(pod.ports, &record.ports) {
                return Ok((record, false));
            }
            self.remove(pod.uid)?;
        }
        self.claim(pod, list).map(|record| (record, true))
    }

    /// An error of a first attempt, after which nothing is left; or what is left, too.
    fn undone(&self, uid: &str, error: Error) -> Error {
        match self.remove(uid) {
            Ok(()) => error,
            Err(other) => Error::system(format!("{error}; and afterwards"), std::io::Error::other(other.to_string())),
        }
    }

    /// Chooses address and ports, and writes them down.
    fn claim(&self, pod: &Attach<'_>, list: Option<List>) -> Result<Record> {
        let record = {
            let mut state = self.state();
            let ports = state.ports.claim(pod.uid, pod.key, pod.ports, pod.after)?;
            let place = match list {
                Some(list) => Ok(Place::Cni { list, result: serde_json::Value::Null }),
                None => state.pool.give().map(|offset| Place::Node { offset }),
            };
            let place = match place {
                Ok(place) => place,
                Err(error) => {
                    state.ports.free(pod.uid);
                    return Err(error);
                }
            };
            let heir = pod.after.map(|of| Heir { of: of.to_owned(), has_them: false });
            let mut record = Record::new(pod.uid, pod.key, pod.netns, ports, place);
            record.heir = heir;
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
        match &record.place {
            Place::Node { offset } => {
                // Those that another pod has by now are left to it.
                let open = self.open_ports(uid).map(|(_, ports)| ports).unwrap_or_default();
                self.node.detach(&Seat { offset: *offset, key: &record.key, ports: &open })?;
                self.node.forget_pod(*offset, &record.ports);
            }
            Place::Cni { list, result } => {
                let Record { uid, key, netns, ports, .. } = &record;
                self.plugins.delete(list, &Container { uid, key, netns, ports }, result)?;
            }
        }
        self.folder.remove(uid)?;
        self.state().forget(uid);
        Ok(())
    }

    fn ported(&self) -> Vec<Ported> {
        let state = self.state();
        let closed = closed(&state.records);
        state.records.values().filter_map(|record| open(record, &closed)).collect()
    }

    /// Lets plugins of CNI remove what belongs to no pod that is known.
    fn collect(&self) -> Result<()> {
        let (mut lists, mut uids): (Vec<List>, Vec<String>) = (Vec::new(), Vec::new());
        for record in self.state().records.values() {
            if let Place::Cni { list, .. } = &record.place {
                uids.push(record.uid.clone());
                if !lists.contains(list) {
                    lists.push(list.clone());
                }
            }
        }
        lists.iter().try_for_each(|list| self.plugins.collect(list, &uids))
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

/// Pods to which none of their host ports lead, each with the one because of which: it has them still, or has them by now.
fn closed(records: &HashMap<String, Record>) -> HashMap<&str, &str> {
    let heirs = records.values().filter_map(|record| Some((record.uid.as_str(), record.heir.as_ref()?)));
    heirs.map(|(uid, heir)| if heir.has_them { (heir.of.as_str(), uid) } else { (uid, heir.of.as_str()) }).collect()
}

/// A pod of the node's network with the host ports that lead to it now.
fn open(record: &Record, closed: &HashMap<&str, &str>) -> Option<Ported> {
    let Place::Node { offset } = record.place else { return None };
    let is_closed = closed.contains_key(record.uid.as_str());
    Some((offset, if is_closed { Vec::new() } else { record.ports.clone() }))
}

/// Whether ports that a record has are what is asked for: those that the node chose may be any.
fn asks_for(asked: &[HostPort], has: &[HostPort]) -> bool {
    let same = |(asked, has): (&HostPort, &HostPort)| {
        *asked == HostPort { host: asked.host, ..has.clone() } && [0, has.host].contains(&asked.host)
    };
    asked.len() == has.len() && asked.iter().zip(has).all(same)
}
