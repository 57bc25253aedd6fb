//! New limits for a container that has its cgroups: all of them, or on a failure the ones it had.
//!
//! ```text
//!  resources --> what they leave open on v2 is read (the other half of cpu.max, the limit that swap is counted from)
//!            --> the same writes as at create, but never devices
//!            --> each: read the file, write it; EINVAL and EBUSY wait for the others and are tried again
//!            --> a unit of systemd is told, so that it does not write the old ones when it reloads; then all files once more
//!            --> one that stays refused: the files that were written are put back, the last one first
//! ```

use nix::errno::Errno;
use nix::fcntl::OFlag;
use oci_spec::runtime::{Linux, LinuxResources};

use super::branch::{Branch, write_once};
use super::layout::Layout;
use super::live::Cgroup;
use super::plan::{Plan, Write};
use super::systemd::{Property, Unit, Value, leave_out, of_resources, round_quota};
use super::tree::{Place, enable_controllers, refused};
use super::{devices, limits, undo};
use crate::spelling::read_in_any_letters;
use crate::unique_keys::read_json;
use crate::{Error, Result};

/// Reads `linux.resources` from JSON, as `update --resources` has it.
///
/// A pids member without a limit is left out: oci-spec would read it as the limit 0, which is a value (runtime-spec 1.3).
///
/// # Errors
///
/// [`Kind::Invalid`](crate::Kind::Invalid): malformed JSON, or a field of another type.
pub fn parse_resources(json: &[u8]) -> Result<LinuxResources> {
    let malformed = |what: String| Error::invalid(format!("the resources are malformed: {what}"));
    let mut value = read_json(json).map_err(|error| malformed(error.to_string()))?;
    if value.is_null() {
        // As Go decodes it: nothing is asked for.
        value = serde_json::json!({});
    }
    let _ = read_in_any_letters::<LinuxResources>(&mut value)?;
    // serde would take a list for the members in their order.
    let members = value.as_object().into_iter().flatten().filter(|(name, _)| STRUCTURES.contains(&name.as_str()));
    if !value.is_object() || members.map(|(_, member)| member).any(serde_json::Value::is_array) {
        return Err(malformed("a list stands where an object must".to_owned()));
    }
    if let Some(members) = value.as_object_mut() {
        // Go writes null for what is absent.
        members.retain(|_, member| !member.is_null());
        for member in members.values_mut().filter_map(serde_json::Value::as_object_mut) {
            member.retain(|_, value| !value.is_null());
        }
        if members.get("pids").is_some_and(|pids| pids.get("limit").is_none()) {
            members.remove("pids");
        }
    }
    read_in_any_letters(&mut value)?.read.map_err(|misread| malformed(misread.to_string()))
}

/// Members of `linux.resources` that are objects with fields of their own.
const STRUCTURES: [&str; 5] = ["blockIO", "cpu", "memory", "network", "pids"];

/// A file that was written, and what it held.
struct Written<'a> {
    branch: &'a Branch,
    file: String,
    before: Option<String>,
}

impl Cgroup {
    /// Writes new limits; what `resources` does not speak of, and all devices, stay as they are. What the spec wants to
    /// be ignored with a warning is added to `warnings`. `config` is `linux` of config.json, for the devices.
    ///
    /// # Errors
    ///
    /// As [`super::compile`]; a value that the kernel refuses. Then the earlier values are in place again, or the
    /// error says which are not.
    pub fn update(
        &self,
        layout: &Layout,
        resources: &LinuxResources,
        config: Option<&Linux>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let mut resources = resources.clone();
        resources.set_devices(None);
        self.leave_out(layout, &mut resources);
        self.complete(&mut resources);
        if self.paths.unit.is_some() {
            round_quota(&mut resources);
            warnings.extend(leave_out(layout.mode(), &mut resources));
        }
        let writes = limits::writes(layout, &resources, warnings)?;
        self.check_usage(&resources)?;
        self.offer_controllers(layout, &writes)?;
        let mut written = Vec::new();
        let was_idle = self.is_idle_in_unit();
        // The files first: they can be put back.
        self.write_all(&writes, &mut written)
            .and_then(|()| {
                let mut properties = of_resources(layout.mode(), &resources)?;
                if was_idle && !self.is_idle_in_unit() && properties.iter().all(|property| property.name != "CPUWeight")
                {
                    // The kernel's own weight, which it is back to.
                    properties.push(Property::new("CPUWeight", Value::Uint64(100)));
                }
                let unit = self.paths.unit.as_ref().filter(|_| !properties.is_empty());
                unit.map_or(Ok(()), |unit| self.update_unit(unit, &properties, layout, writes.clone(), config))
            })
            .map_err(|error| written.iter().rev().fold(error, |error, file| error.with_cleanup(file.put_back())))
    }

    /// systemd writes what it makes of the limits (its own period where there is no quota), and on v1 its list of devices, with
    /// none allowed for a moment: so the processes stand still meanwhile, and the files are written once more.
    fn update_unit(
        &self,
        unit: &Unit,
        properties: &[Property],
        layout: &Layout,
        mut writes: Vec<Write>,
        config: Option<&Linux>,
    ) -> Result<()> {
        let rules = devices::rules(config)?;
        let limited = self.with("devices").is_some() && !devices::allow_all(&rules);
        if limited {
            writes.extend(limits::devices(layout, &rules)?.0);
        }
        let stands = limited && self.is_frozen().is_ok_and(|frozen| !frozen) && self.freeze().is_ok();
        let updated = unit.update(properties).and_then(|()| self.write_all(&writes, &mut Vec::new()));
        let thawed = if stands { self.thaw() } else { Ok(()) };
        updated.and(thawed)
    }

    fn write_all<'a>(&'a self, writes: &[Write], written: &mut Vec<Written<'a>>) -> Result<()> {
        let mut again = Vec::new();
        for write in writes {
            match self.write_one(write, written)? {
                // Another file's old value may be in the way: see v1.rs.
                Err(Errno::EINVAL | Errno::EBUSY) => again.push(write),
                Err(errno) => return Err(refused(self.branch_of(write)?, write, errno)),
                Ok(()) => {}
            }
        }
        again.into_iter().try_for_each(|write| {
            let outcome = self.write_one(write, written)?;
            outcome.or_else(|errno| Err(refused(self.branch_of(write)?, write, errno)))
        })
    }

    fn write_one<'a>(&'a self, write: &Write, written: &mut Vec<Written<'a>>) -> Result<nix::Result<()>> {
        let branch = self.branch_of(write)?;
        let choices = [Some((&write.file, &write.value)), write.instead.as_ref().map(|(file, value)| (file, value))];
        let mut outcome = Err(Errno::ENOENT);
        for (file, value) in choices.into_iter().flatten() {
            if outcome != Err(Errno::ENOENT) {
                break;
            }
            let before = branch.read(file).ok().and_then(|before| undo::value(file, value, &before));
            outcome = branch.open(file, OFlag::O_WRONLY).and_then(|file| write_once(&file, value));
            if outcome.is_ok() {
                written.push(Written { branch, file: file.clone(), before });
            }
        }
        Ok(if outcome == Err(Errno::ENOENT) && write.optional { Ok(()) } else { outcome })
    }

    fn branch_of(&self, write: &Write) -> Result<&Branch> {
        let branches = || self.v1.iter().chain(&self.unified);
        branches().find(|branch| branch.name == write.hierarchy).ok_or_else(|| {
            let place = if write.hierarchy.is_empty() { "in the cgroup v2 tree" } else { &write.hierarchy };
            Error::unsupported(format!("{} cannot be set: the container has no cgroup {place}", write.file))
        })
    }

    /// The v2 tree where the controller is, if it is there.
    fn on_v2(&self, controller: &str) -> Option<&Branch> {
        self.unified.as_ref().filter(|_| self.with(controller).is_none())
    }

    /// What runc's update does not even read is no reason to refuse the rest: callers send a whole `linux.resources`, on
    /// hosts without these controllers, too.
    fn leave_out(&self, layout: &Layout, resources: &mut LinuxResources) {
        if let Some(mut network) = resources.network().clone() {
            if self.with("net_cls").is_none() {
                network.set_class_id(None);
            }
            if self.with("net_prio").is_none() {
                network.set_priorities(None);
            }
            resources.set_network(Some(network));
        }
        let offered = || layout.unified_controllers().iter().any(|name| name == "rdma");
        if self.with("rdma").is_none() && !(self.unified.is_some() && offered()) {
            resources.set_rdma(None);
        }
    }

    /// On v2 one file holds what are two fields, and swap is counted without memory: what is not given stays.
    fn complete(&self, resources: &mut LinuxResources) {
        if let (Some(branch), Some(mut memory)) = (self.on_v2("memory"), *resources.memory())
            && memory.limit().unwrap_or(0) == 0
            && memory.swap().is_some_and(|swap| swap > 0)
            && let Ok(limit) = branch.read("memory.max")
        {
            memory.set_limit(Some(limit.trim().parse().unwrap_or(-1)));
            resources.set_memory(Some(memory));
        }
        // To systemd a weight is the end of being idle; the kernel takes none before.
        if let Some(files) = resources.unified_mut()
            && files.contains_key("cpu.weight")
            && !files.contains_key("cpu.idle")
            && self.is_idle_in_unit()
        {
            let _ = files.insert("cpu.idle".to_owned(), "0".to_owned());
        }
        let Some(mut cpu) = resources.cpu().clone() else { return };
        if cpu.shares().unwrap_or(0) != 0 && cpu.idle().is_none() && self.is_idle_in_unit() {
            cpu.set_idle(Some(0));
            resources.set_cpu(Some(cpu.clone()));
        }
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        if let (Some(branch), Some(_)) = (self.with("cpu"), &self.paths.unit)
            && (quota == 0) != (period == 0)
        {
            // systemd counts in shares of a second, and takes a period alone for the end of the quota.
            if quota == 0 {
                cpu.set_quota(branch.read("cpu.cfs_quota_us").ok().and_then(|text| text.trim().parse().ok()));
            } else {
                cpu.set_period(branch.read("cpu.cfs_period_us").ok().and_then(|text| text.trim().parse().ok()));
            }
            resources.set_cpu(Some(cpu));
            return;
        }
        if let Some(branch) = self.on_v2("cpu")
            && (quota == 0) != (period == 0)
            && let Ok(text) = branch.read("cpu.max")
            && let Some((old_quota, old_period)) = text.trim().split_once(' ')
        {
            if quota == 0 {
                cpu.set_quota(Some(old_quota.parse().unwrap_or(-1)));
            } else {
                cpu.set_period(old_period.parse().ok());
            }
            resources.set_cpu(Some(cpu));
        }
    }

    /// Whether systemd has it idle, which to systemd is a weight.
    fn is_idle_in_unit(&self) -> bool {
        let branch = self.on_v2("cpu").filter(|_| self.paths.unit.is_some());
        branch.is_some_and(|branch| branch.read("cpu.idle").is_ok_and(|idle| idle.trim() == "1"))
    }

    /// `memory.checkBeforeUpdate`: on v2 a limit below what is used ends processes; v1 refuses it by itself.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true)) else {
            return Ok(());
        };
        let usage = self.on_v2("memory").and_then(|branch| branch.read("memory.current").ok());
        let Some(usage) = usage.and_then(|usage| usage.trim().parse::<i64>().ok()) else { return Ok(()) };
        for (what, limit) in [("memory+swap", memory.swap()), ("memory", memory.limit())] {
            if let Some(limit) = limit.filter(|&limit| limit > 0 && limit <= usage) {
                return Err(Error::invalid(format!(
                    "rejecting {what} limit {limit} <= usage {usage}: linux.resources.memory.checkBeforeUpdate asks for that"
                )));
            }
        }
        Ok(())
    }

    /// In a hybrid, controllers of the v2 tree are enabled for the container when a limit first needs them.
    fn offer_controllers(&self, layout: &Layout, writes: &[Write]) -> Result<()> {
        let (Some(branch), Some(root)) = (&self.unified, layout.unified()) else { return Ok(()) };
        let Ok(path) = branch.path.strip_prefix(root) else { return Ok(()) };
        let is_needed = |write: &&Write| write.hierarchy.is_empty() && !write.optional && write.controller != "cgroup";
        let enable: Vec<String> = writes.iter().filter(is_needed).map(|write| write.controller.clone()).collect();
        let plan = Plan { enable, writes: writes.to_vec(), ..Plan::default() };
        let path = path.to_string_lossy().into_owned();
        enable_controllers(&Place { name: "", mountpoint: root, path, is_cpuset: false }, branch, &plan)
    }
}

impl Written<'_> {
    fn put_back(&self) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        self.branch.write(&self.file, before).map_err(|errno| {
            Error::os(format!("cannot put {} back to {before:?}", self.branch.shown(&self.file)), errno)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::parse_resources;

    #[test]
    fn null_asks_for_nothing_and_a_list_is_none() {
        let parse = |json: &str| parse_resources(json.as_bytes());
        assert_eq!(parse("null").unwrap(), parse("{}").unwrap());
        assert_eq!(parse("{\"cpu\": null, \"memory\": {\"limit\": null}}").unwrap().cpu(), &None);
        for json in ["[]", "[null]", "1", "\"\"", "{\"cpu\": []}", "{\"memory\": [1]}", "{\"pids\": [5]}", ""] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.starts_with("the resources are malformed"), "{json}: {error}");
        }
    }
}
