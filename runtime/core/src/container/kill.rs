//! `kill` and `ps`.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::container::pid_namespace;
use crate::container::process::{open_pidfd, signal_pidfd, start_time};
use crate::runtime::has_stopped;
use crate::state::Record;
use crate::{Error, Kind, Result, Runtime};

/// How many pidfds are open at a time.
const AT_ONCE: usize = 256;

impl Runtime {
    /// Sends a signal to a container's init (runtime-spec, "Kill"), or to all its processes.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not running") when it has stopped; `Invalid` for no signal.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let folder = self.folder(id)?;
        let record = folder.record()?;
        // SIGKILL means the whole container: the kernel does it where init has a pid namespace of its own.
        if all || (signal == libc::SIGKILL && record.shares_pids) {
            // Also of a stopped container: with a shared pid namespace processes outlive init.
            return kill_all(&record, signal);
        }
        if has_stopped(&folder, &record) {
            return Err(not_running());
        }
        signal_init(&record, signal)
    }

    /// The pids, on the host, of all processes of a container.
    ///
    /// # Errors
    ///
    /// `NotFound`; cgroups that cannot be read.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let folder = self.folder(id)?;
        let record = folder.record()?;
        processes(&record)
    }
}

/// By its cgroups; without any, by its pid namespace; without that too, init alone.
fn processes(record: &Record) -> Result<Vec<i32>> {
    let cgroup = Cgroup::from_paths(&record.cgroup);
    if !cgroup.is_nowhere() {
        return cgroup.processes();
    }
    if start_time(record.pid) != Some(record.start_time) {
        return Ok(Vec::new());
    }
    Ok(pid_namespace::processes(record.pid).unwrap_or_else(|| vec![record.pid]))
}

fn kill_all(record: &Record, signal: i32) -> Result<()> {
    let cgroup = Cgroup::from_paths(&record.cgroup);
    if signal == libc::SIGKILL && !cgroup.is_nowhere() {
        return cgroup.kill_all();
    }
    // Without a cgroup, and init's SIGKILL ends all of its pid namespace.
    signal_listed(&processes(record)?, || processes(record), signal)
}

/// Sends a signal to processes that were listed, and to nobody who has the pid of one by now: each pidfd is opened first, and
/// then its pid must be on a new list. A container that ends and makes processes fast would else get the pid of one listed
/// to a process of the host.
pub(crate) fn signal_listed(listed: &[i32], list: impl Fn() -> Result<Vec<i32>>, signal: i32) -> Result<()> {
    for some in listed.chunks(AT_ONCE) {
        let mut open = Vec::with_capacity(some.len());
        for &pid in some {
            match open_pidfd(pid) {
                Ok(pidfd) => open.push((pid, pidfd)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if open.is_empty() {
            continue;
        }
        let still: BTreeSet<i32> = list()?.into_iter().collect();
        for (pid, pidfd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
            match signal_pidfd(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::os(format!("send signal {signal} to process {pid}"), errno)),
            }
        }
    }
    Ok(())
}

fn not_running() -> Error {
    Error::new(Kind::WrongState, "container not running")
}

/// By pidfd, and only if the process is still the one that was recorded.
pub(crate) fn signal_init(record: &Record, signal: i32) -> Result<()> {
    let pidfd = match open_pidfd(record.pid) {
        Err(error) if error.kind() == Kind::NotFound => return Err(not_running()),
        result => result?,
    };
    // Asked after the pidfd is open: now the pid cannot change hands any more.
    if start_time(record.pid) != Some(record.start_time) {
        return Err(not_running());
    }
    match signal_pidfd(pidfd.as_fd(), signal) {
        Err(Errno::ESRCH) => Err(not_running()),
        Err(Errno::EINVAL) => Err(Error::invalid(format!("signal {signal}: there is none with this number"))),
        Ok(()) => {
            if signal == libc::SIGKILL {
                Cgroup::from_paths(&record.cgroup).thaw_to_die();
            }
            Ok(())
        }
        Err(errno) => Err(Error::os(format!("send signal {signal} to container {}", record.id), errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::signal_listed;

    /// What a container does that makes and ends processes fast: a pid that was listed is another process's by now.
    #[test]
    fn a_process_that_got_a_listed_pid_is_left_alone() {
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut own = Command::new("sleep").arg("1000").spawn().unwrap();
        let listed = [stranger.id() as i32, own.id() as i32];
        signal_listed(&listed, || Ok(vec![listed[1]]), libc::SIGKILL).unwrap();
        assert!(!own.wait().unwrap().success(), "its own is not ended");
        assert_eq!(stranger.try_wait().unwrap(), None, "the stranger is ended");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
