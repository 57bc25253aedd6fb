//! `flint run`

use anyhow::{Context, Result};
use flint_runtime::{Bundle, Container, CreateOptions, Kind, Runtime};

use super::{
    BUNDLE, CONFIG, CONSOLE_SOCKET, CONTAINER, NO_NEW_KEYRING, NO_PIVOT, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, Verb,
};
use crate::Session;
use crate::arguments::{Arguments, switch};
use crate::foreground::{self, Program};
use crate::notify;
use crate::signals::Signals;
use crate::terminal::{Console, RawMode, Relay};

pub(super) const VERB: Verb = Verb {
    name: "run",
    summary: "make a container from a bundle and run it",
    description: "Does what create, start and delete do, and stays with the program until it ends: signals are
forwarded to it, and its exit code is flint's (128 and the signal's number when a signal
ended it). With --detach, flint ends once the program runs.",
    flags: &[
        BUNDLE,
        CONFIG,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        PID_FILE,
        switch("detach", Some('d'), "do not stay with the program"),
        switch("keep", None, "do not delete the container after its end"),
        switch("no-subreaper", None, "do not become the parent of processes that the container leaves behind"),
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
    ],
    failure: "flint run failed: ",
    clones: true,
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let detach = arguments.is_set("detach");
    let options = CreateOptions { foreground: !detach, ..super::create_options(arguments)? };
    let bundle = super::load_bundle(arguments)?;
    let terminal = super::wants_terminal(&bundle);
    super::check_console(terminal, detach, options.console_socket.is_some())?;
    let id = arguments.operand(0)?;
    let runtime = session.runtime()?;
    // They may be why.
    let warn = || session.warn(bundle.warnings());
    if detach {
        let mut container = runtime.run(id, &bundle, options).inspect_err(|_| warn())?;
        session.warn(container.warnings());
        session.trace_init(&container);
        if let (Some(host), Some(notifications)) = (notify::host_socket(), container.take_notifications()?) {
            notify::pass_on(session, &notifications, &host, container.pid());
        }
        return Ok(0);
    }
    let orphans = adopt_orphans(arguments)?;
    let signals = Signals::block()?;
    let (mut container, relay) = if terminal {
        let (container, relay) =
            start_with_terminal(session, &runtime, id, &bundle, options).inspect_err(|_| warn())?;
        (container, Some(relay))
    } else {
        (runtime.run(id, &bundle, options).inspect_err(|_| warn())?, None)
    };
    session.warn(container.warnings());
    session.trace_init(&container);
    session.log.debug(|| format!("container {id} runs, its init has pid {}", container.pid()));
    let notifier = notify::pass_on_aside(container.take_notifications());
    let staying = Staying { container, signals, orphans, keep: arguments.is_set("keep"), notifier };
    stay_to_the_end(session, &runtime, id, staying, relay)
}

/// Whether processes that the container leaves behind become ours, which they do unless it is refused.
pub(super) fn adopt_orphans(arguments: &Arguments) -> Result<bool> {
    let orphans = !arguments.is_set("no-subreaper");
    if orphans {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming a subreaper")?;
    }
    Ok(orphans)
}

/// A container in the foreground.
pub(super) struct Staying {
    /// It runs.
    pub(super) container: Container,
    /// Blocked since before it was made.
    pub(super) signals: Signals,
    /// Whether its orphans are reaped.
    pub(super) orphans: bool,
    /// Whether it is left to be deleted by others.
    pub(super) keep: bool,
    /// Passes on that it is ready.
    pub(super) notifier: notify::Notifier,
}

/// Stays with the container until it ends, and deletes it; its exit code.
///
/// # Errors
/// Its end cannot be waited for.
pub(super) fn stay_to_the_end(
    session: &Session,
    runtime: &Runtime,
    id: &str,
    staying: Staying,
    relay: Option<Relay<'_>>,
) -> Result<u8> {
    let container = &staying.container;
    let program = Program { pid: container.pid(), pidfd: container.pidfd(), orphans: staying.orphans };
    let status = stay(program, &staying.signals, relay).and_then(|()| Ok(container.wait()?));
    if status.is_ok() {
        staying.notifier.finish(session);
    }
    if !staying.keep {
        match runtime.delete(id, true) {
            Ok(warnings) => session.warn(&warnings),
            Err(error) if error.kind() != Kind::NotFound => {
                session.log.warning(&format!("deleting container {id} after its end: {error}"));
            }
            Err(_) => {}
        }
    }
    Ok(status?.code() as u8)
}

/// Creates, and starts only once the terminal has its size: a program that asks at once gets the right answer.
fn start_with_terminal(
    session: &Session,
    runtime: &Runtime,
    id: &str,
    bundle: &Bundle,
    mut options: CreateOptions,
) -> Result<(Container, Relay<'static>)> {
    let (console, theirs) = Console::pair()?;
    options.console = Some(theirs);
    let container = runtime.create(id, bundle, options)?;
    let started = console.receive().and_then(|master| {
        let relay = Relay::new(master, rustix::stdio::stdin(), rustix::stdio::stdout())?;
        relay.resize();
        session.warn(&runtime.start(id)?);
        Ok(relay)
    });
    match started {
        Ok(relay) => Ok((container, relay)),
        Err(error) => Err(deleted_after(runtime, id, error)),
    }
}

/// The error, after the container is deleted for it.
pub(super) fn deleted_after(runtime: &Runtime, id: &str, error: anyhow::Error) -> anyhow::Error {
    match runtime.delete(id, true) {
        Err(failure) if failure.kind() != Kind::NotFound => {
            anyhow::anyhow!("{}; while cleaning up: {failure}", crate::sentence(&error))
        }
        _ => error,
    }
}

fn stay(program: Program<'_>, signals: &Signals, mut relay: Option<Relay<'_>>) -> Result<()> {
    let _raw = if relay.is_some() { RawMode::enter()? } else { None };
    foreground::attend(program, signals, relay.as_mut())
}
