//! Process 1 of a pod whose containers share their pids: it reaps, and ends when it is told to.
//!
//! The containers see it by its number. One with `CAP_SYS_PTRACE` has by `/proc/1` and ptrace(2) whatever this process has, so
//! it has nothing: an empty root, no capabilities, no system calls but its own, and the namespaces of the pod.

use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::process::Signal as DeathSignal;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::error::Error;

/// The action of the command line. Nobody calls it but the shim.
pub(crate) const ACTION: &str = "pause";
/// The same for a pod that outlives its shim: it stays once a byte has come by standard input.
pub(crate) const LASTING: &str = "pause-lasting";

/// What it says when it has nothing left that a container could take.
const CONFINED: u8 = b'!';

/// Starts it, in the namespaces of the calling thread, and returns when it is confined. It holds the other end of its standard input.
///
/// # Errors
///
/// It cannot be started; what it says of its own failure. Nothing is left then.
pub(crate) fn start(action: &str) -> std::result::Result<Child, Error> {
    let failure = |error: std::io::Error| Error::system("start the pod's process 1", error);
    let (mut told, tells) = std::io::pipe().map_err(failure)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(action).current_dir("/").env_clear().stdin(Stdio::piped());
    command.stdout(tells.try_clone().map_err(failure)?).stderr(tells);
    let mut child = command.spawn().map_err(failure)?;
    // Its own ends are the only ones from now on.
    drop(command);
    is_confined(&mut told).map_err(|error| {
        let _ = child.kill();
        let _ = child.wait();
        failure(error)
    })?;
    Ok(child)
}

fn is_confined(told: &mut PipeReader) -> std::io::Result<()> {
    let mut first = [0];
    told.read_exact(&mut first)?;
    if first == [CONFINED] {
        return Ok(());
    }
    let mut text = first.to_vec();
    told.read_to_end(&mut text)?;
    Err(std::io::Error::other(String::from_utf8_lossy(&text).trim().to_owned()))
}

/// # Errors
///
/// The kernel refuses what root may do.
pub(crate) fn run(lasting: bool) -> Result<()> {
    if !lasting {
        rustix::process::set_parent_process_death_signal(Some(DeathSignal::KILL)).context("follow the shim")?;
        // It may have died before; nobody but a living one has the other end of this pipe.
        if is_left().context("look at standard input")? {
            return Ok(());
        }
    }
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("block signals")?;
    confine().context("have nothing that a container could take")?;
    std::io::stdout().write_all(&[CONFINED]).and_then(|()| std::io::stdout().flush()).context("tell the shim")?;
    // The end instead: the shim has died before it wrote down that there is this process.
    if lasting && std::io::stdin().lock().read(&mut [0]).context("wait for the shim's word")? == 0 {
        return Ok(());
    }
    loop {
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)) {}
        if signals.wait().context("wait for a signal")? != Signal::SIGCHLD {
            return Ok(());
        }
    }
}

/// Gives up all that a container that shares these pids should not have.
fn confine() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("part from the host's mounts")?;
    // A folder that is there for sure; nobody else sees what covers it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("pause"), "/proc", Some("tmpfs"), flags, Some("mode=555")).context("mount an empty root")?;
    nix::unistd::chdir("/proc").context("enter the empty root")?;
    rustix::process::pivot_root(".", ".").context("make it the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the host's root")?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).context("drop the capabilities")?;
    flint_runtime::seccomp::leave_only(&["read", "write", "wait4", "rt_sigtimedwait", "exit_group"])?;
    Ok(())
}

/// Whether nobody can write to standard input any more.
fn is_left() -> nix::Result<bool> {
    let input = std::io::stdin();
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds.iter().filter_map(PollFd::revents).any(|events| events.contains(PollFlags::POLLHUP)))
}
