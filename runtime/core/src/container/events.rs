//! `events`: what a container uses, and what happens to it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::{Cgroup, NetworkInterface, OomWatch, Stats};
use crate::container::Folder;
use crate::container::process::{open_pidfd, start_time};
use crate::runtime::has_stopped;
use crate::state::Record;
use crate::{Error, Kind, Result, Runtime, resctrl};

/// What a [`Watch`] saw first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The container ran out of memory.
    Oom,
    /// Its init has ended.
    Ended,
    /// Nothing in the given time.
    Nothing,
}

/// A watch over a container's memory and its end.
#[derive(Debug)]
pub struct Watch {
    init: OwnedFd,
    oom: Option<OomWatch>,
}

impl Runtime {
    /// What a container uses, and its limits.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not running") when it has stopped; files that cannot be read.
    pub fn stats(&self, id: &str) -> Result<Stats> {
        let folder = self.folder(id)?;
        let record = alive(&folder, id)?;
        let mut stats = Cgroup::from_paths(&record.cgroup).stats()?;
        stats.intel_rdt = record.resctrl.as_ref().map(resctrl::Group::stats).unwrap_or_default();
        stats.network_interfaces = network_interfaces(record.pid);
        Ok(stats)
    }

    /// What the cgroups of a container count, without its network: also of one that has stopped, until it is deleted.
    ///
    /// # Errors
    ///
    /// `NotFound`; files that cannot be read.
    pub fn cgroup_stats(&self, id: &str) -> Result<Stats> {
        Cgroup::from_paths(&self.folder(id)?.record()?.cgroup).stats()
    }

    /// Watches a container for want of memory, by a descriptor to poll; `None` when no memory controller counts it.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not running") when it has stopped.
    pub fn watch_oom(&self, id: &str) -> Result<Option<OomWatch>> {
        let folder = self.folder(id)?;
        Cgroup::from_paths(&alive(&folder, id)?.cgroup).watch_oom()
    }

    /// How many of a container's processes the kernel has killed for want of memory; 0 when it cannot be known.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn oom_kills(&self, id: &str) -> Result<u64> {
        Ok(Cgroup::from_paths(&self.folder(id)?.record()?.cgroup).oom_kills())
    }

    /// Watches a container for want of memory, and for its end.
    ///
    /// # Errors
    ///
    /// `WrongState` ("container not running") when it has stopped.
    pub fn watch(&self, id: &str) -> Result<Watch> {
        let folder = self.folder(id)?;
        let record = alive(&folder, id)?;
        let init = open_pidfd(record.pid)?;
        // Asked after the pidfd is open: now the pid cannot change hands any more.
        if start_time(record.pid) != Some(record.start_time) {
            return Err(not_running(id));
        }
        Ok(Watch { init, oom: Cgroup::from_paths(&record.cgroup).watch_oom()? })
    }
}

impl Watch {
    /// Waits for what happens next, at most so long. What happened before the end is told before it.
    ///
    /// # Errors
    ///
    /// poll(2) fails.
    pub fn next(&mut self, at_most: Duration) -> Result<Event> {
        let deadline = std::time::Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            // Rounded up: a rest below a millisecond is no reason to poll in a circle.
            let milliseconds = left.as_micros().div_ceil(1000).min(i32::MAX as u128 - 1);
            let timeout = PollTimeout::try_from(milliseconds as i32).unwrap_or(PollTimeout::MAX);
            let mut fds = vec![PollFd::new(self.init.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.oom.as_ref().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(Event::Nothing),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os("wait for events of the container", errno)),
            }
            let ended = fds.first().and_then(PollFd::any).unwrap_or(false);
            if self.oom.as_mut().map_or(Ok(false), OomWatch::take)? {
                return Ok(Event::Oom);
            }
            if ended {
                return Ok(Event::Ended);
            }
        }
    }
}

fn alive(folder: &Folder, id: &str) -> Result<Record> {
    let record = folder.record()?;
    if has_stopped(folder, &record) { Err(not_running(id)) } else { Ok(record) }
}

fn not_running(id: &str) -> Error {
    Error::new(Kind::WrongState, format!("container with id {id} is not running: container not running"))
}

/// The interfaces of the container's own network namespace; they are told from the container's side.
fn network_interfaces(pid: i32) -> Option<Vec<NetworkInterface>> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if namespace(&pid.to_string())? == namespace("self")? {
        return None;
    }
    let table = crate::procfs::read(&format!("/proc/{pid}/net/dev")).ok()?;
    Some(parse_interfaces(&String::from_utf8_lossy(&table)))
}

/// proc_pid_net(5): two lines of headings, then `name: ` with eight columns received and eight sent.
fn parse_interfaces(table: &str) -> Vec<NetworkInterface> {
    let interface = |line: &str| {
        let (name, columns) = line.split_once(':')?;
        let columns: Vec<u64> = columns.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let column = |index: usize| columns.get(index).copied().unwrap_or(0);
        let name = name.trim();
        (name != "lo").then(|| NetworkInterface {
            name: name.to_owned(),
            rx_bytes: column(0),
            rx_packets: column(1),
            rx_errors: column(2),
            rx_dropped: column(3),
            tx_bytes: column(8),
            tx_packets: column(9),
            tx_errors: column(10),
            tx_dropped: column(11),
        })
    };
    table.lines().skip(2).filter_map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::{NetworkInterface, parse_interfaces};

    #[test]
    fn interfaces() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                     lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0\n  \
                     eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let expected = NetworkInterface {
            name: "eth0".into(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 9,
            tx_packets: 10,
            tx_errors: 11,
            tx_dropped: 12,
        };
        assert_eq!(parse_interfaces(table), [expected]);
    }
}
