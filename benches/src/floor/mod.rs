//! The kernel's floor: what the system calls for one container cost when nobody parses, checks or reports.
//!
//! ```text
//!   maker                                     container
//!   mkdir in every cgroup hierarchy
//!   open tasks
//!   clone3 (pid mnt net ipc uts) ───────────> write 0 to each tasks
//!     (v2: into the cgroup)                   private mounts, rootfs bound read-only
//!                                             /proc /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/fs/cgroup
//!                                             six devices, six links, hostname
//!                                             pivot_root, execve
//!   waitid
//!   rmdir in every hierarchy
//! ```
//!
//! In it: all namespaces, mounts, devices and links of `runc spec`, the cgroups (empty, without limits).
//!
//! Not in it, though the default spec asks for it: masked and readonly paths, capabilities, no_new_privs, the
//! rlimit, the device rules. Nor what runtimes do beside the spec: the loopback device, a session keyring, closing
//! inherited descriptors, their own start, config.json, state, waiting for `start`, sealing their binary, resolving
//! paths against a hostile rootfs.
//!
//! What must not happen here: anything in the timed part that could be done before it.

mod container;
mod names;

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use flint_sys::process::{self, Child, Clone as CloneOptions, Ended};
use flint_sys::{Errno, file};
use nix::fcntl::OFlag;

use crate::cgroup;
use crate::measure::{Sample, process_time};
use names::Names;

/// What a run does, from the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rootfs; it has the folders proc, dev and sys.
    pub rootfs: PathBuf,
    /// The program inside the rootfs: static, takes no arguments.
    pub program: PathBuf,
    /// With a network namespace of its own.
    pub network: bool,
    /// With cgroups.
    pub cgroup: bool,
    /// How much of a container it is.
    pub depth: Depth,
    /// How the cgroups' names begin.
    pub name: String,
}

/// How much of a container is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// clone3 and exec, of the program at its place on the host.
    Exec,
    /// The namespaces too.
    Namespaces,
    /// Mounts, devices and pivot_root too.
    Root,
}

/// All that is known before the first container is made.
#[derive(Debug)]
pub struct Floor {
    /// `CLONE_NEW*`.
    flags: u64,
    /// The program, from the root where it is started.
    program: CString,
    /// `None`: no mounts, no pivot_root.
    rootfs: Option<CString>,
    hierarchies: Vec<Hierarchy>,
    /// No v1 hierarchy at all: `runc spec` then asks for a cgroup namespace and one cgroup2 mount.
    pure_unified: bool,
    name: String,
}

#[derive(Debug)]
struct Hierarchy {
    own: PathBuf,
    /// Its name below /sys/fs/cgroup in the container.
    target: CString,
    unified: bool,
    /// The parent's cpuset.cpus and cpuset.mems, for v1's cpuset.
    cpuset: Option<(Vec<u8>, Vec<u8>)>,
}

impl Floor {
    /// Prepares.
    ///
    /// # Errors
    ///
    /// When the cgroups cannot be read, or a path holds a NUL.
    pub fn new(options: &Options) -> Result<Self> {
        let mut flags = 0;
        if options.depth >= Depth::Namespaces {
            flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
            if options.network {
                flags |= libc::CLONE_NEWNET;
            }
        }
        let inside = options.depth == Depth::Root;
        let rootfs = fs::canonicalize(&options.rootfs)
            .with_context(|| format!("there is no rootfs at {}", options.rootfs.display()))?;
        let outside = rootfs.join(options.program.strip_prefix("/").unwrap_or(&options.program));
        ensure!(outside.is_file(), "there is no program at {}", outside.display());
        let all = if options.cgroup { cgroup::hierarchies()? } else { Vec::new() };
        Ok(Self {
            flags: flags as u64,
            program: names::c_string(if inside { &options.program } else { &outside })?,
            rootfs: inside.then(|| names::c_string(&rootfs)).transpose()?,
            pure_unified: !all.is_empty() && all.iter().all(|hierarchy| hierarchy.unified),
            hierarchies: all.iter().map(Hierarchy::prepare).collect::<Result<_>>()?,
            name: options.name.clone(),
        })
    }

    /// Makes `count` containers, one after the other, and hands the times of each to `each`.
    ///
    /// # Errors
    ///
    /// When a step fails; nothing is left then but what the kernel refuses to remove.
    pub fn run(&self, count: usize, mut each: impl FnMut(Sample) -> Result<()>) -> Result<()> {
        let names = Names::new(self, 0)?;
        for _ in 0..count {
            let cpu = process_time()?;
            let start = Instant::now();
            let ended = self.start(&names).and_then(|child| finish(child).map_err(|errno| failed("waitid", errno)));
            let removed = names.remove();
            let wall = start.elapsed();
            let cpu = process_time()?.saturating_sub(cpu);
            let ended = ended?;
            removed.map_err(|errno| failed("rmdir of a cgroup", errno))?;
            if ended != Ended::Exited(0) {
                bail!("the container did not end with 0: {ended:?}");
            }
            each(Sample { wall, cpu })?;
        }
        Ok(())
    }

    /// Starts `count` containers whose program waits, calls `held` with the time that it took until all of them
    /// have executed it, and ends them when that returns.
    ///
    /// # Errors
    ///
    /// As [`Floor::run`].
    pub fn hold(&self, count: usize, held: impl FnOnce(std::time::Duration) -> Result<()>) -> Result<()> {
        let names = (0..count).map(|index| Names::new(self, index)).collect::<Result<Vec<_>>>()?;
        let mut children = Vec::with_capacity(count);
        let start = Instant::now();
        let started = self.start_all(&names, &mut children);
        let elapsed = start.elapsed();
        let result = started.and_then(|()| held(elapsed));
        for &child in &children {
            end(child);
        }
        let removed: std::result::Result<Vec<()>, Errno> =
            names.iter().take(children.len()).map(Names::remove).collect();
        result?;
        removed.map(drop).map_err(|errno| failed("rmdir of a cgroup", errno))
    }

    fn start_all(&self, names: &[Names], children: &mut Vec<Child>) -> Result<()> {
        // Its writing end is closed by every exec; the reading end ends when all have happened.
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        for names in names {
            match self.start(names) {
                Ok(child) => children.push(child),
                Err(error) => {
                    let _ = names.remove();
                    return Err(error);
                }
            }
        }
        drop(writer);
        fs::File::from(reader).read_to_end(&mut Vec::new()).context("cannot wait for the containers")?;
        Ok(())
    }

    fn start(&self, names: &Names) -> Result<Child> {
        let joined = names.make(self).map_err(|errno| failed("making a cgroup", errno))?;
        let lane = container::Lane { floor: self, names, joined: &joined };
        let options = CloneOptions { flags: self.flags, cgroup: joined.unified(), pidfd: true, block_signals: false };
        let child = process::spawn(options, lane, container::run).map_err(|errno| failed("clone3", errno));
        drop(joined);
        child
    }
}

impl Hierarchy {
    fn prepare(from: &cgroup::Hierarchy) -> Result<Self> {
        let read = |name: &str| {
            let path = from.own.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let target = from.mount.file_name().context("a cgroup hierarchy is mounted on /")?;
        Ok(Self {
            target: names::c_string(Path::new(target))?,
            cpuset: from
                .cpuset
                .then(|| Ok::<_, anyhow::Error>((read("cpuset.cpus")?, read("cpuset.mems")?)))
                .transpose()?,
            own: from.own.clone(),
            unified: from.unified,
        })
    }
}

fn finish(child: Child) -> flint_sys::Result<Ended> {
    let pidfd = child.pidfd.ok_or(Errno(libc::EBADF))?;
    let ended = process::wait(pidfd);
    let _ = file::close(pidfd);
    ended
}

fn end(child: Child) {
    if let Some(pidfd) = child.pidfd {
        let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
    }
    let _ = finish(child);
}

fn failed(step: &str, Errno(number): Errno) -> anyhow::Error {
    anyhow::Error::new(std::io::Error::from_raw_os_error(number)).context(format!("the floor's {step} failed"))
}
