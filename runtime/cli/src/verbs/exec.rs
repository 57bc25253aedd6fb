//! `flint exec`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flint_runtime::{ExecOptions, ExitStatus, Process as Running, Runtime};
use oci_spec::runtime::{BoxBuilder, Capabilities, Capability, LinuxCapabilities, Process};

use super::{ANY, CONSOLE_SOCKET, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, Verb};
use crate::Session;
use crate::arguments::{
    Arguments, Flag, Order, UsageError, invalid, is_integer, option, parse_id, parse_integer, switch,
};
use crate::foreground::{self, Program};
use crate::signals::Signals;
use crate::terminal::{self, Console, RawMode, Relay};

pub(super) const VERB: Verb = Verb {
    name: "exec",
    summary: "run one more program in a container",
    operands: "<container-id> <program> [arguments...] | --process FILE <container-id>",
    count: (1, ANY),
    order: Order::OptionsFirst,
    description: "The program gets what the container's own process has (environment, user, working directory,
capabilities, limits), changed by the options below; or all of it from --process. Its exit
code is flint's; flint's own failures are 255.",
    flags: &[
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        PID_FILE,
        PRESERVE_FDS,
        option("process", Some('p'), "FILE", "the process as JSON, as in config.json"),
        switch("detach", Some('d'), "do not stay with the program"),
        switch("tty", Some('t'), "give it a terminal"),
        option("user", Some('u'), "UID[:GID]", "its user and group, as numbers"),
        Flag {
            check: Some((is_integer, "it must be a number; names of the image's groups are not looked up")),
            ..option("additional-gids", Some('g'), "GID", "one more group, as a number; may be repeated")
        },
        option("env", Some('e'), "NAME=VALUE", "a variable of its environment; may be repeated"),
        option("cwd", None, "FOLDER", "its working directory, absolute"),
        option("cap", Some('c'), "CAPABILITY", "one more capability (bounding, permitted, effective); may be repeated"),
        option("process-label", None, "LABEL", "its SELinux label"),
        option("apparmor", None, "PROFILE", "its AppArmor profile"),
        switch("no-new-privs", None, "never let it gain privileges"),
        option("cgroup", None, "[CONTROLLER,..:]PATH", "an existing cgroup below the container's; may be repeated"),
        switch("ignore-paused", None, "also in a paused container, where it waits"),
    ],
    failure: "exec failed: ",
    clones: true,
    failure_code: 255,
    run,
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let (preserve_fds, listen_fds) = super::descriptors(arguments)?;
    let mut options = ExecOptions {
        console_socket: arguments.value("console-socket").map(PathBuf::from),
        console: None,
        pidfd_socket: arguments.value("pidfd-socket").map(PathBuf::from),
        pid_file: super::pid_file(arguments)?,
        // Its own are passed on.
        stdio: None,
        foreground: !arguments.is_set("detach"),
        preserve_fds,
        listen_fds,
        cgroup: arguments.texts("cgroup")?,
        ignore_paused: arguments.is_set("ignore-paused"),
        seccomp_receiver: super::seccomp_receiver()?,
    };
    let id = arguments.operand(0)?;
    let runtime = session.runtime()?;
    let (mut process, warnings) = match arguments.value("process") {
        Some(file) => read_process(Path::new(file))?,
        None => own_process(&runtime, id, arguments)?,
    };
    let detach = arguments.is_set("detach");
    let terminal = process.terminal().unwrap_or(false);
    super::check_console(terminal, detach, options.console_socket.is_some())?;
    if detach {
        let running = runtime.exec(id, &process, options)?;
        session.warn(&warnings);
        session.warn(running.warnings());
        session.trace_exec(&running);
        return Ok(0);
    }
    let signals = Signals::block()?;
    let console = if terminal {
        let (console, theirs) = Console::pair()?;
        options.console = Some(theirs);
        // Before the program's first look at it; Relay::resize alone would come too late. Ours goes before config.json's,
        // as in runc.
        if let Some((columns, rows)) = terminal::our_size() {
            let size = BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build()?;
            process.set_console_size(Some(size));
        }
        Some(console)
    } else {
        None
    };
    let running = runtime.exec(id, &process, options)?;
    session.warn(&warnings);
    session.warn(running.warnings());
    session.trace_exec(&running);
    let status = stay(&running, &signals, console)?;
    Ok(status.code() as u8)
}

fn stay(running: &Running, signals: &Signals, console: Option<Console>) -> Result<ExitStatus> {
    let mut relay = match console {
        Some(console) => Some(Relay::new(console.receive()?, rustix::stdio::stdin(), rustix::stdio::stdout())?),
        None => None,
    };
    let _raw = if relay.is_some() { RawMode::enter()? } else { None };
    let program = Program { pid: running.pid(), pidfd: running.pidfd(), orphans: false };
    foreground::attend(program, signals, relay.as_mut())?;
    Ok(running.wait()?)
}

/// The process of `--process`. Capabilities that we do not know are left out with a warning, as the spec says.
fn read_process(file: &Path) -> Result<(Process, Vec<String>)> {
    let bytes = fs::read(file).with_context(|| format!("open {}", file.display()))?;
    flint_runtime::bundle::read_process(&bytes).with_context(|| format!("reading the process from {}", file.display()))
}

fn unknown_warning(unknown: &[String]) -> Vec<String> {
    if unknown.is_empty() {
        return Vec::new();
    }
    vec![format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))]
}

fn capability(name: &str) -> Option<Capability> {
    // The same reading that config.json gets.
    serde_json::from_value(name.into()).ok()
}

/// The container's own process, with the options of the command line.
fn own_process(runtime: &Runtime, id: &str, arguments: &Arguments) -> Result<(Process, Vec<String>)> {
    let bundle = runtime.container_bundle(id)?;
    let mut process = bundle.spec().process().clone().context("the container's config.json has no process")?;
    let warnings = adapt(&mut process, arguments)?;
    Ok((process, warnings))
}

fn adapt(process: &mut Process, arguments: &Arguments) -> Result<Vec<String>> {
    let program = arguments.operands.get(1..).unwrap_or_default();
    if program.is_empty() {
        bail!("process args cannot be empty: name a program or give --process");
    }
    // What is no UTF-8 loses that, as with runc: process.args of the specification is JSON.
    process.set_args(Some(program.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()));
    process.set_terminal(Some(arguments.is_set("tty")));
    if let Some(cwd) = arguments.value("cwd") {
        process.set_cwd(cwd.into());
    }
    if let Some(label) = arguments.text("process-label")? {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = arguments.text("apparmor")? {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(told) = arguments.told("no-new-privs") {
        process.set_no_new_privileges(Some(told));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    for variable in arguments.values("env") {
        set_variable(&mut environment, variable.to_string_lossy().into_owned())?;
    }
    process.set_env(Some(environment));
    if let Some(user) = arguments.text("user")? {
        let (uid, gid) = parse_user(user)?;
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    for text in arguments.texts("additional-gids")? {
        let group = parse_integer(&text).and_then(|group| u32::try_from(group).ok());
        groups.push(group.ok_or_else(|| invalid(&text, "additional-gids", "it must be from 0 to 4294967295"))?);
    }
    if !groups.is_empty() {
        process.user_mut().set_additional_gids(Some(groups));
    }
    add_capabilities(process, &arguments.texts("cap")?)
}

/// getenv(3) finds the first of two, so the later one takes its place.
fn set_variable(environment: &mut Vec<String>, variable: String) -> Result<(), UsageError> {
    let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(invalid(&variable, "env", "it must be NAME=VALUE"));
    };
    let same = |other: &String| other.split_once('=').is_some_and(|(other, _)| other == name);
    match environment.iter().position(same) {
        Some(at) => environment[at] = variable,
        None => environment.push(variable),
    }
    Ok(())
}

/// `uid[:gid]`, digits only: a name or half a number must never become 0 (CVE-2016-3697, CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>), UsageError> {
    // 2^32 - 1 means "leave it" to setresuid(2).
    let number = |part: &str| {
        parse_id(part).filter(|id| *id != u32::MAX).ok_or_else(|| {
            invalid(text, "user", "it must be UID or UID:GID in numbers; names of the image's users are not looked up")
        })
    };
    match text.split_once(':') {
        None => Ok((number(text)?, None)),
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
    }
}

/// Never inheritable (CVE-2022-29162); ambient only what config.json made inheritable, since the kernel refuses
/// the rest.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let unknown: Vec<String> = names.iter().filter(|name| capability(name).is_none()).cloned().collect();
    let added: Capabilities = names.iter().filter_map(|name| capability(name)).collect();
    // Its default is not empty.
    let mut sets = match process.capabilities() {
        Some(sets) => sets.clone(),
        None => serde_json::from_str::<LinuxCapabilities>("{}")?,
    };
    let with = |set: &Option<Capabilities>, more: &Capabilities| {
        Some(set.iter().flatten().chain(more).copied().collect::<Capabilities>())
    };
    let inheritable = sets.inheritable().clone().unwrap_or_default();
    let ambient: Capabilities = added.intersection(&inheritable).copied().collect();
    if !ambient.is_empty() {
        sets.set_ambient(with(sets.ambient(), &ambient));
    }
    sets.set_bounding(with(sets.bounding(), &added));
    sets.set_effective(with(sets.effective(), &added));
    sets.set_permitted(with(sets.permitted(), &added));
    process.set_capabilities(Some(sets));
    Ok(unknown_warning(&unknown))
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
