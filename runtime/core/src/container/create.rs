//! `create` and `run`: the host's lane of a plan.

use std::borrow::Cow;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use flint_init::Bindings;
use flint_init::plan::{Barrier, Slot};
use flint_init::protocol::Kind as Said;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::compile::{self, CompileOptions};
use crate::container::bind::{self, Slots, Sources};
use crate::container::channel::{Channel, Heard};
use crate::container::folder::{Folder, Lock};
use crate::container::process::{Container, Process, start_time};
use crate::container::start::{poststart, release};
use crate::container::{check_id, hooks, sentence};
use crate::plan::{HostHookStage, HostStep, Plan, SlotSource};
use crate::state::{self, Phase, Record, State, Status};
use crate::{Error, Kind, Result, Runtime};

/// How a container is made, besides its bundle.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Where the terminal's master is sent: a listening unix socket.
    pub console_socket: Option<PathBuf>,
    /// The same, connected already.
    pub console: Option<OwnedFd>,
    /// Where init's pidfd is sent: a listening unix socket.
    pub pidfd_socket: Option<PathBuf>,
    /// A file that will hold init's pid in decimal digits.
    pub pid_file: Option<PathBuf>,
    /// Move the root over `/` instead of pivot_root (a root on an initial ramfs).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the container's program gets.
    pub preserve_fds: u32,
    /// How many of them it is told of as `LISTEN_FDS` (sd_listen_fds(3)).
    pub listen_fds: u32,
}

impl CreateOptions {
    fn compile(&self, id: &str, wait_on_socket: bool) -> CompileOptions {
        CompileOptions {
            id: id.to_owned(),
            console_socket: self.console.is_some() || self.console_socket.is_some(),
            no_pivot: self.no_pivot,
            new_keyring: !self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            listen_fds: self.listen_fds,
            wait_on_socket,
        }
    }
}

impl Runtime {
    /// Makes a container; its program waits for [`Runtime::start`] (runtime-spec, "Create").
    ///
    /// May be called from any thread. The caller is the parent of init and should wait for it.
    ///
    /// # Errors
    ///
    /// A wrong bundle, before anything is made; a step that failed, after all that was made is removed again.
    pub fn create(&self, id: &str, bundle: &Bundle, options: CreateOptions) -> Result<Container> {
        let plan = self.compile(id, bundle, &options, true)?;
        let mut making = Making::new(self, id, bundle, &plan, options, true);
        match making.execute() {
            Ok(()) => making.finish(Vec::new()),
            Err(error) => Err(making.undo(error)),
        }
    }

    /// Makes a container and starts it, over the channel that `create` would close: faster than both.
    ///
    /// # Errors
    ///
    /// As [`Runtime::create`] and [`Runtime::start`]; nothing is left then.
    pub fn run(&self, id: &str, bundle: &Bundle, options: CreateOptions) -> Result<Container> {
        let plan = self.compile(id, bundle, &options, false)?;
        let mut making = Making::new(self, id, bundle, &plan, options, false);
        let started = making.execute().and_then(|()| making.start());
        match started {
            Ok(warnings) => {
                if let Err(error) = poststart(&making.record, &plan.hooks.poststart) {
                    return Err(making.undo(error));
                }
                making.finish(warnings)
            }
            Err(error) => Err(making.undo(error)),
        }
    }

    /// The plan that [`Runtime::create`] would execute; nothing is made.
    ///
    /// # Errors
    ///
    /// A wrong bundle.
    pub fn plan(&self, id: &str, bundle: &Bundle, options: &CreateOptions) -> Result<Plan> {
        self.compile(id, bundle, options, true)
    }

    fn compile(&self, id: &str, bundle: &Bundle, options: &CreateOptions, on_socket: bool) -> Result<Plan> {
        check_id(id)?;
        compile::compile(bundle, self.host()?, &options.compile(id, on_socket))
    }
}

/// A container being made: what there is of it already.
struct Making<'a> {
    runtime: &'a Runtime,
    bundle: &'a Bundle,
    plan: &'a Plan,
    options: CreateOptions,
    record: Record,
    folder: Option<(Folder, Lock)>,
    cgroup: Option<Cgroup>,
    slots: Slots,
    channel: Option<Channel>,
    init: Option<Process>,
    warnings: Vec<String>,
}

impl<'a> Making<'a> {
    fn new(
        runtime: &'a Runtime,
        id: &str,
        bundle: &'a Bundle,
        plan: &'a Plan,
        options: CreateOptions,
        on_socket: bool,
    ) -> Self {
        let record = Record {
            version: state::VERSION,
            id: id.to_owned(),
            phase: Phase::Creating,
            pid: 0,
            start_time: 0,
            oci_version: bundle.spec().version().clone(),
            bundle: bundle.path().to_owned(),
            rootfs: plan.rootfs.clone(),
            created: state::now(),
            owner: nix::unistd::getuid().as_raw(),
            annotations: plan.annotations.clone(),
            cgroup: crate::cgroup::Paths::default(),
            options: options.compile(id, on_socket),
            late_hooks: !plan.hooks.poststart.is_empty() || !plan.hooks.poststop.is_empty(),
        };
        let (slots, warnings) = (Slots::for_plan(plan), plan.warnings.clone());
        Self {
            runtime,
            bundle,
            plan,
            options,
            record,
            folder: None,
            cgroup: None,
            slots,
            channel: None,
            init: None,
            warnings,
        }
    }

    fn execute(&mut self) -> Result<()> {
        for (index, step) in self.plan.host.iter().enumerate() {
            self.perform(*step)?;
            crate::fault::after_host_step(index);
        }
        Ok(())
    }

    fn perform(&mut self, step: HostStep) -> Result<()> {
        match step {
            HostStep::ClaimId => self.claim(),
            HostStep::MakeCgroup => self.make_cgroup(),
            HostStep::Bind(slot) => self.bind(slot),
            HostStep::Clone => self.clone_init(),
            HostStep::Await(barrier) => self.await_barrier(barrier),
            HostStep::IdMaps => self.write_id_maps(),
            HostStep::OomScore => self.write_oom_score(),
            HostStep::JoinCgroup => match (&self.cgroup, &self.init) {
                (Some(cgroup), Some(init)) => cgroup.add(init.pid()),
                _ => Ok(()),
            },
            HostStep::SaveState => self.save_pid(),
            HostStep::Hooks(stage) => self.run_hooks(stage),
            HostStep::Release(barrier) => self.channel()?.release(barrier),
            HostStep::AwaitReady => self.await_ready(),
        }
    }

    fn claim(&mut self) -> Result<()> {
        let folder = Folder::make(self.runtime.root_fd(), self.runtime.root(), &self.record.id)?;
        let lock = folder.lock()?;
        let (folder, _) = self.folder.insert((folder, lock));
        // The places of the cgroups are recorded before they are made: a maker that is killed leaves them findable.
        self.record.cgroup = Cgroup::places(&self.runtime.host()?.layout, &self.plan.cgroup);
        folder.save_first(&self.record)?;
        folder.save_config(self.bundle.json())
    }

    fn make_cgroup(&mut self) -> Result<()> {
        let cgroup = Cgroup::create(&self.runtime.host()?.layout, &self.plan.cgroup)?;
        self.record.cgroup = cgroup.paths().clone();
        self.cgroup = Some(cgroup);
        Ok(())
    }

    fn bind(&mut self, slot: Slot) -> Result<()> {
        let folder = self.folder.as_ref().map(|(folder, _)| folder).ok_or_else(out_of_order)?;
        if self.plan.slots.get(usize::from(slot.0)) == Some(&SlotSource::ConsoleSocket)
            && let (None, Some(path)) = (&self.options.console, &self.options.console_socket)
        {
            self.options.console = Some(bind::connect_to(path)?);
        }
        let mut sources =
            Sources { folder, cgroup: self.cgroup.as_ref(), console: self.options.console.take(), init: None };
        self.slots.bind(self.plan, slot, &mut sources)?;
        self.options.console = sources.console;
        Ok(())
    }

    fn clone_init(&mut self) -> Result<()> {
        let (channel, init_end) = Channel::pair()?;
        let fds = self.slots.numbers();
        let keep = bind::keep(&self.slots, init_end.as_raw_fd(), self.options.preserve_fds);
        let join: Vec<_> = self.plan.joins();
        let mut pointers = self.plan.pointers();
        let in_user_namespace = self.plan.clone_flags & libc::CLONE_NEWUSER as u64 != 0;
        let bindings = Bindings {
            fds: &fds,
            keep: &keep,
            channel: flint_init::Fd(init_end.as_raw_fd()),
            pointers: &mut pointers,
            join: &join,
            flags: self.plan.clone_flags,
            cgroup: self.cgroup.as_ref().and_then(Cgroup::clone_into).map(|fd| flint_init::Fd(fd.as_raw_fd())),
            #[cfg(feature = "faults")]
            fault: crate::fault::of_init(),
        };
        let child = flint_init::spawn(self.plan.as_ref(), bindings).map_err(|errno| {
            let hint = match errno.0 {
                libc::ENOSPC => " (a limit in /proc/sys/user or on cgroups is reached)",
                libc::EPERM if in_user_namespace => " (user namespaces are not allowed: see kernel.unprivileged_userns_clone and user.max_user_namespaces)",
                libc::EAGAIN => " (a limit on processes is reached: ulimit -u, pids.max, kernel.pid_max)",
                _ => "",
            };
            Error::new(Kind::System, format!("clone the container's init: {}{hint}", crate::error::errno_text(errno.0)))
        })?;
        let child = Process::of_child(child.pid)?;
        self.channel = Some(channel);
        if join.is_empty() {
            self.init = Some(child);
        } else {
            self.init = Some(hear_cloned(self.channel()?, self.plan, &child)?);
        }
        Ok(())
    }

    fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().ok_or_else(out_of_order)
    }

    fn pid(&self) -> Result<i32> {
        self.init.as_ref().map(Process::pid).ok_or_else(out_of_order)
    }

    fn await_barrier(&mut self, barrier: Barrier) -> Result<()> {
        self.hear_until(|message| message.kind == Said::Reached && message.step == barrier as u32, "create")
    }

    fn await_ready(&mut self) -> Result<()> {
        self.hear_until(|message| message.kind == Said::Ready, "create")?;
        self.write_hook_state(Status::Created)?;
        if !self.record.options.wait_on_socket {
            return Ok(());
        }
        self.record.phase = Phase::Created;
        self.save()
    }

    fn hear_until(&mut self, wanted: impl Fn(&flint_init::protocol::Message) -> bool, doing: &str) -> Result<()> {
        loop {
            match self.channel()?.hear()? {
                Heard::Said(message) if wanted(&message) => return Ok(()),
                Heard::Said(message) if message.kind == Said::Warned => {
                    self.warnings.push(sentence::warned(self.plan, &message));
                }
                Heard::Said(message) if message.kind == Said::Failed => {
                    return Err(sentence::failed(self.plan, &message));
                }
                Heard::Said(_) => return Err(Error::new(Kind::System, "init said something out of turn")),
                Heard::End => {
                    let ended = self.init.as_ref().and_then(|init| init.wait().ok());
                    let oom_kills = self.cgroup.as_ref().map_or(0, Cgroup::oom_kills);
                    return Err(sentence::died(doing, ended, oom_kills));
                }
            }
        }
    }

    fn write_id_maps(&self) -> Result<()> {
        let pid = self.pid()?;
        let lines = |map: &[(u32, u32, u32)]| -> String {
            map.iter()
                .fold(String::new(), |lines, (inside, outside, count)| lines + &format!("{inside} {outside} {count}\n"))
        };
        write_proc(pid, "uid_map", &lines(&self.plan.uid_map))?;
        write_proc(pid, "gid_map", &lines(&self.plan.gid_map))
    }

    fn write_oom_score(&mut self) -> Result<()> {
        let Some(score) = self.plan.oom_score_adj else { return Ok(()) };
        match write_proc(self.pid()?, "oom_score_adj", &score.to_string()) {
            // Lowering it needs CAP_SYS_RESOURCE (nested use).
            Err(error) if error.kind() == Kind::Permission => {
                self.warnings.push(format!("process.oomScoreAdj {score} is left as it is: {error}"));
                Ok(())
            }
            result => result,
        }
    }

    fn save_pid(&mut self) -> Result<()> {
        let pid = self.pid()?;
        self.record.pid = pid;
        self.record.start_time = start_time(pid).ok_or_else(|| sentence::died("create", None, 0))?;
        self.write_hook_state(Status::Creating)?;
        if !self.record.options.wait_on_socket {
            // `run` says now what will be true in a moment: one write less.
            self.record.phase = Phase::Starting;
        }
        self.save()
    }

    fn save(&self) -> Result<()> {
        match &self.folder {
            Some((folder, _)) => folder.save(&self.record),
            None => Err(out_of_order()),
        }
    }

    /// The JSON that init's hooks read: the file is made before the clone and filled when the pid is known, and once
    /// more when createContainer hooks are done and startContainer hooks to come.
    fn write_hook_state(&self, status: Status) -> Result<()> {
        let Some(slot) = self.plan.slots.iter().position(|source| *source == SlotSource::HookState) else {
            return Ok(());
        };
        let json = State::hook_json(&self.record, status, self.record.pid)?;
        let file = self.slots.get(Slot(slot as u16)).ok_or_else(out_of_order)?;
        rustix::fs::ftruncate(file, json.len() as u64)
            .and_then(|()| rustix::io::pwrite(file, &json, 0))
            .map(drop)
            .map_err(|errno| Error::os("write the hooks' state", errno))
    }

    fn run_hooks(&self, stage: HostHookStage) -> Result<()> {
        let (name, list) = match stage {
            HostHookStage::Prestart => ("prestart", &self.plan.hooks.prestart),
            HostHookStage::CreateRuntime => ("createRuntime", &self.plan.hooks.create_runtime),
            HostHookStage::Poststart => ("poststart", &self.plan.hooks.poststart),
            HostHookStage::Poststop => ("poststop", &self.plan.hooks.poststop),
        };
        hooks::run(name, list, &State::hook_json(&self.record, Status::Creating, self.record.pid)?)
    }

    /// `run`: the state has said so since the pid was recorded, so that a kill in between is seen for what it is.
    fn start(&mut self) -> Result<Vec<String>> {
        let ended = || self.init.as_ref().and_then(|init| init.wait().ok());
        release(self.channel()?, &self.record, || Ok(Cow::Borrowed(self.plan)), ended)
    }

    fn finish(mut self, more_warnings: Vec<String>) -> Result<Container> {
        if let Err(error) = self.hand_out() {
            return Err(self.undo(error));
        }
        self.warnings.extend(more_warnings);
        match self.init.take() {
            Some(init) => Ok(init.with_warnings(self.warnings)),
            None => Err(out_of_order()),
        }
    }

    fn hand_out(&self) -> Result<()> {
        let Some(init) = &self.init else { return Err(out_of_order()) };
        publish(init, self.options.pid_file.as_deref(), self.options.pidfd_socket.as_deref())
    }

    /// Removes all that was made; what cannot be removed is told behind the first error.
    fn undo(mut self, error: Error) -> Error {
        // init first: nothing in the cgroup may start something new.
        drop(self.channel.take());
        if let Some(init) = self.init.take() {
            init.destroy();
        }
        let mut error = error;
        if let Some(cgroup) = self.cgroup.take() {
            error = error.with_cleanup(cgroup.kill_all().and_then(|()| cgroup.delete()));
        }
        if let Some((folder, _lock)) = self.folder.take() {
            error = error.with_cleanup(folder.remove(self.runtime.root_fd()));
        }
        error
    }
}

fn out_of_order() -> Error {
    Error::new(Kind::System, "the plan's host lane is out of order")
}

/// From the throw-away process that joins namespaces: init's pid. It is our child, so the pid stays its own until
/// we reap it. The throw-away process itself is reaped here.
pub(crate) fn hear_cloned(channel: &Channel, plan: &Plan, joiner: &Process) -> Result<Process> {
    let heard = channel.hear_cloned();
    let result = match heard? {
        Heard::Said(message) if message.kind == Said::Cloned => Process::of_child(message.number),
        Heard::Said(message) if message.kind == Said::Failed => Err(sentence::failed(plan, &message)),
        Heard::Said(_) => Err(Error::new(Kind::System, "init said something out of turn")),
        Heard::End => Err(sentence::died("join the container's namespaces", None, 0)),
    };
    let _ = joiner.wait();
    result
}

pub(crate) fn write_proc(pid: i32, file: &str, text: &str) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|error| {
        let text = text.trim_end().replace('\n', ", ");
        Error::os(format!("write \"{text}\" to init's {file}"), error)
    })
}

/// Tells the caller's other programs who init is: the pid file (written aside, then renamed) and the pidfd.
pub(crate) fn publish(process: &Process, pid_file: Option<&Path>, pidfd_socket: Option<&Path>) -> Result<()> {
    if let Some(socket) = pidfd_socket {
        let connection = bind::connect_to(socket)?;
        bind::send_fd(&connection, b"pidfd", process.pidfd())?;
    }
    let Some(path) = pid_file else { return Ok(()) };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let aside = path.with_file_name(name);
    let failure = |error| Error::os(format!("write the pid file {}", path.display()), error);
    std::fs::write(&aside, process.pid().to_string()).map_err(failure)?;
    std::fs::rename(&aside, path).map_err(failure)
}
