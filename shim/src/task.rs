//! A task: a container, its init and its execs, and what requests do to it.
//!
//! ```text
//!  create ─▶ Created ─start─▶ Running ─exit─▶ Stopped ─delete─▶ gone
//!               └──────────────kill──────────────▶┘     pause, resume: beside, by the freezer
//! ```

mod found;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskIO, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::types::mount::Mount;
use flint_runtime::{Bundle, CreateOptions, Kind, Runtime};
use protobuf::MessageField;

use crate::config::Place;
use crate::error::{Error, Result};
use crate::exec::Execs;
use crate::exits::{self, Oom};
use crate::node::Pod;
use crate::options::Options;
use crate::process::{Exit, Phase, Process, finished};
use crate::restore::Checkpoint;
use crate::rootfs::Rootfs;
use crate::stdio::{Console, Opened, Owner, Socket, Streams};
use crate::tasks::Shared;
use crate::{clock, log};
pub(crate) use found::Found;

/// How long a created container may take to end once it was killed.
const DYING: Duration = Duration::from_secs(30);

/// A Create request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) streams: Streams,
    pub(crate) options: Options,
    /// The images of a checkpoint that Start restores.
    pub(crate) checkpoint: Option<PathBuf>,
    /// The sandbox that it names, and what it is; none: that of the whole shim, or none.
    pub(crate) sandbox: String,
    pub(crate) pod: Option<Arc<Pod>>,
    /// Start it in the same go. One whose start fails is not made.
    pub(crate) start: bool,
}

/// The init of a task that was just made or found, to be watched.
pub(crate) type Running = Option<Arc<flint_runtime::Process>>;

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) options: Options,
    pub(crate) init: Arc<Process>,
    /// The sandbox that it names.
    pub(crate) sandbox: String,
    /// Whether another shim made it.
    pub(crate) adopted: bool,
    /// Whether memory had run out before that.
    pub(crate) had_oom: bool,
    /// How many kills for want of memory need not be told: those before that, and those that no watch has told but we have.
    known_kills: AtomicU64,
    /// Until Start takes it.
    checkpoint: Mutex<Option<Checkpoint>>,
    oom: OnceLock<Oom>,
    /// Whether processes may outlive init: it has no pid namespace of its own.
    shares_pids: bool,
    rootfs: Mutex<Rootfs>,
    execs: Mutex<Execs>,
    paused: AtomicBool,
    /// Set under `changing`: the id may be another task's now.
    deleted: AtomicBool,
    /// One change of the whole container at a time: pause, resume, update, checkpoint, delete.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Held, within `changing`, from before a thaw until it is told: what ends by it is told afterwards.
    resuming: tokio::sync::Mutex<()>,
}

/// Runs what may wait on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::system("run a request", error))?
}

impl Task {
    /// Makes the container of a request, up to the point where it waits for Start.
    ///
    /// # Errors
    ///
    /// What is wrong with the bundle or the host; nothing is left then.
    pub(crate) async fn create(shared: Arc<Shared>, request: Request) -> Result<Arc<Self>> {
        let (mounts, start) = (request.rootfs.clone(), request.start);
        let (task, running) = blocking(move || Self::make(shared, request)).await?;
        let streams = &task.init.streams;
        task.shared.events.publish(TaskCreate {
            container_id: task.id.clone(),
            bundle: task.bundle.display().to_string(),
            rootfs: mounts,
            io: MessageField::some(TaskIO {
                stdin: streams.stdin.clone(),
                stdout: streams.stdout.clone(),
                stderr: streams.stderr.clone(),
                terminal: streams.terminal,
                ..TaskIO::default()
            }),
            pid: task.init.pid(),
            ..TaskCreate::default()
        });
        if start {
            task.init.enter(Phase::Running);
            let (container_id, pid) = (task.id.clone(), task.init.pid());
            task.shared.events.publish(TaskStart { container_id, pid, ..TaskStart::default() });
        }
        let task = task.watched(running);
        if start {
            task.tell_memory_that_ran_out();
        }
        Ok(task)
    }

    /// Its end is told from now on, and want of memory.
    pub(crate) fn watched(self, running: Running) -> Arc<Self> {
        let task = Arc::new(self);
        if let Some(running) = running {
            // First: the other ends once this one's end is told.
            task.watch_memory();
            exits::watch(task.clone(), task.init.clone(), running);
        }
        task
    }

    /// The container waits for Start; one of a checkpoint is not there yet.
    fn make(shared: Arc<Shared>, request: Request) -> Result<(Self, Running)> {
        let Request { id, bundle: folder, rootfs: mounts, streams, options, checkpoint, sandbox, pod, start } = request;
        let bundle = Bundle::load(&folder)?;
        let bundle = match (pod, shared.sandbox()) {
            (Some(pod), _) => pod.furnish(&bundle)?,
            (None, Some(sandbox)) => sandbox.furnish(&bundle)?,
            (None, None) => bundle,
        };
        let place =
            Place { rootfs: !mounts.is_empty(), ..Place::of(&options, &shared.namespace, cgroups_path(&bundle)) };
        // Before what it speaks of: whatever happens, it is found.
        place.keep(&folder)?;
        let rootfs = Rootfs::mount(&folder, &mounts)?;
        let runtime = shared.runtime(&place)?;
        let opened =
            streams.open(&shared.namespace, &id, owner(&bundle, bundle.spec().process().as_ref(), &options))?;
        let task = Self {
            shares_pids: !has_own_pids(&bundle),
            id,
            bundle: folder,
            shared,
            runtime,
            options,
            init: Arc::new(Process::new(String::new(), streams)),
            sandbox,
            adopted: false,
            had_oom: false,
            known_kills: AtomicU64::new(0),
            checkpoint: Mutex::default(),
            oom: OnceLock::new(),
            rootfs: Mutex::new(rootfs),
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            resuming: tokio::sync::Mutex::default(),
        };
        let Some(images) = checkpoint else {
            let running = task.make_init(&bundle, opened, start)?;
            locked(&task.rootfs).keep();
            return Ok((task, Some(running)));
        };
        locked(&task.rootfs).keep();
        *locked(&task.checkpoint) = Some(Checkpoint { images, opened });
        Ok((task, None))
    }

    fn make_init(&self, bundle: &Bundle, opened: Opened, start: bool) -> Result<Arc<flint_runtime::Process>> {
        let Opened { stdio, mut console, mut held } = opened;
        let (runtime, options) = (&self.runtime, &self.options);
        let create = CreateOptions {
            stdio,
            console: console.as_mut().and_then(Socket::take_theirs),
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            ..CreateOptions::default()
        };
        let call = if start { Runtime::run } else { Runtime::create };
        let made = call(runtime, &self.id, bundle, create);
        let running = Arc::new(made.map_err(|error| {
            Error::from(error).context("OCI runtime create failed: unable to start container process")
        })?);
        for warning in running.warnings() {
            log::warn(&format!("{}: {warning}", self.id));
        }
        let console = Console::of(console, &self.init.streams, &self.shared.namespace, &self.id, &mut held);
        let console = console.inspect_err(|_| {
            let _ = runtime.delete(&self.id, true);
            let _ = running.wait();
        })?;
        self.init.is_made(running.clone(), held, console);
        Ok(running)
    }

    /// Tells want of memory from now on, where the kernel does.
    pub(crate) fn watch_memory(self: &Arc<Self>) {
        match self.runtime.watch_oom(&self.id) {
            Ok(Some(watch)) => self.oom.get_or_init(|| Oom::new(watch)).watch(self.clone()),
            Ok(None) => {}
            Err(error) => log::warn(&format!("{}: {error}", self.id)),
        }
    }

    /// Of a container that ran before it was watched, or was not watched at all.
    pub(crate) fn tell_memory_that_ran_out(&self) {
        let kills = self.runtime.oom_kills(&self.id).unwrap_or_default();
        if kills > self.known_kills.fetch_max(kills, Ordering::Relaxed) {
            self.shared.events.publish(TaskOOM { container_id: self.id.clone(), ..TaskOOM::default() });
        }
    }

    pub(crate) fn oom(&self) -> Option<&Oom> {
        self.oom.get()
    }

    pub(crate) fn take_checkpoint(&self) -> Option<Checkpoint> {
        locked(&self.checkpoint).take()
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, Execs> {
        locked(&self.execs)
    }

    /// Init for an empty id.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let found = self.execs().by_id.get(exec_id).map(|added| added.process.clone());
        found.ok_or_else(|| Error::not_found(format!("process {exec_id} does not exist in task {}", self.id)))
    }

    /// Starts init, or an exec; its pid.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` in any other state; what the program's start fails with.
    pub(crate) async fn start(self: &Arc<Self>, exec_id: &str) -> Result<u32> {
        if exec_id.is_empty() { self.start_init().await } else { self.start_exec(exec_id).await }
    }

    async fn start_init(self: &Arc<Self>) -> Result<u32> {
        let _starting = self.init.starting.lock().await;
        match self.init.phase() {
            Phase::Created => {}
            Phase::Running => return Err(Error::wrong_state("cannot start an already running container")),
            Phase::Stopped(_) => return Err(Error::wrong_state("cannot start a container that has stopped")),
        }
        let pid = match self.take_checkpoint() {
            Some(checkpoint) => self.restore(checkpoint).await?,
            None => self.start_made().await?,
        };
        self.init.enter(Phase::Running);
        self.shared.events.publish(TaskStart { container_id: self.id.clone(), pid, ..TaskStart::default() });
        Ok(pid)
    }

    async fn start_made(&self) -> Result<u32> {
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        let warnings = blocking(move || {
            runtime.start(&id).map_err(|error| Error::from(error).context("OCI runtime start failed"))
        })
        .await?;
        for warning in warnings {
            log::warn(&format!("{}: {warning}", self.id));
        }
        Ok(self.init.pid())
    }

    /// Kills what may have outlived init.
    pub(crate) async fn kill_the_rest(&self) {
        if !self.shares_pids {
            return;
        }
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        let killed = blocking(move || Ok(runtime.kill(&id, nix::libc::SIGKILL, true)?)).await;
        if let Err(error) = killed {
            log::warn(&format!("end the processes of {} after its init: {error}", self.id));
        }
    }

    /// # Errors
    ///
    /// `NotFound` ("process already finished") after its end.
    pub(crate) async fn kill(&self, exec_id: &str, signal: i32, all: bool) -> Result<()> {
        let process = self.process(exec_id)?;
        if !exec_id.is_empty() {
            return process.signal(signal);
        }
        if signal != 0 && self.give_up_restoring() {
            return Ok(());
        }
        // While CRIU is at work there is nobody yet who could get it.
        let restores = process.phase() == Phase::Created && process.pid() == 0;
        let _restored = if restores { Some(process.starting.lock().await) } else { None };
        self.kill_init(signal, all).await
    }

    async fn kill_init(&self, signal: i32, all: bool) -> Result<()> {
        if matches!(self.init.phase(), Phase::Stopped(_)) && !all {
            return Err(finished());
        }
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        blocking(move || {
            runtime.kill(&id, signal, all).map_err(|error| match error.kind() {
                Kind::WrongState | Kind::NotFound => finished(),
                _ => error.into(),
            })
        })
        .await
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// # Errors
    ///
    /// A container that is not running, or paused already; a process that does not stop.
    pub(crate) async fn pause(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.freeze(Runtime::pause, true).await?;
        self.shared.events.publish(TaskPaused { container_id: self.id.clone(), ..TaskPaused::default() });
        Ok(())
    }

    /// # Errors
    ///
    /// A container that is not paused.
    pub(crate) async fn resume(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        let _resuming = self.resuming.lock().await;
        self.freeze(Runtime::resume, false).await?;
        self.shared.events.publish(TaskResumed { container_id: self.id.clone(), ..TaskResumed::default() });
        Ok(())
    }

    /// Waits until a resume that is on its way is told.
    pub(crate) async fn resumed(&self) {
        drop(self.resuming.lock().await);
    }

    async fn freeze(&self, change: fn(&Runtime, &str) -> flint_runtime::Result<()>, paused: bool) -> Result<()> {
        if self.init.phase() == Phase::Created {
            return Err(Error::wrong_state("cannot pause or resume a container that was not started"));
        }
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        blocking(move || Ok(change(&runtime, &id)?)).await?;
        self.paused.store(paused, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the end of one that was killed.
    ///
    /// # Errors
    ///
    /// It hangs in the kernel.
    pub(crate) async fn ends(&self) -> Result<Exit> {
        tokio::time::timeout(DYING, self.init.ended())
            .await
            .map_err(|_| Error::system(format!("delete task {}", self.id), "its init was killed and does not end"))
    }

    /// Removes the container; how its init ended, and its pid. One that was created and never started is killed.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` while it runs; `NotFound` for the second of two at once; what cannot be removed: then it can be
    /// deleted again.
    pub(crate) async fn delete(self: &Arc<Self>) -> Result<(u32, Exit)> {
        let _changing = self.changing.lock().await;
        if self.deleted.load(Ordering::Relaxed) {
            return Err(Error::not_found(format!("task {} was deleted meanwhile", self.id)));
        }
        // A Start that is on its way is waited for: what it starts is not killed.
        let starting = self.init.starting.lock().await;
        match self.init.phase() {
            Phase::Running => return Err(Error::wrong_state(format!("cannot delete a running process {}", self.id))),
            Phase::Created if self.give_up_restoring() => {}
            Phase::Created => self
                .kill_init(nix::libc::SIGKILL, false)
                .await
                .or_else(|error| if error == finished() { Ok(()) } else { Err(error) })?,
            Phase::Stopped(_) => {}
        }
        drop(starting);
        let exit = self.ends().await?;
        self.init.close().await;
        self.delete_execs().await;
        let task = self.clone();
        blocking(move || {
            for warning in task.runtime.delete(&task.id, true)? {
                log::warn(&format!("{}: {warning}", task.id));
            }
            locked(&task.rootfs).unmount()
        })
        .await?;
        self.deleted.store(true, Ordering::Relaxed);
        let pid = self.init.pid();
        self.shared.events.publish(TaskDelete {
            container_id: self.id.clone(),
            pid,
            exit_status: exit.status,
            exited_at: clock::timestamp(exit.at),
            ..TaskDelete::default()
        });
        Ok((pid, exit))
    }
}

/// Nothing panics under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cgroups_path(bundle: &Bundle) -> Option<&std::path::Path> {
    bundle.spec().linux().as_ref()?.cgroups_path().as_deref()
}

fn has_own_pids(bundle: &Bundle) -> bool {
    use oci_spec::runtime::LinuxNamespaceType;
    let namespaces = bundle.spec().linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces
        .into_iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
}

/// Who the process is on the host, so that its streams are its own.
pub(crate) fn owner(bundle: &Bundle, process: Option<&oci_spec::runtime::Process>, options: &Options) -> Owner {
    let group = Some(options.io_gid).filter(|gid| *gid != 0);
    if options.io_uid != 0 {
        return (options.io_uid, group);
    }
    let uid = process.map_or(0, |process| process.user().uid());
    let maps = bundle.spec().linux().as_ref().and_then(|linux| linux.uid_mappings().as_ref());
    let mapped = maps.into_iter().flatten().find_map(|map| {
        let offset = uid.checked_sub(map.container_id()).filter(|offset| *offset < map.size())?;
        map.host_id().checked_add(offset)
    });
    (mapped.unwrap_or(uid), group)
}
