//! The limits of `linux.resources` as writes: which version has a controller, and what it wants to be told.

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxResources};

use super::layout::{Layout, Mode};
use super::plan::Write;
use super::{devices, v1, v2};
use crate::{Error, Result};

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

/// The writes that set the limits of `linux.resources`, but for devices; in an order in which each is accepted, or
/// accepted when it is tried again after the others. The spec's ignored fields are told in `warnings`.
pub(super) fn writes(layout: &Layout, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut limits = Limits { layout, writes: Vec::new() };
    limits.resources(resources, warnings)?;
    Ok(limits.writes)
}

/// The writes for the devices' rules, or whether a BPF program is to hold them: v2 has no controller of devices.
pub(super) fn devices(layout: &Layout, rules: &[devices::DeviceRule]) -> Result<(Vec<Write>, bool)> {
    if layout.hierarchy_of("devices").is_none() && layout.unified().is_some() {
        return Ok((Vec::new(), true));
    }
    let mut limits = Limits { layout, writes: Vec::new() };
    limits.add("devices", Controller { v1: "devices", v2: None }, |_, writes| devices::v1_writes(rules, writes))?;
    Ok((limits.writes, false))
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

    fn resources(&mut self, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<()> {
        if let Some(memory) = resources.memory().as_ref() {
            #[allow(deprecated, reason = "the spec wants these two ignored, and a warning")]
            let fields = [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())];
            // docker writes 0 for "unset".
            for (field, _) in fields.into_iter().filter(|&(_, value)| value.is_some_and(|value| value != 0)) {
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
        if let Some(rdma) = resources.rdma().as_ref().filter(|rdma| !rdma.is_empty()) {
            self.add("rdma", same("rdma"), |_, writes| v2::rdma(rdma, writes))?;
        }
        match resources.unified().as_ref().filter(|unified| !unified.is_empty()) {
            Some(unified) => self.unified(unified),
            None => Ok(()),
        }
    }

    /// `linux.resources.unified`: files of the v2 tree by their names, after all that the other fields set.
    fn unified(&mut self, unified: &HashMap<String, String>) -> Result<()> {
        if self.layout.mode() != Mode::V2 {
            return Err(Error::invalid(
                "linux.resources.unified: invalid configuration: cannot use unified on cgroup v1 (leave it out, or boot with \
                 systemd.unified_cgroup_hierarchy=1)",
            ));
        }
        // A HashMap has no order, and a plan is the same each time.
        for (file, value) in unified.iter().collect::<BTreeMap<_, _>>() {
            let (controller, parameter) = file.split_once('.').unwrap_or((file, ""));
            let plain = file.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            if !plain || file.contains("..") || controller.is_empty() || parameter.is_empty() {
                return Err(Error::invalid(format!(
                    "unified resource {file:?} must be a file name in the form CONTROLLER.PARAMETER (no slashes, no ..)"
                )));
            }
            if controller != "cgroup" && !self.layout.unified_controllers().iter().any(|name| name == controller) {
                return Err(Error::unsupported(format!(
                    "unified resource {file:?} can't be set: controller {controller:?} not available"
                )));
            }
            // cgroupfs takes one line a write (io.max has one for each device).
            self.writes.extend(value.lines().map(|line| Write::new(controller, file, line)));
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
