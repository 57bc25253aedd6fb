//! Compiles the bundle's `linux.seccomp` into one classic-BPF program for seccomp(2).
//!
//! The result for every call is the one that runc gets from libseccomp and its own `ENOSYS` stub; the layout is ours.
//!
//! - **Architectures.** The native one is always part of the filter, listed or not. A call of an architecture that is
//!   not part of it kills the thread (libseccomp's action for a bad architecture). x32 shares its audit number with
//!   `x86_64` and is told apart by bit 30 of the call's number: with x32 not listed, numbers from 2^30 on kill
//!   the thread too. The number -1 gets the default action there, for a tracer uses it to skip a call.
//! - **Rules.** A rule whose action equals the default is dropped. A rule without arguments for a call decides it
//!   alone, whatever rules with arguments stand before or behind it; of several such rules the first counts. Rules
//!   with arguments are tried in libseccomp's order: the higher argument first (each rule counts by its lowest one),
//!   then equalities before upper before lower bounds, then the tighter bound; of two with equal conditions the first
//!   counts (runc refuses those). Conditions of one rule are `ANDed`; if it names an argument twice, each of its
//!   conditions is a rule of its own, as in runc. 32-bit ABIs (x32 too) compare the low 32 bits of arguments and
//!   values.
//! - **Multiplexed calls.** On x86 and ppc64le, rules for socket and System V IPC calls cover `socketcall` and `ipc`
//!   with the call's sub-number in argument 0 (a condition on argument 0 is lost on that path, as in libseccomp).
//! - **Unknown names** are skipped: the name may belong to a newer kernel or another architecture.
//! - **ENOSYS stub.** When the default action denies (ERRNO, TRAP, KILL), a number above the highest one that the
//!   profile names (with whatever action) on that architecture returns `ENOSYS` in place of the default action, so
//!   that a C library falls back from calls that are newer than the profile. With ALLOW, LOG and TRACE there is no
//!   stub, nor on an architecture none of whose calls the profile names. ARM's private calls (from 0xf0000 on) do not
//!   count as the highest number.
//! - **Flags.** No `flags` at all means `SPEC_ALLOW`, as in runc. `TSYNC` is dropped: init has one thread.
//!   `WAIT_KILLABLE_RECV` means something with a listener only, so it is dropped with a warning.
//! - **Known differences from runc.** libseccomp (2.5) merges several rules with conditions on one call into a tree
//!   and now and then loses or invents a match; here the rules mean what they say. With x32 not listed, numbers from
//!   2^31 on without bit 30 are killed, where runc's stub gives `ENOSYS`. On x86, direct numbers of multiplexed calls
//!   count as named for the stub; runc does not see them. Architectures without a table here (big-endian ones, and
//!   mips) are left out with a warning, so their calls are killed.
//!
//! The way from rules to instructions: `profile` reads the bundle's rules, `abi` knows the numbers, `outcome`
//! gives every range of numbers its node in the `graph` of decisions, `search` puts a tree over the ranges,
//! and `layout` writes the instructions. The program uses only what the kernel's own emulation understands when it
//! fills its cache of always allowed calls (Linux 5.11), so such calls never run it.

mod abi;
mod action;
mod argument;
mod facts;
mod graph;
mod interpreter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod judge;
mod layout;
#[cfg(any(test, feature = "fuzzing"))]
mod oracle;
mod outcome;
mod profile;
mod search;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSyscall, LinuxSyscallBuilder,
};

/// A compiled filter, ready for seccomp(2) with `SECCOMP_SET_MODE_FILTER`.
pub struct Filter {
    /// The program: at most `BPF_MAXINSNS` (4096) instructions.
    pub program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// What the profile asks for and does not get, one sentence each.
    pub warnings: Vec<String>,
}

/// Compiles `spec` into one program.
///
/// Gives `None` when nothing is filtered: the default action is ALLOW and there are no rules.
///
/// # Errors
/// `Kind::Invalid` for an error number above 4095, a trace message above 65535, an argument index above 5, an empty
/// name, a profile that needs more than 4096 instructions, or `SCMP_ACT_NOTIFY` as default action or for `write`.
pub fn compile(spec: &LinuxSeccomp) -> crate::Result<Option<Filter>> {
    let mut warnings = Vec::new();
    let profile = profile::Profile::read(spec, &mut warnings)?;
    if profile.is_empty() && profile.default == libc::SECCOMP_RET_ALLOW {
        return Ok(None);
    }
    let architectures = spec.architectures().as_deref().unwrap_or_default();
    let families = abi::families(architectures, &mut warnings);
    let mut graph = graph::Graph::default();
    let entry = outcome::dispatch(&mut graph, &profile, &families)?;
    let program = layout::instructions(&graph, entry)?;
    Ok(Some(Filter { program, flags: flags(spec, profile.notifies(), &mut warnings), warnings }))
}

/// Leaves the calling thread these system calls alone, for good; any other fails with EPERM. It sets no_new_privs.
///
/// # Errors
/// The kernel has no filters (`CONFIG_SECCOMP_FILTER`), or refuses.
pub fn leave_only(calls: &[&str]) -> crate::Result<()> {
    let failure = |error: std::io::Error| crate::Error::os("leave a thread few system calls", error);
    let malformed = |error| crate::Error::invalid(format!("seccomp: {error}"));
    let names: Vec<String> = calls.iter().map(|call| (*call).to_owned()).collect();
    let allowed = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build();
    let spec = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .syscalls(vec![allowed.map_err(malformed)?])
        .build();
    let Some(filter) = compile(&spec.map_err(malformed)?)? else { return Ok(()) };
    rustix::thread::set_no_new_privs(true).map_err(|errno| failure(errno.into()))?;
    let set = flint_sys::identity::set_filter(&filter.program, filter.flags);
    set.map(drop).map_err(|errno| failure(std::io::Error::from_raw_os_error(errno.0)))
}

/// What a filter answers to a call of the native ABI with this first argument: `SECCOMP_RET_*`, with its data.
pub(crate) fn answer(program: &[libc::sock_filter], number: libc::c_long, argument: u64) -> Option<u32> {
    let families = abi::families(&[], &mut Vec::new());
    let architecture = families.first()?.first()?.audit;
    let call = interpreter::Call { number: number as u32, architecture, arguments: [argument, 0, 0, 0, 0, 0] };
    interpreter::evaluate(program, &call).map(|(result, _)| result)
}

/// A name in the profile that is no system call of any architecture that flint knows.
#[must_use]
pub fn unknown_call(spec: &LinuxSeccomp) -> Option<&str> {
    let mut names = spec.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
    names.find(|name| !abi::is_known(name)).map(String::as_str)
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19).
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flags for seccomp(2).
fn flags(spec: &LinuxSeccomp, notifies: bool, warnings: &mut Vec<String>) -> u32 {
    let listener = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 } else { 0 };
    let Some(listed) = spec.flags() else {
        return listener | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    };
    let mut flags = listener;
    for flag in listed {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => flags |= libc::SECCOMP_FILTER_FLAG_LOG as u32,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => {
                flags |= WAIT_KILLABLE_RECV;
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => warnings.push(
                "seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is ignored: it needs a rule with SCMP_ACT_NOTIFY"
                    .to_owned(),
            ),
        }
    }
    flags
}
