//! Which processes of `exec` are born late: see `flint_init`'s `birth`.

use flint_init::plan::Step;
use oci_spec::runtime::{Capability, Process};

use super::Compiler;
use crate::{Result, seccomp};

/// Whether the process can get CAP_SYS_PTRACE.
pub(crate) fn may_trace(process: &Process) -> bool {
    let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().as_ref());
    bounding.is_some_and(|set| set.contains(&Capability::SysPtrace))
}

impl Compiler<'_> {
    /// Whether the process must not be seen in the container's pid namespace before it has the program's rights, and no more:
    /// somebody there may have CAP_SYS_PTRACE of the runtime's own user namespace.
    ///
    /// The filter may not allow what is left to do by then, if it has to be in force before; and an agent that is asked, or a
    /// scheduling policy that a clone does not inherit, want the process itself. These are born first, as without the capability.
    ///
    /// `tracers`: an earlier process of `exec` had the capability.
    pub(super) fn is_born_late(&mut self, process: &Process, tracers: bool) -> Result<bool> {
        if self.namespaces.has_user() || self.host.caller.is_unprivileged() || !self.namespaces.has(libc::CLONE_NEWPID)
        {
            return Ok(false);
        }
        let shared = !self.namespaces.is_new(libc::CLONE_NEWPID);
        if !(shared || tracers || may_trace(process) || self.spec.process().as_ref().is_some_and(may_trace)) {
            return Ok(false);
        }
        Ok(process.scheduler().is_none() && self.permits_late_birth(process)?)
    }

    fn permits_late_birth(&mut self, process: &Process) -> Result<bool> {
        let filters = self.linux.and_then(|linux| linux.seccomp().as_ref());
        let Some(spec) = filters.filter(|_| !process.no_new_privileges().unwrap_or(false)) else { return Ok(true) };
        let Some(filter) = seccomp::compile(spec)? else { return Ok(true) };
        let asks = filter.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0;
        let passes = |(number, argument)| {
            matches!(
                seccomp::answer(&filter.program, number, argument),
                Some(libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
            )
        };
        let refuses = |number, errno: i32| {
            seccomp::answer(&filter.program, number, 0) == Some(libc::SECCOMP_RET_ERRNO | errno as u32)
        };
        // clone(2) is tried where clone3(2) is refused, as most filters do.
        let clone3 = passes((libc::SYS_clone3, 0))
            || [libc::ENOSYS, libc::EPERM].into_iter().any(|errno| refuses(libc::SYS_clone3, errno));
        let clone = (libc::SYS_clone, (libc::CLONE_PARENT | libc::SIGCHLD) as u64);
        let others =
            [libc::SYS_close, libc::SYS_exit_group, libc::SYS_ioctl, libc::SYS_read, libc::SYS_setsid, libc::SYS_write];
        Ok(!asks && clone3 && passes(clone) && others.into_iter().all(|number| passes((number, 0))))
    }

    pub(super) fn birth(&mut self, process: &Process) {
        self.tables.push(Step::Birth);
        self.tables.push(Step::Session);
        if process.terminal().unwrap_or(false) {
            self.tables.push(Step::ControllingTerminal);
        }
    }
}
