//! The caller's service manager (sd_notify(3)): a container's READY=1 becomes that of the service.
//!
//! A container that cannot be announced runs nevertheless: what fails here is a warning.

use std::ffi::{OsStr, OsString};
use std::thread::JoinHandle;

use flint_runtime::{Notifications, Result};

use crate::Session;

/// `NOTIFY_SOCKET`, if the caller set it.
pub(crate) fn host_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// Waits until the container is ready and says so to the service manager, with `main_pid` as the process to watch; or
/// until it ends.
pub(crate) fn pass_on(session: &Session, notifications: &Notifications, host: &OsStr, main_pid: i32) {
    if let Err(error) = wait_and_announce(notifications, host, main_pid) {
        warn(session, &error);
    }
}

fn wait_and_announce(notifications: &Notifications, host: &OsStr, main_pid: i32) -> Result<()> {
    if notifications.wait_ready()? { Notifications::announce(host, main_pid) } else { Ok(()) }
}

fn warn(session: &Session, error: &flint_runtime::Error) {
    session.log.warning(&format!("telling the service manager that the container is ready: {error}"));
}

/// The same beside a foreground command.
#[derive(Debug, Default)]
pub(crate) struct Notifier(Option<JoinHandle<Result<()>>>);

/// Starts passing on, in a thread: signals and the terminal cannot wait. The process to watch is this one, whose exit
/// code is the container's, as under runc.
pub(crate) fn pass_on_aside(notifications: Result<Option<Notifications>>) -> Notifier {
    let Some(host) = host_socket() else { return Notifier(None) };
    Notifier(match notifications {
        Ok(None) => None,
        Ok(Some(notifications)) => Some(std::thread::spawn(move || {
            wait_and_announce(&notifications, &host, rustix::process::getpid().as_raw_nonzero().get())
        })),
        Err(error) => Some(std::thread::spawn(|| Err(error))),
    })
}

impl Notifier {
    /// For a container that has ended: waits until its last word is passed on.
    pub(crate) fn finish(self, session: &Session) {
        if let Some(Ok(Err(error))) = self.0.map(JoinHandle::join) {
            warn(session, &error);
        }
    }
}
