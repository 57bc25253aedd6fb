//! One sandbox: what it holds, and what a container's config.json gets of it.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;

use flint_runtime::{Bundle, Process, Runtime};
use flint_shim_protocol::{Network, Sandbox, SandboxMade, SandboxState};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::locked;
use super::namespaces::{self, Held};
use super::networks::Networks;
use super::record::{Init, Record};
use crate::error::{Error, Result};

/// Below the sandbox's folder.
const SHM: &str = "shm";
/// How long process 1 may take to end once it was killed, in milliseconds.
const DYING: u16 = 30_000;

/// A sandbox that is there.
#[derive(Debug)]
pub(crate) struct Pod {
    wanted: Sandbox,
    held: Mutex<Held>,
    init: Option<Init>,
    /// Process 1, if it is ours to reap.
    child: Option<Child>,
}

impl Pod {
    /// Makes what is missing of it: of a new one all, of one that another shim made what died with that shim. Called on a
    /// thread that may wait.
    ///
    /// # Errors
    ///
    /// What is wrong with the request; what the kernel refuses. Of a new one nothing is left then.
    pub(super) fn make(wanted: Sandbox, networks: &Networks, runtime: &Runtime) -> Result<(Self, SandboxMade)> {
        check(&wanted)?;
        let folder = PathBuf::from(&wanted.folder);
        let kept = Record::load(&folder)?;
        let was_there = kept.is_some();
        let made = Self::complete(wanted, &kept.unwrap_or_default(), networks, &folder);
        let (pod, was_ready) = made.map_err(|error| {
            let removed = if was_there { Ok(()) } else { remove(&folder, runtime) };
            // The first error first.
            removed.err().into_iter().fold(error, |error, left| error.and(&left))
        })?;
        let told = SandboxMade { was_ready, was_there, ..pod.told() };
        Ok((pod, told))
    }

    fn complete(wanted: Sandbox, kept: &Record, networks: &Networks, folder: &Path) -> Result<(Self, bool)> {
        let mut record = Record { init: kept.init, ..Record::new(&wanted) };
        // Before what it speaks of: whatever happens, it is found.
        record.save(folder)?;
        let mut was_ready = false;
        if let Some(path) = record.own_network.as_ref().filter(|path| !namespaces::is_bound(path)) {
            let (namespace, ready) = networks.take()?;
            namespaces::bind(&namespace, path)?;
            was_ready = ready;
        }
        if record.has_shm {
            mount_shm(folder, wanted.shm_bytes)?;
        }
        if let Some(init) = record.init.filter(is_alive) {
            let held = Mutex::new(of_process(&wanted, init.pid, || is_alive(&init))?);
            return Ok((Self { wanted, held, init: Some(init), child: None }, was_ready));
        }
        let mut init = None;
        let keep = |new: Init| {
            init = Some(new);
            record.init = Some(new);
            record.save(folder)
        };
        // Of one that was there, the containers have them: see `take_over`.
        let is_new = kept.version == 0;
        let (held, child) =
            if is_new || wanted.share_pids { namespaces::make(&wanted, keep)? } else { (Held::default(), None) };
        Ok((Self { wanted, held: Mutex::new(held), init, child }, was_ready))
    }

    /// What a caller is told of it.
    pub(super) fn told(&self) -> SandboxMade {
        let held = locked(&self.held);
        let path = |fd: &Option<std::os::fd::OwnedFd>| fd.as_ref().map(path_of).unwrap_or_default();
        let network =
            if self.wanted.network() == Network::Host { String::new() } else { self.wanted.network_path.clone() };
        SandboxMade {
            id: self.wanted.id.clone(),
            pid: self.init.map_or(0, |init| init.pid as u32),
            ipc: path(&held.ipc),
            uts: path(&held.uts),
            network,
            ..SandboxMade::default()
        }
    }

    pub(super) fn state(&self) -> SandboxState {
        let (id, folder) = (self.wanted.id.clone(), self.wanted.folder.clone());
        SandboxState { id, folder, pid: self.init.map_or(0, |init| init.pid as u32) }
    }

    /// A container of it that runs was adopted: its namespaces are the pod's, and held from now on.
    pub(super) fn take_over(&self, container: &flint_runtime::Process) -> Result<()> {
        let mut held = locked(&self.held);
        if held.ipc.is_none() && held.uts.is_none() {
            *held = of_process(&self.wanted, container.pid(), || !container.has_ended())?;
        }
        Ok(())
    }

    /// The bundle of one of its containers, with the pod's namespaces. Called on a thread that may wait.
    ///
    /// # Errors
    ///
    /// A config.json that is no longer one with them; namespaces that died with another shim and cannot be made again.
    pub(crate) fn furnish(&self, bundle: &Bundle) -> Result<Bundle> {
        let mut held = locked(&self.held);
        let lacks = |wanted: bool, held: &Option<std::os::fd::OwnedFd>| wanted && held.is_none();
        if lacks(!self.wanted.host_ipc, &held.ipc) || lacks(!self.wanted.hostname.is_empty(), &held.uts) {
            // No container of it has lived on: nobody is in the old ones.
            let keep = |_: Init| Err(Error::system("hold the pod's namespaces", "there are shared pids"));
            *held = namespaces::make(&Sandbox { share_pids: false, ..self.wanted.clone() }, keep)?.0;
        }
        if let (Some(init), None) = (&self.init, &held.pids) {
            held.pids = Some(open_namespace(init.pid, "pid")?);
        }
        // After it was opened: the pid may be another process's by now, whose namespace is none of the pod's.
        if let Some(init) = self.init.filter(|init| !is_alive(init)) {
            held.pids = None;
            let id = &self.wanted.id;
            let why = format!("process {}, the first of the pids that sandbox {id} shares, has ended", init.pid);
            return Err(Error::wrong_state(format!("{why}: remove the pod and make it anew")));
        }
        let paths = [
            ("ipc", held.ipc.as_ref().map(path_of)),
            ("uts", held.uts.as_ref().map(path_of)),
            ("network", Some(self.wanted.network_path.clone()).filter(|_| self.wanted.network() != Network::Host)),
            ("pid", held.pids.as_ref().map(path_of)),
        ];
        let malformed = |error| Error::system("put the pod's namespaces into config.json", error);
        let mut config: Value = serde_json::from_slice(bundle.json()).map_err(malformed)?;
        join(&mut config, &paths);
        if self.wanted.shm_bytes != 0 {
            share_memory(&mut config, &Path::new(&self.wanted.folder).join(SHM));
        }
        Ok(Bundle::from_parts(bundle.path().to_owned(), config.to_string().into_bytes())?)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It has ended, and nobody else waits for it.
        let _ = self.child.as_mut().map(Child::try_wait);
    }
}

/// As another process opens it, while the shim lives.
fn path_of(fd: &std::os::fd::OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

fn check(wanted: &Sandbox) -> Result<()> {
    let wrong = |why: &str| Err(Error::invalid(format!("sandbox {:?}: {why}", wanted.id)));
    if wanted.id.is_empty() {
        return wrong("it has no id");
    }
    if !wanted.folder.starts_with('/') {
        return wrong("its folder has to be an absolute path");
    }
    let Ok(network) = Network::try_from(wanted.network) else { return wrong("its kind of network is unknown here") };
    if network != Network::Host && !wanted.network_path.starts_with('/') {
        return wrong("its network namespace needs an absolute path");
    }
    Ok(())
}

/// Namespaces of a process that is in them, which is known by more than its pid.
fn of_process(wanted: &Sandbox, pid: i32, is_alive: impl FnOnce() -> bool) -> Result<Held> {
    let ipc = (!wanted.host_ipc).then(|| open_namespace(pid, "ipc")).transpose()?;
    let uts = (!wanted.hostname.is_empty()).then(|| open_namespace(pid, "uts")).transpose()?;
    // After they were opened: the pid may be another process's by now.
    if !is_alive() {
        return Err(Error::wrong_state(format!("process {pid}, whose namespaces the pod shares, has ended")));
    }
    Ok(Held { ipc, uts, pids: None })
}

fn open_namespace(pid: i32, kind: &str) -> Result<std::os::fd::OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    std::fs::File::open(&path).map(Into::into).map_err(|error| Error::system(format!("open {path}"), error))
}

fn is_alive(init: &Init) -> bool {
    flint_runtime::start_time(init.pid) == Some(init.started)
}

/// Puts paths into `linux.namespaces` in place of what is there without one; no path: the host's.
fn join(config: &mut Value, paths: &[(&str, Option<String>)]) {
    let Some(linux) = object(config, "linux") else { return };
    let list = linux.entry("namespaces").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    let mut joins_uts = false;
    for (kind, path) in paths {
        // Each container has its own pids where the pod does not share them.
        if *kind == "pid" && path.is_none() {
            continue;
        }
        if list.iter().any(|entry| entry["type"] == *kind && entry["path"].is_string()) {
            continue;
        }
        list.retain(|entry| entry["type"] != *kind);
        if let Some(path) = path {
            list.push(json!({"type": kind, "path": path}));
        }
        joins_uts |= *kind == "uts";
    }
    if joins_uts && let Some(config) = config.as_object_mut() {
        // The pod has its name already, or the host's is to stay.
        config.remove("hostname");
        config.remove("domainname");
    }
}

fn object<'a>(config: &'a mut Value, name: &str) -> Option<&'a mut serde_json::Map<String, Value>> {
    config.as_object_mut()?.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

/// Mounts the pod's file system at /dev/shm, where the container does not mount something else.
fn share_memory(config: &mut Value, source: &Path) {
    let Some(config) = config.as_object_mut() else { return };
    let Some(mounts) = config.entry("mounts").or_insert_with(|| json!([])).as_array_mut() else { return };
    // The default that bundles start from: each container's own.
    mounts.retain(|mount| !(mount["destination"] == "/dev/shm" && mount["source"] == "shm"));
    if mounts.iter().all(|mount| mount["destination"] != "/dev/shm") {
        let options = ["rbind", "rprivate", "rw"];
        mounts.push(json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": options}));
    }
}

fn mount_shm(folder: &Path, bytes: u64) -> Result<()> {
    let path = folder.join(SHM);
    let failure = |error: std::io::Error| Error::system(format!("mount the pod's {}", path.display()), error);
    std::fs::create_dir_all(&path).map_err(failure)?;
    if is_mountpoint(folder, &path).map_err(failure)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode=1777,size={bytes}");
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str())).map_err(|errno| failure(errno.into()))
}

fn is_mountpoint(folder: &Path, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(folder)?.dev() != std::fs::metadata(path)?.dev())
}

/// Takes away what a sandbox's folder speaks of, whoever made it; twice is once. Called on a thread that may wait.
///
/// # Errors
///
/// What cannot be taken away; then it can be tried again.
pub(super) fn remove(folder: &Path, runtime: &Runtime) -> Result<()> {
    let Some(record) = Record::load(folder)? else { return Ok(()) };
    if let Some(init) = record.init {
        end(init)?;
    }
    if record.has_shm {
        let shm = folder.join(SHM);
        match umount2(&shm, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(Error::system(format!("unmount {}", shm.display()), errno)),
        }
        let _ = std::fs::remove_dir(&shm);
    }
    if let Some(path) = &record.own_network {
        namespaces::unbind(path)?;
    }
    if let Some(cgroup) = &record.cgroup {
        runtime.remove_cgroup(cgroup)?;
    }
    Record::remove(folder)
}

/// Kills process 1, unless it has ended, and waits for its end.
fn end(init: Init) -> Result<()> {
    let Some(process) = Process::of_stranger(init.pid, init.started)? else { return Ok(()) };
    // Ended meanwhile is what is wanted.
    let _ = process.signal(nix::libc::SIGKILL);
    let mut fds = [nix::poll::PollFd::new(process.pidfd(), nix::poll::PollFlags::POLLIN)];
    match nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(DYING)) {
        Ok(0) => Err(Error::system("end the pod's process 1", "it was killed and does not end")),
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::system("wait for the end of the pod's process 1", errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::{join, share_memory};

    #[test]
    fn containers_get_the_pods_namespaces_and_keep_what_they_name_themselves() {
        let mut config = json!({"hostname": "x", "linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "network"}, {"type": "uts", "path": "/mine"}]}});
        join(
            &mut config,
            &[("ipc", Some("/i".to_owned())), ("uts", Some("/u".to_owned())), ("network", None), ("pid", None)],
        );
        let expected = json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts", "path": "/mine"}, {"type": "ipc", "path": "/i"}]);
        assert_eq!(config["linux"]["namespaces"], expected);
        assert_eq!(config["hostname"], "x", "its UTS namespace is its own affair");
        let mut config = json!({"hostname": "x"});
        join(&mut config, &[("uts", Some("/u".to_owned())), ("pid", Some("/p".to_owned()))]);
        let expected = json!([{"type": "uts", "path": "/u"}, {"type": "pid", "path": "/p"}]);
        assert_eq!(config, json!({"linux": {"namespaces": expected}}));
    }

    #[test]
    fn memory_is_shared_unless_the_container_has_its_own() {
        let default = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"});
        let mut config = json!({"mounts": [default]});
        share_memory(&mut config, Path::new("/pod/shm"));
        assert_eq!(config["mounts"].as_array().unwrap().len(), 1);
        assert_eq!(config["mounts"][0]["source"], "/pod/shm");
        let mut config = json!({"mounts": [{"destination": "/dev/shm", "type": "bind", "source": "/mine"}]});
        let before = config.clone();
        share_memory(&mut config, Path::new("/pod/shm"));
        assert_eq!(config, before);
    }
}
