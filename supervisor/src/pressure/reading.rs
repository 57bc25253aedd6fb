//! What is left on the node.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::Signal;

/// How much there is, and how much of it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// All of it.
    pub total: u64,
    /// What can still be had.
    pub left: u64,
}

/// Where it is looked.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// A folder of the file system with flintd's data.
    pub data: &'a Path,
    /// A folder of the file system with images.
    pub images: &'a Path,
    /// Where cgroup hierarchies are mounted.
    pub cgroups: &'a Path,
    /// The name of the cgroup in them that has all pods in it.
    pub pods: &'a str,
    /// Bytes of memory that pods may have together.
    pub allocatable: u64,
}

/// The node at one moment: bytes, inodes, process ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading(pub BTreeMap<Signal, Amount>);

impl Reading {
    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// When /proc or a file system cannot be read.
    pub fn take(places: &Places<'_>) -> io::Result<Self> {
        let missing =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} does not say what it should"));
        let memory = memory(&read("/proc/meminfo".as_ref())?).ok_or_else(|| missing("/proc/meminfo"))?;
        let files = ["/proc/loadavg", "/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
        let [load, pid_max, threads_max] = files.map(|file| read(file.as_ref()));
        let pids = pids(&load?, &pid_max?, &threads_max?).ok_or_else(|| missing("/proc/loadavg or a limit of pids"))?;
        let ((node_disk, node_inodes), (image_disk, image_inodes)) = (disk(places.data)?, disk(places.images)?);
        let used = working_set(places.cgroups, places.pods)?;
        let allocatable = Amount { total: places.allocatable, left: places.allocatable.saturating_sub(used) };
        Ok(Self(BTreeMap::from([
            (Signal::Memory, memory),
            (Signal::AllocatableMemory, allocatable),
            (Signal::NodeDisk, node_disk),
            (Signal::NodeInodes, node_inodes),
            (Signal::ImageDisk, image_disk),
            (Signal::ImageInodes, image_inodes),
            (Signal::Pids, pids),
        ])))
    }
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("read {}: {error}", path.display())))
}

/// Bytes, and inodes: a file system that makes them as needed has none in total.
fn disk(path: &Path) -> io::Result<(Amount, Amount)> {
    let found = rustix::fs::statvfs(path).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("statvfs {}: {error}", path.display()))
    })?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    let disk = Amount { total: bytes(found.f_blocks), left: bytes(found.f_bavail) };
    Ok((disk, Amount { total: found.f_files, left: found.f_favail }))
}

/// What the kernel can take back counts as left.
fn memory(text: &str) -> Option<Amount> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(Amount { total: field("MemTotal:")?, left: field("MemAvailable:")? })
}

/// The fourth field of /proc/loadavg is `running/all`, in tasks: each thread has a pid. The lower limit counts.
fn pids(load: &str, pid_max: &str, threads_max: &str) -> Option<Amount> {
    let tasks: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let total: u64 = pid_max.trim().parse::<u64>().ok()?.min(threads_max.trim().parse().ok()?);
    Some(Amount { total, left: total.saturating_sub(tasks) })
}

/// Bytes of memory in a cgroup and those below it, without files' pages that were not used lately (the kubelet's working set), by
/// v1's hierarchy or v2's. None of a cgroup that is not there: no pod is.
fn working_set(cgroups: &Path, name: &str) -> io::Result<u64> {
    let v1 = cgroups.join("memory");
    let (folder, usage, inactive) = if v1.is_dir() {
        (v1.join(name), "memory.usage_in_bytes", "total_inactive_file ")
    } else {
        (cgroups.join(name), "memory.current", "inactive_file ")
    };
    let all = match read(&folder.join(usage)) {
        Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    // It may have gone in between.
    let stat = read(&folder.join("memory.stat")).unwrap_or_default();
    let cold = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
    Ok(all.saturating_sub(cold.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_understood() {
        let text = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    500 kB\n";
        assert_eq!(memory(text), Some(Amount { total: 1_024_000, left: 512_000 }));
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
        let load = "0.1 0.2 0.3 2/300 4242\n";
        assert_eq!(pids(load, "32768\n", "99999\n"), Some(Amount { total: 32_768, left: 32_468 }));
        assert_eq!(pids(load, "32768\n", "1000\n"), Some(Amount { total: 1000, left: 700 }));
        assert_eq!(pids("", "1", "1"), None);
    }

    #[test]
    fn memory_of_pods_is_that_of_their_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(working_set(root.path(), "flint").unwrap(), 0, "there is no pod");
        write("flint/memory.current", "1000\n");
        write("flint/memory.stat", "anon 1\ninactive_file 300\n");
        assert_eq!(working_set(root.path(), "flint").unwrap(), 700);
        write("memory/flint/memory.usage_in_bytes", "900\n");
        write("memory/flint/memory.stat", "inactive_file 1\ntotal_inactive_file 200\n");
        assert_eq!(working_set(root.path(), "flint").unwrap(), 700, "v1's own and all below it");
    }

    #[test]
    fn this_host_can_be_read() {
        let root = Path::new("/");
        let cgroups = Path::new("/sys/fs/cgroup");
        let places = Places { data: root, images: root, cgroups, pods: "flint-nobody", allocatable: 1 << 30 };
        let reading = Reading::take(&places).expect("read");
        assert_eq!(reading.0.len(), Signal::ALL.len());
        for (signal, amount) in &reading.0 {
            assert!(amount.left <= amount.total, "{signal:?} {amount:?}");
        }
        assert!(reading.0[&Signal::Memory].total > 0 && reading.0[&Signal::Pids].left > 0);
    }
}
