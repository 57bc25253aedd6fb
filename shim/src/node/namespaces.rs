//! Namespaces made by a thread that ends at once: what holds them are descriptors and mounts.
//!
//! A user namespace is out of a thread's reach (user_namespaces(7)), and nobody asks for one here.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Child;

use flint_shim_protocol::{Network, Sandbox};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::statfs;

use super::record::Init;
use crate::error::{Error, Result};
use crate::pause;

/// The thread does system calls only; musl wants some room for its own.
const STACK: usize = 64 << 10;
/// `NSFS_MAGIC`
const NSFS: u64 = 0x6e73_6673;

/// What a pod's containers join.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) ipc: Option<OwnedFd>,
    pub(super) uts: Option<OwnedFd>,
    /// Of process 1 of shared pids, once a container wanted it.
    pub(super) pids: Option<OwnedFd>,
}

/// Runs in a thread of its own, whose namespaces end with it unless they are held.
fn apart<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failure = |error: std::io::Error| Error::system("start a thread for namespaces", error);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(failure)?;
        thread.join().unwrap_or_else(|_| Err(Error::system("make namespaces", "the thread has ended")))
    })
}

/// A namespace of the calling thread.
fn own(kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{kind}");
    File::open(&path).map(OwnedFd::from).map_err(|error| Error::system(format!("open {path}"), error))
}

fn failed(doing: &str) -> impl FnOnce(nix::errno::Errno) -> Error {
    move |errno| Error::system(doing, errno)
}

/// A network namespace, with its loopback device up.
///
/// # Errors
///
/// The kernel refuses (a limit in /proc/sys/user, memory).
pub(super) fn network() -> Result<OwnedFd> {
    apart("network", || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make a network namespace"))?;
        flint_runtime::loopback_up()?;
        own("net")
    })
}

/// Binds a network namespace to a path, where it stays without us.
///
/// # Errors
///
/// The path cannot be made; the kernel refuses the mount.
pub(super) fn bind(namespace: &OwnedFd, path: &Path) -> Result<()> {
    let failure =
        |error: std::io::Error| Error::system(format!("bind a network namespace to {}", path.display()), error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failure)?;
    }
    File::options().write(true).create(true).truncate(false).open(path).map_err(failure)?;
    let source = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
    mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| failure(errno.into()))
}

/// Whether a namespace is bound there.
pub(super) fn is_bound(path: &Path) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
    statfs(path).is_ok_and(|stat| stat.filesystem_type().0 as u64 == NSFS)
}

/// # Errors
///
/// The kernel refuses. What is not there is fine.
pub(super) fn unbind(path: &Path) -> Result<()> {
    let failure = |error: std::io::Error| Error::system(format!("take {} away", path.display()), error);
    while is_bound(path) {
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| failure(errno.into()))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure(error)),
        _ => Ok(()),
    }
}

/// Makes the namespaces of a pod but for its network, sets what belongs in them, and starts process 1 of shared pids, which
/// `keep` writes down before it may outlive us.
///
/// # Errors
///
/// What the kernel refuses; a sysctl that is not in a namespace of the pod's own. Nothing is left then.
pub(super) fn make(sandbox: &Sandbox, keep: impl FnOnce(Init) -> Result<()> + Send) -> Result<(Held, Option<Child>)> {
    apart("pod", || {
        let mut own_ones = CloneFlags::empty();
        own_ones.set(CloneFlags::CLONE_NEWIPC, !sandbox.host_ipc);
        own_ones.set(CloneFlags::CLONE_NEWUTS, !sandbox.hostname.is_empty());
        own_ones.set(CloneFlags::CLONE_NEWPID, sandbox.share_pids);
        unshare(own_ones).map_err(failed("make the pod's namespaces"))?;
        // `set` takes both separators.
        let sets_network = sandbox.sysctls.keys().any(|name| name.starts_with("net.") || name.starts_with("net/"));
        // Process 1 is seen with its network by all who share its pids.
        if sandbox.network() != Network::Host && (sets_network || sandbox.share_pids) {
            let path = &sandbox.network_path;
            let namespace = File::open(path).map_err(|error| Error::system(format!("open {path}"), error))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(failed("join the pod's network namespace"))?;
        }
        if !sandbox.hostname.is_empty() {
            nix::unistd::sethostname(&sandbox.hostname).map_err(failed("set the pod's hostname"))?;
        }
        sandbox.sysctls.iter().try_for_each(|(name, value)| set(sandbox, name, value))?;
        let mut held = Held::default();
        if !sandbox.host_ipc {
            held.ipc = Some(own("ipc")?);
        }
        if !sandbox.hostname.is_empty() {
            held.uts = Some(own("uts")?);
        }
        let init = sandbox.share_pids.then(|| start_init(keep)).transpose()?;
        Ok((held, init))
    })
}

/// Only what the pod's own namespaces hold: anything else would be the host's.
fn set(sandbox: &Sandbox, name: &str, value: &str) -> Result<()> {
    let path = name.replace('.', "/");
    let own = match path.split_once('/') {
        Some(("net", _)) => sandbox.network() != Network::Host,
        Some(("fs", rest)) => !sandbox.host_ipc && rest.starts_with("mqueue/"),
        Some(("kernel", rest)) => {
            !sandbox.host_ipc && (rest.starts_with("shm") || rest.starts_with("msg") || rest == "sem")
        }
        _ => false,
    };
    if !own || path.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("sysctl {name} is not in a namespace of the pod's own")));
    }
    std::fs::write(format!("/proc/sys/{path}"), value)
        .map_err(|error| Error::system(format!("set the sysctl {name} to {value}"), error))
}

/// Process 1 of the pod's pids: it waits for a byte, and ends if we die before it is written down.
fn start_init(keep: impl FnOnce(Init) -> Result<()>) -> Result<Child> {
    let failure = |error: std::io::Error| Error::system("start the pod's process 1", error);
    let mut child = pause::start(pause::LASTING)?;
    let pid = child.id() as i32;
    let started = flint_runtime::start_time(pid).ok_or_else(|| failure(std::io::Error::other("it has ended at once")));
    let kept = started
        .and_then(|started| keep(Init { pid, started }))
        .and_then(|()| child.stdin.take().map_or(Ok(()), |mut input| input.write_all(b"!")).map_err(failure));
    if let Err(error) = kept {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    use flint_shim_protocol::{Network, Sandbox};

    use super::set;

    #[test]
    fn only_the_pods_own_sysctls_are_set() {
        let host = Sandbox { host_ipc: true, ..Sandbox::default() };
        let own = Sandbox { network: Network::Own.into(), ..Sandbox::default() };
        for (sandbox, name) in
            [(&host, "net.ipv4.ip_forward"), (&host, "kernel.shmmax"), (&own, "kernel.panic"), (&own, "vm.swappiness")]
        {
            let error = set(sandbox, name, "1").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("own"), "{error}");
        }
    }
}
