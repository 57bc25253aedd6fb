//! `update`: new limits for a container.

use oci_spec::runtime::LinuxResources;

use crate::cgroup::Cgroup;
use crate::runtime::status_under_lock;
use crate::state::Status;
use crate::{Error, Kind, Result, Runtime};

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
        cgroup.update(&self.host()?.layout, resources, &mut warnings)?;
        Ok(warnings)
    }
}
