//! A task that comes from a checkpoint: Create only opens what it needs, Start brings it back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::events::task::TaskExit;
use flint_runtime::{CriuOptions, RestoreOptions};

use crate::error::{Error, Result};
use crate::exits;
use crate::process::{Exit, Phase};
use crate::stdio::{Console, Opened, Socket};
use crate::task::{Task, blocking};
use crate::{clock, log};

/// 128 and SIGKILL: of a task that was killed before its Start.
const KILLED: u32 = 137;

/// What Start brings back.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) images: PathBuf,
    pub(crate) opened: Opened,
}

impl Task {
    /// Brings the container back; its init's pid.
    ///
    /// # Errors
    ///
    /// CRIU's, with the line of its log that tells why; nothing is left then, and the task can only be deleted.
    pub(crate) async fn restore(self: &Arc<Self>, checkpoint: Checkpoint) -> Result<u32> {
        let task = self.clone();
        let running = blocking(move || task.bring_back(checkpoint)).await.inspect_err(|_| self.never_ran())?;
        let pid = running.pid() as u32;
        exits::watch(self.clone(), self.init.clone(), running);
        self.watch_memory();
        Ok(pid)
    }

    fn bring_back(&self, checkpoint: Checkpoint) -> Result<Arc<flint_runtime::Process>> {
        let Checkpoint { images, opened: Opened { stdio, mut console, mut held } } = checkpoint;
        let bundle = flint_runtime::Bundle::load(&self.bundle)?;
        let work_path = self.options.criu_work_path.clone().unwrap_or_else(|| self.bundle.join("work"));
        let options = RestoreOptions {
            criu: CriuOptions { work_path: Some(work_path), ..self.options.criu(images) },
            console: console.as_mut().and_then(Socket::take_theirs),
            stdio,
            ..RestoreOptions::default()
        };
        let running = self.runtime.restore(&self.id, &bundle, options).map_err(|error| {
            Error::from(error).context("OCI runtime restore failed: unable to restore the container")
        })?;
        let running = Arc::new(running);
        for warning in running.warnings() {
            log::warn(&format!("{}: {warning}", self.id));
        }
        let console = Console::of(console, &self.init.streams, &self.shared.namespace, &self.id, &mut held);
        let console = console.inspect_err(|_| {
            let _ = self.runtime.delete(&self.id, true);
            let _ = running.wait();
        })?;
        self.init.is_made(running.clone(), held, console);
        Ok(running)
    }

    /// Ends a task that was to be restored and was killed first; whether it was one.
    pub(crate) fn give_up_restoring(&self) -> bool {
        let waited = self.take_checkpoint().is_some();
        if waited {
            self.never_ran();
        }
        waited
    }

    fn never_ran(&self) {
        self.close_execs();
        let exit = Exit { status: KILLED, at: SystemTime::now() };
        self.shared.events.publish(TaskExit {
            container_id: self.id.clone(),
            id: self.id.clone(),
            exit_status: exit.status,
            exited_at: clock::timestamp(exit.at),
            ..TaskExit::default()
        });
        self.init.enter(Phase::Stopped(exit));
    }
}
