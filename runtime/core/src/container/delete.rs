//! `delete`: the end of a container, and of all that its making left.

use std::os::fd::AsFd as _;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::container::folder::Folder;
use crate::container::hooks;
use crate::container::kill::signal_init;
use crate::container::process::{open_pidfd, wait_for_end};
use crate::runtime::status_under_lock;
use crate::state::{Record, State, Status};
use crate::{Error, Kind, Result, Runtime};

/// How long a killed init may take to end; the kernel may have much memory to give back.
const DYING: u16 = 30_000;
/// How often it is looked whether it is kept from ending, in milliseconds.
const LOOK: u16 = 100;

impl Runtime {
    /// Deletes a container and its resources (runtime-spec, "Delete"). With `force` it is killed first, and a
    /// container that does not exist is no error. What is to be warned of, each a sentence: a poststop hook that fails keeps
    /// nothing.
    ///
    /// # Errors
    ///
    /// `WrongState` for a running container without `force`; resources that cannot be removed: the container
    /// then stays visible and can be deleted again.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<String>> {
        let folder = match self.folder(id) {
            Err(error) if force && error.kind() == Kind::NotFound => return Ok(Vec::new()),
            result => result?,
        };
        let _lock = folder.lock()?;
        let Some(record) = folder.load()? else {
            // Its maker was killed before it had made anything else.
            return folder.remove(self.root_fd()).map(|()| Vec::new());
        };
        let status = status_under_lock(&record);
        if matches!(status, Status::Running | Status::Paused) && !force {
            return Err(Error::new(
                Kind::WrongState,
                format!(
                    "cannot delete container {id} that is not stopped: {} (kill it first, or use --force)",
                    status.as_str()
                ),
            ));
        }
        // Whatever the record says: a maker that was killed after it let init go left one that waits for a start.
        end(&record)?;
        self.clean(&folder, &record)
    }

    /// Removes what belongs to a container whose init has ended.
    pub(super) fn clean(&self, folder: &Folder, record: &Record) -> Result<Vec<String>> {
        let cgroup = Cgroup::from_paths(&record.cgroup);
        if record.pid != 0 {
            // It had an init; with a shared pid namespace others may live on.
            cgroup.kill_all()?;
        }
        // A maker that was killed before it had the unit may have asked for one that another container has.
        if record.pid != 0 || record.cgroup.unit.is_none() || cgroup.processes()?.is_empty() {
            cgroup.delete()?;
        }
        if let Some(group) = &record.resctrl {
            group.remove()?;
        }
        let bundle = late_hooks(folder, record);
        folder.remove(self.root_fd())?;
        // After all is gone, as the specification wants, which has their failures logged.
        let errors = bundle.and_then(|bundle| bundle.map_or(Ok(Vec::new()), |bundle| poststop(record, &bundle)));
        Ok(errors.unwrap_or_else(|error| vec![error]).iter().map(ToString::to_string).collect())
    }
}

fn late_hooks(folder: &Folder, record: &Record) -> Result<Option<Bundle>> {
    if !record.late_hooks {
        return Ok(None);
    }
    Bundle::from_parts(record.bundle.clone(), folder.config()?).map(Some)
}

fn poststop(record: &Record, bundle: &Bundle) -> Result<Vec<Error>> {
    let (hooks, state) = (crate::compile::poststop_hooks(bundle)?, State::hook_json(record, Status::Stopped, 0)?);
    Ok(hooks::run_all("poststop", &record.bundle, &hooks, &state))
}

/// Kills init, if there is one, and waits until it has ended; its pid namespace goes with it.
pub(super) fn end(record: &Record) -> Result<()> {
    let pidfd = match open_pidfd(record.pid) {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        result => result?,
    };
    match signal_init(record, libc::SIGKILL) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::WrongState => return Ok(()),
        Err(error) => return Err(error),
    }
    for _ in 0..DYING / LOOK {
        if wait_for_end(pidfd.as_fd(), LOOK) {
            return Ok(());
        }
        // Its processes may have frozen each other again.
        Cgroup::from_paths(&record.cgroup).thaw_to_die();
    }
    Err(Error::new(
        Kind::Busy,
        format!(
            "init {} of container {} was killed and has not ended within {} s: it may hang in the kernel (see its /proc/{}/stack)",
            record.pid,
            record.id,
            DYING / 1000,
            record.pid
        ),
    ))
}
