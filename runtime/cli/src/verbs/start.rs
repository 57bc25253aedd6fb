//! `flint start`

use anyhow::Result;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::Arguments;
use crate::notify;

pub(super) const VERB: Verb = Verb {
    name: "start",
    summary: "start the program of a created container",
    description: "Runs the program that config.json names, in a container that \"flint create\" made.",
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let (runtime, id) = (session.runtime()?, arguments.operand(0)?);
    let Some(host) = notify::host_socket() else {
        session.warn(&runtime.start(id)?);
        return Ok(0);
    };
    let (warnings, notifications) = runtime.start_listening(id)?;
    session.warn(&warnings);
    match notifications {
        Some(notifications) => notify::pass_on(session, &notifications, &host, notifications.pid()),
        None => session.log.warning(
            "NOTIFY_SOCKET is not passed on: the container was created without one in the environment of create",
        ),
    }
    Ok(0)
}
