//! The sentences for what init reports: it says {step, operation, number}, the plan knows the rest.

use std::path::Path;

use flint_init::failure::{Failure, Operation};
use flint_init::plan::{HookStage, MountSource, Step};
use flint_init::protocol::{BEFORE_STEPS, Message};

use crate::container::detached;
use crate::container::process::ExitStatus;
use crate::describe::describe;
use crate::error::errno_text;
use crate::plan::Plan;
use crate::{Error, Kind};

/// The error for a step that failed.
pub(crate) fn failed(plan: &Plan, message: &Message) -> Error {
    let failure = message.as_failure();
    if message.step == BEFORE_STEPS {
        let reason = errno_text(failure.number);
        let hint = match failure.number {
            libc::EPERM => " (they are not yours)",
            _ => "",
        };
        return Error::new(
            kind_of(failure.number),
            format!("join the container's namespaces: {}: {reason}{hint}", failure.operation.name()),
        );
    }
    let Some(step) = plan.init.get(message.step as usize) else {
        return Error::new(
            Kind::System,
            format!("init failed at a step that the plan does not have ({})", message.step),
        );
    };
    special(plan, step, failure).unwrap_or_else(|| general(plan, step, failure))
}

/// The sentence for something that init could not do and went on without.
pub(crate) fn warned(plan: &Plan, message: &Message) -> String {
    failed(plan, message).to_string()
}

fn general(plan: &Plan, step: &Step, failure: Failure) -> Error {
    let (what, reason) = (describe(plan, step), errno_text(failure.number));
    let operation = failure.operation.name();
    let hint = hint(step, failure).map(|hint| format!(" ({hint})")).unwrap_or_default();
    Error::new(kind_of(failure.number), format!("{what}: {operation}: {reason}{hint}"))
}

fn kind_of(errno: i32) -> Kind {
    match errno {
        libc::EPERM | libc::EACCES => Kind::Permission,
        libc::ENOENT => Kind::NotFound,
        _ => Kind::System,
    }
}

/// mount_setattr(2) says no more than EINVAL: the file system and the kernel are what matters.
fn idmap_refused(plan: &Plan, step: &Step) -> Option<Error> {
    let Step::Mount(mount) = step else { return None };
    let what = match mount.source {
        MountSource::Bind { path, .. } => detached::filesystem_of(Path::new(&plan.string(path))),
        MountSource::New { fstype, .. } => format!("a new {}", plan.string(fstype)),
        _ => "its source".to_owned(),
    };
    Some(detached::no_idmap(&what).context(describe(plan, step)))
}

/// Failures whose words other programs match, and those that are no system call's.
fn special(plan: &Plan, step: &Step, failure: Failure) -> Option<Error> {
    let number = failure.number;
    let reason = || errno_text(number);
    match (step, failure.operation) {
        (Step::FindProgram { name, .. }, Operation::FindProgram) => Some(program(&plan.string(*name), number, false)),
        (Step::Execute { .. }, Operation::Execve) => Some(program(&program_name(plan), number, true)),
        (Step::WorkingDirectory { path, .. }, Operation::OutsideRoot) => Some(Error::new(
            Kind::Invalid,
            format!(
                "working directory {:?}: it is outside the container's root; it leads through a link or a descriptor of the host",
                plan.string(*path)
            ),
        )),
        (Step::WorkingDirectory { path, .. }, _) => {
            let path = plan.string(*path);
            Some(Error::new(
                kind_of(number),
                format!("chdir to cwd ({path:?}) set in config.json failed: {}", reason()),
            ))
        }
        (Step::RunHook(hook), operation) => {
            let stage = match hook.stage {
                HookStage::CreateContainer => "createContainer",
                HookStage::StartContainer => "startContainer",
            };
            let how = match operation {
                Operation::HookExited if number == 127 => "it does not exist (exit code 127)".to_owned(),
                Operation::HookExited if number == 126 => "it may not be executed (exit code 126)".to_owned(),
                Operation::HookExited => format!("exit status {number}"),
                Operation::HookSignaled => format!("was ended by signal {number} ({})", signal_words(number)),
                Operation::HookTimedOut => format!("killed: it took longer than its timeout of {number} s"),
                other => format!("{}: {}", other.name(), reason()),
            };
            let path = plan.string(hook.path);
            Some(Error::new(Kind::System, format!("error running {stage} hook #{}: {path}: {how}", hook.index)))
        }
        (Step::Mount(_), Operation::IdMap) if number == libc::EINVAL => idmap_refused(plan, step),
        (Step::Scheduler { .. }, Operation::SchedSetattr)
            if number == libc::EPERM && plan.cgroup.writes.iter().any(|write| write.file.ends_with("cpuset.cpus")) =>
        {
            Some(Error::new(
                Kind::Permission,
                "process scheduler can't be used together with AllowedCPUs: a deadline needs all CPUs, and linux.resources.cpu.cpus leaves some out".to_owned(),
            ))
        }
        (_, Operation::TargetInProc | Operation::NullDevice | Operation::DeviceExists | Operation::Devpts) => {
            Some(Error::new(Kind::Invalid, format!("{}: {}", describe(plan, step), failure.operation.name())))
        }
        _ => None,
    }
}

/// What ended a hook, as runc's callers know it.
fn signal_words(number: i32) -> &'static str {
    match number {
        libc::SIGILL => "illegal instruction",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGTERM => "terminated",
        libc::SIGSYS => "bad system call: the seccomp profile forbids it",
        _ => "see signal(7)",
    }
}

fn program_name(plan: &Plan) -> String {
    let name = plan.init.iter().find_map(|step| match step {
        Step::FindProgram { name, .. } => Some(plan.string(*name)),
        _ => None,
    });
    name.unwrap_or_default()
}

/// Docker and podman derive exit codes 126 and 127 from these words.
fn program(name: &str, errno: i32, executed: bool) -> Error {
    let (kind, words) = match errno {
        libc::ENOENT if executed => (
            Kind::ProgramNotFound,
            "no such file or directory (the program is there: its interpreter or loader is missing)".to_owned(),
        ),
        libc::ENOENT if name.contains('/') => {
            (Kind::ProgramNotFound, format!("stat {name}: no such file or directory"))
        }
        libc::ENOENT => (Kind::ProgramNotFound, "executable file not found in $PATH".to_owned()),
        libc::ENOTDIR => (Kind::ProgramNotFound, format!("stat {name}: not a directory")),
        libc::EACCES => (Kind::ProgramNotExecutable, "permission denied".to_owned()),
        libc::ENOEXEC => (
            Kind::ProgramNotExecutable,
            "exec format error (not a program of this machine's kind, or a script without #! line)".to_owned(),
        ),
        errno => (Kind::System, errno_text(errno)),
    };
    let name = if executed { name.to_owned() } else { format!(": {name:?}") };
    Error::new(kind, format!("exec{}{name}: {words}", if executed { " " } else { "" }))
}

/// What a person could do about it.
fn hint(step: &Step, failure: Failure) -> Option<&'static str> {
    match (step, failure.operation, failure.number) {
        (Step::Mount(_), Operation::IdMap, libc::EPERM) => {
            Some("it or a mount below it is idmapped already, or belongs to another user namespace")
        }
        (_, Operation::MountSetattr, libc::EPERM) => {
            Some("the source is on a mount locked by the host's user namespace")
        }
        // runc's words for it, which callers look for.
        (Step::Mount(mount), Operation::OpenTarget | Operation::MakeFolder, libc::ELOOP | libc::ENOTDIR)
            if mount.no_symlinks =>
        {
            Some("it must be mounted on ordinary directory, and the image put a link or a file there")
        }
        (
            Step::Mount(_),
            Operation::OpenTarget | Operation::MakeFolder | Operation::MakeFile,
            libc::ELOOP | libc::EXDEV | libc::ENOTDIR | libc::EEXIST,
        ) => Some("the target leads through a link or a file that the image put there"),
        (
            Step::Mount(_) | Step::Device { .. },
            Operation::MakeFolder | Operation::MakeFile | Operation::MakeDevice,
            libc::EROFS,
        ) => Some("the root filesystem is read-only: make the target in the image"),
        (Step::Mount(_), Operation::Fsopen, libc::ENODEV) => Some("the kernel does not know this file system"),
        (Step::Mount(_), Operation::Fsconfig | Operation::FsconfigCreate, libc::EINVAL) => {
            Some("the file system does not know one of the options")
        }
        (Step::Mount(_), Operation::MoveMount, libc::EINVAL | libc::ENOTDIR) => {
            Some("one of source and target is a folder, the other is not")
        }
        (Step::Remount(_), Operation::Fspick | Operation::MountSetattr, libc::EINVAL) => {
            Some("nothing is mounted there: an earlier entry of mounts has to do that")
        }
        (Step::Remount(_) | Step::Detach { .. }, Operation::OpenTarget, libc::ELOOP) => {
            Some("a link leads there: name the mount itself")
        }
        (Step::Detach { .. }, Operation::Unmount, libc::EINVAL) => {
            Some("it is no mount, or one that the container's user namespace may not part from")
        }
        (Step::Root { .. }, _, libc::ENOENT | libc::ENOTDIR) => Some("root.path of config.json must be a folder"),
        (Step::PivotRoot, Operation::PivotRoot, libc::EINVAL) => Some("on an initial ramfs use --no-pivot"),
        (Step::Seccomp { .. }, Operation::Seccomp, libc::EACCES) => {
            Some("a filter needs CAP_SYS_ADMIN or process.noNewPrivileges")
        }
        (Step::User { .. }, _, libc::EINVAL) => Some("the id is not mapped in the container's user namespace"),
        (Step::Scheduler { .. }, Operation::SchedSetattr, libc::EPERM) => {
            Some("it needs CAP_SYS_NICE; a deadline needs all CPUs")
        }
        (Step::Scheduler { .. }, Operation::SchedSetattr, libc::EBUSY) => {
            Some("the CPUs have no room left for this deadline, or its group has no real-time budget")
        }
        (Step::IoPriority { .. }, _, libc::EPERM) => Some("the real-time class needs CAP_SYS_NICE"),
        (Step::MemoryPolicy { .. }, _, libc::EINVAL) => Some("the kernel or the cgroup lacks the mode or the nodes"),
        (Step::CpuAffinity { .. }, _, libc::EINVAL) => Some("none of these CPUs may be used here"),
        (Step::Sysctl { .. }, Operation::Open, libc::ENOENT) => Some("the kernel has no such parameter"),
        (Step::Label { .. }, Operation::Write, libc::ENOENT) => {
            Some("no such profile is loaded: apparmor_parser --replace FILE loads one")
        }
        (Step::Label { .. }, Operation::Write, libc::EINVAL) => Some("the policy does not know this label"),
        _ => None,
    }
}

/// The error for an init that is gone without a word. `out_of_memory` names the limit that it met, if it met one.
pub(crate) fn died(doing: &str, ended: Option<ExitStatus>, out_of_memory: Option<String>) -> Error {
    let how = match ended {
        Some(ExitStatus::Signaled(signal)) => format!("by signal {signal}"),
        Some(ExitStatus::Exited(code)) => format!("with exit code {code}"),
        None => "and its status is not known".to_owned(),
    };
    if let (Some(ExitStatus::Signaled(libc::SIGKILL)), Some(limit)) = (ended, out_of_memory) {
        return Error::new(
            Kind::System,
            format!("{doing}: {limit}: init was OOM-killed before the program ran: raise linux.resources.memory.limit"),
        );
    }
    let cause = match ended {
        Some(ExitStatus::Signaled(libc::SIGKILL)) => ": somebody killed it",
        Some(ExitStatus::Signaled(libc::SIGSYS)) => {
            ": the seccomp profile forbids what flint itself needs to start the program"
        }
        Some(ExitStatus::Signaled(libc::SIGSEGV | libc::SIGBUS)) => ": out of memory, or a bug in flint",
        _ => "",
    };
    Error::new(Kind::System, format!("{doing}: container init ended {how}{cause}"))
}
