//! What a caller without privileges can have, and what a user namespace makes impossible for anybody: told by its
//! field here, before the kernel says EPERM or EINVAL in the middle of the set-up.

use oci_spec::runtime::Process;

use super::Compiler;
use super::mount_options;
use crate::{Error, Result};

impl Compiler<'_> {
    /// Checks of the namespaces and id maps.
    pub(super) fn check_caller(&self) -> Result<()> {
        if self.host.caller.is_unprivileged() && !self.namespaces.has_user() {
            return Err(Error::invalid(
                "rootless container requires user namespaces: add {\"type\": \"user\"} to linux.namespaces, with \
                 linux.uidMappings and gidMappings (flint spec --rootless makes such a config), or call flint as root",
            ));
        }
        self.check_mount_owners()
    }

    /// `uid=` and `gid=` of file systems count in the container's user namespace. A joined one's maps are not known.
    fn check_mount_owners(&self) -> Result<()> {
        if !self.namespaces.is_new(libc::CLONE_NEWUSER) {
            return Ok(());
        }
        let (uids, gids) = self.namespaces.maps();
        for (index, mount) in self.spec.mounts().iter().flatten().enumerate() {
            let options = mount_options::parse(mount.options().as_deref().unwrap_or(&[]));
            if options.bind {
                continue;
            }
            for (key, value) in &options.data {
                let (map, field) = match key.as_str() {
                    "uid" => (uids, "linux.uidMappings"),
                    "gid" => (gids, "linux.gidMappings"),
                    _ => continue,
                };
                let Some(id) = value.as_ref().and_then(|value| value.parse::<u32>().ok()) else { continue };
                if !is_mapped(map, id) {
                    return Err(Error::invalid(format!(
                        "mounts[{index}] {}: cannot specify {key}={id} mount option for rootless container: \
                         {field} does not map {id} (leave the option out, or map it)",
                        mount.destination().display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether setgroups(2) may turn out to be denied, and is then done without. In a namespace of one's own with one
    /// group, or below one that denies it, nobody can drop or add groups.
    pub(super) fn groups_may_be_denied(&self, process: &Process) -> Result<bool> {
        let wanted = !self.annotations.keep_groups
            && process.user().additional_gids().as_ref().is_some_and(|groups| !groups.is_empty());
        let denied = self.host.caller.setgroups_denied || self.denies_groups_itself();
        if wanted && denied {
            return Err(Error::invalid(
                "process.user.additionalGids: cannot set any additional groups in a rootless container whose \
                 gidMappings hold the caller's group alone: leave them out, or map a range of /etc/subgid",
            ));
        }
        Ok(self.namespaces.has_user() || denied)
    }

    /// The kernel takes a gid map from a caller without CAP_SETGID only after `deny` was written (Linux 3.19).
    pub(super) fn denies_groups_itself(&self) -> bool {
        let caller = &self.host.caller;
        let (_, gids) = self.namespaces.maps();
        caller.is_unprivileged()
            && self.namespaces.is_new(libc::CLONE_NEWUSER)
            && matches!(gids.as_slice(), [(_, outside, 1)] if *outside == caller.gid)
    }

    /// The user and the groups must be mapped; of a joined namespace that is not known here.
    pub(super) fn check_user(&self, process: &Process) -> Result<()> {
        self.groups_may_be_denied(process)?;
        if !self.namespaces.is_new(libc::CLONE_NEWUSER) {
            return Ok(());
        }
        let (uids, gids) = self.namespaces.maps();
        let user = process.user();
        let groups = user.additional_gids().iter().flatten().map(|&gid| ("process.user.additionalGids", gid, gids));
        let ids = [("process.user.uid", user.uid(), uids), ("process.user.gid", user.gid(), gids)];
        for (field, id, map) in ids.into_iter().chain(groups) {
            if !is_mapped(map, id) {
                let maps = if std::ptr::eq(map, uids) { "uidMappings" } else { "gidMappings" };
                return Err(Error::invalid(format!(
                    "{field}: {id} is not mapped by linux.{maps}: map it, or use one that is"
                )));
            }
        }
        Ok(())
    }
}

fn is_mapped(map: &[(u32, u32, u32)], id: u32) -> bool {
    map.iter().any(|&(inside, _, count)| id >= inside && u64::from(id) < u64::from(inside) + u64::from(count))
}
