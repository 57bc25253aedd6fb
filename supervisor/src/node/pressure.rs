//! Whether the node is short of something, as it was seen last: conditions, and who is let in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{Capacity, Config, locked};
use crate::desired::{Pod, Quality};
use crate::pressure::{Amount, Condition, Gauge, Places, Reading, Short, Signal, quantity};
use crate::scheduler::Refused;

/// Where hierarchies are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// From this priority on, pods are the node's own and are not evicted: Kubernetes' system-cluster-critical.
pub(super) const CRITICAL: i32 = 2_000_000_000;

/// What the node is short of.
#[derive(Debug)]
pub(super) struct Pressure {
    config: Config,
    images: PathBuf,
    allocatable: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gauge: Gauge,
    reading: Reading,
}

/// What has changed with a look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Signals for which something has to go now.
    pub(super) short: BTreeMap<Signal, Short>,
    /// Conditions that hold now and did not, or the other way, with a sentence.
    pub(super) changed: Vec<(Condition, bool, String)>,
}

impl Pressure {
    /// Looks for the first time.
    ///
    /// # Errors
    ///
    /// The host cannot be looked at.
    pub(super) fn open(config: &Config, images: &Path, capacity: &Capacity) -> Result<Self> {
        let gauge = Gauge::new(config.eviction.hard, config.eviction.soft(), config.eviction.calm());
        let pressure = Self {
            config: config.clone(),
            images: images.to_owned(),
            allocatable: capacity.memory,
            state: Mutex::new(State { gauge, reading: Reading::default() }),
        };
        let reading = pressure.read().context("look for what is left of memory, disks and process ids")?;
        pressure.update(reading, Instant::now());
        Ok(pressure)
    }

    /// What is left now. It may wait for a file system.
    pub(super) fn read(&self) -> std::io::Result<Reading> {
        Reading::take(&Places {
            data: &self.config.root,
            images: &self.images,
            cgroups: Path::new(CGROUPS),
            pods: &self.config.namespace,
            allocatable: self.allocatable,
        })
    }

    /// Takes what is left.
    pub(super) fn update(&self, reading: Reading, now: Instant) -> Look {
        let mut state = locked(&self.state);
        let before: BTreeSet<Condition> = state.gauge.on().map(Signal::condition).collect();
        let short = state.gauge.update(&reading, now);
        state.reading = reading;
        let after: BTreeSet<Condition> = state.gauge.on().map(Signal::condition).collect();
        let changed = before.symmetric_difference(&after);
        let changed = changed.map(|condition| {
            let holds = after.contains(condition);
            (*condition, holds, sentence(&state, *condition))
        });
        Look { short, changed: changed.collect() }
    }

    /// What is left of something.
    pub(super) fn amount(&self, signal: Signal) -> Amount {
        locked(&self.state).reading.0.get(&signal).copied().unwrap_or_default()
    }

    /// Whether images and flintd's data share a file system.
    pub(super) fn images_are_with_data(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
        device(&self.images) == device(&self.config.root)
    }

    /// Each condition, whether it holds, and a sentence.
    pub(super) fn conditions(&self) -> BTreeMap<String, (bool, String)> {
        let state = locked(&self.state);
        let on: BTreeSet<Condition> = state.gauge.on().map(Signal::condition).collect();
        let told = |condition: Condition| {
            (condition.name().to_owned(), (on.contains(&condition), sentence(&state, condition)))
        };
        Condition::ALL.into_iter().map(told).collect()
    }

    /// What is left, by the kubelet's names of signals.
    pub(super) fn available(&self) -> BTreeMap<String, u64> {
        let state = locked(&self.state);
        state.reading.0.iter().map(|(signal, amount)| (signal.name().to_owned(), amount.left)).collect()
    }

    /// Whether a new pod is let in (the kubelet's admission): memory keeps out those that ask for nothing, anything else all but
    /// critical ones.
    ///
    /// # Errors
    ///
    /// What is short.
    pub(super) fn admit(&self, pod: &Pod) -> Result<(), Refused> {
        let on = locked(&self.state).gauge.on().map(Signal::condition).collect();
        keeps_out(&on, pod).map_or(Ok(()), |why| Err(Refused(format!("{}: {why}", pod.key))))
    }
}

fn sentence(state: &State, condition: Condition) -> String {
    let of_it = state.reading.0.iter().filter(|(signal, _)| signal.condition() == condition);
    let parts: Vec<String> = of_it
        .map(|(signal, amount)| {
            let shown = |value: u64| match signal.resource() {
                "inodes" | "pids" => value.to_string(),
                _ => mebibytes(value),
            };
            let least = state.gauge.least(*signal, *amount);
            format!("{} is {} of {}, {} are kept", signal.name(), shown(amount.left), shown(amount.total), shown(least))
        })
        .collect();
    parts.join("; ")
}

/// For people: whole MiB.
fn mebibytes(bytes: u64) -> String {
    quantity(bytes >> 20 << 20)
}

fn keeps_out(on: &BTreeSet<Condition>, pod: &Pod) -> Option<String> {
    if on.is_empty() || pod.priority >= CRITICAL {
        return None;
    }
    let names: Vec<&str> = on.iter().map(|condition| condition.name()).collect();
    let told = format!("The node had condition: [{}]", names.join(", "));
    if on.iter().any(|condition| *condition != Condition::Memory) {
        return Some(format!("{told}: no new pod is taken until it is over"));
    }
    (pod.quality() == Quality::BestEffort)
        .then(|| format!("{told}: a pod that asks for no memory or CPU is not taken until it is over"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::pod;

    #[test]
    fn memory_keeps_out_those_that_ask_for_nothing_and_disks_all() {
        let best_effort = || pod("web");
        let mut burstable = pod("web");
        burstable.containers[0].resources.memory_request = Some(1);
        let critical = Pod { priority: CRITICAL, ..pod("web") };
        for (on, pod, is_taken) in [
            (vec![], best_effort(), true),
            (vec![Condition::Memory], best_effort(), false),
            (vec![Condition::Memory], burstable.clone(), true),
            (vec![Condition::Disk], burstable.clone(), false),
            (vec![Condition::Pids], burstable.clone(), false),
            (vec![Condition::Memory, Condition::Disk], burstable, false),
            (vec![Condition::Memory, Condition::Disk, Condition::Pids], critical, true),
        ] {
            let told = format!("{on:?} {:?}", pod.quality());
            let why = keeps_out(&on.iter().copied().collect(), &pod);
            assert_eq!(why.is_none(), is_taken, "{told}: {why:?}");
        }
    }

    #[test]
    fn a_condition_is_told_when_it_comes_and_when_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { root: folder.path().to_owned(), ..Config::default() };
        config.eviction.pressure_transition_period = 0;
        let capacity = Capacity { milli_cpus: 1, memory: 1 << 30, pods: 1, storage: 0 };
        let pressure = Pressure::open(&config, folder.path(), &capacity).unwrap();
        let reading = |left| {
            let mut reading = pressure.read().unwrap();
            reading.0 = BTreeMap::from([(Signal::Pids, Amount { total: 1000, left })]);
            reading
        };
        pressure.update(reading(500), Instant::now());
        let look = pressure.update(reading(99), Instant::now());
        assert_eq!(look.short.into_keys().collect::<Vec<_>>(), [Signal::Pids]);
        let [(Condition::Pids, true, sentence)] = &look.changed[..] else { panic!("{:?}", look.changed) };
        assert_eq!(sentence, "pid.available is 99 of 1000, 100 are kept");
        assert!(pressure.conditions()["PIDPressure"].0 && !pressure.conditions()["DiskPressure"].0);
        assert!(pressure.admit(&pod("web")).unwrap_err().0.contains("[PIDPressure]"));
        let look = pressure.update(reading(100), Instant::now());
        assert!(matches!(look.changed[..], [(Condition::Pids, false, _)]), "{:?}", look.changed);
        assert!(pressure.admit(&pod("web")).is_ok());
    }
}
