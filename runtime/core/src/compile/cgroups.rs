//! The container's cgroup, by whichever driver.

use std::path::Path;

use oci_spec::runtime::{Linux, Mount};

use super::paths::clean;
use super::{CompileOptions, Compiler};
use crate::bundle::Bundle;
use crate::cgroup::{self, Mode, Need};
use crate::{CgroupManager, Result};

/// oci-spec reads a `linux.resources.pids` without a limit as the limit 0, which is a value (spec 1.3 says so, runc takes it so
/// in every version): the same without it, where config.json has none.
pub(super) fn without_unset_pids(bundle: &Bundle, linux: Option<&Linux>) -> Option<Linux> {
    let pids = linux?.resources().as_ref()?.pids().as_ref()?;
    if pids.limit() != 0 {
        return None;
    }
    let json: serde_json::Value = serde_json::from_slice(bundle.json()).unwrap_or_default();
    if json.pointer("/linux/resources/pids/limit").is_some_and(|limit| !limit.is_null()) {
        return None;
    }
    let mut linux = linux?.clone();
    if let Some(resources) = linux.resources_mut() {
        resources.set_pids(None);
    }
    Some(linux)
}

fn is_writable_cgroup(mount: &Mount) -> bool {
    let is_cgroup = matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
    let readonly = mount.options().iter().flatten().any(|option| option == "ro" || option == "rro");
    is_cgroup && !readonly && clean(mount.destination()) == Path::new("/sys/fs/cgroup")
}

impl Compiler<'_> {
    pub(super) fn cgroup(&mut self, options: &CompileOptions, linux: Option<&Linux>) -> Result<cgroup::Plan> {
        let need = self.host.caller.cgroups;
        if need == Need::Nowhere {
            let resources = linux.and_then(|linux| linux.resources().as_ref());
            if resources.is_some_and(cgroup::has_limits) {
                self.warnings.push("linux.resources is ignored: cgroups are disabled".to_owned());
            }
            return Ok(cgroup::Plan { need, ..cgroup::Plan::default() });
        }
        let (id, layout, warnings) = (&options.id, &self.host.layout, &mut self.warnings);
        if options.cgroup_manager == CgroupManager::Systemd {
            let annotations = self.spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
            let place = (self.host.systemd, self.host.systemd_above.as_str());
            let mut plan = cgroup::systemd::compile(layout, id, linux, &annotations.collect(), place, warnings)?;
            plan.devices_where_permitted = need == Need::WherePermitted;
            plan.subgroup.clone_from(&self.annotations.subgroup);
            self.delegate(&mut plan);
            return Ok(plan);
        }
        let mut plan = cgroup::compile(layout, id, linux, warnings)?;
        // Who names a place wants that one.
        let named = linux.and_then(|linux| linux.cgroups_path().as_deref());
        if named.is_none_or(|path| path.as_os_str().is_empty()) {
            plan.need = need;
        }
        plan.devices_where_permitted = need == Need::WherePermitted;
        self.delegate(&mut plan);
        Ok(plan)
    }

    /// Whose the cgroup becomes: the program's user's, where it sees it writable in a cgroup namespace of its own, on v2. As
    /// runc's systemd driver and crun, here by either driver. `None` for who owns it anyhow.
    fn cgroup_owner(&self) -> Option<u32> {
        let caller = &self.host.caller;
        if self.host.layout.mode() != Mode::V2
            || caller.is_unprivileged()
            || caller.cgroups != Need::Required
            || !self.namespaces.is_new(libc::CLONE_NEWCGROUP)
            || !self.spec.mounts().iter().flatten().any(is_writable_cgroup)
        {
            return None;
        }
        let uid = self.spec.process().as_ref()?.user().uid();
        if !self.namespaces.has_user() {
            return (uid != 0).then_some(uid);
        }
        let (users, _) = self.namespaces.maps();
        let line = users.iter().find(|&&(inside, _, count)| uid >= inside && uid - inside < count);
        let owner = line.and_then(|&(inside, outside, _)| outside.checked_add(uid - inside));
        owner.filter(|&owner| owner != 0)
    }

    /// On v1 a cgroup cannot be given away safely, so it is left as it is there, told.
    fn delegate(&mut self, plan: &mut cgroup::Plan) {
        plan.delegate.clone_from(&self.annotations.delegate);
        plan.owner = self.cgroup_owner();
        if self.host.layout.mode() != Mode::V2 && (plan.subgroup.take().is_some() || plan.delegate.take().is_some()) {
            self.warnings.push(
                "annotations run.oci.systemd.subgroup and run.oci.delegate-cgroup are ignored: they need cgroup v2"
                    .to_owned(),
            );
        }
    }
}
