//! Processes that Exec adds to a task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use flint_runtime::ExecOptions;
use ttrpc::Code;

use crate::error::{Error, Result};
use crate::exits;
use crate::process::{Exit, Phase, Process, finished};
use crate::stdio::{Console, Opened, Socket, Streams};
use crate::task::{Task, blocking, owner};

/// The exit status of a process that never ran, and is deleted.
const NEVER_RAN: u32 = 0;

#[derive(Debug, Default)]
pub(crate) struct Execs {
    pub(crate) by_id: HashMap<String, Added>,
    /// Init has ended: no more are started.
    closed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) process: Arc<Process>,
    spec: Arc<oci_spec::runtime::Process>,
}

impl Task {
    /// Adds an exec, which waits for its Start.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; no id; init has ended.
    pub(crate) fn add_exec(&self, id: &str, streams: Streams, spec: oci_spec::runtime::Process) -> Result<()> {
        if id.is_empty() {
            return Err(Error::invalid(format!("an exec in task {} has no id: the empty one is init's", self.id)));
        }
        let mut execs = self.execs();
        if execs.closed {
            return Err(Error::wrong_state(format!("cannot exec in a stopped state: task {} has ended", self.id)));
        }
        if execs.by_id.contains_key(id) {
            return Err(Error::new(Code::ALREADY_EXISTS, format!("id {id}: already exists in task {}", self.id)));
        }
        let process = Arc::new(Process::new(id.to_owned(), streams));
        execs.by_id.insert(id.to_owned(), Added { process, spec: Arc::new(spec) });
        self.shared.events.publish(TaskExecAdded {
            container_id: self.id.clone(),
            exec_id: id.to_owned(),
            ..TaskExecAdded::default()
        });
        Ok(())
    }

    pub(crate) async fn start_exec(self: &Arc<Self>, exec_id: &str) -> Result<u32> {
        let process = self.process(exec_id)?;
        let _starting = process.starting.lock().await;
        if process.phase() != Phase::Created || process.pid() != 0 {
            return Err(Error::wrong_state(format!("cannot start process {exec_id}: it was started already")));
        }
        let spec = {
            let execs = self.execs();
            if execs.closed {
                return Err(Error::wrong_state(format!("container {} is not running: its init has ended", self.id)));
            }
            execs.by_id.get(exec_id).map(|added| added.spec.clone()).ok_or_else(finished)?
        };
        let (task, made) = (self.clone(), process.clone());
        let running = blocking(move || task.make_exec(&made, &spec)).await?;
        process.enter(Phase::Running);
        let pid = running.pid() as u32;
        self.shared.events.publish(TaskExecStarted {
            container_id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            pid,
            ..TaskExecStarted::default()
        });
        exits::watch(self.clone(), process.clone(), running);
        Ok(pid)
    }

    fn make_exec(&self, process: &Process, spec: &oci_spec::runtime::Process) -> Result<Arc<flint_runtime::Process>> {
        let bundle = self.runtime.container_bundle(&self.id)?;
        let owner = owner(&bundle, Some(spec), &self.options);
        let Opened { stdio, mut console, mut held } = process.streams.open(&self.shared.namespace, &self.id, owner)?;
        let console_end = console.as_mut().and_then(Socket::take_theirs);
        let options = ExecOptions { stdio, console: console_end, ..ExecOptions::default() };
        let running = self.runtime.exec(&self.id, spec, options).map_err(|error| {
            Error::from(error).context("OCI runtime exec failed: exec failed: unable to start container process")
        })?;
        let running = Arc::new(running);
        let console = Console::of(console, &process.streams, &self.shared.namespace, &self.id, &mut held);
        let console = console.inspect_err(|_| {
            let _ = running.signal(nix::libc::SIGKILL);
            let _ = running.wait();
        })?;
        process.is_made(running.clone(), held, console);
        Ok(running)
    }

    /// Removes an exec that has ended or never ran; how it ended, and its pid.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` while it runs; `NotFound` for the second of two at once.
    pub(crate) async fn delete_exec(&self, exec_id: &str) -> Result<(u32, Exit)> {
        let process = self.process(exec_id)?;
        let starting = process.starting.lock().await;
        let exit = match process.phase() {
            Phase::Running => return Err(Error::wrong_state(format!("cannot delete a running process {exec_id}"))),
            Phase::Created => Exit { status: NEVER_RAN, at: SystemTime::now() },
            Phase::Stopped(exit) => exit,
        };
        // Before what may take its time: a client that asks for State is told that it is gone, and whoever waits for init's
        // end does not wait for this one's logger, too.
        let removed = {
            let mut execs = self.execs();
            let same = execs.by_id.get(exec_id).is_some_and(|added| Arc::ptr_eq(&added.process, &process));
            same.then(|| execs.by_id.remove(exec_id))
        };
        drop(starting);
        if removed.is_none() {
            return Err(Error::not_found(format!("process {exec_id} was deleted meanwhile in task {}", self.id)));
        }
        // Of one that never ran: whoever waits for it would for ever.
        process.enter(Phase::Stopped(exit));
        let pid = process.pid();
        process.close().await;
        Ok((pid, exit))
    }

    /// Those that there are are deleted with their task.
    pub(crate) async fn delete_execs(&self) {
        let left: Vec<_> = self.execs().by_id.drain().map(|(_, added)| added.process).collect();
        for exec in left {
            if exec.phase() == Phase::Created {
                exec.enter(Phase::Stopped(Exit { status: NEVER_RAN, at: SystemTime::now() }));
            }
            exec.close().await;
        }
    }

    /// No exec is added from now on.
    pub(crate) fn close_execs(&self) {
        self.execs().closed = true;
    }

    /// No exec starts from now on; those that there are.
    pub(crate) async fn init_is_gone(&self) -> Vec<Arc<Process>> {
        let execs: Vec<_> = {
            let mut execs = self.execs();
            execs.closed = true;
            execs.by_id.values().map(|added| added.process.clone()).collect()
        };
        for exec in &execs {
            drop(exec.starting.lock().await);
        }
        execs
    }

    pub(crate) fn all_execs(&self) -> Vec<Arc<Process>> {
        self.execs().by_id.values().map(|added| added.process.clone()).collect()
    }
}
