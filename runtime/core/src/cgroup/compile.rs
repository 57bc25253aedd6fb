//! config.json's `linux.cgroupsPath` and `linux.resources` to a cgroup [`Plan`].

use oci_spec::runtime::Linux;

use super::layout::{Layout, Mode};
use super::plan::{Base, Plan};
use super::{devices, limits};
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

    (plan.writes, plan.device_filter) = limits::devices(layout, &plan.devices)?;
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        plan.writes.extend(limits::writes(layout, resources, warnings)?);
    }

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

/// Whether config.json limits anything but devices.
pub(crate) fn has_limits(resources: &oci_spec::runtime::LinuxResources) -> bool {
    serde_json::to_value(resources)
        .is_ok_and(|json| json.as_object().is_some_and(|fields| fields.keys().any(|field| field != "devices")))
}

/// A cgroup path without empty, `.` and `..` parts; `..` stops at the top, so it never leaves it.
pub(crate) fn clean_path(path: &str) -> Result<String> {
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

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
