//! What the processes of a place use.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use integration_tests::processes_with;

/// The kernel's unit of times in /proc (USER_HZ, the same on every architecture that Linux has today), in milliseconds.
const TICK: u64 = 10;

/// What a daemon and its shims use, and how many containers they have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of all processes, those that they waited for and those in containers among them: a container's
    /// start is partly its own process's work.
    pub(crate) cpu: Duration,
    /// Memory in bytes (PSS of /proc/PID/smaps_rollup) of the daemon, its helpers and shims: no process of a container is in it.
    pub(crate) memory: u64,
    /// Processes of the daemon, its helpers and shims.
    pub(crate) processes: usize,
    /// Processes that are the first of a container.
    pub(crate) containers: u64,
}

/// Looks at all that carries one of the prefixes; `place` is a process whose children are in the daemon's pid namespace.
pub(crate) fn of(prefixes: &[String], place: u32) -> Result<Usage> {
    let own = namespace(&format!("/proc/{place}/ns/pid_for_children")).context("find the place's pid namespace")?;
    let mut pids: Vec<i32> = prefixes.iter().flat_map(|prefix| processes_with(prefix)).collect();
    pids.sort_unstable();
    pids.dedup();
    let mut usage = Usage::default();
    for pid in pids {
        // One that has ended meanwhile was waited for by another.
        let Some(Process { name, inner, ticks }) = process(pid) else { continue };
        usage.cpu += Duration::from_millis(ticks * TICK);
        let here = namespace(&format!("/proc/{pid}/ns/pid"));
        if here.as_ref() == Some(&own) {
            // The place's own first process and what it waits with are nobody's.
            if !matches!(name.as_str(), "sh" | "sleep") {
                usage.memory += proportional(pid).unwrap_or_default();
                usage.processes += 1;
            }
        } else if inner == 1 && name == "sleep" {
            usage.containers += 1;
        }
    }
    Ok(usage)
}

/// A process as /proc tells of it.
struct Process {
    name: String,
    /// Its pid in its own namespace.
    inner: u32,
    ticks: u64,
}

fn process(pid: i32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime, stime, cutime, cstime: the fields 14 to 17 of proc(5), of which 3 is the first behind the name.
    let fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
    let ticks = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    let inner = field("NSpid:")?.split_whitespace().last()?.parse().ok()?;
    Some(Process { name: field("Name:")?.to_owned(), inner, ticks })
}

fn namespace(link: &str) -> Option<PathBuf> {
    fs::read_link(link).ok()
}

fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}
