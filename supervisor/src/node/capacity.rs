//! What the host has for pods, and whether one more fits.

use anyhow::{Context as _, Result, anyhow};

use super::{Config, Node};
use crate::desired::Pod;
use crate::scheduler::Refused;

/// What pods may have together: what the host has, less what is kept for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub milli_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Pods.
    pub pods: u32,
    /// Bytes of the disk for volumes, logs and writable layers: the file system of flintd's data, less what has to be left of it.
    pub storage: u64,
}

/// What a pod asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) milli_cpus: u64,
    pub(super) memory: u64,
    pub(super) storage: u64,
}

impl Capacity {
    /// Measures the host.
    ///
    /// # Errors
    ///
    /// /proc or the file system with flintd's data cannot be read.
    pub(super) fn measure(config: &Config) -> Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        let memory = total(&text).ok_or_else(|| anyhow!("/proc/meminfo has no MemTotal"))?;
        let disk = rustix::fs::statvfs(&config.root).with_context(|| format!("statvfs {}", config.root.display()))?;
        let storage = disk.f_blocks.saturating_mul(disk.f_frsize);
        // The affinity's, not all: flintd in a cpuset has no more to give.
        let cpus = std::thread::available_parallelism().context("count the CPUs")?.get() as u64;
        Ok(Self {
            milli_cpus: (cpus * 1000).saturating_sub(config.reserved.milli_cpus),
            memory: memory.saturating_sub(config.reserved.memory),
            pods: config.max_pods,
            storage: storage.saturating_sub(config.eviction.hard.node_disk.of(storage)),
        })
    }

    /// # Errors
    ///
    /// The pod does not fit beside the others; `replaced` leaves its place to it.
    pub(super) fn admit(&self, node: &Node, pod: &Pod, replaced: Option<&str>) -> Result<(), Refused> {
        let (used, pods) = node.promised(replaced);
        self.fits(used, pods, Request::of(pod)).map_err(|why| Refused(format!("{} does not fit: {why}", pod.key)))
    }

    fn fits(&self, used: Request, pods: u32, asked: Request) -> Result<(), String> {
        if pods >= self.pods {
            return Err(format!("the node has {pods} pods and takes no more (max-pods)"));
        }
        let over = |asked: u64, used: u64, all: u64| asked > 0 && asked > all.saturating_sub(used);
        if over(asked.milli_cpus, used.milli_cpus, self.milli_cpus) {
            return Err(format!(
                "it asks for {} m of CPU, and of the node's {} m are {} m promised to others",
                asked.milli_cpus, self.milli_cpus, used.milli_cpus
            ));
        }
        if over(asked.memory, used.memory, self.memory) {
            return Err(format!(
                "it asks for {} bytes of memory, and of the node's {} are {} promised to others",
                asked.memory, self.memory, used.memory
            ));
        }
        if over(asked.storage, used.storage, self.storage) {
            return Err(format!(
                "it asks for {} bytes of ephemeral-storage, and of the node's {} are {} promised to others",
                asked.storage, self.storage, used.storage
            ));
        }
        Ok(())
    }
}

impl Node {
    /// What pods are promised, and how many they are, but for one.
    fn promised(&self, but: Option<&str>) -> (Request, u32) {
        let mut used = Request::default();
        let mut pods = 0;
        for view in self.pods() {
            // What has ended uses nothing; what is on its way out is going to leave.
            let counts = !view.status.terminating
                && !matches!(view.status.phase, crate::observed::Phase::Succeeded | crate::observed::Phase::Failed);
            if counts && but != Some(view.pod.uid.as_str()) {
                let request = Request::of(&view.pod);
                used.milli_cpus = used.milli_cpus.saturating_add(request.milli_cpus);
                used.memory = used.memory.saturating_add(request.memory);
                used.storage = used.storage.saturating_add(request.storage);
                pods += 1;
            }
        }
        (used, pods)
    }

    /// Thousandths of a CPU and bytes of memory that pods have asked for.
    pub(super) fn asked_for(&self) -> (u64, u64) {
        let (used, _) = self.promised(None);
        (used.milli_cpus, used.memory)
    }
}

impl Request {
    /// The sum of its containers, or its largest init container, as Kubernetes counts. A limit without a request is one.
    pub(super) fn of(pod: &Pod) -> Self {
        let of = |container: &crate::desired::Container| {
            let resources = &container.resources;
            Self {
                milli_cpus: resources.cpu_request.or(resources.cpu_limit).unwrap_or(0),
                memory: resources.memory_request.or(resources.memory_limit).unwrap_or(0),
                storage: resources.storage_request.or(resources.storage_limit).unwrap_or(0),
            }
        };
        let mut sum = Self::default();
        for one in pod.containers.iter().map(of) {
            sum.milli_cpus = sum.milli_cpus.saturating_add(one.milli_cpus);
            sum.memory = sum.memory.saturating_add(one.memory);
            sum.storage = sum.storage.saturating_add(one.storage);
        }
        for one in pod.init_containers.iter().map(of) {
            sum.milli_cpus = sum.milli_cpus.max(one.milli_cpus);
            sum.memory = sum.memory.max(one.memory);
            sum.storage = sum.storage.max(one.storage);
        }
        sum
    }
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{Capacity, Request, total};
    use crate::desired::Resources;
    use crate::desired::tests::{container, pod};

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        let capacity = Capacity { milli_cpus: 2000, memory: 1000, pods: 2, storage: 100 };
        let ask = |milli_cpus, memory| Request { milli_cpus, memory, storage: 0 };
        assert_eq!(capacity.fits(ask(1000, 0), 1, ask(1000, 1000)), Ok(()));
        assert!(capacity.fits(ask(1000, 0), 1, ask(1001, 0)).unwrap_err().contains("1001 m of CPU"));
        assert!(capacity.fits(ask(0, 999), 1, ask(0, 2)).unwrap_err().contains("bytes of memory"));
        let (taken, more) = (Request { storage: 60, ..ask(0, 0) }, Request { storage: 41, ..ask(0, 0) });
        assert!(capacity.fits(taken, 1, more).unwrap_err().contains("ephemeral-storage"));
        assert!(capacity.fits(ask(0, 0), 2, ask(0, 0)).unwrap_err().contains("2 pods"));
        // Who asks for nothing always fits: the node may be promised away by limits that shrank.
        assert_eq!(capacity.fits(ask(9000, 9000), 1, ask(0, 0)), Ok(()));
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_its_largest_init_container() {
        let with = |memory| {
            let mut one = container("one");
            one.resources = Resources { memory_request: Some(memory), ..Resources::default() };
            one
        };
        let mut asked = pod("web");
        asked.containers = vec![with(3), with(4)];
        asked.init_containers = vec![with(5), with(6)];
        assert_eq!(Request::of(&asked).memory, 7);
        asked.init_containers = vec![with(8)];
        assert_eq!(Request::of(&asked).memory, 8);
    }

    #[test]
    fn memory_of_the_host() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16384 * 1024));
        assert_eq!(total("nothing"), None);
    }
}
