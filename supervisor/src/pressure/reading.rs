//! What is left on the node.

use std::io;
use std::path::Path;

/// How much there is, and how much of it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// All of it.
    pub total: u64,
    /// What can still be had.
    pub left: u64,
}

/// The node at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Bytes of memory; what the kernel can take back counts as left.
    pub memory: Amount,
    /// Bytes of the file system.
    pub disk: Amount,
    /// Its inodes; none in total: it makes them as needed.
    pub inodes: Amount,
    /// Process ids.
    pub pids: Amount,
}

impl Reading {
    /// Reads all of it; `data` is a folder of the file system that is looked at.
    ///
    /// # Errors
    ///
    /// When /proc or the file system cannot be read.
    pub fn take(data: &Path) -> io::Result<Self> {
        let memory = memory(&std::fs::read_to_string("/proc/meminfo")?);
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let limit = std::fs::read_to_string("/proc/sys/kernel/pid_max")?;
        let disk = rustix::fs::statvfs(data)?;
        let missing =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} does not say what it should"));
        Ok(Self {
            memory: memory.ok_or_else(|| missing("/proc/meminfo"))?,
            disk: Amount { total: disk.f_blocks * disk.f_frsize, left: disk.f_bavail * disk.f_frsize },
            inodes: Amount { total: disk.f_files, left: disk.f_favail },
            pids: pids(&load, &limit).ok_or_else(|| missing("/proc/loadavg or /proc/sys/kernel/pid_max"))?,
        })
    }
}

fn memory(text: &str) -> Option<Amount> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(Amount { total: field("MemTotal:")?, left: field("MemAvailable:")? })
}

/// The fourth field of /proc/loadavg is `running/all`, in tasks: each thread has a pid.
fn pids(load: &str, limit: &str) -> Option<Amount> {
    let tasks: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let total: u64 = limit.trim().parse().ok()?;
    Some(Amount { total, left: total.saturating_sub(tasks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_understood() {
        let text = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    500 kB\n";
        assert_eq!(memory(text), Some(Amount { total: 1_024_000, left: 512_000 }));
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
        assert_eq!(pids("0.1 0.2 0.3 2/300 4242\n", "32768\n"), Some(Amount { total: 32_768, left: 32_468 }));
        assert_eq!(pids("", "1"), None);
    }

    #[test]
    fn this_host_can_be_read() {
        let reading = Reading::take(Path::new("/")).expect("read");
        for amount in [reading.memory, reading.disk, reading.pids] {
            assert!(amount.total > 0 && amount.left <= amount.total, "{reading:?}");
        }
    }
}
