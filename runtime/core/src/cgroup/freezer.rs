//! The freezer: stopping all processes of a container, and letting them go on.
//!
//! ```text
//!  v2:  cgroup.freeze = 1, then wait for `frozen 1` in cgroup.events                  (Linux 5.2)
//!  v1:  freezer.state = FROZEN, read it, and again with growing pauses until it says so;
//!       thawed for a moment now and then, as a fork that races with the freezing can keep it half-way for ever
//!  too long: thawed again, never left half frozen
//! ```

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cgroups_rs::freezer::{FreezerController, FreezerState};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::branch::{Branch, is_gone, keyed, read_all, wait_for_event, write_once};
use super::live::Cgroup;
use super::removal;
use crate::{Error, Result};

/// How long freezing may take. A process in an uninterruptible wait (NFS, FUSE) cannot be frozen.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tries of v1 between two thaws (kernel 5.4 and older freeze no group in which processes keep appearing otherwise).
const TRIES: u32 = 50;

impl Cgroup {
    /// The freezer: of v1 where it is mounted, else of the v2 tree (Linux 5.2).
    fn freezer(&self) -> Option<(&Branch, FreezerController)> {
        let v1 = self.with("freezer");
        let branch = v1.or(self.unified.as_ref())?;
        Some((branch, FreezerController::new(branch.path.clone(), v1.is_none())))
    }

    /// The folder of the freezer, for those who freeze by themselves.
    #[must_use]
    pub fn freezer_path(&self) -> Option<&Path> {
        self.freezer().map(|(branch, _)| branch.path.as_path())
    }

    /// Stops every process, and waits until all stand.
    ///
    /// # Errors
    ///
    /// There is no freezer ([`Kind::Unsupported`](crate::Kind::Unsupported)), or a process does not stop in time; then
    /// all are thawed again.
    pub fn freeze(&self) -> Result<()> {
        let Some((branch, freezer)) = self.freezer() else {
            return Err(Error::unsupported("the container has no freezer cgroup, so it cannot be paused"));
        };
        let frozen = if branch.name.is_empty() { freeze_v2(branch, &freezer) } else { freeze_v1(&freezer) };
        frozen.map_err(|error| {
            let error = Error::os(format!("cannot freeze {}", branch.path.display()), error);
            error.with_cleanup(self.thaw())
        })
    }

    /// Lets the processes go on. Without a freezer, or when the cgroup is gone, there is nothing to do.
    ///
    /// # Errors
    ///
    /// The freezer's file cannot be written.
    pub fn thaw(&self) -> Result<()> {
        let Some((branch, freezer)) = self.freezer() else {
            return Ok(());
        };
        match freezer.thaw().map_err(|error| system_error(&error)) {
            // cgroups-rs opens with O_CREAT, which cgroupfs answers with EACCES or EPERM where there is no such file.
            Err(error) if !is_gone(&error) && branch.path.exists() => {
                Err(Error::os(format!("cannot thaw {}", branch.path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Whether [`Cgroup::freeze`] holds. A freeze of a parent cgroup does not count.
    ///
    /// # Errors
    ///
    /// The freezer's state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some((branch, freezer)) = self.freezer() else {
            return Ok(false);
        };
        match freezer.state() {
            Ok(FreezerState::Thawed) => Ok(false),
            // On v1 the state is the parents' too; this file is the cgroup's own.
            Ok(_) if !branch.name.is_empty() => {
                Ok(branch.read("freezer.self_freezing").map_or(true, |own| own.trim() == "1"))
            }
            Ok(_) => Ok(true),
            Err(error) => match system_error(&error) {
                error if is_gone(&error) => Ok(false),
                error => Err(Error::os(format!("cannot read the freezer of {}", branch.path.display()), error)),
            },
        }
    }

    /// Lets go of processes that SIGKILL was sent to: a process that cgroup v1 froze does not even die. On v2 it does.
    pub(crate) fn thaw_to_die(&self) {
        if self.with("freezer").is_some() {
            // What fails here shows as a process that does not end, which is told.
            let _ = self.thaw();
            self.thaw_below();
        }
    }

    /// The same for sub-cgroups of v1: a container that may write them may have put its processes there and frozen them.
    pub(super) fn thaw_below(&self) {
        let Some(freezer) = self.with("freezer") else { return };
        let _ = removal::each_below(&freezer.path, |folder| {
            let state = nix::fcntl::openat(folder, "freezer.state", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
            let _ = state.and_then(|state| write_once(&state, "THAWED"));
            Ok(())
        });
    }
}

/// Writing FROZEN again is what makes the kernel look again: new processes may have been forked meanwhile.
fn freeze_v1(freezer: &FreezerController) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(20);
    for attempt in 1.. {
        freezer.freeze().map_err(|error| system_error(&error))?;
        if matches!(freezer.state().map_err(|error| system_error(&error))?, FreezerState::Frozen) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
        if attempt % TRIES == 0 {
            freezer.thaw().map_err(|error| system_error(&error))?;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Err(Errno::ETIMEDOUT.into())
}

fn freeze_v2(branch: &Branch, freezer: &FreezerController) -> io::Result<()> {
    let events = branch.open("cgroup.events", OFlag::O_RDONLY)?;
    freezer.freeze().map_err(|error| system_error(&error))?;
    let deadline = Instant::now() + PATIENCE;
    while keyed(&read_all(&events)?, "frozen") != Some(1) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::ETIMEDOUT.into());
        }
        wait_for_event(&events, u16::try_from(left.as_millis()).unwrap_or(u16::MAX).max(1))?;
    }
    Ok(())
}

/// The system's error inside one of cgroups-rs.
fn system_error(error: &cgroups_rs::error::Error) -> io::Error {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}
