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
        let mut resources = resources.clone();
        if resources.pids().is_some_and(|pids| pids.limit() == 0) && !zero_pids_is_a_limit(&record.oci_version) {
            resources.set_pids(None);
        }
        let mut warnings = Vec::new();
        let cgroup = Cgroup::from_paths(&record.cgroup);
        cgroup.update(&self.host()?.layout, &resources, &mut warnings)?;
        Ok(warnings)
    }
}

/// Version 1.3 of the specification made 0 a value of `pids.limit`; before, writers such as docker 20.10 used it for "none".
pub(crate) fn zero_pids_is_a_limit(oci_version: &str) -> bool {
    let mut parts = oci_version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, 3)
}

#[cfg(test)]
mod tests {
    use super::zero_pids_is_a_limit;

    #[test]
    fn versions_of_the_specification() {
        for version in ["1.3.0", "1.3.0-dev", "1.10.1", "2.0.0"] {
            assert!(zero_pids_is_a_limit(version), "{version}");
        }
        for version in ["1.0.2-dev", "1.2.1+dev", "1.0.0", ""] {
            assert!(!zero_pids_is_a_limit(version), "{version}");
        }
    }
}
