//! How a pod's namespaces are held without a container for it: by a sleeping thread of the shim, as `/proc/TID/ns/*`.
//!
//! A thread costs its kernel stack and one page; a pause container costs a process, an image and a cgroup. The network
//! namespace is made by containerd, and the thread only joins it. Two namespaces are out of a thread's reach:
//!
//! - pids that the pod shares need a process 1 that reaps: then the thread starts one, which is the shim's own program
//!   ([`crate::pause`]), and the pod's pid is that process's;
//! - users: a process with threads cannot enter a user namespace (user_namespaces(7)). Such pods are refused; containerd's
//!   own way of making sandboxes (`sandboxer = "podsandbox"`) makes them.

use std::fs::File;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};

use super::request::{Mode, PodConfig};
use crate::error::{Error, Result};
use crate::pause;

/// The thread does system calls only; musl wants some room for its own.
const STACK: usize = 64 << 10;

/// The namespaces, while this lives.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Of the thread, or of the process 1 that the pod shares.
    pub(crate) pid: u32,
    /// Whether containers may join `pid`'s pid namespace: else it is the host's.
    pub(crate) shares_pids: bool,
    init: Option<Child>,
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread made.
type Made = Result<(u32, Option<Child>)>;

impl Namespaces {
    /// Makes those that the pod has for itself. Called on a thread that may wait.
    ///
    /// # Errors
    ///
    /// A user namespace is asked for; what the kernel refuses. Nothing is left then.
    pub(crate) fn make(config: &PodConfig, network: &Path) -> Result<Self> {
        if config.users {
            return Err(Error::invalid(
                "a pod with a user namespace needs a process of its own: configure its runtime with sandboxer = \"podsandbox\"",
            ));
        }
        let (made, answer) = channel::<Made>();
        let (end, ended) = channel::<()>();
        let (wanted, network) = (config.clone(), network.to_owned());
        let thread = std::thread::Builder::new()
            .name("pod".to_owned())
            .stack_size(STACK)
            .spawn(move || hold(&wanted, &network, &made, &ended))
            .map_err(|error| Error::system("start the thread that holds the pod's namespaces", error))?;
        let (pid, init) = answer
            .recv()
            .map_err(|_| Error::system("hold the pod's namespaces", "the thread has ended"))
            .and_then(|made| made)?;
        let shares_pids = init.is_some();
        Ok(Self { pid, shares_pids, init, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if let Some(mut init) = self.init.take() {
            let _ = init.kill();
            let _ = init.wait();
        }
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn hold(config: &PodConfig, network: &Path, made: &Sender<Made>, ended: &Receiver<()>) {
    let entered = enter(config, network);
    let ready = entered.is_ok();
    if made.send(entered).is_ok() && ready {
        // Returns when the other end is dropped.
        let _ = ended.recv();
    }
}

fn enter(config: &PodConfig, network: &Path) -> Made {
    let failure = |doing: &str| {
        let doing = format!("{doing} for the pod");
        move |errno: nix::errno::Errno| Error::system(doing, errno)
    };
    let mut own = CloneFlags::empty();
    own.set(CloneFlags::CLONE_NEWIPC, config.ipc == Mode::Pod);
    own.set(CloneFlags::CLONE_NEWUTS, config.network != Mode::Node);
    own.set(CloneFlags::CLONE_NEWPID, config.pid == Mode::Pod);
    unshare(own).map_err(failure("make namespaces"))?;
    if config.network != Mode::Node && !network.as_os_str().is_empty() {
        let namespace = File::open(network)
            .map_err(|error| Error::system(format!("open the network namespace {}", network.display()), error))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(failure("join the network namespace"))?;
    }
    if own.contains(CloneFlags::CLONE_NEWUTS) && !config.hostname.is_empty() {
        nix::unistd::sethostname(&config.hostname).map_err(failure("set the hostname"))?;
    }
    for (name, value) in &config.sysctls {
        set(config, network, name, value)?;
    }
    if own.contains(CloneFlags::CLONE_NEWPID) {
        // It dies with this thread; if that is too early, it finds its standard input left.
        let init = pause::start(pause::ACTION)?;
        return Ok((init.id(), Some(init)));
    }
    Ok((nix::unistd::gettid().as_raw() as u32, None))
}

/// Only what the pod's own namespaces hold: anything else would be the host's. So would its network without a path.
fn set(config: &PodConfig, network: &Path, name: &str, value: &str) -> Result<()> {
    let path = name.replace('.', "/");
    let own = match path.split_once('/') {
        Some(("net", _)) => config.network != Mode::Node && !network.as_os_str().is_empty(),
        Some(("fs", rest)) => config.ipc == Mode::Pod && rest.starts_with("mqueue/"),
        Some(("kernel", rest)) => {
            config.ipc == Mode::Pod && (rest.starts_with("shm") || rest.starts_with("msg") || rest == "sem")
        }
        _ => false,
    };
    if !own || path.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!("sysctl {name} is not in a namespace of the pod's own")));
    }
    std::fs::write(format!("/proc/sys/{path}"), value)
        .map_err(|error| Error::system(format!("set the sysctl {name} to {value}"), error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Mode, PodConfig, set};

    #[test]
    fn only_the_pods_own_sysctls_are_set() {
        let own = PodConfig::default();
        let host = PodConfig { network: Mode::Node, ipc: Mode::Node, ..PodConfig::default() };
        // None is there, so that nothing is set.
        for (config, network, name) in [
            (&own, "", "net.no_such"),
            (&own, "", "net/no_such"),
            (&own, "/run/netns/x", "kernel.no_such"),
            (&host, "/run/netns/x", "net.no_such"),
            (&host, "/run/netns/x", "kernel.shm_no_such"),
        ] {
            let error = set(config, Path::new(network), name, "1").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("not in a namespace of the pod's own"), "{error}");
        }
        let error = set(&own, Path::new("/run/netns/x"), "net.no_such", "1").unwrap_err().to_string();
        assert!(error.contains("set the sysctl"), "{error}");
    }
}
