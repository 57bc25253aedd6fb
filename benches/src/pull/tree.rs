//! What a process and all below it use.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// The kernel's unit of times in /proc (USER_HZ, the same on every architecture that Linux has today).
const TICKS: u64 = 100;

/// The processes below `root`, itself among them, without those below `but`.
#[must_use]
pub fn below(root: u32, but: &[u32]) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut queue) = (Vec::new(), vec![root]);
    while let Some(pid) = queue.pop() {
        if but.contains(&pid) {
            continue;
        }
        found.push(pid);
        queue.extend(children.remove(&pid).unwrap_or_default());
    }
    found
}

/// The fields of /proc/PID/stat behind the name, the state first.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_ascii_whitespace().map(str::to_owned).collect())
}

/// CPU time of the processes below `root` and of those that they waited for.
#[must_use]
pub fn cpu(root: u32) -> Duration {
    let ticks = |pid: u32| -> u64 {
        // utime, stime, cutime, cstime: the fields 14 to 17 of proc(5).
        stat(pid).map_or(0, |fields| fields.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum())
    };
    Duration::from_millis(below(root, &[]).into_iter().map(ticks).sum::<u64>() * 1000 / TICKS)
}

/// Memory of one process that is its own: what files' pages take is the kernel's to have back.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Watches the memory of all processes below this one.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins; the process `but` and what is below it do not count, nor does this process itself.
    #[must_use]
    pub fn start(but: u32) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, highest) = (Arc::clone(&stop), Arc::clone(&most));
        let own = std::process::id();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let sum = below(own, &[but]).into_iter().filter(|pid| *pid != own).map(memory).sum();
                highest.fetch_max(sum, Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
        });
        Self { stop, most, thread: Some(thread) }
    }

    /// The most that was seen, in bytes.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends by itself.
            let _ = thread.join();
        }
        self.most.load(Ordering::Relaxed)
    }
}
