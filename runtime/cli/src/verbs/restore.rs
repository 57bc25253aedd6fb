//! `flint restore`

use anyhow::Result;
use flint_runtime::{Bundle, Container, RestoreOptions, Runtime};

use super::checkpoint::{
    AUTO_DEDUP, EMPTY_NS, EXT_UNIX_SK, FILE_LOCKS, IMAGE_PATH, LAZY_PAGES, MANAGE_CGROUPS, NETWORK_LOCK, SHELL_JOB,
    TCP_ESTABLISHED, WORK_PATH,
};
use super::{BUNDLE, CONSOLE_SOCKET, CONTAINER, NO_PIVOT, PID_FILE, Verb, run};
use crate::Session;
use crate::arguments::{Arguments, option, switch};
use crate::signals::Signals;
use crate::terminal::{Console, Relay};

pub(super) const VERB: Verb = Verb {
    name: "restore",
    summary: "bring a saved container back",
    description: "CRIU (criu in PATH, or --criu before the verb) brings its processes back from the image path.
Without --detach, flint stays with the program until it ends, as run does.",
    failure: "flint restore: ",
    flags: &[
        BUNDLE,
        IMAGE_PATH,
        WORK_PATH,
        option("parent-path", None, "FOLDER", "taken and not needed: the images know their parent"),
        CONSOLE_SOCKET,
        switch("detach", Some('d'), "do not stay with the program"),
        PID_FILE,
        switch("no-subreaper", None, "do not become the parent of processes that the container leaves behind"),
        NO_PIVOT,
        TCP_ESTABLISHED,
        switch("tcp-close", None, "bring TCP connections back closed"),
        NETWORK_LOCK,
        switch("link-remap", None, "taken and not needed: the images know of such links"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        FILE_LOCKS,
        MANAGE_CGROUPS,
        EMPTY_NS,
        AUTO_DEDUP,
        option("lsm-profile", None, "TYPE:NAME", "another LSM profile"),
        option("lsm-mount-context", None, "CONTEXT", "another LSM context of the mounts"),
    ],
    run: restore,
    ..CONTAINER
};

fn restore(session: &Session, arguments: &Arguments) -> Result<u8> {
    let options = RestoreOptions {
        criu: super::checkpoint::criu_options(session, arguments)?,
        console_socket: arguments.value("console-socket").map(Into::into),
        console: None,
        stdio: None,
        pid_file: super::pid_file(arguments)?,
        lsm_profile: arguments.text("lsm-profile")?.map(str::to_owned),
        lsm_mount_context: arguments.text("lsm-mount-context")?.map(str::to_owned),
    };
    let bundle = super::load_bundle(arguments)?;
    let detach = arguments.is_set("detach");
    let terminal = super::wants_terminal(&bundle);
    super::check_console(terminal, detach, options.console_socket.is_some())?;
    let id = arguments.operand(0)?;
    let runtime = session.runtime()?;
    if detach {
        session.warn(runtime.restore(id, &bundle, options)?.warnings());
        return Ok(0);
    }
    let orphans = run::adopt_orphans(arguments)?;
    let signals = Signals::block()?;
    let (container, relay) = if terminal {
        let (container, relay) = restore_with_terminal(&runtime, id, &bundle, options)?;
        (container, Some(relay))
    } else {
        (runtime.restore(id, &bundle, options)?, None)
    };
    session.warn(container.warnings());
    let notifier = crate::notify::Notifier::default();
    let staying = run::Staying { container, signals, orphans, keep: false, notifier };
    run::stay_to_the_end(session, &runtime, id, staying, relay)
}

fn restore_with_terminal(
    runtime: &Runtime,
    id: &str,
    bundle: &Bundle,
    mut options: RestoreOptions,
) -> Result<(Container, Relay<'static>)> {
    let (console, theirs) = Console::pair()?;
    options.console = Some(theirs);
    let container = runtime.restore(id, bundle, options)?;
    let relay = console.receive().and_then(|master| {
        let relay = Relay::new(master, rustix::stdio::stdin(), rustix::stdio::stdout())?;
        relay.resize();
        Ok(relay)
    });
    match relay {
        Ok(relay) => Ok((container, relay)),
        Err(error) => Err(run::deleted_after(runtime, id, error)),
    }
}
