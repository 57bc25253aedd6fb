//! The program: limits, user, capabilities, seccomp, environment.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use flint_init::plan::{Range, Step, Text};
use oci_spec::runtime::{Capabilities, LinuxSeccompAction, LinuxSyscall, PosixRlimitType, Process, User};

use super::Compiler;
use super::paths::{bytes, clean};
use crate::bundle::ignoring_capabilities;
use crate::container::SeccompListener;
use crate::{Error, Kind, Result, seccomp};

/// What runc sets when config.json says nothing.
const DEFAULT_UMASK: u32 = 0o022;

/// What init calls from the filter to the program, while it waits for `start` and hears it.
const WAITING: &[&str] = &[
    "accept4",
    "close",
    "dup3",
    "exit_group",
    "fcntl",
    "openat2",
    "ppoll",
    "read",
    "recvfrom",
    "rt_sigaction",
    "rt_sigprocmask",
    "sendmsg",
    "signalfd4",
    "write",
];

/// argv and the environment, in the plan's strings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) arguments: Range,
    pub(super) environment: Range,
}

impl Compiler<'_> {
    /// The working directory is made while the root is still writable; runc does so too.
    pub(super) fn working_folder(&mut self, process: &Process) -> Result<()> {
        let path = self.cwd(process)?;
        if clean(process.cwd()) != Path::new("/") {
            self.tables.push(Step::MakeFolder { path });
        }
        Ok(())
    }

    fn cwd(&mut self, process: &Process) -> Result<Text> {
        if !process.cwd().is_absolute() {
            return Err(Error::invalid(format!("process.cwd {} must be an absolute path", process.cwd().display())));
        }
        // Not cleaned: the kernel and the container know what `..` of a link is.
        self.tables.path("process.cwd", bytes(process.cwd()))
    }

    /// What is done with root's rights, up to the look-up of the program.
    ///
    /// `files`: the program's stdio is its own, whatever it is.
    pub(super) fn early_process(&mut self, process: &Process, files: bool) -> Result<()> {
        check_ids(process.user())?;
        self.resource_limits(process)?;
        if !process.terminal().unwrap_or(false) {
            self.tables.push(Step::OwnStdio { uid: process.user().uid(), files });
        }
        self.scheduling(process)?;
        self.tables.push(Step::Umask { mask: process.user().umask().unwrap_or(DEFAULT_UMASK) & 0o777 });
        let path = self.cwd(process)?;
        self.tables.push(Step::WorkingDirectory { path, early: true });
        let Some(name) = process.args().as_ref().and_then(|arguments| arguments.first()) else {
            return Err(Error::invalid("process.args is empty: there is nothing to execute"));
        };
        if name.is_empty() {
            return Err(Error::invalid("process.args[0] is empty: there is nothing to execute"));
        }
        let name = self.tables.path("process.args[0]", name)?;
        let path = match variable(process, "PATH=") {
            Some(path) => self.tables.text("process.env PATH", path)?,
            None => Text::NONE,
        };
        self.tables.push(Step::FindProgram { name, path });
        Ok(())
    }

    fn resource_limits(&mut self, process: &Process) -> Result<()> {
        let mut seen = Vec::new();
        for limit in process.rlimits().iter().flatten() {
            let kind = limit.typ();
            if seen.contains(&kind) {
                return Err(Error::invalid(format!("process.rlimits: {kind} is listed twice")));
            }
            seen.push(kind);
            if limit.soft() > limit.hard() {
                return Err(Error::invalid(format!(
                    "process.rlimits: the soft limit {} of {kind} is above the hard limit {}",
                    limit.soft(),
                    limit.hard()
                )));
            }
            self.tables.push(Step::ResourceLimit { resource: resource(kind), soft: limit.soft(), hard: limit.hard() });
        }
        Ok(())
    }

    /// From the last look at what `create` set up to what the program will be. Without no_new_privs a filter needs CAP_SYS_ADMIN, so
    /// it comes before the capabilities go; with it, as late as possible, so that it need not allow flint's calls.
    /// Returns the filter in the latter case, for whoever goes on.
    ///
    /// `early`: before init waits for `start`.
    pub(super) fn late_process(&mut self, process: &Process, early: bool) -> Result<Option<Step>> {
        let mut filter = self.filter(early)?;
        if process.no_new_privileges().unwrap_or(false) {
            self.tables.push(Step::NoNewPrivileges);
        } else {
            self.tables.steps.extend(filter.take());
        }
        self.identity(process)?;
        let path = self.cwd(process)?;
        self.tables.push(Step::WorkingDirectory { path, early: false });
        Ok(filter)
    }

    pub(super) fn execute(&mut self, program: Program) {
        self.tables.push(Step::Execute { arguments: program.arguments, environment: program.environment });
    }

    /// What the program is called with. startContainer hooks share its environment, so HOME is found before them.
    pub(super) fn program(&mut self, process: &Process) -> Result<Program> {
        let environment = process.env().as_deref().unwrap_or(&[]);
        if let Some(entry) =
            environment.iter().find(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty()))
        {
            return Err(Error::invalid(format!("process.env: {entry:?} is not of the form NAME=VALUE")));
        }
        let needs_home = variable(process, "HOME=").is_none_or(str::is_empty);
        let environment = last_of_each(environment);
        let mut kept: Vec<&str> =
            environment.into_iter().filter(|entry| !(needs_home && entry.starts_with("HOME="))).collect();
        if self.notify_folder.is_some() {
            kept.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
            kept.push(super::notify::VARIABLE);
        }
        let listen_fds = format!("LISTEN_FDS={}", self.listen_fds);
        if self.listen_fds > 0 {
            // The program is process 1 of its pid namespace, or at least is told so (sd_listen_fds(3)).
            kept.extend([listen_fds.as_str(), "LISTEN_PID=1"]);
        }
        let arguments = self.tables.list("process.args", process.args().as_deref().unwrap_or(&[]), false)?;
        let environment = self.tables.list("process.env", &kept, needs_home)?;
        if needs_home {
            let entry = environment.start + kept.len() as u32;
            self.tables.push(Step::Home { uid: process.user().uid(), entry });
        }
        Ok(Program { arguments, environment })
    }

    /// Whether an agent is to hear of the filter already from `create`, as under runc. Where the filter forbids what init
    /// waits for `start` by, or asks about it, it comes later.
    pub(super) fn asks_an_agent(&self) -> bool {
        let Some(spec) = self.linux.and_then(|linux| linux.seccomp().as_ref()) else { return false };
        let allows = |action| matches!(action, LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog);
        let mut others = spec.syscalls().iter().flatten().filter(|block| !allows(block.action()));
        let asks = |block: &LinuxSyscall| block.action() == LinuxSeccompAction::ScmpActNotify;
        allows(spec.default_action())
            && spec.syscalls().iter().flatten().any(asks)
            && !others.any(|block| block.names().iter().any(|name| WAITING.contains(&name.as_str())))
    }

    fn filter(&mut self, early: bool) -> Result<Option<Step>> {
        let Some(spec) = self.linux.and_then(|linux| linux.seccomp().as_ref()) else { return Ok(None) };
        if self.annotations.fail_unknown_calls
            && let Some(name) = seccomp::unknown_call(spec)
        {
            return Err(Error::invalid(format!(
                "linux.seccomp: unknown system call {name:?}, and the annotation run.oci.seccomp_fail_unknown_syscall refuses those"
            )));
        }
        let Some(filter) = seccomp::compile(spec)? else { return Ok(None) };
        self.warnings.extend(filter.warnings);
        let program = self.tables.filter(&filter.program);
        if filter.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 != 0 {
            let named = spec.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
            let Some(path) = named.or(self.annotations.seccomp_receiver.as_ref()) else {
                return Err(Error::invalid(
                    "linux.seccomp: seccomp listenerPath is not set, and a rule with SCMP_ACT_NOTIFY needs it",
                ));
            };
            if !path.is_absolute() {
                return Err(Error::invalid(format!(
                    "linux.seccomp.listenerPath: {} must be an absolute path",
                    path.display()
                )));
            }
            let metadata = spec.listener_metadata().clone();
            let asks = |block: &&LinuxSyscall| block.action() == LinuxSeccompAction::ScmpActNotify;
            let blocks = spec.syscalls().iter().flatten().filter(asks);
            let asks_about_sendmsg = blocks.flat_map(LinuxSyscall::names).any(|name| name == "sendmsg");
            self.seccomp_listener = Some(SeccompListener { path: path.clone(), metadata, asks_about_sendmsg });
        }
        Ok(Some(Step::Seccomp { program, flags: filter.flags, early }))
    }

    fn identity(&mut self, process: &Process) -> Result<()> {
        let may_be_denied = self.groups_may_be_denied(process)?;
        let sets = process.capabilities().as_ref();
        let mut left_out = BTreeSet::new();
        let mut mask = |set: Option<&Capabilities>| self.capabilities(set, &mut left_out);
        let bounding = mask(sets.and_then(|sets| sets.bounding().as_ref()));
        let effective = mask(sets.and_then(|sets| sets.effective().as_ref()));
        let permitted = mask(sets.and_then(|sets| sets.permitted().as_ref()));
        let inheritable = mask(sets.and_then(|sets| sets.inheritable().as_ref()));
        let ambient = mask(sets.and_then(|sets| sets.ambient().as_ref()));
        if !left_out.is_empty() {
            self.warnings.push(format!("process.capabilities: {}", ignoring_capabilities(left_out)));
        }
        let unbounded = names(inheritable & !bounding);
        if !unbounded.is_empty() {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "process.capabilities.inheritable: {} would be refused by the kernel (EPERM, operation not permitted): what is inheritable must be in the bounding set",
                    unbounded.join(" ")
                ),
            ));
        }
        let user = process.user();
        let groups = user.additional_gids().as_deref().unwrap_or(&[]);
        let keep_groups = self.annotations.keep_groups;
        let mut once = Vec::with_capacity(groups.len());
        for group in groups {
            // One that is listed twice would be shown twice by id(1).
            if !once.contains(group) {
                once.push(*group);
            }
        }
        let groups = if once.is_empty() || keep_groups { Range::default() } else { self.tables.ids(&once) };
        self.tables.push(Step::BoundingSet { keep: bounding });
        self.tables.push(Step::User { uid: user.uid(), gid: user.gid(), groups, may_be_denied, keep_groups });
        self.tables.push(Step::Capabilities { effective, permitted, inheritable });
        // The kernel raises only what is permitted and inheritable too.
        let raised = ambient & permitted & inheritable;
        // `runc spec` of 1.1 has ambient capabilities and no inheritable set at all: who names the set means it.
        let unexpected = if sets.is_some_and(|sets| sets.inheritable().is_some()) { ambient & !raised } else { 0 };
        self.warnings.extend(names(unexpected).into_iter().map(|capability| {
            format!("can't raise ambient capability {capability}: it is not both permitted and inheritable")
        }));
        self.tables.push(Step::Ambient { set: raised });
        Ok(())
    }

    /// A set as bits. What the kernel or this process lacks is left out, as runc does.
    fn capabilities(&self, set: Option<&Capabilities>, left_out: &mut BTreeSet<String>) -> u64 {
        let mut mask = 0;
        for capability in set.into_iter().flatten() {
            let capability = format!("CAP_{}", capability.to_string().trim_start_matches("CAP_"));
            let bit = capability.parse::<caps::Capability>().map_or(0, |known| known.bitmask());
            if bit & self.available_capabilities() == 0 {
                left_out.insert(capability);
            } else {
                mask |= bit;
            }
        }
        mask
    }

    /// What init can have. Who makes or joins a user namespace has all capabilities in it, whatever the maker lacks
    /// (user_namespaces(7)).
    fn available_capabilities(&self) -> u64 {
        if self.namespaces.has_user() { u64::MAX } else { self.host.capabilities }
    }
}

/// -1 is no id: the kernel takes it for "leave as it is" (setresuid(2)), which would be root.
fn check_ids(user: &User) -> Result<()> {
    let groups = user.additional_gids().iter().flatten().map(|gid| ("additionalGids", *gid));
    let ids = [("uid", user.uid()), ("gid", user.gid())].into_iter().chain(groups);
    match ids.into_iter().find(|&(_, id)| id == u32::MAX) {
        Some((field, id)) => Err(Error::invalid(format!("process.user.{field}: {id} is no id, but the kernel's -1"))),
        None => Ok(()),
    }
}

/// The names of a set, sorted.
fn names(set: u64) -> Vec<String> {
    let members = caps::all().into_iter().filter(|capability| set & capability.bitmask() != 0);
    let mut names: Vec<_> = members.map(|capability| capability.to_string()).collect();
    names.sort();
    names
}

/// The environment with each name once: in the place of its first entry, with the value of its last, as under runc.
fn last_of_each(environment: &[String]) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::with_capacity(environment.len());
    let mut places = HashMap::with_capacity(environment.len());
    for entry in environment {
        match places.entry(entry.split_once('=').map_or(entry.as_str(), |(name, _)| name)) {
            Entry::Occupied(place) => kept[*place.get()] = entry.as_str(),
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entry);
            }
        }
    }
    kept
}

/// The value of the last `NAME=` in the environment.
fn variable<'a>(process: &'a Process, prefix: &str) -> Option<&'a str> {
    process.env().iter().flatten().rev().find_map(|entry| entry.strip_prefix(prefix))
}

#[allow(clippy::unnecessary_cast, reason = "the constants are c_int on musl and c_uint on glibc")]
fn resource(kind: PosixRlimitType) -> u32 {
    let resource = match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    resource as u32
}
