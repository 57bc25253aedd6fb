//! `pause` and `resume`: the container's freezer.

use crate::cgroup::Cgroup;
use crate::runtime::status_under_lock;
use crate::state::Status;
use crate::{Error, Kind, Result, Runtime};

impl Runtime {
    /// Stops all processes of a created or running container, by the freezer of its cgroup. All stand when this
    /// returns; on an error none does.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not running") for one that is paused or has stopped; `Unsupported` without a
    /// freezer; a process that cannot be stopped in time (one that hangs in the kernel).
    pub fn pause(&self, id: &str) -> Result<()> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let record = folder.record()?;
        match status_under_lock(&record) {
            Status::Created | Status::Running => Cgroup::from_paths(&record.cgroup).freeze(),
            other => Err(Error::new(
                Kind::WrongState,
                format!("cannot pause container {id}: container not running ({})", other.as_str()),
            )),
        }
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not paused") for any other.
    pub fn resume(&self, id: &str) -> Result<()> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let record = folder.record()?;
        match status_under_lock(&record) {
            Status::Paused => Cgroup::from_paths(&record.cgroup).thaw(),
            other => Err(Error::new(
                Kind::WrongState,
                format!("cannot resume container {id}: container not paused ({})", other.as_str()),
            )),
        }
    }
}
