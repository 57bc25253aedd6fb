//! One run: wall time and CPU time, with a time limit.
//!
//! How CPU is measured: the growth of `getrusage(RUSAGE_CHILDREN)` across a child's start and wait, user and system
//! together. It holds the child, and every descendant that its own parent waited for. So a runtime's helper
//! processes and, in the foreground, the container's init count.
//!
//! Not in it: orphans (the benchmark adopts and reaps them outside the measure); kernel workers (the tear-down of network namespaces,
//! RCU, the removal of cgroups); for the mounts of a dying namespace, what the kernel defers.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeVal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// The times of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// From before the start until the end was waited for.
    pub wall: Duration,
    /// User and system time; see the module's text.
    pub cpu: Duration,
}

impl Sample {
    /// As `{"wall_ns": ..., "cpu_ns": ...}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"wall_ns": self.wall.as_nanos() as u64, "cpu_ns": self.cpu.as_nanos() as u64})
    }

    /// Reads [`Sample::to_json`].
    ///
    /// # Errors
    ///
    /// When the text is something else.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text).context("no JSON")?;
        let time = |name: &str| value.get(name).and_then(serde_json::Value::as_u64).map(Duration::from_nanos);
        match (time("wall_ns"), time("cpu_ns")) {
            (Some(wall), Some(cpu)) => Ok(Self { wall, cpu }),
            _ => bail!("no wall_ns and cpu_ns in {text:?}"),
        }
    }
}

/// CPU time of the calling process and of its waited descendants.
///
/// # Errors
///
/// None that can happen on Linux.
pub fn process_time() -> Result<Duration> {
    Ok(total(getrusage(UsageWho::RUSAGE_SELF)?) + descendants_time()?)
}

fn descendants_time() -> Result<Duration> {
    Ok(total(getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

fn total(usage: Usage) -> Duration {
    let time = |value: TimeVal| Duration::from_micros((value.tv_sec() * 1_000_000 + value.tv_usec()) as u64);
    time(usage.user_time()) + time(usage.system_time())
}

/// Kernel memory of the whole machine in bytes: slabs, kernel stacks, page tables, per-CPU areas (proc_meminfo(5)).
/// Others change it too: use the growth over many containers.
///
/// # Errors
///
/// When /proc/meminfo cannot be read.
pub fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kinds = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    let kilobytes = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let kind = fields.next()?;
        kinds.contains(&kind).then(|| fields.next()?.parse::<u64>().ok()).flatten()
    });
    Ok(kilobytes.sum::<u64>() * 1024)
}

/// Makes the calling process the one that orphans below it fall to (`PR_SET_CHILD_SUBREAPER`): the inits of created
/// containers, whose maker has ended. Not every machine's pid 1 reaps.
///
/// # Errors
///
/// None that can happen on Linux 3.4 and later.
pub fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot become a subreaper")
}

/// Reaps the adopted orphans that have ended. Not to be called while a command runs: it would take its exit.
pub fn reap_orphans() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
}

/// Runs commands one by one and kills what takes too long.
#[derive(Debug)]
pub struct Stopwatch {
    running: Arc<Mutex<Option<Running>>>,
    limit: Duration,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    deadline: Instant,
    killed: bool,
}

impl Stopwatch {
    /// Starts the watching thread. `stop` ends all: the next run is refused.
    #[must_use]
    pub fn new(limit: Duration, stop: Arc<AtomicBool>) -> Self {
        let running = Arc::new(Mutex::new(None));
        let watched = Arc::clone(&running);
        // It polls, slowly: to wake it for each run would disturb what is measured.
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(500));
                kill_late(&watched);
            }
        });
        Self { running, limit, stop }
    }

    /// An error when a signal asked to stop.
    ///
    /// # Errors
    ///
    /// Then.
    pub fn check_stopped(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        Ok(())
    }

    /// Starts a command, waits for it, and returns how it ended and what it took.
    ///
    /// # Errors
    ///
    /// When it cannot be started, took longer than the limit (it is killed then), or all was stopped by a signal.
    pub fn run(&self, command: &mut Command) -> Result<(ExitStatus, Sample)> {
        self.check_stopped()?;
        let cpu = descendants_time()?;
        let start = Instant::now();
        // A group of its own: what a late runtime has started is killed with it.
        let mut child =
            command.process_group(0).spawn().with_context(|| format!("cannot start {}", program(command)))?;
        let pid = Pid::from_raw(child.id() as i32);
        self.set(Some(Running { pid, deadline: start + self.limit, killed: false }));
        // Waited without reaping, so that the watching thread never kills a pid that was given to another.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::Error::EINTR) {}
        let killed = self.set(None);
        let status = child.wait().with_context(|| format!("cannot wait for {}", program(command)))?;
        let wall = start.elapsed();
        let cpu = descendants_time()?.saturating_sub(cpu);
        if killed {
            bail!("{} did not end within {} s and was killed", program(command), self.limit.as_secs());
        }
        Ok((status, Sample { wall, cpu }))
    }

    /// Sets what runs; tells whether what ran before was killed.
    fn set(&self, next: Option<Running>) -> bool {
        let before = std::mem::replace(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner), next);
        before.is_some_and(|running| running.killed)
    }
}

fn kill_late(watched: &Mutex<Option<Running>>) {
    let mut running = watched.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = running.as_mut()
        && !running.killed
        && Instant::now() > running.deadline
    {
        running.killed = killpg(running.pid, Signal::SIGKILL).is_ok();
    }
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
