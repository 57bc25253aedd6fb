//! config.json's `linux.cgroupsPath` and `linux.resources` to a cgroup [`Plan`].

use oci_spec::runtime::{Linux, LinuxCpu, LinuxHugepageLimit, LinuxResources};

use super::layout::{Layout, Mode};
use super::plan::{Base, Plan, Write};
use super::{devices, v1, v2};
use crate::{Error, Result};

/// Compiles the container's cgroup. Pure but for the layout.
///
/// `id` names the cgroup when `linux.cgroupsPath` is absent; it must be a valid container id. What the spec wants
/// to be ignored with a warning is added to `warnings`, one sentence each.
///
/// # Errors
///
/// [`Kind::Invalid`](crate::Kind::Invalid): a value is out of its range or a path names the root of the hierarchies.
/// [`Kind::Unsupported`](crate::Kind::Unsupported): a limit's controller is not on this host, or a field is not
/// supported.
pub fn compile(layout: &Layout, id: &str, linux: Option<&Linux>, warnings: &mut Vec<String>) -> Result<Plan> {
    let configured = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let configured =
        configured.map(|path| path.to_str().ok_or_else(|| Error::invalid("linux.cgroupsPath is not UTF-8")));
    let configured = configured.transpose()?.filter(|path| !path.is_empty());
    let mut plan = Plan {
        path: clean_path(configured.unwrap_or(id))?,
        // runc's /<id> of a container without a path is below runc's own cgroup too (seen in /proc/PID/cgroup).
        base: if configured.is_some_and(|path| path.starts_with('/')) { Base::Root } else { Base::Own },
        devices: devices::rules(linux)?,
        ..Plan::default()
    };

    let mut limits = Limits { layout, writes: Vec::new() };
    limits.devices(&plan.devices, &mut plan.device_filter)?;
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        refuse_unsupported(resources)?;
        limits.resources(resources, warnings)?;
    }
    plan.writes = limits.writes;

    plan.enable = match layout.mode() {
        // All there are, as runc does: statistics want them too.
        Mode::V2 => layout.unified_controllers().to_vec(),
        Mode::V1 | Mode::Hybrid => {
            let mut needed: Vec<String> =
                plan.writes.iter().filter(|w| w.hierarchy.is_empty()).map(|w| w.controller.clone()).collect();
            needed.dedup();
            needed
        }
    };
    Ok(plan)
}

/// The answer to `--systemd-cgroup`, whose cgroupsPath has the form `slice:prefix:name`.
#[must_use]
pub fn systemd_driver_unsupported(linux: Option<&Linux>) -> Error {
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref()).map(|path| path.display().to_string());
    Error::unsupported(format!(
        "the systemd cgroup driver is not supported by this version (linux.cgroupsPath is {:?}): leave out \
         --systemd-cgroup and give a path such as /machine/name",
        path.unwrap_or_default(),
    ))
}

/// A cgroup path without empty, `.` and `..` parts; `..` stops at the top, so it never leaves it.
fn clean_path(path: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            // The kernel refuses newlines in names with a bare EINVAL; /proc/PID/cgroup could not show them.
            part if part.contains(['\0', '\n']) => {
                return Err(Error::invalid(format!("the cgroup path {path:?} contains a NUL or a newline")));
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid(format!(
            "the cgroup path {path:?} names the root of the hierarchies, which holds the host's processes: name a cgroup below it",
        )));
    }
    Ok(parts.join("/"))
}

/// The page size of a limit, which becomes part of a file's name: digits and a unit, `2MB`.
pub(super) fn page_size(limit: &LinuxHugepageLimit) -> Result<&str> {
    let size = limit.page_size().as_str();
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    let is_number = |digits: &str| !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if number.is_some_and(|digits| !digits.is_empty() && is_number(digits)) {
        return Ok(size);
    }
    Err(Error::invalid(format!(
        "linux.resources.hugepageLimits: the page size {size:?} is not of the form 64KB, 2MB or 1GB",
    )))
}

fn refuse_unsupported(resources: &LinuxResources) -> Result<()> {
    let cpu = resources.cpu().as_ref();
    let fields = [
        ("cpu.idle", cpu.is_some_and(|cpu| cpu.idle().is_some_and(|idle| idle != 0))),
        ("cpu.burst", cpu.is_some_and(|cpu| cpu.burst().is_some_and(|burst| burst != 0))),
        ("unified", resources.unified().as_ref().is_some_and(|unified| !unified.is_empty())),
        ("rdma", resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty())),
    ];
    match fields.into_iter().find(|&(_, is_set)| is_set) {
        Some((field, _)) => {
            Err(Error::unsupported(format!("linux.resources.{field} is not supported by this version: leave it out")))
        }
        None => Ok(()),
    }
}

/// Where a controller is found.
enum Place {
    V1(String),
    V2,
}

/// The names of a controller in both versions; v2 does without some.
#[derive(Clone, Copy)]
struct Controller {
    v1: &'static str,
    v2: Option<&'static str>,
}

const fn same(name: &'static str) -> Controller {
    Controller { v1: name, v2: Some(name) }
}

struct Limits<'a> {
    layout: &'a Layout,
    writes: Vec<Write>,
}

impl Limits<'_> {
    /// The v1 hierarchy of a controller; else the v2 tree, in a hybrid too (a controller belongs to one of the two).
    fn place(&self, controller: Controller) -> Option<Place> {
        if let Some(hierarchy) = self.layout.hierarchy_of(controller.v1) {
            return Some(Place::V1(hierarchy.name.clone()));
        }
        let offered = self.layout.unified_controllers();
        controller.v2.filter(|&v2| offered.iter().any(|name| name == v2)).map(|_| Place::V2)
    }

    /// Adds the writes of one controller, made for the version that has it.
    fn add(
        &mut self,
        field: &str,
        controller: Controller,
        make: impl FnOnce(bool, &mut Vec<Write>) -> Result<()>,
    ) -> Result<()> {
        let place = self.place(controller);
        let is_v2 = match &place {
            Some(place) => matches!(place, Place::V2),
            None => self.layout.mode() == Mode::V2,
        };
        let mut writes = Vec::new();
        make(is_v2, &mut writes)?;
        let hierarchy = match place {
            Some(Place::V1(name)) => name,
            Some(Place::V2) => String::new(),
            None if writes.iter().all(|write| write.optional) => return Ok(()),
            None => return Err(self.missing(field, controller)),
        };
        self.writes.extend(writes.into_iter().map(|write| Write { hierarchy: hierarchy.clone(), ..write }));
        Ok(())
    }

    fn missing(&self, field: &str, controller: Controller) -> Error {
        let file = self.layout.unified().map(|tree| tree.join("cgroup.controllers").display().to_string());
        let name = if self.layout.mode() == Mode::V2 { controller.v2.unwrap_or(controller.v1) } else { controller.v1 };
        let sought = match (self.layout.mode(), controller.v2, file) {
            (Mode::V2, Some(_), Some(file)) => format!("it is missing from {file}"),
            (Mode::V2, ..) => "cgroup v2 has no such controller".to_owned(),
            (_, Some(_), Some(file)) => {
                format!("no cgroup v1 hierarchy has it, and it is missing from {file}")
            }
            _ => "no cgroup v1 hierarchy has it".to_owned(),
        };
        Error::unsupported(format!(
            "linux.resources.{field} is set, but this host does not offer the {name} controller: {sought}. Leave the limit out \
             or enable the controller (mount its hierarchy, or check the kernel's cgroup_disable=)",
        ))
    }

    /// Devices have no controller on v2: there a program decides.
    fn devices(&mut self, rules: &[devices::DeviceRule], device_filter: &mut bool) -> Result<()> {
        if self.layout.hierarchy_of("devices").is_none() && self.layout.unified().is_some() {
            *device_filter = true;
            return Ok(());
        }
        self.add("devices", Controller { v1: "devices", v2: None }, |_, writes| devices::v1_writes(rules, writes))
    }

    fn resources(&mut self, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<()> {
        if let Some(memory) = resources.memory().as_ref() {
            #[allow(deprecated, reason = "the spec wants these two ignored, and a warning")]
            let fields = [("kernel", memory.kernel().is_some()), ("kernelTCP", memory.kernel_tcp().is_some())];
            for (field, _) in fields.into_iter().filter(|&(_, is_set)| is_set) {
                warnings.push(format!("linux.resources.memory.{field} is deprecated and ignored"));
            }
            self.add("memory", same("memory"), |is_v2, writes| {
                if is_v2 { v2::memory(memory, writes, warnings) } else { v1::memory(memory, writes, warnings) }
            })?;
        }
        if let Some(cpu) = resources.cpu().as_ref() {
            self.cpu(cpu)?;
        }
        if let Some(pids) = *resources.pids() {
            self.add("pids", same("pids"), |_, writes| {
                v1::pids(pids, writes);
                Ok(())
            })?;
        }
        if let Some(io) = resources.block_io().as_ref() {
            self.add("blockIO", Controller { v1: "blkio", v2: Some("io") }, |is_v2, writes| {
                if is_v2 {
                    v2::block_io(io, writes, warnings);
                } else {
                    v1::block_io(io, writes);
                }
                Ok(())
            })?;
        }
        if let Some(limits) = resources.hugepage_limits().as_deref() {
            self.add("hugepageLimits", same("hugetlb"), |is_v2, writes| {
                if is_v2 { v2::hugepages(limits, writes) } else { v1::hugepages(limits, writes) }
            })?;
        }
        if let Some(network) = resources.network().as_ref() {
            let (mut class, mut priorities) = (Vec::new(), Vec::new());
            v1::network(network, &mut class, &mut priorities);
            for (field, v1, made) in
                [("network.classID", "net_cls", class), ("network.priorities", "net_prio", priorities)]
            {
                self.add(field, Controller { v1, v2: None }, |_, writes| {
                    *writes = made;
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<()> {
        self.add("cpu", same("cpu"), |is_v2, writes| if is_v2 { v2::cpu(cpu, writes) } else { v1::cpu(cpu, writes) })?;
        self.add("cpu.cpus or cpu.mems", same("cpuset"), |_, writes| {
            v1::cpuset(cpu, writes);
            Ok(())
        })
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
