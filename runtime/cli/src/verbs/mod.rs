//! One file a verb; this one lists them.

mod checkpoint;
mod completion;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod man;
mod mount;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod umount;
mod update;

use std::path::PathBuf;

use anyhow::{Result, bail};
use flint_runtime::{Bundle, CreateOptions};

use crate::Session;
use crate::arguments::{Arguments, Flag, Order, UsageError, integer, option, switch};

/// A verb of the command line.
#[derive(Debug)]
pub(crate) struct Verb {
    /// As typed.
    pub(crate) name: &'static str,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    /// Its operands, as shown in the help.
    pub(crate) operands: &'static str,
    /// The least and the greatest number of operands.
    pub(crate) count: (usize, usize),
    /// What its first operand means for what is behind it.
    pub(crate) order: Order,
    /// More help.
    pub(crate) description: &'static str,
    /// Its options.
    pub(crate) flags: &'static [Flag],
    /// What stands before the sentence of its failures.
    pub(crate) failure: &'static str,
    /// Whether it clones a process into a container: then flint must run from a sealed program.
    pub(crate) clones: bool,
    /// Its exit code when it fails.
    pub(crate) failure_code: u8,
    /// Does it, and tells the exit code.
    pub(crate) run: fn(&Session, &Arguments) -> Result<u8>,
}

/// Any number of operands.
const ANY: usize = usize::MAX;

/// What most verbs have in common: one container, nothing else.
const CONTAINER: Verb = Verb {
    name: "",
    summary: "",
    operands: "<container-id>",
    count: (1, 1),
    order: Order::Any,
    description: "",
    flags: &[],
    failure: "",
    clones: false,
    failure_code: 1,
    run: |_, _| Ok(0),
};

/// All verbs, in the order of the help.
pub(crate) const VERBS: &[Verb] = &[
    checkpoint::VERB,
    completion::VERB,
    create::VERB,
    delete::VERB,
    doctor::VERB,
    events::VERB,
    exec::VERB,
    features::VERB,
    kill::VERB,
    list::VERB,
    man::VERB,
    mount::VERB,
    pause::VERB,
    plan::VERB,
    ps::VERB,
    restore::VERB,
    resume::VERB,
    run::VERB,
    spec::VERB,
    start::VERB,
    state::VERB,
    umount::VERB,
    update::VERB,
];

/// The verb of that name.
pub(crate) fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

impl Verb {
    /// Checks the number of operands, with runc's words.
    ///
    /// # Errors
    /// Too many or too few.
    pub(crate) fn check_operands(&self, given: usize) -> Result<(), UsageError> {
        let (least, most) = self.count;
        if (least..=most).contains(&given) {
            return Ok(());
        }
        let expected = match (least, most) {
            (least, most) if least == most => format!("exactly {least}"),
            (least, _) if given < least => format!("a minimum of {least}"),
            (_, most) => format!("a maximum of {most}"),
        };
        Err(UsageError(format!("flint: {:?} requires {expected} argument(s)", self.name)))
    }
}

const BUNDLE: Flag = option("bundle", Some('b'), "FOLDER", "the bundle's folder (default: the current folder)");
const CONFIG: Flag = option("config", Some('f'), "FILE", "a file to read instead of the bundle's config.json");
const CONSOLE_SOCKET: Flag = option(
    "console-socket",
    None,
    "SOCKET",
    "unix socket that is sent the terminal's master; needed for a terminal without a foreground",
);
const PIDFD_SOCKET: Flag = option("pidfd-socket", None, "SOCKET", "unix socket that is sent a pidfd of the process");
const PID_FILE: Flag = option("pid-file", None, "FILE", "write the process id to this file");
const NO_PIVOT: Flag = switch("no-pivot", None, "move the root instead of pivot_root, for a bundle on a ramdisk");
const NO_NEW_KEYRING: Flag = switch("no-new-keyring", None, "leave the container the caller's session keyring");
const PRESERVE_FDS: Flag =
    integer("preserve-fds", None, "N", "leave the process N more file descriptors, from 3 on (default: 0)");

fn create_options(arguments: &Arguments) -> Result<CreateOptions> {
    let (preserve_fds, listen_fds) = descriptors(arguments)?;
    Ok(CreateOptions {
        stdio: None,
        foreground: false,
        console_socket: arguments.value("console-socket").map(PathBuf::from),
        console: None,
        pidfd_socket: arguments.value("pidfd-socket").map(PathBuf::from),
        pid_file: pid_file(arguments)?,
        no_pivot: arguments.is_set("no-pivot"),
        no_new_keyring: arguments.is_set("no-new-keyring"),
        preserve_fds,
        listen_fds,
        notify: crate::notify::host_socket().is_some(),
        seccomp_receiver: seccomp_receiver()?,
    })
}

/// crun's variable for who asks to be a container's seccomp agent.
fn seccomp_receiver() -> Result<Option<PathBuf>> {
    const VARIABLE: &str = "RUN_OCI_SECCOMP_RECEIVER";
    let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
        bail!("{VARIABLE}: {} is not an absolute path", path.display());
    }
    Ok(path)
}

/// How many descriptors from 3 on the program gets, and how many of them are sockets of a systemd socket unit, which come
/// first. All must be open, and are looked at before flint opens any of its own: a number of one of those would lead the
/// container to the host.
fn descriptors(arguments: &Arguments) -> Result<(u32, u32)> {
    let sockets = listen_fds();
    // Less than none is none, as in runc.
    let more = arguments.integer("preserve-fds").unwrap_or(0).max(0);
    let is_open = |number: i64| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    for index in 0..i64::from(sockets) {
        if !is_open(3 + index) {
            bail!("LISTEN_FDS is {sockets}, but descriptor {} is not open: bad file descriptor", 3 + index);
        }
    }
    let first = 3 + i64::from(sockets);
    for index in 0..more {
        if !is_open(first + index) {
            bail!(
                "unable to stat preserved-fd {index} (of {more}): descriptor {} is not open: bad file descriptor",
                first + index
            );
        }
    }
    Ok((sockets + u32::try_from(more)?, sockets))
}

/// How many sockets a systemd socket unit gave us, from descriptor 3 on: the container's program gets them, as under
/// runc (sd_listen_fds(3)). Another process's `LISTEN_PID` says that they were given to that one.
fn listen_fds() -> u32 {
    let is_ours = |pid: &str| pid.parse() == Ok(std::process::id());
    if std::env::var_os("LISTEN_PID").is_some_and(|pid| !pid.to_str().is_some_and(is_ours)) {
        return 0;
    }
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Absolute: whoever writes it may be in another folder by then.
fn pid_file(arguments: &Arguments) -> Result<Option<PathBuf>> {
    Ok(arguments.value("pid-file").map(std::path::absolute).transpose()?)
}

fn load_bundle(arguments: &Arguments) -> Result<Bundle> {
    let folder = arguments.value("bundle").unwrap_or(".".as_ref());
    // As crun has it: a relative path starts at the caller's folder, but for the name that a bundle has anyhow.
    match arguments.value("config").filter(|file| *file != "config.json") {
        Some(file) => Ok(Bundle::load_with(folder, std::path::absolute(file)?)?),
        None => Ok(Bundle::load(folder)?),
    }
}

/// A terminal needs somebody at its other end, and a console socket needs a terminal.
fn check_console(terminal: bool, detach: bool, socket: bool) -> Result<()> {
    if terminal && detach && !socket {
        bail!("cannot allocate tty if flint will detach without setting console socket");
    }
    if socket && !(terminal && detach) {
        bail!("cannot use console socket if flint will not detach or allocate tty");
    }
    Ok(())
}

fn wants_terminal(bundle: &Bundle) -> bool {
    bundle.spec().process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
}
