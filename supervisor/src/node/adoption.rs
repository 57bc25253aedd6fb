//! Coming back: after flintd's own end, after the host's, after a shim's.
//!
//! ```text
//!  records ─> another boot? all is made anew ─> listen for events ─> of each shim: sandboxes, containers as they are
//!          ─> what nobody knows goes ─> the workers begin
//! ```
//!
//! What a shim says of a container is the truth; the record tells what it is about.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry as Place;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use tokio::sync::mpsc;

use super::exits::{message, parse_id, saw_exit};
use super::{Entry, Node};
use crate::executor::{ContainerState, Found, Strangers};
use crate::observed::Reason;
use crate::pod::{begin_post_start, blocking, container_of, remove_own, sandbox_of, signal_again};
use crate::store::{ContainerPhase, ContainerRecord, PodRecord, Sandbox, ShimRecord, Table};

/// How long the next try to take over a shim's containers waits.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

impl Node {
    /// Reads what was written down, takes over what runs, and has a worker for each pod.
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<()> {
        let entries = self.read_records().await?;
        // Who is taken over is probed at once, and its hook run, by new programs.
        *super::locked(&self.old_execs) = self.find_old_execs();
        let (listener, events) = self.executor.listen().await?;
        let node = self.clone();
        tokio::spawn(async move {
            super::exits::take(node, events).await;
            drop(listener);
        });
        let losses = self.executor.losses();
        self.take_over_all(&entries).await?;
        self.remove_strangers().await;
        for entry in entries {
            tokio::spawn(crate::pod::work(self.clone(), entry));
        }
        if let Some(losses) = losses {
            tokio::spawn(self.clone().outlive(losses));
        }
        Ok(())
    }

    async fn read_records(self: &Arc<Self>) -> Result<Vec<Arc<Entry>>> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot's id")?;
        let boot = boot.trim().to_owned();
        let before = self.store.load::<String>(Table::Node)?.records.into_iter().find(|(key, _)| key == "boot");
        let is_another_boot = before.as_ref().is_some_and(|(_, before)| *before != boot);
        let loaded = self.store.load::<PodRecord>(Table::Pods)?;
        for sentence in loaded.damaged {
            self.tell(None, None, true, Reason { word: "DamagedRecord".to_owned(), sentence });
        }
        let mut entries = Vec::new();
        let mut writes = Vec::new();
        for (uid, mut record) in loaded.records {
            if is_another_boot {
                record.forget_the_world(SystemTime::now());
                writes.push(self.store.put(Table::Pods, &uid, &record));
            }
            if let Some(shim) = &record.sandbox.shim {
                self.executor.keep(&uid, shim);
            }
            let mut pods = super::locked(&self.pods);
            pods.order = pods.order.max(record.order);
            let entry = Entry::new(record);
            pods.insert(&entry);
            entries.push(entry);
        }
        if is_another_boot {
            for (id, _) in self.store.load::<ShimRecord>(Table::Shims)?.records {
                writes.push(self.store.remove(Table::Shims, &id));
            }
            let sentence = format!("the host was started anew: {} pods are made anew", entries.len());
            self.tell(None, None, false, Reason { word: "Rebooted".to_owned(), sentence });
        }
        writes.push(self.store.put(Table::Node, "boot", &boot));
        for written in writes {
            written.await?;
        }
        Ok(entries)
    }

    /// Of all shims that were written down, or are there.
    async fn take_over_all(self: &Arc<Self>, entries: &[Arc<Entry>]) -> Result<()> {
        let known = self.store.load::<ShimRecord>(Table::Shims)?.records.into_iter().map(|(id, _)| id);
        let mut shims: BTreeSet<String> = known.collect();
        // Of a store that was damaged nothing is known.
        shims.extend(self.executor.left());
        shims.extend(entries.iter().filter_map(|entry| entry.read(|record| record.sandbox.shim.clone())));
        let mut taking = tokio::task::JoinSet::new();
        for shim in shims {
            let node = self.clone();
            taking.spawn(async move {
                let mut known = BTreeSet::new();
                let taken = node.take_over(&shim, &mut known).await;
                (shim, known, taken)
            });
        }
        while let Some(taken) = taking.join_next().await {
            let (shim, known, taken) = taken?;
            if let Err(error) = taken {
                // Its containers run on. It is tried again beside the rest.
                tracing::error!(shim, "take over its containers: {error:#}");
                let node = self.clone();
                tokio::spawn(async move { node.take_over_again(shim, known).await });
            }
        }
        Ok(())
    }

    /// Whenever a shim dies, its containers are adopted by the next one of its id.
    async fn outlive(self: Arc<Self>, mut losses: mpsc::UnboundedReceiver<String>) {
        while let Some(shim) = losses.recv().await {
            let sentence = format!("the shim {shim} has died; another one adopts its containers");
            self.tell(None, None, true, Reason { word: "ShimLost".to_owned(), sentence });
            let node = self.clone();
            tokio::spawn(async move { node.take_over_again(shim, BTreeSet::new()).await });
        }
    }

    /// A shim that lives did not answer a call in its time, so nobody knows what came of it: what it has is looked at as soon as it
    /// answers again. Of a dead one that is done already.
    pub(crate) fn look_into(self: &Arc<Self>, shim: &str) {
        if self.executor.is_dead(shim) || !super::locked(&self.doubted).insert(shim.to_owned()) {
            return;
        }
        let (node, shim) = (self.clone(), shim.to_owned());
        tokio::spawn(async move {
            // Nobody waits for it meanwhile.
            while !node.executor.is_dead(&shim) && !node.executor.answers(&shim).await {
                tokio::time::sleep(PAUSES.1).await;
            }
            if !node.executor.is_dead(&shim) {
                node.clone().take_over_again(shim.clone(), BTreeSet::new()).await;
            }
            super::locked(&node.doubted).remove(&shim);
        });
    }

    /// Until it has worked. One at a time: who comes meanwhile has the first begin anew.
    async fn take_over_again(self: Arc<Self>, shim: String, mut known: BTreeSet<String>) {
        let anew = match super::locked(&self.taking_over).entry(shim.clone()) {
            Place::Occupied(there) => return there.get().notify_one(),
            Place::Vacant(place) => place.insert(Arc::default()).clone(),
        };
        let (mut pause, mut told) = (PAUSES.0, String::new());
        loop {
            let taken = {
                let _alone = self.adopting.write().await;
                // Calls that are not answered from here on are looked into by the next.
                super::locked(&self.doubted).remove(&shim);
                self.take_over(&shim, &mut known).await
            };
            let Err(error) = taken else {
                let mut taking_over = super::locked(&self.taking_over);
                // Who has come since then waits for another try.
                if anew.notified().now_or_never().is_none() {
                    taking_over.remove(&shim);
                    return;
                }
                known.clear();
                continue;
            };
            let error = format!("{error:#}");
            if error != told {
                tracing::error!(shim, "take over its containers, again and again from {pause:?} on: {error}");
                told = error;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                () = anew.notified() => {
                    known.clear();
                    pause = PAUSES.0;
                    // A shim that dies of each try is not started without end.
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Takes over what a shim has, or what one that has died had. `known`: what an earlier try of the same has found.
    async fn take_over(self: &Arc<Self>, shim: &str, known: &mut BTreeSet<String>) -> Result<()> {
        let (mut sandboxes, mut containers) = (Vec::new(), Vec::new());
        for entry in self.entries() {
            entry.read(|record| {
                if record.sandbox.shim.as_deref() != Some(shim) {
                    return;
                }
                if record.sandbox.state == Sandbox::Ready {
                    sandboxes.push(sandbox_of(self, &record.pod));
                }
                let left = record.containers.iter().filter(|(_, there)| there.is_left);
                containers.extend(left.filter_map(|(name, _)| container_of(self, record, name)));
            });
        }
        let is_nobodys = sandboxes.is_empty() && containers.is_empty() && !self.executor.has_pods(shim);
        if is_nobodys && !self.executor.listens(shim).await {
            return self.executor.end(shim).await;
        }
        let taken = self.executor.take_over(shim, sandboxes, containers).await?;
        self.end_old_execs(shim).await;
        // Programs that were to be run meanwhile wait for it.
        self.tell_change();
        for state in taken.containers {
            if !known.contains(&state.id) {
                let id = state.id.clone();
                self.found(state).await?;
                known.insert(id);
            }
        }
        self.remove_from(shim, taken.strangers).await;
        if is_nobodys {
            return self.executor.end(shim).await;
        }
        match taken.refused.into_iter().next() {
            None => Ok(()),
            Some((id, why)) => Err(anyhow::Error::from(why).context(format!("the container {id}"))),
        }
    }

    /// What nobody knows is removed from a shim: of a record or a store that was damaged.
    async fn remove_from(&self, shim: &str, strangers: Strangers) {
        for stranger in strangers.containers {
            tracing::warn!(container = stranger.id, shim, "nobody knows this container: it is removed");
            let container = crate::executor::Executor::named(&stranger.id, &stranger.bundle);
            if let Err(error) = self.executor.remove(shim, container).await {
                tracing::error!(container = stranger.id, "{error:#}");
            }
        }
        for sandbox in strangers.sandboxes.into_iter().filter(|sandbox| self.entry(&sandbox.id).is_none()) {
            tracing::warn!(pod = sandbox.id, shim, "nobody knows this sandbox: it is removed");
            let id = sandbox.id.clone();
            if let Err(error) = self.executor.remove_sandbox(shim, sandbox).await {
                tracing::error!(pod = id, "{error:#}");
            }
        }
    }

    /// Writes down how a container was found.
    async fn found(self: &Arc<Self>, state: ContainerState) -> Result<()> {
        let Some((uid, name, attempt)) = parse_id(&state.id) else { return Ok(()) };
        let Some(entry) = self.entry(uid) else { return Ok(()) };
        let pid = state.pid;
        let result = entry.change(self, |record| {
            let wanted = record.pod.all_containers().find(|container| container.name == name);
            let is_ready = wanted.is_none_or(|container| container.readiness.is_none() && container.startup.is_none());
            let there = record.containers.get_mut(name).filter(|there| there.attempt == attempt)?;
            let ran = matches!(there.phase, ContainerPhase::Running { .. });
            let exit = correct(there, &state.found, pid, || message(&self.config.messages(uid, name)));
            let runs = matches!(there.phase, ContainerPhase::Running { .. });
            if !runs {
                super::probing::forget(self, &state.id);
            } else if !ran {
                // The answer to its start was lost.
                there.set_ready(is_ready && there.stopping.is_none());
            }
            Some((exit, runs, there.stopping.is_some()))
        });
        let Some((exit, runs, stops)) = result.await? else { return Ok(()) };
        if let Some(exit) = exit {
            self.tell(Some(&entry.key()), Some(name), exit.word != "Completed", exit);
        }
        if runs && stops {
            signal_again(self, &entry, name);
        } else if runs {
            super::watch(self, &entry, name);
            begin_post_start(self, &entry, name);
        }
        Ok(())
    }

    /// Folders and networks of pods that nobody knows: of a record that was damaged, or of a removal just before its end.
    async fn remove_strangers(self: &Arc<Self>) {
        let uids: BTreeSet<String> = self.entries().iter().map(|entry| entry.uid()).collect();
        let node = self.clone();
        let removed = blocking(move || {
            // What fails must not keep the rest.
            let networks = node.networks.retain(&uids.iter().cloned().collect());
            let (released, failed) = node.volumes.retain(&uids)?;
            for uid in released {
                tracing::info!(uid, "volumes of a pod that nobody knows are released");
            }
            for error in failed {
                tracing::error!("release volumes of a pod that nobody knows: {error}");
            }
            remove_others(&node, &uids)?;
            Ok(networks?)
        });
        if let Err(error) = removed.await {
            tracing::error!("remove what is left of pods that nobody knows: {error:#}");
        }
    }
}

fn remove_others(node: &Node, known: &BTreeSet<String>) -> Result<()> {
    for (above, own) in [
        (node.config.root.join("pods"), ["bundles", "logs"].as_slice()),
        (node.config.run.join("pods"), ["sandbox", "hosts", "resolv.conf", "hostname"].as_slice()),
    ] {
        let entries = std::fs::read_dir(&above).with_context(|| format!("read {}", above.display()))?;
        for entry in entries {
            let folder = entry?.path();
            if folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| known.contains(name)) {
                continue;
            }
            for bundle in std::fs::read_dir(folder.join("bundles")).into_iter().flatten().flatten() {
                node.images.remove_bundle(&bundle.path())?;
            }
            remove_own(&folder, own)?;
        }
    }
    Ok(())
}

/// Makes a record say how the container was found; why it has ended, if that is news.
fn correct(there: &mut ContainerRecord, found: &Found, pid: u32, message: impl FnOnce() -> String) -> Option<Reason> {
    match *found {
        Found::Absent => match there.phase {
            ContainerPhase::Creating | ContainerPhase::Created => there.phase = ContainerPhase::Absent,
            ContainerPhase::Running { .. } => {
                return saw_exit(there, None, SystemTime::now(), message()).map(|exit| exit.reason);
            }
            ContainerPhase::Absent | ContainerPhase::Exited(_) => {}
        },
        Found::Created => {
            if matches!(there.phase, ContainerPhase::Creating | ContainerPhase::Absent) {
                there.phase = ContainerPhase::Created;
            }
            there.pid = pid;
        }
        Found::Running => {
            if matches!(there.phase, ContainerPhase::Creating | ContainerPhase::Created) {
                // When exactly is known to nobody any more.
                there.phase = ContainerPhase::Running { started: SystemTime::now() };
            }
            there.pid = pid;
            // SIGKILL was perhaps sent to a shim that had died.
            if let Some(stopping) = &mut there.stopping {
                stopping.killed = false;
            }
        }
        Found::Stopped { status, at } => return saw_exit(there, status, at, message()).map(|exit| exit.reason),
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::correct;
    use crate::executor::Found;
    use crate::store::{ContainerPhase, ContainerRecord};

    fn after(phase: ContainerPhase, found: &Found) -> ContainerPhase {
        let mut there = ContainerRecord { phase, ..ContainerRecord::default() };
        correct(&mut there, found, 7, String::new);
        there.phase
    }

    #[test]
    fn what_was_found_counts() {
        let running = || ContainerPhase::Running { started: SystemTime::UNIX_EPOCH };
        let stopped = Found::Stopped { status: Some(3), at: SystemTime::UNIX_EPOCH };
        assert_eq!(after(ContainerPhase::Creating, &Found::Absent), ContainerPhase::Absent);
        assert_eq!(after(ContainerPhase::Creating, &Found::Created), ContainerPhase::Created);
        assert!(matches!(after(ContainerPhase::Creating, &Found::Running), ContainerPhase::Running { .. }));
        assert_eq!(after(running(), &Found::Running), running(), "since when it runs is kept");
        let ContainerPhase::Exited(exit) = after(running(), &stopped) else { panic!("it has ended") };
        assert_eq!(exit.status, Some(3));
        let ContainerPhase::Exited(exit) = after(running(), &Found::Absent) else { panic!("it has ended") };
        assert_eq!(exit.status, None, "nobody saw it");
        let ended = after(running(), &stopped);
        assert_eq!(
            after(ended.clone(), &Found::Stopped { status: None, at: SystemTime::now() }),
            ended,
            "the first word counts"
        );
    }
}
