//! The cgroup part of a Plan: where, and every write with its file and value.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::devices::DeviceRule;
use super::systemd::Scope;

/// The container's cgroup, compiled from config.json. Holds nothing of the host but the names of hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's path below [`Plan::base`] in every hierarchy: relative, clean, without `..`.
    pub path: String,
    /// What the path is relative to.
    pub base: Base,
    /// The writes that set the limits, in order; on cgroup v1 those of the devices too.
    pub writes: Vec<Write>,
    /// The device rules in order, the last one that speaks of a device and an access decides.
    pub devices: Vec<DeviceRule>,
    /// Whether the rules are enforced by a BPF program on the v2 tree (else by writes to the v1 devices controller).
    pub device_filter: bool,
    /// Controllers to enable in the v2 tree on the way to the container, where they are there. Those that a write needs
    /// must be.
    pub enable: Vec<String>,
    /// What happens where the cgroups may not be made.
    pub need: Need,
    /// Whether the rules of devices may stay away, as the caller may be without the right to set them (`--rootless`): who
    /// may not do that makes no devices either.
    pub devices_where_permitted: bool,
    /// The unit of systemd that the cgroup is; `None` where flint makes it itself.
    #[serde(default)]
    pub systemd: Option<Scope>,
    /// Whose the container's cgroup is to be, as far as the kernel has it given away (v2): it may make cgroups below it, and
    /// set no limit of its own.
    #[serde(default)]
    pub owner: Option<u32>,
    /// A cgroup below it, without limits of its own, where init goes (v2).
    #[serde(default)]
    pub subgroup: Option<String>,
    /// One further below, where init goes when it has its cgroup namespace: the container's to manage (v2).
    #[serde(default)]
    pub delegate: Option<String>,
}

/// Whether a container must have cgroups of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// It must.
    #[default]
    Required,
    /// It goes without in a hierarchy where the caller may not make one, as long as no limit needs it (`--rootless`).
    WherePermitted,
    /// It stays in the caller's (`--cgroup-manager disabled`).
    Nowhere,
}

/// What a cgroup path is relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The root of each hierarchy as it is mounted (an absolute `linux.cgroupsPath`).
    #[default]
    Root,
    /// flint's own cgroup in each hierarchy (a relative or absent `linux.cgroupsPath`); on v2 its parent, as flint's own
    /// holds processes and so cannot have controllers for children (the rule of no internal processes).
    Own,
}

/// A value for a file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The v1 hierarchy's name (`cpu,cpuacct`); empty for the v2 tree.
    pub hierarchy: String,
    /// The controller: `memory`.
    pub controller: String,
    /// The file: `memory.limit_in_bytes`.
    pub file: String,
    /// What is written.
    pub value: String,
    /// A file and value to take where the kernel does not have [`Write::file`].
    pub instead: Option<(String, String)>,
    /// Whether the files may be missing: the value asks for what is so without them.
    pub optional: bool,
}

impl Write {
    pub(super) fn new(controller: &str, file: impl Into<String>, value: impl fmt::Display) -> Self {
        Self {
            hierarchy: String::new(),
            controller: controller.to_owned(),
            file: file.into(),
            value: value.to_string(),
            instead: None,
            optional: false,
        }
    }

    pub(super) fn or(mut self, file: &str, value: impl fmt::Display) -> Self {
        self.instead = Some((file.to_owned(), value.to_string()));
        self
    }

    /// Whether it is for this hierarchy and cannot be left out; devices can, by who may not make any.
    pub(super) fn is_needed_in(&self, hierarchy: &str) -> bool {
        self.hierarchy == hierarchy && !self.optional && self.controller != "devices"
    }

    pub(super) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hierarchy = if self.hierarchy.is_empty() { "v2" } else { &self.hierarchy };
        write!(f, "{hierarchy}: {} = {}", self.file, self.value)?;
        if let Some((file, value)) = &self.instead {
            write!(f, " (without that file: {file} = {value})")?;
        }
        if self.optional {
            f.write_str(" (if there)")?;
        }
        Ok(())
    }
}

/// One line for the place, one for each write, and one for each device rule of the BPF program.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            _ if self.need == Need::Nowhere => f.write_str("no cgroup: the container stays in the caller's")?,
            Base::Root => write!(f, "cgroup /{}", self.path)?,
            Base::Own => write!(f, "cgroup {} below flint's own", self.path)?,
        }
        if let Some(scope) = &self.systemd {
            write!(f, "\n{scope}")?;
        }
        if let Some(uid) = self.owner {
            write!(f, "\n  v2: give it to uid {uid}")?;
        }
        if !self.enable.is_empty() {
            write!(f, "\n  v2: enable {}", self.enable.join(" "))?;
        }
        for write in &self.writes {
            write!(f, "\n  {write}")?;
        }
        for rule in self.devices.iter().filter(|_| self.device_filter) {
            write!(f, "\n  device filter: {} {rule}", if rule.allow { "allow" } else { "deny" })?;
        }
        Ok(())
    }
}
