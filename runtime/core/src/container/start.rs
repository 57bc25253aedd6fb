//! `start`: releases the waiting init.

use std::borrow::Cow;
use std::os::fd::{AsFd as _, AsRawFd as _};

use flint_init::protocol::{Kind as Said, Message};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::container::channel::{Channel, Heard};
use crate::container::delete::end;
use crate::container::folder::Folder;
use crate::container::notify::Notifications;
use crate::container::process::ExitStatus;
use crate::container::{hooks, listener, sentence};
use crate::plan::{HostHook, Plan};
use crate::runtime::status_under_lock;
use crate::state::{Phase, Record, State, Status};
use crate::{Error, Kind, Result, Runtime};

impl Runtime {
    /// Starts a created container (runtime-spec, "Start"): its program runs when this returns.
    ///
    /// # Errors
    ///
    /// `WrongState` unless it is created; what the program's start fails with.
    pub fn start(&self, id: &str) -> Result<Vec<String>> {
        self.start_under_lock(id, false).map(|(warnings, _)| warnings)
    }

    /// The same, for a caller that waits until the container is ready: with the notify socket that it was made with,
    /// or `None` when it has none.
    ///
    /// # Errors
    ///
    /// As [`Runtime::start`]; a state root that cannot be written.
    pub fn start_listening(&self, id: &str) -> Result<(Vec<String>, Option<Notifications>)> {
        self.start_under_lock(id, true)
    }

    fn start_under_lock(&self, id: &str, listen: bool) -> Result<(Vec<String>, Option<Notifications>)> {
        let folder = self.folder(id)?;
        let _lock = folder.lock()?;
        let record = folder.record()?;
        match status_under_lock(&record) {
            Status::Created => {}
            Status::Stopped => return Err(Error::new(Kind::WrongState, "cannot start a container that has stopped")),
            Status::Running => return Err(Error::new(Kind::WrongState, "cannot start an already running container")),
            Status::Paused => {
                return Err(Error::new(Kind::WrongState, "cannot start a paused container: resume it first"));
            }
            Status::Creating => {
                return Err(Error::new(Kind::WrongState, "cannot start a container that is being created"));
            }
        }
        let channel = connect_to_init(&folder)?;
        let notifications = match &record.options.notify_folder {
            Some(_) if listen => Some(Notifications::of_pid(folder.listen_for_notifications()?, record.pid)?),
            _ => None,
        };
        let running = Record { phase: Phase::Running, ..record };
        folder.save(&running)?;
        // The plan is needed for sentences only; compiling it again is for the rare case that there is one.
        let plan = || self.compiled_again(&folder, &running).map(Cow::Owned);
        channel.start()?;
        let warnings = hear_start(&channel, &running, Status::Created, plan, || None)?;
        if running.late_hooks {
            let plan = self.compiled_again(&folder, &running)?;
            poststart(&running, &plan.hooks.poststart)?;
        }
        Ok((warnings, notifications))
    }

    /// The plan of a container's saved config.
    pub(crate) fn compiled_again(&self, folder: &Folder, record: &Record) -> Result<Plan> {
        let bundle = Bundle::from_parts(record.bundle.clone(), folder.config()?)?;
        crate::compile::compile(&bundle, self.host()?, &record.options)
    }
}

/// A failing poststart hook ends the container, as in runc.
pub(crate) fn poststart(record: &Record, hooks: &[HostHook]) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = State::hook_json(record, Status::Running, record.pid)?;
    hooks::run("poststart", &record.bundle, hooks, &state).map_err(|error| {
        let killed = Cgroup::from_paths(&record.cgroup).kill_all();
        // Without cgroups that was nobody.
        error.with_cleanup(killed).with_cleanup(end(record))
    })
}

pub(crate) fn connect_to_init(folder: &Folder) -> Result<Channel> {
    let failure = |errno: Errno| Error::os("connect to the container's init", errno);
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(failure)?;
    let address = UnixAddr::new(&folder.socket_path()).map_err(failure)?;
    connect(fd.as_fd().as_raw_fd(), &address).map_err(failure)?;
    let channel = Channel::from_fd(fd);
    match channel.hear()? {
        Heard::Said(message) if message.kind == Said::Accepted => Ok(channel),
        _ => Err(Error::new(Kind::WrongState, "the container's init ended while it was started")),
    }
}

/// Hears how init, which was told to, starts its program; returns its warnings.
///
/// `status` is what a seccomp agent is told; `ended` tells how init ended, where the caller is its parent.
pub(crate) fn hear_start<'a>(
    channel: &Channel,
    record: &Record,
    status: Status,
    plan: impl Fn() -> Result<Cow<'a, Plan>>,
    ended: impl Fn() -> Option<ExitStatus>,
) -> Result<Vec<String>> {
    let mut heard = Execution::default();
    hear_execution(channel, &mut heard, |number| {
        listener::hand_over(channel, &*plan()?, record, status, record.pid, number)
    })?;
    let plan = if heard.failure.is_some() || !heard.warnings.is_empty() { Some(plan()?) } else { None };
    let mut warnings = Vec::new();
    if let Some(plan) = &plan {
        warnings.extend(heard.warnings.iter().map(|message| sentence::warned(plan, message)));
        if let Some(message) = &heard.failure {
            return Err(sentence::failed(plan, message).quoting(&channel.hook_output()));
        }
    }
    if heard.executing {
        return Ok(warnings);
    }
    let out_of_memory = Cgroup::from_paths(&record.cgroup).out_of_memory();
    Err(sentence::died("start", ended(), out_of_memory))
}

/// More than a plan has steps that warn: what goes on is no init any more.
const MOST_WARNINGS: usize = 256;

/// What init said until it closed the channel.
#[derive(Default)]
pub(crate) struct Execution {
    pub(crate) executing: bool,
    pub(crate) failure: Option<Message>,
    pub(crate) warnings: Vec<Message>,
}

impl Execution {
    /// One message of it.
    ///
    /// # Errors
    ///
    /// One that is none.
    pub(crate) fn take(&mut self, message: Message) -> Result<()> {
        match message.kind {
            Said::Executing => self.executing = true,
            Said::Failed => self.failure = Some(message),
            Said::Warned if self.warnings.len() < MOST_WARNINGS => self.warnings.push(message),
            _ => return Err(Error::new(Kind::System, "init said something out of turn")),
        }
        Ok(())
    }
}

/// Listens until init executes its program or ends; `listener` takes the descriptor of seccomp's notifications.
pub(crate) fn hear_execution(
    channel: &Channel,
    execution: &mut Execution,
    listener: impl Fn(i32) -> Result<()>,
) -> Result<()> {
    loop {
        match channel.hear()? {
            Heard::End => return Ok(()),
            Heard::Said(message) if message.kind == Said::Listener => listener(message.number)?,
            Heard::Said(message) => execution.take(message)?,
        }
    }
}
