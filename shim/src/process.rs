//! One process of a task: its init, or one that Exec adds.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use flint_runtime::Process as Running;
use flint_shim_protocol::STATUS_UNKNOWN;
use tokio::io::Interest;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::stdio::{Console, Held, Streams};
use crate::{log, readiness};

/// Until a process is looked at again that the kernel does not let us watch.
const AGAIN: Duration = Duration::from_millis(100);

/// How a process ended, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

impl Exit {
    /// Its status, if anybody saw it.
    pub(crate) fn known(self) -> Option<u32> {
        Some(self.status).filter(|status| *status != STATUS_UNKNOWN)
    }
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits for Start.
    Created,
    Running,
    Stopped(Exit),
}

/// A process, from its request to its deletion.
#[derive(Debug)]
pub(crate) struct Process {
    /// The exec's id; empty for init.
    pub(crate) id: String,
    pub(crate) streams: Streams,
    /// Held while it is started, and while its exit is told: so a start is published before its exit.
    pub(crate) starting: tokio::sync::Mutex<()>,
    phase: watch::Sender<Phase>,
    made: Mutex<Made>,
}

/// What there is once it was made.
#[derive(Debug, Default)]
struct Made {
    running: Option<Arc<Running>>,
    held: Option<Held>,
    console: Option<Console>,
}

impl Process {
    pub(crate) fn new(id: String, streams: Streams) -> Self {
        let (phase, _) = watch::channel(Phase::Created);
        Self { id, streams, starting: tokio::sync::Mutex::default(), phase, made: Mutex::default() }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        // Nothing panics while it is held.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It exists from now on.
    pub(crate) fn is_made(&self, running: Arc<Running>, held: Held, console: Option<Console>) {
        *self.made() = Made { running: Some(running), held: Some(held), console };
    }

    /// It exists, or did: of an adopted container that has ended there is no process any more.
    pub(crate) fn is_found(&self, running: Option<Arc<Running>>, held: Held) {
        *self.made() = Made { running, held: Some(held), console: None };
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// 0 while there is none.
    pub(crate) fn pid(&self) -> u32 {
        self.made().running.as_ref().map_or(0, |running| running.pid() as u32)
    }

    /// Its end; at once if it has ended.
    pub(crate) async fn ended(&self) -> Exit {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Stopped(exit) = *phase.borrow_and_update() {
                return exit;
            }
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// # Errors
    ///
    /// `NotFound` once it has ended, as clients of runc's shim expect; not started yet.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        match (self.phase(), &self.made().running) {
            (Phase::Stopped(_), _) => Err(finished()),
            (_, None) => Err(Error::wrong_state("process not created")),
            (_, Some(running)) => running.signal(signal).map_err(|error| match error.kind() {
                flint_runtime::Kind::WrongState => finished(),
                _ => error.into(),
            }),
        }
    }

    /// # Errors
    ///
    /// The kernel refuses. Without a terminal there is nothing to resize.
    pub(crate) fn resize(&self, width: u32, height: u32) -> Result<()> {
        let side = |side: u32| u16::try_from(side).map_err(|_| Error::invalid(format!("{side} is no terminal's size")));
        let (width, height) = (side(width)?, side(height)?);
        self.made().console.as_ref().map_or(Ok(()), |console| console.resize(width, height))
    }

    pub(crate) fn close_stdin(&self) {
        let mut made = self.made();
        if let Some(held) = &mut made.held {
            held.close_stdin();
        }
        if let Some(console) = &mut made.console {
            console.close_stdin();
        }
    }

    /// Ready when its logs have all that it wrote until now.
    pub(crate) async fn output_is_written(&self) {
        let written = self.made().held.as_ref().map(Held::written);
        if let Some(written) = written {
            written.await;
        }
    }

    /// Lets go of its streams, after its end.
    pub(crate) async fn close(&self) {
        let (held, console) = {
            let mut made = self.made();
            (made.held.take(), made.console.take())
        };
        if let Some(console) = console {
            console.close().await;
        }
        if let Some(mut held) = held {
            held.close_logs().await;
            // A logger may take its time.
            let _ = tokio::task::spawn_blocking(|| held.close()).await;
        }
    }
}

pub(crate) fn finished() -> Error {
    Error::not_found("process already finished")
}

/// Waits for the end of a process that this program made, and reaps it.
///
/// # Errors
///
/// Its exit status was taken by somebody else.
pub(crate) async fn reap(running: &Arc<Running>) -> Result<u32> {
    struct Watched(Arc<Running>);
    impl AsRawFd for Watched {
        fn as_raw_fd(&self) -> RawFd {
            self.0.pidfd().as_raw_fd()
        }
    }
    let (mut told, mut pause) = (false, Duration::from_millis(1));
    loop {
        match readiness::watch(Watched(running.clone()), Interest::READABLE) {
            Ok(watched) => {
                let _ = watched.readable().await.map_err(|error| Error::system("watch a process", error))?;
            }
            // Else it runs, whatever the kernel is short of: memory, or what fs.epoll.max_user_watches allows.
            Err(_) if told || running.has_ended() => {}
            Err(error) => {
                log::warn(&format!("watch process {}, again each {AGAIN:?}: {error}", running.pid()));
                told = true;
            }
        }
        // None of one that has ended: another process traces it, perhaps one of the container's, and has to hear of it first. All
        // other containers of this shim must not wait for that.
        if let Some(status) = running.try_wait()? {
            return Ok(status.code() as u32);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN);
    }
}
