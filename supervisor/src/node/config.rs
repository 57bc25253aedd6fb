//! flintd's configuration: a TOML file, whose every line may be missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::pressure::{Signal, Soft, Threshold, Thresholds};

/// The configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What outlives the host: the store, images, volumes, logs.
    pub root: PathBuf,
    /// What does not: sockets, namespaces, the runtime's state.
    pub run: PathBuf,
    /// The API's socket.
    pub socket: PathBuf,
    /// The group that may use it beside root.
    pub group: Option<String>,
    /// Where the page and the metrics are served, `ADDRESS:PORT`; empty for nowhere.
    pub page: String,
    /// The folder of Pod manifests.
    pub manifests: PathBuf,
    /// The shim; found in PATH without a slash.
    pub shim: PathBuf,
    /// So many pods share a shim at most.
    pub pods_per_shim: u32,
    /// The name of this node's containers in the runtime's state, and of its cgroup.
    pub namespace: String,
    /// So many pods are worked on at a time.
    pub parallel: usize,
    /// The node has at most so many pods.
    pub max_pods: u32,
    /// What is kept from pods.
    pub reserved: Reserved,
    /// When pods are evicted.
    pub eviction: Eviction,
    /// The folder of seccomp profiles that pods name (`type: Localhost`); ROOT/seccomp if none is given.
    pub seccomp_profile_root: Option<PathBuf>,
    /// How images come and go.
    pub images: ImageConfig,
    /// Logs of containers.
    pub logs: LogConfig,
    /// Networks of pods.
    pub network: crate::network::Settings,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
}

/// What is kept for the host itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Reserved {
    /// Thousandths of a CPU.
    pub milli_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// When pods are evicted. Times are seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Eviction {
    /// What has to be left of memory, disks and process ids (the kubelet's evictionHard).
    pub hard: Thresholds,
    /// What should be left (its evictionSoft): less is a condition of the node at once, and evicts when it has lasted.
    pub soft: BTreeMap<Signal, Threshold>,
    /// For each of `soft` how long (its evictionSoftGracePeriod).
    pub soft_grace_period: BTreeMap<Signal, u64>,
    /// What a pod has at most to end that goes for a soft threshold (its evictionMaxPodGracePeriod).
    pub max_pod_grace_period: u64,
    /// How long enough has to be left before a condition of the node goes off (evictionPressureTransitionPeriod).
    pub pressure_transition_period: u64,
    /// How often it is looked.
    pub monitoring_interval: u64,
}

/// How images come and go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageConfig {
    /// The folder of the store; flint-bundle's own if none is given, which then sees the same images.
    pub store: Option<PathBuf>,
    /// Images that come at the same time.
    pub parallel: usize,
    /// Registries that are asked by plain http.
    pub plain_http: Vec<String>,
    /// Where to ask before a registry: `registry = "https://mirror"`.
    pub mirrors: BTreeMap<String, String>,
    /// Percent of the images' file system in use from which on unused images are removed; 100: never (the kubelet's
    /// imageGCHighThresholdPercent).
    pub gc_high_threshold: u8,
    /// Percent down to which they are removed (imageGCLowThresholdPercent).
    pub gc_low_threshold: u8,
    /// Seconds for which an image stays after its last use (imageMinimumGCAge).
    pub minimum_gc_age: u64,
    /// Seconds between two looks.
    pub gc_period: u64,
}

/// Logs of containers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogConfig {
    /// Bytes of a file before the next is begun.
    pub max_size: u64,
    /// Files that are kept.
    pub max_files: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/flintd".into(),
            run: "/run/flintd".into(),
            socket: crate::api::SOCKET.into(),
            group: None,
            page: crate::page::ADDRESS.to_owned(),
            manifests: "/etc/flintd/manifests".into(),
            shim: "containerd-shim-flint-v1".into(),
            // Eight shims with 500 pods in them had 31 MiB (PSS, `cargo xtask demo`); the death of one interrupts the control of
            // its pods, not the pods. See docs/supervisor.md.
            pods_per_shim: 64,
            namespace: "flint".to_owned(),
            parallel: 16,
            max_pods: 4096,
            reserved: Reserved::default(),
            eviction: Eviction::default(),
            seccomp_profile_root: None,
            images: ImageConfig::default(),
            logs: LogConfig::default(),
            network: crate::network::Settings::default(),
            labels: BTreeMap::new(),
        }
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self { milli_cpus: 100, memory: 128 << 20 }
    }
}

impl Default for Eviction {
    /// The kubelet's.
    fn default() -> Self {
        Self {
            hard: Thresholds::default(),
            soft: BTreeMap::new(),
            soft_grace_period: BTreeMap::new(),
            max_pod_grace_period: 0,
            pressure_transition_period: 300,
            monitoring_interval: 10,
        }
    }
}

impl Eviction {
    pub(crate) fn calm(&self) -> Duration {
        Duration::from_secs(self.pressure_transition_period)
    }

    /// Soft thresholds, each with its grace.
    pub(crate) fn soft(&self) -> BTreeMap<Signal, Soft> {
        let both = |(signal, threshold): (&Signal, &Threshold)| {
            let grace = Duration::from_secs(*self.soft_grace_period.get(signal)?);
            Some((*signal, Soft { threshold: *threshold, grace }))
        };
        self.soft.iter().filter_map(both).collect()
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(self.monitoring_interval.max(1))
    }
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            store: None,
            parallel: 3,
            plain_http: Vec::new(),
            mirrors: BTreeMap::new(),
            gc_high_threshold: 85,
            gc_low_threshold: 80,
            minimum_gc_age: 120,
            gc_period: 300,
        }
    }
}

impl Default for LogConfig {
    /// The kubelet's.
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that is no TOML, or that has a line nobody knows.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let config: Self = toml_edit::de::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        let ImageConfig { gc_high_threshold: high, gc_low_threshold: low, .. } = config.images;
        // The kubelet's own rule: between equal ones it would remove and pull in turns.
        if high > 100 || low >= high {
            bail!(
                "{} is wrong: gc-low-threshold ({low}) has to be below gc-high-threshold ({high}), and that at most 100",
                path.display()
            );
        }
        let Eviction { soft, soft_grace_period, .. } = &config.eviction;
        // The kubelet's own rules, too.
        if !soft.keys().eq(soft_grace_period.keys()) || soft.contains_key(&Signal::AllocatableMemory) {
            bail!(
                "{} is wrong: each signal of eviction.soft needs its seconds in eviction.soft-grace-period, and none else has \
                 them; {} has no soft threshold",
                path.display(),
                Signal::AllocatableMemory.name()
            );
        }
        Ok(config)
    }

    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("flintd.redb")
    }

    pub(crate) fn seccomp_profiles(&self) -> PathBuf {
        self.seccomp_profile_root.clone().unwrap_or_else(|| self.root.join("seccomp"))
    }

    /// What is a pod's own on the disk.
    #[must_use]
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// What is a pod's own until the host goes down.
    #[must_use]
    pub fn pod_run(&self, uid: &str) -> PathBuf {
        self.run.join("pods").join(uid)
    }

    /// The folder of what a container has to say at its end: of the file `message`, which is its
    /// [`Container::message_path`](crate::desired::Container::message_path).
    #[must_use]
    pub fn messages(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_folder(uid).join("messages").join(container)
    }

    /// The folder of a container's logs: one file an attempt, `ATTEMPT.log`, and those that were rotated beside it.
    #[must_use]
    pub fn logs(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_folder(uid).join("logs").join(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    #[test]
    fn a_soft_threshold_has_its_grace_period() {
        let soft = |signal: &str| format!("[eviction.soft]\n\"{signal}\" = \"1Gi\"\n");
        let grace = |signal: &str| format!("[eviction.soft-grace-period]\n\"{signal}\" = 90\n");
        let both = |signal: &str| soft(signal) + &grace(signal);
        let wanted = Soft { threshold: Threshold::Quantity(1 << 30), grace: Duration::from_secs(90) };
        let config = read(&both("memory.available")).unwrap();
        assert_eq!(config.eviction.soft(), BTreeMap::from([(Signal::Memory, wanted)]));
        assert_eq!(config.eviction.hard, Thresholds::default());
        for wrong in [
            soft("memory.available"),
            grace("memory.available"),
            soft("memory.available") + &grace("pid.available"),
            both("allocatableMemory.available"),
            both("memory"),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
