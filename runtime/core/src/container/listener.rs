//! Seccomp's notifications: init's listening descriptor goes to the agent that config.json names (runtime-spec,
//! config-linux.md "The Container Process State").

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::PidfdGetfdFlags;
use serde_json::{Value, json};

use crate::container::bind;
use crate::container::channel::Channel;
use crate::container::process::open_pidfd;
use crate::plan::Plan;
use crate::state::{Record, State, Status};
use crate::{Error, Kind, Result};

/// Who answers a filter's notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompListener {
    /// `linux.seccomp.listenerPath`: the unix socket of the agent.
    pub path: PathBuf,
    /// `linux.seccomp.listenerMetadata`.
    pub metadata: Option<String>,
    /// Whether the agent is asked about sendmsg(2): then init cannot send the listener itself.
    pub asks_about_sendmsg: bool,
}

/// Takes descriptor `number` out of the process and gives it to the agent, then lets the process go on.
///
/// The process has its filter already. It only waits, so nothing that the filter asks the agent about is needed before
/// the agent can answer (trap 10).
pub(crate) fn hand_over(
    channel: &Channel,
    plan: &Plan,
    record: &Record,
    status: Status,
    pid: i32,
    number: i32,
) -> Result<()> {
    let Some(listener) = &plan.seccomp_listener else {
        return Err(Error::new(Kind::System, "init has a seccomp listener that the plan does not know"));
    };
    let process = open_pidfd(pid)?;
    let passed = || -> Result<()> {
        let descriptor = match rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            // Not root's own way: init is not dumpable.
            Err(Errno::PERM | Errno::NOSYS) if !listener.asks_about_sendmsg => channel.ask_for_listener()?,
            result => result.map_err(|errno| {
                Error::os(
                    "take the seccomp listener out of init (without CAP_SYS_PTRACE linux.seccomp may not ask about sendmsg)",
                    errno,
                )
            })?,
        };
        let agent = bind::connect_to(&listener.path).map_err(|error| {
            error.context("linux.seccomp.listenerPath: failed to connect with seccomp agent (is it running?)")
        })?;
        let state = process_state(listener, record, status, pid)?;
        bind::send_fd(&agent, &state, descriptor.as_fd())
    };
    let result = passed();
    if result.is_err() {
        // It may wait for an answer that nobody can give any more.
        let _ = crate::container::process::signal_pidfd(process.as_fd(), libc::SIGKILL);
        return result;
    }
    channel.proceed()
}

fn process_state(listener: &SeccompListener, record: &Record, status: Status, pid: i32) -> Result<Vec<u8>> {
    let invalid = |error: serde_json::Error| Error::new(Kind::System, format!("write the process's state: {error}"));
    let state = State::hook_json(record, status, record.pid)?;
    let state: Value = serde_json::from_slice(&state).map_err(invalid)?;
    let mut message = json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    });
    if let Some(metadata) = listener.metadata.as_deref().filter(|metadata| !metadata.is_empty()) {
        message["metadata"] = metadata.into();
    }
    serde_json::to_vec(&message).map_err(invalid)
}
