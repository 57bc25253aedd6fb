//! The host's lane of a plan: a container being made, and what undoes it.

use std::borrow::Cow;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use flint_init::Bindings;
use flint_init::plan::{Barrier, Slot};
use flint_init::protocol::{Kind as Said, Message};

use crate::bundle::Bundle;
use crate::cgroup::systemd::Folders;
use crate::cgroup::{self, Cgroup, Need};
use crate::container::bind::{self, Slots, Sources};
use crate::container::channel::{Channel, Heard};
use crate::container::create::{CreateOptions, hear_cloned, publish, write_proc};
use crate::container::folder::{Folder, Lock};
use crate::container::host_root::HostRoot;
use crate::container::pid_namespace::innermost_pid;
use crate::container::process::{Container, Process, raise_hard_limits, start_time, user_namespace_of};
use crate::container::start::hear_start;
use crate::container::{hooks, idmap, listener, net_devices, sentence};
use crate::criu::descriptors;
use crate::plan::{HostHookStage, HostStep, Plan, SlotSource};
use crate::state::{self, Phase, Record, State, Status};
use crate::{Error, Kind, Result, Runtime, resctrl};

/// A container being made: what there is of it already.
pub(super) struct Making<'a> {
    runtime: &'a Runtime,
    bundle: &'a Bundle,
    pub(super) plan: &'a Plan,
    pub(super) options: CreateOptions,
    pub(super) record: Record,
    pub(super) folder: Option<(Folder, Lock)>,
    /// With its real path: see [`cgroup::systemd::settle`].
    pub(super) cgroup_plan: Cow<'a, cgroup::Plan>,
    pub(super) cgroup: Option<Cgroup>,
    /// Folders that a mount of the cgroups needs before systemd makes them.
    cgroup_folders: Option<(Cgroup, Folders)>,
    slots: Slots,
    channel: Option<Channel>,
    pub(super) init: Option<Process>,
    /// Whether init is in its cgroups by its own doing: known for good at [`Barrier::Born`].
    entered: bool,
    notifications: Option<UnixDatagram>,
    host_root: Option<HostRoot>,
    warnings: Vec<String>,
}

impl<'a> Making<'a> {
    pub(super) fn new(
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
            resctrl: None,
            options: options.compile(runtime, id, on_socket),
            late_hooks: !plan.hooks.poststart.is_empty() || !plan.hooks.poststop.is_empty(),
            stdio: Vec::new(),
            user_namespace: None,
            restored_time: false,
            shares_pids: plan.clone_flags & libc::CLONE_NEWPID as u64 == 0,
        };
        let (slots, warnings) = (Slots::for_plan(plan), plan.warnings.clone());
        Self {
            runtime,
            bundle,
            plan,
            options,
            record,
            folder: None,
            cgroup_plan: Cow::Borrowed(&plan.cgroup),
            cgroup: None,
            cgroup_folders: None,
            slots,
            channel: None,
            init: None,
            entered: false,
            notifications: None,
            host_root: None,
            warnings,
        }
    }

    pub(super) fn execute(&mut self) -> Result<()> {
        for (index, step) in self.plan.host.iter().enumerate() {
            self.perform(*step).map_err(|error| self.or_what_init_said(*step, error))?;
            crate::fault::after_host_step(index);
        }
        Ok(())
    }

    /// Init goes ahead, and once it has failed, what the host does meanwhile fails, too: the cause is what init said.
    fn or_what_init_said(&mut self, step: HostStep, error: Error) -> Error {
        let heard = matches!(step, HostStep::Await(_) | HostStep::AwaitReady);
        if heard || !self.init.as_ref().is_some_and(Process::has_ended) {
            return error;
        }
        self.hear_until(|_| false, "create").err().unwrap_or(error)
    }

    pub(super) fn perform(&mut self, step: HostStep) -> Result<()> {
        match step {
            HostStep::ClaimId => self.claim(),
            HostStep::MakeCgroup => self.make_cgroup(),
            HostStep::MakeCgroupFolders => self.make_cgroup_folders(),
            HostStep::StartUnit => self.start_unit(),
            HostStep::Bind(slot) => self.bind(slot),
            HostStep::Clone => self.clone_init(),
            HostStep::Await(barrier) => self.await_barrier(barrier),
            HostStep::IdMaps => idmap::write(self.pid()?, self.plan),
            HostStep::HardLimits => raise_hard_limits(self.pid()?, self.plan),
            HostStep::OomScore => self.write_oom_score(),
            HostStep::JoinCgroup => self.join_cgroup(),
            HostStep::EnterSubgroup => self.enter_below(&[&self.plan.cgroup.subgroup]),
            HostStep::Delegate => self.enter_below(&[&self.plan.cgroup.subgroup, &self.plan.cgroup.delegate]),
            HostStep::Resctrl => self.join_resctrl(self.pid()?),
            HostStep::NetDevices => net_devices::move_all(&self.plan.net_devices, self.pid()?),
            HostStep::SaveState => self.save_pid(),
            HostStep::Hooks(stage) => self.run_hooks(stage),
            HostStep::BindMounts => self.slots.bind_late(self.plan, self.pid()?),
            HostStep::Release(barrier) => self.release(barrier),
            HostStep::Start => self.channel()?.start(),
            HostStep::AwaitReady => self.await_ready(),
        }
    }

    fn claim(&mut self) -> Result<()> {
        cgroup::systemd::reach(&self.plan.cgroup)?;
        let folder = Folder::make(self.runtime.root_fd(), self.runtime.root(), &self.record.id)?;
        let lock = folder.lock()?;
        let (folder, _) = self.folder.insert((folder, lock));
        // The places of the cgroups are recorded before they are made: a maker that is killed leaves them findable.
        self.record.cgroup = Cgroup::places(&self.runtime.host()?.layout, &self.cgroup_plan);
        self.record.resctrl = self.plan.resctrl.as_ref().map(resctrl::Allocation::place);
        folder.save_first(&self.record)?;
        folder.save_config(self.bundle.json())?;
        if self.options.notify {
            self.notifications = Some(folder.listen_for_notifications()?);
        }
        Ok(())
    }

    fn make_cgroup(&mut self) -> Result<()> {
        let occupant = self.init.as_ref().map(Process::pid);
        let cgroup = Cgroup::create_around(&self.runtime.host()?.layout, &self.cgroup_plan, occupant)?;
        self.record.cgroup = cgroup.paths().clone();
        self.cgroup = Some(cgroup);
        Ok(())
    }

    fn join_cgroup(&mut self) -> Result<()> {
        let (Some(cgroup), Some(init)) = (&mut self.cgroup, &self.init) else { return Ok(()) };
        if self.entered {
            return Ok(());
        }
        cgroup.join(&self.cgroup_plan, init.pid())?;
        self.record.cgroup = cgroup.paths().clone();
        if cgroup.is_nowhere() && self.plan.cgroup.need != Need::Required && self.shares_pids() {
            self.warnings.push(
                "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is \
                 strongly discouraged: what it starts may outlive it, and nobody can tell its processes"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn enter_below(&self, parts: &[&Option<String>]) -> Result<()> {
        let parts: Vec<&str> = parts.iter().filter_map(|part| part.as_deref()).collect();
        let owner = self.plan.cgroup.owner;
        self.cgroup.as_ref().ok_or_else(out_of_order)?.enter_below(&parts, owner, self.pid()?)
    }

    pub(super) fn join_resctrl(&self, pid: i32) -> Result<()> {
        self.plan.resctrl.as_ref().map_or(Ok(()), |allocation| allocation.make(pid))
    }

    fn shares_pids(&self) -> bool {
        self.plan.clone_flags & libc::CLONE_NEWPID as u64 == 0
    }

    /// Only what is not there yet: with processes in it, it is another container's.
    fn make_cgroup_folders(&mut self) -> Result<()> {
        let folders = Folders::make(&self.record.cgroup)?;
        self.cgroup_folders = Some((Cgroup::from_paths(&self.record.cgroup), folders));
        Ok(())
    }

    fn start_unit(&mut self) -> Result<()> {
        let Some(scope) = &self.plan.cgroup.systemd else { return Ok(()) };
        let (pid, layout) = (self.pid()?, &self.runtime.host()?.layout);
        scope.await_places(&self.record.cgroup)?;
        scope.start(pid)?;
        // From here on what is there is ours to remove.
        let plan = std::mem::take(&mut self.cgroup_plan);
        self.cgroup_plan = cgroup::systemd::settle(plan, layout.mode(), pid)?;
        self.record.cgroup = Cgroup::places(layout, &self.cgroup_plan);
        self.cgroup = Some(Cgroup::from_paths(&self.record.cgroup));
        Ok(())
    }

    fn bind(&mut self, slot: Slot) -> Result<()> {
        let folder = self.folder.as_ref().map(|(folder, _)| folder).ok_or_else(out_of_order)?;
        if self.plan.slots.get(usize::from(slot.0)) == Some(&SlotSource::ConsoleSocket)
            && let (None, Some(path)) = (&self.options.console, &self.options.console_socket)
        {
            self.options.console = Some(bind::connect_to(path)?);
        }
        let mut sources = Sources {
            folder,
            cgroup: self.cgroup.as_ref().or(self.cgroup_folders.as_ref().map(|(cgroup, _)| cgroup)),
            console: self.options.console.take(),
            init: None,
            namespaces: Vec::new(),
        };
        self.slots.bind(self.plan, slot, &mut sources)?;
        self.options.console = sources.console;
        Ok(())
    }

    fn clone_init(&mut self) -> Result<()> {
        self.host_root = HostRoot::look(self.plan)?;
        let (channel, init_end) = Channel::pair()?;
        let mut fds = self.slots.numbers();
        let entrances = self.cgroup.as_ref().map(Cgroup::entrances).unwrap_or_default();
        let entrance_fds: Vec<_> = entrances.iter().map(|fd| flint_init::Fd(fd.as_raw_fd())).collect();
        let keep = bind::keep(&self.slots, init_end.as_raw_fd(), self.options.preserve_fds, &entrance_fds);
        let join: Vec<_> = self.plan.joins();
        let mut pointers = self.plan.pointers();
        let in_user_namespace = self.plan.clone_flags & libc::CLONE_NEWUSER as u64 != 0;
        // Where it may be refused, it is tried when init is there: Cgroup::join.
        let direct = join.is_empty() && self.plan.time.is_none();
        let born_in = direct && !self.plan.cgroup.devices_where_permitted;
        // Beside v1 where all is permitted: elsewhere it is seen one by one what is.
        let may_clone_into = |cgroup: &&Cgroup| {
            born_in && (!cgroup.has_v1() || !entrances.is_empty() && self.plan.cgroup.need == Need::Required)
        };
        let cgroup = self.cgroup.as_ref().filter(may_clone_into).and_then(Cgroup::clone_into);
        let entered = self.cgroup.as_ref().is_some_and(|all| all.is_entered(entrances.len(), cgroup.is_some()));
        let bindings = Bindings {
            fds: &mut fds,
            keep: &keep,
            channel: flint_init::Fd(init_end.as_raw_fd()),
            stdio: bind::stdio(self.options.stdio.as_ref())?,
            pointers: &mut pointers,
            join: &join,
            flags: self.plan.clone_flags,
            // A process that joins others' namespaces or makes its time first has closed the folder by then, and perhaps may not use it any more.
            cgroup: cgroup.map(|fd| flint_init::Fd(fd.as_raw_fd())),
            cgroups: &entrance_fds,
            entered,
            fault: crate::fault::of_init(),
        };
        let child = flint_init::spawn(self.plan.as_ref(), bindings).map_err(|errno| {
            let hint = match errno.0 {
                libc::ENOSPC => " (a limit in /proc/sys/user or on cgroups is reached)",
                libc::EPERM if in_user_namespace => " (user namespaces are not allowed: see kernel.unprivileged_userns_clone and user.max_user_namespaces)",
                libc::EOPNOTSUPP => " (the cgroup is below one that is threaded or holds processes itself)",
                libc::EAGAIN => " (a limit on processes is reached: ulimit -u, pids.max, kernel.pid_max)",
                _ => "",
            };
            Error::new(Kind::System, format!("clone the container's init: {}{hint}", crate::error::errno_text(errno.0)))
        })?;
        let child = Process::of_child(child.pid)?;
        self.entered = entered;
        // The other ends of pipes must see the program's end, not ours.
        drop(self.options.stdio.take());
        self.channel = Some(channel);
        if direct {
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
        let message =
            self.hear_until(|message| message.kind == Said::Reached && message.step == barrier as u32, "create")?;
        self.entered &= message.operation == 0;
        Ok(())
    }

    fn release(&mut self, barrier: Barrier) -> Result<()> {
        let channel = self.channel.as_ref().ok_or_else(out_of_order)?;
        if barrier == Barrier::Sources {
            self.slots.hand_over_late(self.plan, channel)?;
        }
        channel.release(barrier)
    }

    fn await_ready(&mut self) -> Result<()> {
        let _ = self.hear_until(|message| message.kind == Said::Ready, "create")?;
        self.write_hook_state(Status::Created)?;
        if !self.record.options.wait_on_socket {
            return Ok(());
        }
        self.record.phase = Phase::Created;
        self.save()
    }

    fn hear_until(&mut self, wanted: impl Fn(&Message) -> bool, doing: &str) -> Result<Message> {
        loop {
            match self.channel()?.hear()? {
                Heard::Said(message) if wanted(&message) => return Ok(message),
                Heard::Said(message) if message.kind == Said::Warned => {
                    self.warnings.push(sentence::warned(self.plan, &message));
                }
                Heard::Said(message) if message.kind == Said::Listener => {
                    let (channel, pid) = (self.channel()?, self.pid()?);
                    listener::hand_over(channel, self.plan, &self.record, Status::Creating, pid, message.number)?;
                }
                Heard::Said(message) if message.kind == Said::Map => {
                    let init = self.init.as_ref().ok_or_else(out_of_order)?;
                    self.slots.map_ids_for(init.pidfd(), self.plan, &message)?;
                    self.channel()?.proceed()?;
                }
                Heard::Said(message) if message.kind == Said::Failed => {
                    return Err(sentence::failed(self.plan, &message).quoting(&self.channel()?.hook_output()));
                }
                Heard::Said(_) => return Err(Error::new(Kind::System, "init said something out of turn")),
                Heard::End => {
                    let ended = self.init.as_ref().and_then(|init| init.wait().ok());
                    let out_of_memory = self.cgroup.as_ref().and_then(Cgroup::out_of_memory);
                    return Err(sentence::died(doing, ended, out_of_memory));
                }
            }
        }
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
        self.record.start_time = start_time(pid).ok_or_else(|| sentence::died("create", None, None))?;
        self.record.stdio = descriptors::of_process(&pid.to_string());
        self.record.user_namespace = user_namespace_of(pid);
        self.write_hook_state(Status::Creating)?;
        if !self.record.options.wait_on_socket {
            // `run` says now what will be true in a moment: one write less.
            self.record.phase = Phase::Starting;
        }
        self.save()
    }

    pub(super) fn save(&self) -> Result<()> {
        match &self.folder {
            Some((folder, _)) => folder.save(&self.record),
            None => Err(out_of_order()),
        }
    }

    /// The JSON that init's hooks read: the file is made before the clone and filled when the pid is known, and once
    /// more when createContainer hooks are done and startContainer hooks to come. They run in the container's pid namespace,
    /// so the pid is the one that init has there.
    fn write_hook_state(&self, status: Status) -> Result<()> {
        let Some(slot) = self.plan.slots.iter().position(|source| *source == SlotSource::HookState) else {
            return Ok(());
        };
        let pid = innermost_pid(self.record.pid).ok_or_else(|| sentence::died("create", None, None))?;
        let json = State::hook_json(&self.record, status, pid)?;
        let file = self.slots.get(Slot(slot as u16)).ok_or_else(out_of_order)?;
        rustix::fs::ftruncate(file, json.len() as u64)
            .and_then(|()| rustix::io::pwrite(file, &json, 0))
            .map(drop)
            .map_err(|errno| Error::os("write the hooks' state", errno))
    }

    pub(super) fn run_hooks(&self, stage: HostHookStage) -> Result<()> {
        let (name, list) = match stage {
            HostHookStage::Prestart => ("prestart", &self.plan.hooks.prestart),
            HostHookStage::CreateRuntime => ("createRuntime", &self.plan.hooks.create_runtime),
            HostHookStage::Poststart => ("poststart", &self.plan.hooks.poststart),
            HostHookStage::Poststop => ("poststop", &self.plan.hooks.poststop),
        };
        let json = State::hook_json(&self.record, Status::Creating, self.record.pid)?;
        hooks::run(name, &self.record.bundle, list, &json)
    }

    /// `run`: the state has said so since the pid was recorded, so that a kill in between is seen for what it is.
    pub(super) fn start(&mut self) -> Result<Vec<String>> {
        if !self.plan.host.contains(&HostStep::Start) {
            self.channel()?.start()?;
        }
        let ended = || self.init.as_ref().and_then(|init| init.wait().ok());
        hear_start(self.channel()?, &self.record, Status::Creating, || Ok(Cow::Borrowed(self.plan)), ended)
    }

    pub(super) fn finish(mut self, more_warnings: Vec<String>) -> Result<Container> {
        if let Err(error) = self.hand_out() {
            return Err(self.undo(error));
        }
        self.warnings.extend(more_warnings);
        match self.init.take() {
            Some(init) => {
                let init = init.with_warnings(self.warnings).with_notes(self.plan.notes());
                Ok(init.with_notifications(self.notifications.take()))
            }
            None => Err(out_of_order()),
        }
    }

    fn hand_out(&self) -> Result<()> {
        let Some(init) = &self.init else { return Err(out_of_order()) };
        let receiver = self.plan.annotations.get("run.oci.pidfd_receiver").map(Path::new);
        let socket = self.options.pidfd_socket.as_deref().or(receiver);
        publish(init, self.options.pid_file.as_deref(), socket)
    }

    /// Removes all that was made; what cannot be removed is told behind the first error.
    pub(super) fn undo(mut self, error: Error) -> Error {
        // init first: nothing in the cgroup may start something new.
        drop(self.channel.take());
        if let Some(init) = self.init.take() {
            init.destroy();
        }
        let mut error = error;
        if let Some(root) = &self.host_root {
            error = error.with_cleanup(root.unmount());
        }
        // Until the unit is ours, the folders are empty or somebody else's.
        if let (None, Some((_, folders))) = (&self.cgroup, self.cgroup_folders.take()) {
            error = error.with_cleanup(folders.remove());
        }
        if let Some(cgroup) = self.cgroup.take() {
            error = error.with_cleanup(cgroup.kill_all().and_then(|()| cgroup.delete()));
        }
        if let Some(group) = &self.record.resctrl {
            error = error.with_cleanup(group.remove());
        }
        if let Some((folder, _lock)) = self.folder.take() {
            error = error.with_cleanup(folder.remove(self.runtime.root_fd()));
        }
        error
    }
}

pub(super) fn out_of_order() -> Error {
    Error::new(Kind::System, "the plan's host lane is out of order")
}
