//! An attacker who exchanges two paths as fast as the kernel can: what checks a path and then uses it loses the race.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::process::patience;

/// How long one race is run: two seconds, or what `FLINT_RACE_SECONDS` says (30 in the long run).
#[must_use]
pub fn race_time() -> Duration {
    let seconds = std::env::var("FLINT_RACE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// Exchanges two paths until it is dropped (renameat2(2), `RENAME_EXCHANGE`: there is no moment without either).
#[derive(Debug)]
pub struct Swap {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swap {
    /// Begins. Both paths must exist and be on one file system.
    #[must_use]
    pub fn start(one: &Path, other: &Path) -> Self {
        let (one, other): (PathBuf, PathBuf) = (one.to_owned(), other.to_owned());
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A mount on one of them forbids it for a moment (EBUSY).
                if renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, count, thread: Some(thread) }
    }

    /// How often they were exchanged.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Calls `attempt` again and again while the race lasts, and tells how often; it says whether one has come through.
///
/// Past its time the race goes on until one has, and until there were more exchanges than attempts: on a busy machine either side
/// may wait for long.
///
/// # Panics
///
/// When the paths were never exchanged: then there was no race.
pub fn race(swap: &Swap, mut attempt: impl FnMut() -> bool) -> u32 {
    let end = Instant::now() + race_time();
    let (mut attempts, mut is_run) = (0, false);
    while Instant::now() < end || attempts < 3 || (!is_run && Instant::now() < end + patience()) {
        let has_come_through = attempt();
        attempts += 1;
        is_run = has_come_through && swap.count() > u64::from(attempts);
    }
    println!("{}: {attempts} attempts, {} exchanges", crate::test_name(), swap.count());
    assert!(swap.count() > u64::from(attempts), "{} exchanges in {attempts} attempts", swap.count());
    attempts
}
