//! Ends of processes, told in their order.
//!
//! ```text
//!  a process ends ─▶ reaped ─▶ a Start or Resume in progress publishes first ─▶ an exec: told
//!                                                                            ─▶ init:    no new execs; execs end and are
//!                                                                                        told; want of memory is told; told
//!                                                                                        last
//! ```

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use flint_runtime::cgroup::OomWatch;
use flint_shim_protocol::STATUS_UNKNOWN;
use tokio::io::Interest;

use crate::process::{Exit, Phase, Process, reap};
use crate::task::Task;
use crate::{clock, log, readiness};

/// How long execs may take to end after init, which the kernel or we have killed them with. One that hangs in the kernel
/// must not keep the container's end from being known.
const EXECS_END: Duration = Duration::from_secs(30);
/// 128 and SIGKILL: for an exit status that was lost.
const LOST: u32 = 137;

/// Tells the end of a process once it has ended.
pub(crate) fn watch(task: Arc<Task>, process: Arc<Process>, running: Arc<flint_runtime::Process>) {
    tokio::spawn(async move {
        let status = reap(&running).await.unwrap_or_else(|error| {
            log::warn(&format!("the exit status of process {} of {}: {error}", running.pid(), task.id));
            if task.adopted { STATUS_UNKNOWN } else { LOST }
        });
        let exit = Exit { status, at: SystemTime::now() };
        if process.id.is_empty() {
            init_ended(&task).await;
        }
        // Who hears of the end finds the whole log.
        process.output_is_written().await;
        task.resumed().await;
        // A Start that is on its way publishes before it lets go.
        let _starting = process.starting.lock().await;
        task.shared.events.publish(TaskExit {
            container_id: task.id.clone(),
            id: if process.id.is_empty() { task.id.clone() } else { process.id.clone() },
            pid: running.pid() as u32,
            exit_status: exit.status,
            exited_at: clock::timestamp(exit.at),
            ..TaskExit::default()
        });
        process.enter(Phase::Stopped(exit));
    });
}

/// What comes before the end of init is told.
pub(crate) async fn init_ended(task: &Arc<Task>) {
    // Whoever starts now is refused, whoever is starting has published.
    let execs = task.init_is_gone().await;
    // With a pid namespace of its own the kernel has killed them; with a shared one we do.
    task.kill_the_rest().await;
    for exec in execs {
        if exec.pid() != 0 && tokio::time::timeout(EXECS_END, exec.ended()).await.is_err() {
            log::warn(&format!("exec {} of {} does not end after its container", exec.id, task.id));
        }
    }
    match task.oom() {
        Some(watch) => watch.tell(task),
        // There may have been too many watches (fs.inotify.max_user_instances), or it has ended before one was made.
        None => task.tell_memory_that_ran_out(),
    }
}

/// A watch over the container's memory.
#[derive(Clone, Debug)]
pub(crate) struct Oom(Arc<Mutex<(OomWatch, u64)>>);

impl Oom {
    pub(crate) fn new(watch: OomWatch) -> Self {
        Self(Arc::new(Mutex::new((watch, 0))))
    }

    /// Publishes what has happened since it was last told.
    fn tell(&self, task: &Task) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (watch, last) = &mut *watched;
        match watch.take() {
            // A container may run out of memory for as long as containerd is away: one event says so.
            Ok(true) if task.shared.events.waits(*last) => {}
            Ok(true) => {
                let event = TaskOOM { container_id: task.id.clone(), ..TaskOOM::default() };
                *last = task.shared.events.publish(event);
            }
            Ok(false) => {}
            Err(error) => log::warn(&format!("watch the memory of {}: {error}", task.id)),
        }
    }

    /// Tells each time that memory runs out, until init has ended.
    pub(crate) fn watch(&self, task: Arc<Task>) {
        let oom = self.clone();
        tokio::spawn(async move {
            let told = async {
                let watched = readiness::watch(oom.clone(), Interest::READABLE)?;
                loop {
                    let mut ready = watched.readable().await?;
                    ready.clear_ready();
                    oom.tell(&task);
                }
            };
            tokio::select! {
                result = told => {
                    let result: std::io::Result<()> = result;
                    if let Err(error) = result {
                        log::warn(&format!("watch the memory of {}: {error}", task.id));
                    }
                }
                _ = task.init.ended() => {}
            }
        });
    }
}

impl AsRawFd for Oom {
    fn as_raw_fd(&self) -> RawFd {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.as_fd().as_raw_fd()
    }
}
