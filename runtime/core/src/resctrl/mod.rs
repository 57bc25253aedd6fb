//! Classes of service for caches and memory bandwidth: `linux.intelRdt` (runtime-spec, config-linux.md "IntelRdt"; the kernel's
//! filesystems/resctrl.rst).
//!
//! ```text
//!  Resctrl::detect --> compile (config.json -> Allocation)     resctrl must be mounted
//!  Allocation::place --> state.json                            before the group is made
//!  Allocation::make      the group, its schemata, then init's pid in it, and in a monitoring group
//!  Group::add, set, stats                                      exec, update, events
//!  Group::remove         delete: what was made for this container alone
//! ```
//!
//! The folders are flat: one for each class of service (`closID`), and below it one for each monitoring group. A class that
//! config.json names is shared: others may be in it, so it is never removed.

mod stats;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, procfs};

pub use stats::{CacheInfo, CacheUse, IntelRdt, MemoryBandwidthInfo, MemoryBandwidthUse};

/// Where the kernel offers it to be mounted.
const USUAL: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`
const MAGIC: i64 = 0x0765_5821;

const CACHE: &str = "CAT: l3 cache";
const BANDWIDTH: &str = "MBA: memory bandwidth";

/// A mounted resctrl file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resctrl {
    root: PathBuf,
}

/// The group of a container, compiled from config.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    resctrl: Resctrl,
    /// The group's folder.
    path: PathBuf,
    /// Whether config.json names the class: then it is shared.
    named: bool,
    /// Lines for its `schemata`, each with its newline; empty to leave them.
    schemata: String,
    monitor: Option<PathBuf>,
}

/// The group that a container is in; kept in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    root: PathBuf,
    path: PathBuf,
    /// Whether it is this container's alone, and goes with it.
    own: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
}

impl Resctrl {
    /// The mounted one, at its usual place or elsewhere.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let stat = nix::sys::statfs::statfs(USUAL).ok()?;
        #[allow(clippy::unnecessary_cast, reason = "its type differs between C libraries")]
        if stat.filesystem_type().0 as i64 == MAGIC {
            return Some(Self { root: USUAL.into() });
        }
        let mounts = procfs::mounts("self").ok()?;
        let mount = mounts.into_iter().find(|mount| mount.filesystem == "resctrl")?;
        Some(Self { root: mount.place.into() })
    }

    fn has(&self, resource: &str) -> bool {
        self.root.join("info").join(resource).is_dir()
    }

    /// What the kernel says of the last write that it refused.
    fn last_status(&self) -> String {
        let text = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        if text.trim().is_empty() { String::new() } else { format!(" (last_cmd_status: {})", text.trim()) }
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        let error = Error::os(format!("linux.intelRdt: {what}"), error);
        Error::new(error.kind(), format!("{error}{}", self.last_status()))
    }
}

/// Compiles `linux.intelRdt` for the container `id`.
///
/// # Errors
///
/// `Unsupported` where resctrl is not mounted or lacks what is asked for; `Invalid` for a closID that is no name.
pub fn compile(config: &LinuxIntelRdt, id: &str, resctrl: Option<Resctrl>) -> Result<Allocation> {
    let Some(resctrl) = resctrl else {
        return Err(Error::unsupported(
            "linux.intelRdt: Intel RDT is not enabled: it needs a CPU that has it, CONFIG_X86_CPU_RESCTRL in the kernel, and: \
             mount -t resctrl resctrl /sys/fs/resctrl",
        ));
    };
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let class = given(config.clos_id());
    if class.as_deref().is_some_and(|name| matches!(name, "." | "..") || (name.len() > 1 && name.contains('/'))) {
        return Err(Error::invalid(format!(
            "linux.intelRdt.closID: {:?} is no name of a folder in {}",
            class.unwrap_or_default(),
            resctrl.root.display()
        )));
    }
    let mut schemata = String::new();
    for (field, schema, resource, what) in [
        ("l3CacheSchema", config.l3_cache_schema(), "L3", "Intel RDT/CAT"),
        ("memBwSchema", config.mem_bw_schema(), "MB", "Intel RDT/MBA"),
    ] {
        let Some(schema) = given(schema) else { continue };
        if !resctrl.has(resource) {
            return Err(Error::unsupported(format!("linux.intelRdt.{field}: {what} is not enabled on this host")));
        }
        schemata.push_str(&schema);
        schemata.push('\n');
    }
    for line in config.schemata().iter().flatten().filter(|line| !line.is_empty()) {
        schemata.push_str(line);
        schemata.push('\n');
    }
    // `/` is the class of all who are in no other.
    let path = match class.as_deref() {
        Some("/") => resctrl.root.clone(),
        Some(name) => resctrl.root.join(name),
        None => resctrl.root.join(id),
    };
    let monitor = config.enable_monitoring().unwrap_or(false).then(|| path.join("mon_groups").join(id));
    Ok(Allocation { resctrl, path, named: class.is_some(), schemata, monitor })
}

impl Allocation {
    /// The group as it will be; it is this container's own unless somebody made it before.
    #[must_use]
    pub fn place(&self) -> Group {
        Group {
            root: self.resctrl.root.clone(),
            path: self.path.clone(),
            own: !self.named && !self.path.exists(),
            monitor: self.monitor.clone(),
        }
    }

    /// Makes the group and puts a process into it.
    ///
    /// # Errors
    ///
    /// A class without schemata that is not there; what the kernel refuses, with its reason.
    pub fn make(&self, pid: i32) -> Result<()> {
        if self.named && self.schemata.is_empty() && !self.path.exists() {
            return Err(Error::invalid(format!(
                "linux.intelRdt.closID: {} does not exist: a class without schemata must be there before",
                self.path.display()
            )));
        }
        self.make_folder(&self.path)?;
        // Before anybody is in it.
        if !self.schemata.is_empty() {
            fs::write(self.path.join("schemata"), &self.schemata)
                .map_err(|error| self.resctrl.failed(&format!("write the schemata {:?}", self.schemata), error))?;
        }
        if let Some(monitor) = &self.monitor {
            self.make_folder(monitor)?;
        }
        self.place().add(pid)
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(self.resctrl.failed(&format!("make {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Allocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if !self.schemata.is_empty() {
            write!(f, " with {:?}", self.schemata.trim_end())?;
        }
        if self.monitor.is_some() { f.write_str(", monitored") } else { Ok(()) }
    }
}

impl Group {
    fn resctrl(&self) -> Resctrl {
        Resctrl { root: self.root.clone() }
    }

    /// Puts a process into the group, and into its monitoring group.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn add(&self, pid: i32) -> Result<()> {
        for folder in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            fs::write(folder.join("tasks"), pid.to_string()).map_err(|error| {
                self.resctrl().failed(&format!("move process {pid} into {}", folder.display()), error)
            })?;
        }
        Ok(())
    }

    /// Whether somebody has removed it: then a process of exec stays where its maker is, as under runc.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.path.exists()
    }

    /// Changes the schemata of a running container; what is `None` stays.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the host cannot; what the kernel refuses, with its reason.
    pub fn set(&self, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        let resctrl = self.resctrl();
        let mut lines = String::new();
        for (schema, resource, what) in [(cache, "L3", CACHE), (bandwidth, "MB", BANDWIDTH)] {
            let Some(schema) = schema else { continue };
            if !resctrl.has(resource) {
                return Err(not_enabled(what));
            }
            lines.push_str(schema);
            lines.push('\n');
        }
        fs::write(self.path.join("schemata"), &lines)
            .map_err(|error| resctrl.failed(&format!("write the schemata {lines:?}"), error))
    }

    /// Removes what was made for this container alone: the group, or where that is shared its monitoring group.
    ///
    /// # Errors
    ///
    /// The kernel refuses it. That it is gone is no error.
    pub fn remove(&self) -> Result<()> {
        let Some(folder) = self.own.then_some(&self.path).or(self.monitor.as_ref()) else { return Ok(()) };
        match fs::remove_dir(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.resctrl().failed(&format!("remove {}", folder.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the host has what schemata are for.
///
/// # Errors
///
/// It has not, in runc's words.
pub(crate) fn must_be_enabled(cache: bool, bandwidth: bool) -> Result<()> {
    let resctrl = Resctrl::detect();
    for (asked, resource, what) in [(cache, "L3", CACHE), (bandwidth, "MB", BANDWIDTH)] {
        if asked && !resctrl.as_ref().is_some_and(|resctrl| resctrl.has(resource)) {
            return Err(not_enabled(what));
        }
    }
    Ok(())
}

fn not_enabled(what: &str) -> Error {
    Error::unsupported(format!("Intel RDT/{what} schema is not enabled"))
}

#[cfg(test)]
mod tests;
