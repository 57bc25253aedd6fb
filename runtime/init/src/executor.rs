//! Cloning init, and init's loop over the steps of its plan.

use core::convert::Infallible;
use core::ffi::c_char;

use flint_sys::process::{Child, Clone};
use flint_sys::{Fd, file, identity, process, schedule, terminal};

use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::PathBuffer;
use crate::plan::{PlanRef, Range, Slot, Step, Text};
use crate::protocol::{self, BEFORE_STEPS, Kind, Message};

/// What binds a plan to one container.
pub struct Bindings<'a> {
    /// The descriptor of each slot, by number; -1 for none.
    pub fds: &'a mut [Fd],
    /// Every descriptor that outlives the first step, ascending: stdio, preserved ones, the slots, the channel.
    pub keep: &'a [Fd],
    /// init's end of the channel to the host (`SOCK_SEQPACKET`, CLOEXEC).
    pub channel: Fd,
    /// What becomes standard input, output and error; `None`: the maker's own. Each above 2.
    pub stdio: Option<[Fd; 3]>,
    /// Parallel to the plan's strings: a pointer into its text for each, null for [`Text::NONE`].
    pub pointers: &'a mut [*const c_char],
    /// Namespaces to join before the clone of init, in order: slot and `CLONE_NEW*` flags.
    pub join: &'a [(Slot, u32)],
    /// `CLONE_NEW*` flags of init.
    pub flags: u64,
    /// A cgroup v2 folder to be born in.
    pub cgroup: Option<Fd>,
    /// Files `tasks` of cgroups v1, open for writing: init moves itself there before all else, and tells at
    /// [`Barrier::Born`](crate::plan::Barrier::Born) whether it could. A thread that moves itself takes no lock that the whole
    /// system shares; a process that another moves waits for a grace period of RCU, which is most of a container's start (Linux
    /// 5.16; before, both do).
    pub cgroups: &'a [Fd],
    /// Whether init is in all its cgroups, unless one of [`Bindings::cgroups`] refuses it.
    pub entered: bool,
    /// Which system call of init fails, with the feature `faults`.
    pub fault: Option<flint_sys::Fault>,
}

/// Clones init, which executes `plan`; the caller goes on at once and talks to it over the channel. A pidfd is the
/// caller's to open: until it reaps the child, the pid can be no other's.
///
/// With namespaces to join first, or a time namespace to make, the child is a throw-away process that does so, clones
/// init as the caller's own child (`CLONE_PARENT`) and ends; init's pid comes as [`Kind::Cloned`] on the channel and the caller must
/// reap the child returned here.
///
/// # Errors
///
/// What clone3(2) says.
pub fn spawn(plan: PlanRef<'_>, bindings: Bindings<'_>) -> flint_sys::Result<Child> {
    let direct = bindings.join.is_empty() && plan.time.is_none();
    let options = Clone {
        flags: if direct { bindings.flags } else { 0 },
        cgroup: if direct { bindings.cgroup } else { None },
        pidfd: false,
        block_signals: true,
    };
    if direct {
        process::spawn(options, (plan, bindings), run)
    } else {
        process::spawn(options, (plan, bindings), join)
    }
}

/// The throw-away process: setns(2) for the pid namespace acts on children only, and for the user namespace
/// wants a process with one thread (trap 7). A time namespace takes children only, too, and its offsets must be written
/// before the first one enters: clone3 with `CLONE_NEWTIME` would be too late for them.
// Never inlined: the check of the linked program finds it by its name.
#[inline(never)]
fn join((plan, mut bindings): (PlanRef<'_>, Bindings<'_>)) -> Infallible {
    let channel = bindings.channel;
    let code = match crate::stdio::take(bindings.stdio.take()).and_then(|()| join_and_clone(plan, bindings)) {
        Ok(()) => 0,
        Err(failure) => {
            let _ = protocol::send(channel, Message::failure(Kind::Failed, BEFORE_STEPS, failure));
            1
        }
    };
    process::exit(code)
}

#[allow(unreachable_code, reason = "the match proves that run does not return")]
fn join_and_clone(plan: PlanRef<'_>, bindings: Bindings<'_>) -> Outcome {
    if let Some(offsets) = plan.time {
        crate::namespace::new_time(plan.text(offsets).ok_or(Failure::new(Operation::Plan, libc::EFAULT))?)?;
    }
    identity::set_dumpable(false).at(Operation::Prctl)?;
    join_all(&bindings)?;
    // Before the clone: in the container's pid namespace a privileged process could look at what init inherits.
    close_all_but(bindings.keep)?;
    if plan.is_born_late() {
        match run((plan, bindings)) {}
    }
    let options = Clone {
        flags: bindings.flags | libc::CLONE_PARENT as u64,
        cgroup: bindings.cgroup,
        pidfd: false,
        block_signals: false,
    };
    let channel = bindings.channel;
    let child = process::spawn(options, (plan, bindings), run).at(Operation::Clone)?;
    let message = Message { number: child.pid, ..Message::of(Kind::Cloned) };
    protocol::send(channel, message).at(Operation::Channel)
}

/// With a user namespace among them (the first then), the others may belong to it or to the maker's: what may be
/// joined from outside is, and the rest from inside.
fn join_all(bindings: &Bindings<'_>) -> Outcome {
    let user = libc::CLONE_NEWUSER as u32;
    let enter = |&(slot, kind): &(Slot, u32)| {
        let fd = bindings.fds.get(usize::from(slot.0)).copied().ok_or(Failure::new(Operation::Plan, libc::EBADF))?;
        flint_sys::namespace::setns(fd, kind).at(Operation::Setns)
    };
    let outer = bindings.join.iter().any(|&(_, kind)| kind == user);
    let mut joined = 0u64;
    for (index, join) in bindings.join.iter().enumerate().filter(|(_, join)| outer && join.1 != user) {
        match enter(join) {
            Ok(()) => joined |= 1u64.wrapping_shl(index as u32),
            Err(failure) if failure.number == libc::EPERM => {}
            Err(failure) => return Err(failure),
        }
    }
    for (index, join) in bindings.join.iter().enumerate() {
        if joined & 1u64.wrapping_shl(index as u32) == 0 {
            enter(join)?;
        }
    }
    Ok(())
}

/// init: executes the steps; never returns.
// Never inlined: the check of the linked program finds it by its name.
#[inline(never)]
fn run((plan, bindings): (PlanRef<'_>, Bindings<'_>)) -> Infallible {
    if let Some(fault) = bindings.fault {
        flint_sys::arm(fault);
    }
    let stdio = bindings.stdio;
    let mut init = Init {
        plan,
        fds: bindings.fds,
        keep: bindings.keep,
        channel: bindings.channel,
        pointers: bindings.pointers,
        root: None,
        null: None,
        empty: None,
        nodes_in: None,
        inherited: Inherited::Cut,
        announced: false,
        in_working_directory: false,
        program: PathBuffer::new(),
        home: PathBuffer::new(),
        step: 0,
        refused: (0, 0),
        entered: bindings.entered,
        arrival: Arrival::Untold,
    };
    if let Err(failure) = crate::stdio::take(stdio) {
        let _ = protocol::send(init.channel, Message::failure(Kind::Failed, BEFORE_STEPS, failure));
        process::exit(1)
    }
    init.refused = enter_cgroups(bindings.cgroups);
    init.entered &= init.refused.0 == 0;
    go_on(&mut init)
}

/// The steps from [`Init::step`] on.
pub(crate) fn go_on(init: &mut Init<'_>) -> Infallible {
    let steps = init.plan.steps;
    while let Some(step) = steps.get(init.step as usize) {
        if let Err(failure) = init.perform(step) {
            init.fail(failure);
        }
        init.step = init.step.wrapping_add(1);
    }
    // A plan that ends without Execute.
    process::exit(1)
}

/// Moves the calling thread, the only one, into these cgroups and closes them. The place of the first that refused, counted from
/// 1, and its errno; 0 when all took it. The host knows what to do about a refusal.
fn enter_cgroups(cgroups: &[Fd]) -> (u32, i32) {
    let mut refused = (0, 0);
    for (place, &tasks) in (1..).zip(cgroups) {
        if let Err(errno) = file::write(tasks, b"0")
            && refused.0 == 0
        {
            refused = (place, errno.0);
        }
        // Not for the program, whatever else is kept.
        let _ = file::close(tasks);
    }
    refused
}

/// Which mounts that init's namespace inherited may be peers of the host's: where any is, pivot_root and the unmount of
/// the old root need care.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inherited {
    /// None.
    Cut,
    /// Those below `/`, not `/` itself, which may be a slave of the host's.
    SharedBelow {
        /// Whether it is.
        slave: bool,
    },
    /// All.
    Shared,
}

/// init's state: what earlier steps leave for later ones.
pub(crate) struct Init<'a> {
    pub(crate) plan: PlanRef<'a>,
    pub(crate) fds: &'a mut [Fd],
    keep: &'a [Fd],
    pub(crate) channel: Fd,
    pub(crate) pointers: &'a mut [*const c_char],
    /// The container's root, once opened.
    pub(crate) root: Option<Fd>,
    /// The null device that covers masked files, verified, and whether it is the container's own.
    pub(crate) null: Option<(Fd, bool)>,
    /// An attached empty read-only tmpfs: further masked folders clone it.
    pub(crate) empty: Option<Fd>,
    /// The folder of the last device or link, and its path: most have one and the same.
    pub(crate) nodes_in: Option<(&'a [u8], Fd)>,
    /// How the inherited mounts stand to the host's.
    pub(crate) inherited: Inherited,
    /// `Executing` was sent.
    pub(crate) announced: bool,
    /// The working directory was changed to with root's rights.
    pub(crate) in_working_directory: bool,
    /// What FindProgram found.
    pub(crate) program: PathBuffer,
    /// `HOME=...`
    pub(crate) home: PathBuffer,
    pub(crate) step: u32,
    /// What came of [`Bindings::cgroups`].
    pub(crate) refused: (u32, i32),
    /// Whether it is in all its cgroups.
    pub(crate) entered: bool,
    /// What the host was told of the last barrier.
    pub(crate) arrival: Arrival,
}

/// How init stands to the barrier that it comes to next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The host does not know of it.
    Untold,
    /// The host was told, and has not been waited for.
    Announced,
    /// The host has said that init may go on.
    Released,
}

impl<'a> Init<'a> {
    fn perform(&mut self, step: &Step) -> Outcome {
        if self.nodes_in.is_some() && !matches!(step, Step::Device { .. } | Step::Symlink { .. }) {
            self.leave_folder_of_nodes();
        }
        match *step {
            Step::CloseFds => {
                // What init makes gets exactly the modes that it asks for.
                process::umask(0);
                close_all_but(self.keep)
            }
            Step::NotDumpable => identity::set_dumpable(false).at(Operation::Prctl),
            Step::Announce(barrier) => self.announce_barrier(barrier),
            Step::Barrier(barrier) => self.barrier(barrier),
            Step::JoinNamespace { slot, kind } => self.join_namespace(slot, kind),
            Step::Unshare { kind } => flint_sys::namespace::unshare(kind).at(Operation::Unshare),
            Step::TimeNamespace { offsets } => crate::namespace::enter_new_time(self.text(offsets)?),
            Step::BecomeRoot => Self::become_root(),
            Step::Birth => self.birth(),
            Step::Session => process::setsid().at(Operation::Setsid),
            Step::ControllingTerminal => terminal::set_controlling(Fd(0)).at(Operation::Terminal),
            Step::Keyring { name, permissions } => self.keyring(name, permissions),
            Step::CpuAffinity { mask } => self.cpu_affinity(mask),
            Step::Scheduler { ref attributes } => schedule::set_scheduler(attributes).at(Operation::SchedSetattr),
            Step::IoPriority { priority } => schedule::set_io_priority(priority).at(Operation::IoprioSet),
            Step::MemoryPolicy { mode, nodes } => {
                schedule::set_memory_policy(mode, nodes.of(self.plan.masks)).at(Operation::SetMempolicy)
            }
            Step::Personality { domain } => schedule::set_personality(domain).at(Operation::Personality),
            Step::Loopback => flint_sys::namespace::loopback_up().at(Operation::Loopback),
            Step::Hostname { name } => flint_sys::namespace::sethostname(self.text(name)?).at(Operation::Hostname),
            Step::Domainname { name } => {
                flint_sys::namespace::setdomainname(self.text(name)?).at(Operation::Domainname)
            }
            Step::InheritedPropagation { flag } => self.inherited_propagation(flag),
            Step::Root { path, bind } => self.open_root(path, bind),
            Step::Mount(ref mount) => self.mount(mount),
            Step::Remount(ref remount) => self.remount(remount),
            Step::Device { path, mode, major, minor, uid, gid } => self.device(path, mode, (major, minor), (uid, gid)),
            Step::DeviceBind { source, path } => self.device_bind(source, path),
            Step::Symlink { target, path, replace } => self.symlink(target, path, replace),
            Step::Console { socket, width, height, uid, mount, controlling } => {
                self.console(socket, (width, height), uid, mount)?;
                if controlling { terminal::set_controlling(Fd(0)).at(Operation::Terminal) } else { Ok(()) }
            }
            Step::OwnStdio { uid, files } => self.own_stdio(uid, files),
            Step::RunHook(ref hook) => self.run_hook(hook),
            Step::Mask { path } => self.mask(path),
            Step::Readonly { path } => self.readonly(path),
            Step::Label { proc, file, older, value } => self.label(proc, file, older, value),
            Step::Sysctl { proc, path, value } => self.sysctl(proc, path, value),
            Step::MakeFolder { path } => self.make_folder(path),
            Step::RootReadonly => self.root_readonly(),
            Step::RemountReadonly { slot, .. } => self.remount_readonly(slot),
            Step::Close { slot } => self.close_slot(slot),
            Step::Detach { proc, path } => self.detach(proc, path),
            Step::PivotRoot => self.pivot_root(),
            Step::MoveRoot { bare } => self.move_root(bare),
            Step::ChangeRoot => self.change_root(),
            Step::RootPropagation { flag } => Self::root_propagation(flag),
            Step::ResourceLimit { resource, soft, hard } => self.resource_limit(resource, soft, hard),
            Step::Umask { mask } => {
                process::umask(mask);
                Ok(())
            }
            Step::Home { uid, entry } => self.find_home(uid, entry),
            Step::FindProgram { name, path } => self.find_program(name, path),
            Step::AwaitStart { listener, proc } => self.await_start(listener, proc),
            Step::BoundingSet { keep } => Self::bounding_set(keep),
            Step::User { uid, gid, groups, may_be_denied, keep_groups } => {
                let groups = if keep_groups { None } else { Some(groups) };
                self.become_user(uid, gid, groups, may_be_denied)
            }
            Step::Capabilities { effective, permitted, inheritable } => {
                identity::set_capabilities(effective, permitted, inheritable).at(Operation::Capset)
            }
            Step::Ambient { set } => self.ambient(set),
            Step::NoNewPrivileges => identity::set_no_new_privileges().at(Operation::Prctl),
            Step::Seccomp { program, flags, early } => self.seccomp(program, flags, early),
            Step::WorkingDirectory { path, early } => self.working_directory(path, early),
            Step::Execute { arguments, environment } => self.execute(arguments, environment),
        }
    }

    /// A string of the plan.
    pub(crate) fn text(&self, text: Text) -> Outcome<&'a core::ffi::CStr> {
        self.plan.text(text).ok_or(Failure::new(Operation::Plan, libc::EFAULT))
    }

    /// A string that may be absent.
    pub(crate) fn optional_text(&self, text: Text) -> Outcome<Option<&'a core::ffi::CStr>> {
        if text.is_none() { Ok(None) } else { self.text(text).map(Some) }
    }

    /// The descriptor bound to a slot.
    pub(crate) fn slot(&self, slot: Slot) -> Outcome<Fd> {
        self.fds.get(usize::from(slot.0)).copied().ok_or(Failure::new(Operation::Plan, libc::EBADF))
    }

    /// Puts a descriptor into a slot, from where a later step takes it.
    pub(crate) fn fill_slot(&mut self, slot: Slot, fd: Fd) -> Outcome {
        let place = self.fds.get_mut(usize::from(slot.0)).ok_or(Failure::new(Operation::Plan, libc::EBADF))?;
        *place = fd;
        Ok(())
    }

    /// Closes what a slot holds, if anything.
    pub(crate) fn close_slot(&mut self, slot: Slot) -> Outcome {
        let fd = self.slot(slot)?;
        if fd.0 >= 0 {
            let _ = file::close(fd);
        }
        self.fill_slot(slot, Fd(-1))
    }

    /// A null-terminated pointer array for execve.
    pub(crate) fn pointers(&self, range: Range) -> &[*const c_char] {
        range.of(self.pointers)
    }

    /// Tells the host why, and ends.
    pub(crate) fn fail(&self, failure: Failure) -> ! {
        let _ = protocol::send(self.channel, Message::failure(Kind::Failed, self.step, failure));
        process::exit(1)
    }

    /// Tells the host of something that could not be done and is not needed for safety.
    pub(crate) fn warn(&self, failure: Failure) -> Outcome {
        protocol::send(self.channel, Message::failure(Kind::Warned, self.step, failure)).at(Operation::Channel)
    }
}

/// Trap 1: between the descriptors to keep, every gap is closed.
fn close_all_but(keep: &[Fd]) -> Outcome {
    let mut next = 0u32;
    for &Fd(fd) in keep {
        let fd = fd as u32;
        if fd > next {
            file::close_range(next, fd.wrapping_sub(1)).at(Operation::CloseRange)?;
        }
        next = fd.wrapping_add(1);
    }
    file::close_range(next, u32::MAX).at(Operation::CloseRange)
}
