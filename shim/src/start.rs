//! `start`: answers with the address of the shim for a container; starts that shim if its group has none.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::address::{Address, Claim};
use crate::arguments::Arguments;
use crate::bootstrap::Input;
use crate::config;
use crate::options::Options;

/// containerd asks for core scheduling by it.
const CORE_SCHEDULING: &str = "SCHED_CORE";
/// The kernel's least willingness to spare a process.
const MAX_OOM_SCORE: i32 = 1000;

/// The current folder is the container's bundle. Nothing is written to stderr when it goes well: containerd reads it together
/// with stdout.
///
/// # Errors
///
/// A bundle without config.json, a socket that cannot be bound, a shim that cannot be started; then no socket is left.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(!arguments.namespace.is_empty(), "-namespace is missing: containerd always gives one");
    ensure!(!arguments.id.is_empty(), "-id is missing: containerd always gives one");
    let input = Input::read(arguments)?;
    let bundle = std::env::current_dir().context("the bundle is the current folder")?;
    let group = config::group(&bundle, &arguments.id)?;
    let address = Address::of(&arguments.address, &arguments.namespace, &group, input.socket_folder.as_deref());
    // Before there is a socket: wherever this is killed, `delete` finds it.
    address.write(&bundle)?;
    let ours = match address.claim()? {
        Claim::Ours(listener) => {
            let shim = spawn(arguments, &input, &address, listener.into()).inspect_err(|_| address.remove())?;
            Some(shim)
        }
        Claim::Alive => None,
    };
    let told = ours
        .as_ref()
        .map_or(Ok(()), |shim| prepare(shim, &input))
        .and_then(|()| std::io::stdout().write_all(&input.dialect.answer(&address)?).context("answer containerd"));
    if let (Err(_), Some(mut shim)) = (&told, ours) {
        // Nobody knows of it: containerd has died meanwhile, for one.
        let _ = shim.kill();
        let _ = shim.wait();
        address.remove();
    }
    told
}

/// With the listening socket as its standard input, and no other stream of ours: containerd waits until all are closed.
fn spawn(arguments: &Arguments, input: &Input, address: &Address, listener: std::os::fd::OwnedFd) -> Result<Child> {
    if std::env::var_os(CORE_SCHEDULING).is_some_and(|value| !value.is_empty()) {
        // The shim and its containers share a cookie of their own; a kernel without is no reason to fail.
        let _ = rustix::thread::create_core_scheduling_cookie(
            rustix::process::getpid(),
            rustix::thread::CoreSchedulingScope::ThreadGroup,
        );
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["-namespace", &arguments.namespace, "-id", &arguments.id, "-address", &arguments.address])
        .args(["-socket", &address.url()])
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if arguments.debug || input.debug {
        command.arg("-debug");
    }
    if let Some(events) = &input.events {
        command.env("TTRPC_ADDRESS", events);
    }
    command.spawn().context("start the shim")
}

/// What is set from outside, before containerd is told of it.
fn prepare(shim: &Child, input: &Input) -> Result<()> {
    let options = Options::decode(input.options.as_ref())?.unwrap_or_default();
    if !options.shim_cgroup.is_empty() {
        join(&options.shim_cgroup, shim.id())?;
    }
    // The kernel takes a shim before containerd, and a container before its shim.
    let score: i32 = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", std::os::unix::process::parent_id()))
        .ok()
        .and_then(|score| score.trim().parse().ok())
        .unwrap_or(0);
    let score = (score + 1).min(MAX_OOM_SCORE);
    // Without the right to lower it, it stays higher: no harm.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", shim.id()), score.to_string());
    Ok(())
}

/// Puts the shim into a cgroup of every hierarchy, made where it is missing.
fn join(cgroup: &str, pid: u32) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let relative = cgroup.trim_start_matches('/');
    ensure!(!Path::new(relative).components().any(|part| part.as_os_str() == ".."), "ShimCgroup {cgroup} has a ..");
    let hierarchies: Vec<_> = if root.join("cgroup.controllers").exists() {
        vec![root.to_owned()]
    } else {
        std::fs::read_dir(root).context("read /sys/fs/cgroup")?.flatten().map(|entry| entry.path()).collect()
    };
    let mut joined = false;
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.join("cgroup.procs").exists()) {
        let folder = hierarchy.join(relative);
        let done = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("cgroup.procs"), pid.to_string()));
        match done {
            Ok(()) => joined = true,
            // An empty cpuset takes nobody; the other hierarchies do.
            Err(error) if hierarchies.len() == 1 => {
                return Err(error).with_context(|| format!("put the shim into the cgroup {}", folder.display()));
            }
            Err(_) => {}
        }
    }
    ensure!(joined, "put the shim into the cgroup {cgroup}: no hierarchy took it");
    Ok(())
}
