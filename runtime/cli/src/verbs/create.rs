//! `flint create`

use anyhow::Result;

use super::{
    BUNDLE, CONFIG, CONSOLE_SOCKET, CONTAINER, NO_NEW_KEYRING, NO_PIVOT, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, Verb,
};
use crate::Session;
use crate::arguments::Arguments;

pub(super) const VERB: Verb = Verb {
    name: "create",
    summary: "make a container from a bundle",
    description: "Makes all that the container needs and stops just before its program. \"flint start\"
then starts that. The id must be unique among the containers below --root; it may have
letters, digits and the characters _ + - and the dot.",
    flags: &[BUNDLE, CONFIG, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS],
    failure: "flint create failed: ",
    clones: true,
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let options = super::create_options(arguments)?;
    let bundle = super::load_bundle(arguments)?;
    super::check_console(super::wants_terminal(&bundle), true, options.console_socket.is_some())?;
    let id = arguments.operand(0)?;
    let container = session.runtime()?.create(id, &bundle, options).inspect_err(|_| session.warn(bundle.warnings()))?;
    session.warn(container.warnings());
    session.trace_init(&container);
    session.log.debug(|| format!("created container {id}, its init has pid {}", container.pid()));
    Ok(0)
}
