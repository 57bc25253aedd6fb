//! What a test left behind, and taking it away.
//!
//! Everything that a case makes carries its prefix: container ids (so cgroups, which are named after them), the state
//! folder, the bundle's folder (so mounts and the command lines of runtimes). Only such things count, because other
//! tests and programs run at the same time. A network namespace lives through a process or a mount; both are watched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The kernel ends processes and mounts asynchronously, and a busy machine takes its time; what is still there after this is a leak.
const SETTLE: Duration = Duration::from_secs(60);

/// A watch over everything that carries a prefix.
///
/// The prefix is new, so nothing carries it before: to look costs milliseconds where much else runs, so it is done at the end alone.
#[derive(Debug)]
pub struct Leaks {
    prefix: String,
    state: PathBuf,
    settle: Duration,
}

impl Leaks {
    /// Watches things whose name holds `prefix`, and entries in the `state` folder, which is empty or not there yet.
    #[must_use]
    pub fn watch(prefix: &str, state: &Path) -> Self {
        Self { prefix: prefix.to_owned(), state: state.to_owned(), settle: SETTLE }
    }

    /// Another time after which what is there is a leak: for who knows that there is one.
    pub const fn settle_in(&mut self, settle: Duration) {
        self.settle = settle;
    }

    /// What is there; empty when all is clean.
    #[must_use]
    pub fn remaining(&self) -> Vec<String> {
        let deadline = Instant::now() + self.settle;
        loop {
            let found = self.look();
            if found.is_empty() || Instant::now() > deadline {
                return found.into_iter().collect();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails when anything is left.
    #[track_caller]
    pub fn assert_none(&self) {
        let found = self.remaining();
        assert!(found.is_empty(), "left behind:\n  {}", found.join("\n  "));
    }

    fn look(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        found.extend(mounts_with(&self.prefix).into_iter().map(|mount| format!("mount {}", mount.display())));
        found.extend(cgroups_with(&self.prefix).into_iter().map(|dir| told_of_cgroup(&dir)));
        found.extend(
            processes_with(&self.prefix).into_iter().map(|pid| format!("process {pid} ({})", command_line(pid))),
        );
        found.extend(entries(&self.state).into_iter().map(|file| format!("state file {}", file.display())));
        found.extend(own_fds_with(&self.prefix).into_iter().map(|target| format!("fd of the test {target}")));
        found
    }
}

/// A cgroup, and what keeps it.
fn told_of_cgroup(dir: &Path) -> String {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let members: Vec<String> = members
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .map(|pid| {
            let state = stat_after_name(pid).and_then(|fields| fields.chars().next()).unwrap_or('?');
            format!("{pid} {state} ({})", command_line(pid))
        })
        .collect();
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    format!("cgroup {}, in it [{}] {}", dir.display(), members.join(", "), events.replace('\n', " ").trim_end())
}

/// Mount points of this mount namespace whose line holds `prefix`, in mount order.
pub(crate) fn mounts_with(prefix: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains(prefix))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .collect()
}

/// The places where cgroup hierarchies are mounted.
pub(crate) fn cgroup_mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// Cgroup folders whose name holds `prefix`, parents before children.
pub(crate) fn cgroups_with(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue: Vec<(PathBuf, bool)> = cgroup_mounts().into_iter().map(|dir| (dir, false)).collect();
    while let Some((dir, inside)) = queue.pop() {
        let inside = inside || dir.file_name().is_some_and(|name| name.to_string_lossy().contains(prefix));
        if inside {
            found.push(dir.clone());
        }
        // Two links are its name and its `.`; each folder in it would be one more. Most have none, and many files.
        if fs::metadata(&dir).is_ok_and(|metadata| metadata.nlink() == 2) {
            continue;
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                queue.push((entry.path(), inside));
            }
        }
    }
    found.sort();
    found
}

/// Pids of living processes whose cgroup, command line or environment holds `prefix`; the test itself excluded.
#[must_use]
pub fn processes_with(prefix: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        if name == own || !is_alive_program(pid) {
            continue;
        }
        let dir = entry.path();
        let holds =
            |file: &str| fs::read(dir.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(prefix));
        if holds("cgroup") || holds("cmdline") || holds("environ") {
            found.push(pid);
        }
    }
    found
}

/// Pids whose parent is `pid`, zombies too.
#[must_use]
pub fn children_of(pid: u32) -> Vec<i32> {
    let parent = |child: i32| stat_after_name(child)?.split(' ').nth(1)?.parse::<u32>().ok();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// False for zombies too: their parent, not the runtime, has yet to reap them.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat_after_name(pid).is_some_and(|fields| !fields.starts_with(['Z', 'X']))
}

/// Alive, and none of the kernel's own threads, which run no program.
fn is_alive_program(pid: i32) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let Some(fields) = stat_after_name(pid).filter(|fields| !fields.starts_with(['Z', 'X'])) else { return false };
    // The seventh after the name (proc_pid_stat(5)).
    let flags = fields.split(' ').nth(6).and_then(|flags| flags.parse::<u32>().ok());
    flags.is_none_or(|flags| flags & PF_KTHREAD == 0)
}

/// What stands in a process's stat behind its name, which may hold anything: its state first.
fn stat_after_name(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn own_fds_with(prefix: &str) -> Vec<String> {
    entries(Path::new("/proc/self/fd"))
        .into_iter()
        .filter_map(|fd| fs::read_link(fd).ok())
        .map(|target| target.display().to_string())
        .filter(|target| target.contains(prefix))
        .collect()
}

/// Takes away what carries `prefix`: kills the processes by pid, unmounts, removes the cgroups. Failures are ignored:
/// it runs after a failure that matters more.
pub fn sweep(prefix: &str) {
    use rustix::process::{Pid, Signal, kill_process};
    for _ in 0..50 {
        let pids = processes_with(prefix);
        for pid in pids.iter().copied().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        for dir in cgroups_with(prefix) {
            // A frozen process of v1 dies only once it is thawed.
            if dir.join("freezer.state").exists() {
                let _ = fs::write(dir.join("freezer.state"), "THAWED");
            }
        }
        if pids.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for point in mounts_with(prefix).iter().rev() {
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
    for _ in 0..50 {
        let cgroups = cgroups_with(prefix);
        for dir in cgroups.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
        if cgroups.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // podman makes groups for controllers that no hierarchy has, too: folders of the tmpfs that the others are mounted in.
    let above = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let named = above.flat_map(|controller| fs::read_dir(controller.path()).into_iter().flatten().flatten());
    for folder in named.filter(|folder| folder.file_name().to_string_lossy().contains(prefix)) {
        let _ = fs::remove_dir_all(folder.path());
    }
}
