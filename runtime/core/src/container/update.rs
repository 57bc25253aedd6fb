//! `update`: new limits for a container.

use oci_spec::runtime::LinuxResources;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::runtime::status_under_lock;
use crate::state::Status;
use crate::{Error, Kind, Result, Runtime, resctrl};

impl Runtime {
    /// Sets new limits; what `resources` leaves out stays as it is, and so do all devices. All of them are set, or none.
    /// Returns what the specification says to warn about, each a sentence.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not running") for a container that has stopped; `Unsupported` for one without cgroups and
    /// for what this host lacks; what the kernel refuses, with the file, the value and the errno.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<Vec<String>> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let record = folder.record()?;
        if status_under_lock(&record) == Status::Stopped {
            return Err(Error::new(Kind::WrongState, format!("cannot update container {id}: container not running")));
        }
        let mut warnings = Vec::new();
        let cgroup = Cgroup::from_paths(&record.cgroup);
        // Only a unit's devices of v1 are written again.
        let unit = record.cgroup.unit.as_ref().filter(|_| !record.cgroup.v1.is_empty());
        let bundle = unit.map(|_| Bundle::from_parts(record.bundle.clone(), folder.config()?)).transpose()?;
        let config = bundle.as_ref().and_then(|bundle| bundle.spec().linux().as_ref());
        cgroup.update(&self.host()?.layout, resources, config, &mut warnings)?;
        Ok(warnings)
    }

    /// Changes the class of service of a container (`linux.intelRdt`): the L3 cache's schema, the memory bandwidth's, or both.
    ///
    /// # Errors
    ///
    /// `WrongState` for a container that has stopped; `Unsupported` where resctrl lacks it or the container has no class; what
    /// the kernel refuses, with its reason.
    pub fn update_schemata(&self, id: &str, cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let record = folder.record()?;
        if status_under_lock(&record) == Status::Stopped {
            return Err(Error::new(Kind::WrongState, format!("cannot update container {id}: container not running")));
        }
        let Some(group) = &record.resctrl else {
            resctrl::must_be_enabled(cache.is_some(), bandwidth.is_some())?;
            return Err(Error::unsupported(
                "updating a non-existent Intel RDT configuration is not supported: config.json has no linux.intelRdt",
            ));
        };
        group.set(cache, bandwidth)
    }
}
