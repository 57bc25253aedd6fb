//! A task of a container that another shim made.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use flint_runtime::{Runtime, Status};

use super::{Request, Running, Task, has_own_pids};
use crate::error::Result;
use crate::process::{Exit, Phase, Process};
use crate::rootfs::Rootfs;
use crate::tasks::Shared;

/// A container that another shim made, as it was found.
#[derive(Debug)]
pub(crate) enum Found {
    Created(flint_runtime::Process),
    Running(flint_runtime::Process),
    Stopped(Exit),
}

impl Task {
    /// The task of a container that another shim made, with its streams. Called on a thread that may wait.
    ///
    /// # Errors
    ///
    /// A stream that is there and cannot be opened; a state that cannot be read.
    pub(crate) fn found(
        shared: Arc<Shared>,
        runtime: Arc<Runtime>,
        request: Request,
        found: Found,
        mounted: bool,
    ) -> Result<(Self, Running)> {
        let bundle = runtime.container_bundle(&request.id)?;
        let known_kills = runtime.oom_kills(&request.id)?;
        let paused = runtime.state(&request.id)?.status == Status::Paused;
        let held = request.streams.adopt()?;
        let init = Process::new(String::new(), request.streams);
        let (phase, process) = match found {
            Found::Created(process) => (Phase::Created, Some(Arc::new(process))),
            Found::Running(process) => (Phase::Running, Some(Arc::new(process))),
            Found::Stopped(exit) => (Phase::Stopped(exit), None),
        };
        init.is_found(process.clone(), held);
        init.enter(phase);
        let task = Self {
            shares_pids: !has_own_pids(&bundle),
            id: request.id,
            rootfs: Mutex::new(Rootfs::of(&request.bundle, mounted)),
            bundle: request.bundle,
            shared,
            runtime,
            options: request.options,
            init: Arc::new(init),
            sandbox: request.sandbox,
            adopted: true,
            had_oom: known_kills > 0,
            known_kills: known_kills.into(),
            checkpoint: Mutex::default(),
            oom: OnceLock::new(),
            execs: Mutex::default(),
            paused: AtomicBool::new(paused),
            deleted: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            resuming: tokio::sync::Mutex::default(),
        };
        Ok((task, process))
    }
}
