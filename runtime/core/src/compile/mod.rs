//! Compiling a bundle to a plan: pure, but for one look at whether a joined namespace is the host's own (sysctls).
//!
//! ```text
//!  config.json ─▶ supported?  ─▶ namespaces ─▶ mounts, devices, paths ─▶ process ─▶ Plan
//!                 (refuse what        │ what is new, what is joined
//!                  this flint lacks)  └ decides much of the rest
//! ```
//!
//! What config.json can get wrong fails here, before anything exists on the host. The order of init's steps is
//! the order of the calls in [`compile`] and in [`compile_exec`], and nowhere else.

mod added_mount;
mod ahead;
mod annotations;
mod birth;
pub(crate) mod caller;
mod cgroup_mounts;
mod cgroups;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod damaged;
mod devices;
mod hooks;
mod idmap;
mod labels;
mod lane;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod notify;
mod options;
mod paths;
mod process;
mod rootless;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod samples;
mod schedule;
mod supported;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;

use flint_init::plan::{Barrier, Range, Slot, Step, Text};
use oci_spec::runtime::{Linux, Process, Spec};

use crate::bundle::Bundle;
use crate::cgroup;
use crate::container::SeccompListener;
use crate::plan::{HostHook, HostStep, Plan, SlotSource};
use crate::resctrl::{self, Resctrl};
use crate::{Error, Result};

pub use added_mount::{compile_mount, compile_umount};
pub(crate) use birth::may_trace;
pub use caller::{Caller, in_user_namespace};
pub(crate) use namespaces::CLONE_NEWTIME;
pub use options::{CompileOptions, ExecCompileOptions, Host};

use annotations::Annotations;
use cgroups::without_unset_pids;
use labels::Modules;
use lane::host_lane;
use namespaces::Namespaces;
use text::Tables;

/// `KEY_USR_SEARCH` and `KEY_OTH_SEARCH` of the kernel's linux/keyctl.h: exec finds a keyring that it may search.
const USER_SEARCH: u32 = 0x0008_0000;
const OTHERS_SEARCH: u32 = 0x8;

/// A bundle that is being compiled.
struct Compiler<'a> {
    bundle: &'a Bundle,
    spec: &'a Spec,
    linux: Option<&'a Linux>,
    host: &'a Host,
    console_socket: bool,
    listen_fds: u32,
    notify_folder: Option<PathBuf>,
    annotations: Annotations,
    namespaces: Namespaces,
    tables: Tables,
    warnings: Vec<String>,
    seccomp_listener: Option<SeccompListener>,
    /// Mounts that become read-only when all is in place below them.
    late_readonly: Vec<(Slot, Text)>,
    /// Where the container's cgroups will be, unless the caller may not make them.
    cgroup_places: cgroup::Paths,
}

/// Compiles a bundle for `create` and `run`.
///
/// # Errors
///
/// `Invalid` for what config.json gets wrong, `Unsupported` for what this flint or this host lacks; each names
/// the field.
pub fn compile(bundle: &Bundle, host: &Host, options: &CompileOptions) -> Result<Plan> {
    let mut compiler = Compiler::new(bundle, host, options.console_socket, options.listen_fds)?;
    compiler.notify_folder.clone_from(&options.notify_folder);
    compiler.or_receiver(options.seccomp_receiver.as_ref());
    let process = compiler.process()?;
    compiler.check_caller()?;
    compiler.check_user(process)?;
    if compiler.joins_our_own(libc::CLONE_NEWNS) {
        return Err(Error::invalid(
            "linux.namespaces: the path of the mount namespace is the runtime's own, whose root would be another for all that is in it: leave out the path for a new namespace, or the whole entry for mounts on the host",
        ));
    }
    let root = compiler.spec.root().as_ref().ok_or_else(|| Error::invalid("config.json has no root"))?;
    let rootfs = compiler.rootfs(root.path())?;
    let limited = without_unset_pids(bundle, compiler.linux);
    let linux = limited.as_ref().or(compiler.linux);
    let cgroup = compiler.cgroup(options, linux)?;
    compiler.cgroup_places = cgroup::Cgroup::places(&host.layout, &cgroup);

    compiler.isolate(options, process)?;
    let net_devices = compiler.net_devices()?;
    compiler.kernel_names()?;
    let before = compiler.tables.steps.len();
    compiler.root(&rootfs)?;
    compiler.mounts()?;
    compiler.notify_mount()?;
    if compiler.tables.slots.iter().any(SlotSource::is_bound_late) {
        compiler.tables.steps.insert(before, Step::Barrier(Barrier::Sources));
    }
    compiler.devices()?;
    compiler.console(process, true, true)?;
    compiler.working_folder(process)?;
    let hooks = compiler.host_hooks()?;
    let host_hooks_wait = !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty();
    if host_hooks_wait {
        compiler.tables.push(Step::Barrier(Barrier::Mounted));
    }
    compiler.create_container_hooks()?;
    compiler.labels(process, Modules::detect)?;
    compiler.sysctls()?;
    compiler.hidden_paths()?;
    compiler.readonly_mounts();
    compiler.root_readonly(root);
    compiler.enter_root(&rootfs, options.no_pivot)?;
    // Who is not root may not look into an init that is not dumpable, not even into their own.
    let asked = options.wait_on_socket && host.caller.is_unprivileged();
    let proc = asked.then(|| compiler.tables.slot(SlotSource::Proc));
    compiler.close_slots(proc);
    compiler.early_process(process, !options.foreground)?;
    // exec's, but wrong already now.
    compiler.exec_affinity(process.exec_cpu_affinity().as_ref())?;
    let listener = options.wait_on_socket.then(|| compiler.tables.slot(SlotSource::Listener));
    let program;
    if options.wait_on_socket && compiler.asks_an_agent() {
        program = compiler.program(process)?;
        let filter = compiler.late_process(process, true)?;
        compiler.tables.steps.extend(filter);
        compiler.await_start(listener, proc);
    } else {
        compiler.await_start(listener, proc);
        program = compiler.program(process)?;
        let filter = compiler.late_process(process, false)?;
        compiler.tables.steps.extend(filter);
    }
    compiler.start_container_hooks(program)?;
    compiler.execute(program);

    compiler.let_init_go_ahead(&cgroup);
    let start_ahead = !options.wait_on_socket && compiler.is_straight(&cgroup);
    let lane = host_lane(&compiler, process, !net_devices.is_empty(), host_hooks_wait, start_ahead, &cgroup);
    let plan = compiler.finish(lane, rootfs, hooks, cgroup, process)?;
    let resctrl = compiled_resctrl(bundle, &options.id)?;
    Ok(Plan { net_devices, resctrl, ..plan })
}

fn compiled_resctrl(bundle: &Bundle, id: &str) -> Result<Option<resctrl::Allocation>> {
    let config = bundle.spec().linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    config.map(|config| resctrl::compile(config, id, Resctrl::detect())).transpose()
}

/// Compiles a process that joins a running container.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_exec(bundle: &Bundle, process: &Process, host: &Host, options: &ExecCompileOptions) -> Result<Plan> {
    let mut compiler = Compiler::new(bundle, host, options.console_socket, options.listen_fds)?;
    compiler.or_receiver(options.seccomp_receiver.as_ref());
    let process = &compiler.with_defaults(process);
    if !compiler.namespaces.has(libc::CLONE_NEWNS) {
        // Nothing that is joined would bring the process to the container's root: it would run in the host's.
        return Err(Error::unsupported(
            "exec in a container without a mount namespace is not supported by this version",
        ));
    }
    // The container's init is in all its namespaces. The paths in config.json may be gone by now.
    compiler.tables.slots.clear();
    let slot = compiler.tables.slot(SlotSource::ContainerInit);
    let join = vec![(slot, compiler.namespaces.all() as u32)];
    compiler.tables.push(Step::CloseFds);
    compiler.tables.push(Step::NotDumpable);
    let [initial, last] = compiler.exec_affinity(process.exec_cpu_affinity().as_ref())?;
    compiler.tables.steps.extend(initial);
    compiler.tables.push(Step::Barrier(Barrier::Born));
    compiler.tables.steps.extend(last);
    if compiler.namespaces.has_user() {
        compiler.tables.push(Step::BecomeRoot);
    }
    let late = compiler.is_born_late(process, options.tracers)?;
    if !late {
        compiler.tables.push(Step::Session);
    }
    if options.keyring {
        compiler.keyring(&options.id, 0, process)?;
    }
    compiler.console(process, false, !late)?;
    compiler.labels(process, Modules::detect)?;
    compiler.close_slots(None);
    compiler.early_process(process, !options.foreground)?;
    let program = compiler.program(process)?;
    let filter = compiler.late_process(process, false)?;
    if late {
        compiler.birth(process);
    }
    compiler.tables.steps.extend(filter);
    compiler.execute(program);
    let mut plan = compiler.finish(
        Vec::new(),
        PathBuf::new(),
        crate::plan::HostHooks::default(),
        cgroup::Plan::default(),
        process,
    )?;
    plan.clone_flags = 0;
    plan.time = None;
    plan.join_before_clone = join;
    Ok(plan)
}

/// The poststop hooks of a config: all that `delete` needs of it.
///
/// # Errors
///
/// As [`compile`].
pub fn poststop_hooks(bundle: &Bundle) -> Result<Vec<HostHook>> {
    let hooks = bundle.spec().hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref());
    hooks::host_hooks("poststop", hooks, &Annotations::read(bundle.spec().annotations().as_ref())?)
}

impl<'a> Compiler<'a> {
    fn new(bundle: &'a Bundle, host: &'a Host, console_socket: bool, listen_fds: u32) -> Result<Self> {
        let spec = bundle.spec();
        supported::check(bundle)?;
        let linux = spec.linux().as_ref();
        let mut tables = Tables::default();
        let namespaces = Namespaces::compile(linux, &mut tables)?;
        let warnings = bundle.warnings().to_vec();
        Ok(Self {
            bundle,
            spec,
            linux,
            host,
            console_socket,
            listen_fds,
            notify_folder: None,
            annotations: Annotations::read(spec.annotations().as_ref())?,
            namespaces,
            tables,
            warnings,
            seccomp_listener: None,
            late_readonly: Vec::new(),
            cgroup_places: cgroup::Paths::default(),
        })
    }

    /// The annotation comes before what the caller says (crun's order, after listenerPath).
    fn or_receiver(&mut self, receiver: Option<&PathBuf>) {
        let annotated = &mut self.annotations.seccomp_receiver;
        *annotated = annotated.take().or_else(|| receiver.cloned());
    }

    fn process(&self) -> Result<&'a Process> {
        let process = self.spec.process().as_ref().ok_or_else(|| Error::invalid("config.json has no process"))?;
        Ok(process)
    }

    /// A process for exec with what it leaves open taken from config.json's, as runc does. What runc does not take from there
    /// (`noNewPrivileges`, `rlimits`) is not here.
    fn with_defaults(&self, process: &Process) -> Process {
        let mut process = process.clone();
        let Some(own) = self.spec.process() else { return process };
        let is_empty = |label: &Option<String>| label.as_deref().unwrap_or_default().is_empty();
        if process.capabilities().is_none() {
            process.set_capabilities(own.capabilities().clone());
        }
        if is_empty(process.apparmor_profile()) {
            process.set_apparmor_profile(own.apparmor_profile().clone());
        }
        if is_empty(process.selinux_label()) {
            process.set_selinux_label(own.selinux_label().clone());
        }
        if process.oom_score_adj().is_none() {
            process.set_oom_score_adj(own.oom_score_adj());
        }
        if process.user().umask().is_none() {
            process.user_mut().set_umask(own.user().umask());
        }
        if process.scheduler().is_none() {
            process.set_scheduler(own.scheduler().clone());
        }
        if process.io_priority().is_none() {
            process.set_io_priority(*own.io_priority());
        }
        if process.exec_cpu_affinity().is_none() {
            process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
        }
        process
    }

    /// Whether init has rights only when its id maps are written.
    fn is_late(&self) -> bool {
        self.host.caller.is_unprivileged() && self.namespaces.is_new(libc::CLONE_NEWUSER)
    }

    /// From the clone to namespaces that hold nothing of the maker's.
    fn isolate(&mut self, options: &CompileOptions, process: &Process) -> Result<()> {
        self.tables.push(Step::CloseFds);
        // A process that is not dumpable is root's: who is not root could not write its id maps. Until then it holds
        // no more than its maker, who is dumpable too.
        let late = self.is_late();
        if !late {
            self.tables.push(Step::NotDumpable);
        }
        for (slot, kind) in self.namespaces.joined_by_init() {
            self.tables.push(Step::JoinNamespace { slot, kind });
        }
        self.tables.push(Step::Barrier(Barrier::Born));
        if late {
            if let Some(offsets) = self.namespaces.time_offsets(self.linux, self.annotations.time_offsets.as_ref())? {
                let offsets = self.tables.text("linux.timeOffsets", offsets)?;
                self.tables.push(Step::TimeNamespace { offsets });
            }
            self.tables.push(Step::NotDumpable);
        }
        if self.namespaces.has_user() {
            self.tables.push(Step::BecomeRoot);
        }
        // Now that init is in its cgroup; before, the kernel would hold the mask against the maker's.
        self.tables.push(Step::CpuAffinity { mask: Range::default() });
        match self.namespaces.later_flags() {
            0 => {}
            kind => self.tables.push(Step::Unshare { kind: kind as u32 }),
        }
        self.tables.push(Step::Session);
        if options.new_keyring {
            let permissions = if self.namespaces.has_user() { OTHERS_SEARCH } else { USER_SEARCH };
            self.keyring(&options.id, permissions, process)?;
        }
        if self.namespaces.is_new(libc::CLONE_NEWNET) {
            self.tables.push(Step::Loopback);
        }
        Ok(())
    }

    /// From here on names of the image are looked up by whoever would follow them to what is open. `kept`: the host's procfs,
    /// until `start`.
    fn close_slots(&mut self, kept: Option<Slot>) {
        let is_over = |source: &SlotSource| match source {
            SlotSource::Proc
            | SlotSource::Namespace { .. }
            | SlotSource::ContainerInit
            | SlotSource::InitNamespace { .. }
            | SlotSource::ConsoleSocket
            | SlotSource::IdMapping { .. } => true,
            // Mounts are closed where they are mounted; the others are no way to a folder: sockets, memory, and files that the
            // hooks write to.
            SlotSource::CgroupMount { .. }
            | SlotSource::Filesystem { .. }
            | SlotSource::BindMount { .. }
            | SlotSource::Made
            | SlotSource::Listener
            | SlotSource::HookOutput { .. }
            | SlotSource::HookState => false,
        };
        for (index, source) in self.tables.slots.iter().enumerate() {
            let slot = Slot(index as u16);
            if is_over(source) && kept != Some(slot) {
                self.tables.steps.push(Step::Close { slot });
            }
        }
    }

    fn await_start(&mut self, listener: Option<Slot>, proc: Option<Slot>) {
        self.tables.push(Step::AwaitStart { listener, proc });
        self.tables.steps.extend(proc.map(|slot| Step::Close { slot }));
    }

    /// The name is runc's, and so are the permissions.
    fn keyring(&mut self, id: &str, permissions: u32, process: &Process) -> Result<()> {
        let name = self.tables.text("id", format!("_ses.{id}"))?;
        let labelled = self.keyring_label(process)?;
        self.tables.push(Step::Keyring { name, permissions });
        if labelled { self.no_keyring_label() } else { Ok(()) }
    }

    fn finish(
        mut self,
        host: Vec<HostStep>,
        rootfs: PathBuf,
        hooks: crate::plan::HostHooks,
        cgroup: cgroup::Plan,
        process: &Process,
    ) -> Result<Plan> {
        let (uid_map, gid_map) = self.namespaces.id_maps();
        let deny_setgroups = self.denies_groups_itself();
        let time = match self.namespaces.time_offsets(self.linux, self.annotations.time_offsets.as_ref())? {
            // A step of init's own: see isolate.
            _ if self.is_late() => None,
            Some(offsets) => Some(self.tables.text("linux.timeOffsets", offsets)?),
            None => None,
        };
        if self.tables.slots.len() > usize::from(u16::MAX) || self.tables.steps.len() > usize::from(u16::MAX) {
            return Err(Error::invalid("config.json asks for more than 65,535 steps"));
        }
        let annotations = self.spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
        Ok(Plan {
            host,
            init: self.tables.steps,
            clone_flags: self.namespaces.clone_flags(),
            join_before_clone: self.namespaces.joined_before_clone(),
            slots: self.tables.slots,
            uid_map,
            gid_map,
            deny_setgroups,
            net_devices: Vec::new(),
            resctrl: None,
            oom_score_adj: process.oom_score_adj(),
            hooks,
            cgroup,
            terminal: process.terminal().unwrap_or(false),
            annotations: annotations.collect(),
            rootfs,
            warnings: self.warnings,
            text: self.tables.text,
            strings: self.tables.strings,
            options: self.tables.options,
            ids: self.tables.ids,
            filter: self.tables.filter,
            masks: self.tables.masks,
            seccomp_listener: self.seccomp_listener,
            time,
        })
    }
}
