//! `create` and `run`, and what their callers choose.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use flint_init::protocol::Kind as Said;

use crate::bundle::Bundle;
use crate::cgroup::systemd;
use crate::compile::{self, CompileOptions, Host};
use crate::container::bind::Stdio;
use crate::container::channel::{Channel, Heard};
use crate::container::folder::NOTIFY;
use crate::container::making::Making;
use crate::container::process::{Container, Process, parent_of};
use crate::container::start::poststart;
use crate::container::{bind, check_id, sentence};
use crate::plan::Plan;
use crate::{CgroupManager, Error, Kind, Result, Runtime};

/// How a container is made, besides its bundle.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
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
    /// Its program's standard input, output and error; `None`: the caller's. Not looked at with a terminal.
    pub stdio: Option<Stdio>,
    /// The caller goes on with its own standard input, output and error, which the program shares: files and terminals among them
    /// do not become the program's user's, pipes and sockets do.
    pub foreground: bool,
    /// How many descriptors from 3 on the container's program gets.
    pub preserve_fds: u32,
    /// How many of them it is told of as `LISTEN_FDS` (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// A notify socket of its own for sd_notify(3): see [`Process::take_notifications`] and
    /// [`Runtime::start_listening`].
    pub notify: bool,
    /// The listening unix socket of a seccomp agent, for a filter that asks one where neither `listenerPath` nor the annotation
    /// `run.oci.seccomp.receiver` names it.
    pub seccomp_receiver: Option<PathBuf>,
}

impl CreateOptions {
    pub(super) fn compile(&self, runtime: &Runtime, id: &str, wait_on_socket: bool) -> CompileOptions {
        CompileOptions {
            id: id.to_owned(),
            console_socket: self.console.is_some() || self.console_socket.is_some(),
            no_pivot: self.no_pivot,
            new_keyring: !self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            listen_fds: self.listen_fds,
            notify_folder: self.notify.then(|| runtime.root().join(id).join(NOTIFY)),
            seccomp_receiver: self.seccomp_receiver.clone(),
            wait_on_socket,
            foreground: self.foreground,
            cgroup_manager: runtime.cgroup_manager(),
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

    pub(super) fn compile(&self, id: &str, bundle: &Bundle, options: &CreateOptions, on_socket: bool) -> Result<Plan> {
        check_id(id)?;
        let (host, manager) = (self.host()?, self.cgroup_manager());
        let options = options.compile(self, id, on_socket);
        if manager != CgroupManager::Systemd || host.systemd != systemd::Manager::User {
            return compile::compile(bundle, host, &options);
        }
        let host = Host { systemd_above: systemd::above(host.systemd)?, ..host.clone() };
        compile::compile(bundle, &host, &options)
    }
}

/// From the throw-away process that joins namespaces: init's pid. It is our child, so the pid stays its own until
/// we reap it. The throw-away process itself is reaped here.
pub(crate) fn hear_cloned(channel: &Channel, plan: &Plan, joiner: &Process) -> Result<Process> {
    let heard = channel.hear_cloned();
    let result = match heard? {
        Heard::Said(message) if message.kind == Said::Cloned => born_child(message.number),
        Heard::Said(message) if message.kind == Said::Failed => Err(sentence::failed(plan, &message)),
        Heard::Said(_) => Err(Error::new(Kind::System, "init said something out of turn")),
        Heard::End => Err(sentence::died("join the container's namespaces", None, None)),
    };
    let _ = joiner.wait();
    result
}

/// The process of that pid, which another process says to have cloned for us: it must be a child of ours, lest somebody who
/// has got hold of the channel has us end any process of the host.
pub(crate) fn born_child(pid: i32) -> Result<Process> {
    let process = Process::of_child(pid)?;
    // Asked when the pidfd is open: from here on it is of this process and no other.
    if parent_of(pid) == Some(std::process::id() as i32) {
        return Ok(process);
    }
    Err(Error::new(Kind::System, format!("process {pid} is no child of flint's: init said something out of turn")))
}

pub(crate) fn write_proc(pid: i32, file: &str, text: &str) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|error| {
        let lines: Vec<&str> = text.lines().collect();
        let what = match lines.as_slice() {
            // The kernel takes 340 ranges, and less than a page (user_namespaces(7)).
            [first, .., last] if lines.len() > 8 => format!("{} lines, {first} to {last},", lines.len()),
            _ => format!("\"{}\"", lines.join(", ")),
        };
        Error::os(format!("write {what} to init's {file}"), error)
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
    write_new(&aside, &process.pid().to_string()).map_err(failure)?;
    std::fs::rename(&aside, path).map_err(failure)
}

/// Writes a file that was not there: what somebody has put in its place (a link, where the folder is not the caller's alone) is
/// removed, not written to.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let open = || std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let file = open().or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => std::fs::remove_file(path).and_then(|()| open()),
        _ => Err(error),
    });
    file?.write_all(text.as_bytes())
}
