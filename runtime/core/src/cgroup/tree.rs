//! Making the container's folders and writing its limits.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use flint_sys::bpf;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{AccessFlags, faccessat};

use super::branch::{Branch, open_beneath, open_mountpoint, read_at, write_once};
use super::layout::{Layout, Unified};
use super::live::{Cgroup, Paths};
use super::plan::{Base, Need, Plan, Write};
use super::{device_filter, devices, removal};
use crate::{Error, Kind, Result};

/// What a cpuset needs before a process may be in it.
const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// All folders of one container, and which of them were not there before.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) v1: Vec<Branch>,
    pub(super) unified: Option<Branch>,
    /// In the order they were made, parents first.
    made: Vec<PathBuf>,
    unified_is_fresh: bool,
    /// Where the caller may not make a folder, in a plan that goes on without: the hierarchies' names, and why.
    refused: Vec<(String, Error)>,
    /// A process that may be in them already.
    occupant: Option<i32>,
}

impl Tree {
    /// Makes the folders and writes the limits; on failure removes exactly what it made.
    pub(super) fn grow(layout: &Layout, plan: &Plan, occupant: Option<i32>) -> Result<Self> {
        let mut tree = Self { occupant, ..Self::default() };
        match tree.build(layout, plan) {
            Ok(()) => Ok(tree),
            Err(error) => Err(error.with_cleanup(tree.uproot())),
        }
    }

    /// Where the folders will be.
    pub(super) fn places(layout: &Layout, plan: &Plan) -> Paths {
        if plan.need == Need::Nowhere {
            return Paths::default();
        }
        let joined_hierarchies = || layout.hierarchies().iter().filter(|hierarchy| hierarchy.is_joined());
        let v1 = joined_hierarchies().map(|hierarchy| {
            (hierarchy.name.clone(), hierarchy.mountpoint.join(joined(plan, &hierarchy.own).trim_start_matches('/')))
        });
        let unified = layout.unified_tree().map(|unified| {
            let path = joined(plan, unified_base(unified, joined_hierarchies().next().is_none()));
            unified.mountpoint.join(path.trim_start_matches('/'))
        });
        Paths { v1: v1.collect(), unified, unit: plan.systemd.as_ref().map(|scope| scope.unit.clone()) }
    }

    fn build(&mut self, layout: &Layout, plan: &Plan) -> Result<()> {
        if plan.need == Need::Nowhere {
            return Ok(());
        }
        let forgiven = |error: &Error| plan.need == Need::WherePermitted && error.kind() == Kind::Permission;
        for hierarchy in layout.hierarchies().iter().filter(|hierarchy| hierarchy.is_joined()) {
            let place = Place {
                name: &hierarchy.name,
                mountpoint: &hierarchy.mountpoint,
                path: joined(plan, &hierarchy.own),
                is_cpuset: hierarchy.has("cpuset"),
            };
            match place.make(&mut self.made, self.occupant) {
                Ok((branch, _)) => self.v1.push(branch),
                // It limits nothing; runc goes on without it, too (a container whose name=systemd is read-only).
                Err(error) if hierarchy.name.starts_with("name=") && error.kind() != Kind::AlreadyExists => {}
                Err(error) if forgiven(&error) => self.refused.push((hierarchy.name.clone(), error)),
                Err(error) => return Err(error),
            }
        }
        if let Some(unified) = layout.unified_tree() {
            let path = joined(plan, unified_base(unified, self.v1.is_empty()));
            let place = Place { name: "", mountpoint: &unified.mountpoint, path, is_cpuset: false };
            let needed = self.v1.is_empty() || plan.device_filter || !plan.enable.is_empty();
            match place.make(&mut self.made, self.occupant) {
                Ok((branch, fresh)) => {
                    enable_controllers(&place, &branch, plan)?;
                    self.unified_is_fresh = fresh;
                    self.unified = Some(branch);
                }
                Err(error) if !needed && error.kind() != Kind::AlreadyExists => {}
                Err(error) if forgiven(&error) => self.refused.push((String::new(), error)),
                Err(error) => return Err(error),
            }
        }
        self.write_limits(plan)?;
        match self.guard_devices(plan) {
            Err(error) if plan.devices_where_permitted && error.kind() == Kind::Permission => Ok(()),
            result => result,
        }
    }

    /// Undoes [`Tree::grow`].
    fn uproot(&self) -> Result<()> {
        self.made.iter().rev().try_for_each(|path| removal::remove_folder(path))
    }

    fn write_limits(&self, plan: &Plan) -> Result<()> {
        let mut again = Vec::new();
        let mut last: Option<(&Write, OwnedFd)> = None;
        let is_optional =
            |write: &Write| write.optional || (plan.devices_where_permitted && write.controller == "devices");
        for write in &plan.writes {
            if is_optional(write) && self.refused.iter().any(|(name, _)| *name == write.hierarchy) {
                continue;
            }
            let branch = self.branch_of(write)?;
            // The devices' rules are many writes to one file.
            let reused = last.take().filter(|(earlier, _)| {
                write.instead.is_none() && (&earlier.hierarchy, &earlier.file) == (&write.hierarchy, &write.file)
            });
            let result = match reused {
                Some((_, file)) => write_once(&file, &write.value).map(|()| Some(file)),
                None => set(branch, write),
            };
            match result {
                Ok(file) => last = file.map(|file| (write, file)),
                // Another file's old value may be in the way: see v1.rs.
                Err(Errno::EINVAL | Errno::EBUSY) => again.push(write),
                Err(Errno::EPERM | Errno::EACCES) if write.controller == "devices" && is_optional(write) => {}
                Err(errno) => return Err(refused(branch, write, errno)),
            }
        }
        again.into_iter().try_for_each(|write| {
            let branch = self.branch_of(write)?;
            set(branch, write).map(|_| ()).map_err(|errno| refused(branch, write, errno))
        })
    }

    fn branch_of(&self, write: &Write) -> Result<&Branch> {
        if let Some((_, error)) = self.refused.iter().find(|(name, _)| *name == write.hierarchy) {
            // The words of runc, which its callers know.
            let what = match write.hierarchy.as_str() {
                "" => "rootless needs no limits + no cgrouppath when no permission is granted for cgroups".to_owned(),
                _ => format!("cannot set {} limit: container could not join or create cgroup", write.controller),
            };
            let hint = "leave the limit out, or have a cgroup delegated to you and name it in linux.cgroupsPath";
            return Err(Error::new(Kind::Permission, format!("{what}: {error} ({hint})")));
        }
        let mut branches = self.v1.iter().chain(&self.unified);
        branches.find(|branch| branch.name == write.hierarchy).ok_or_else(|| {
            Error::unsupported(format!(
                "{} cannot be set: the {} hierarchy of the plan is not mounted here",
                write.file, write.hierarchy
            ))
        })
    }

    fn guard_devices(&self, plan: &Plan) -> Result<()> {
        let Some(unified) = self.unified.as_ref().filter(|_| plan.device_filter) else {
            return Ok(());
        };
        // Nothing to forbid, and no older program to replace.
        if self.unified_is_fresh && devices::allow_all(&plan.devices) {
            return Ok(());
        }
        let program = device_filter::program(&plan.devices);
        let directory = unified.directory().map_err(|errno| Error::os(unified.shown(""), errno))?;
        bpf::set_device_filter(directory.as_raw_fd(), &program, self.unified_is_fresh).map_err(|failure| {
            let step = match failure.step {
                bpf::Step::Load => "load (it needs CAP_BPF or CAP_SYS_ADMIN, and CONFIG_CGROUP_BPF in the kernel)",
                bpf::Step::Query => "find the older program of",
                bpf::Step::Attach => "attach",
                bpf::Step::Detach => "detach the older program of",
            };
            let what = format!("cannot {step} the device filter (BPF) of {}", unified.path.display());
            Error::os(what, Errno::from_raw(failure.errno))
        })
    }
}

/// Where relative paths start in the v2 tree. On v2 alone flint's own cgroup holds flint: see Base::Own.
fn unified_base(unified: &Unified, alone: bool) -> &str {
    if alone { unified.own.rsplit_once('/').map_or("", |(parent, _)| parent) } else { &unified.own }
}

/// The container's path below a mountpoint.
fn joined(plan: &Plan, own: &str) -> String {
    match plan.base {
        Base::Own if !own.is_empty() => format!("{own}/{}", plan.path),
        _ => plan.path.clone(),
    }
}

/// Writes a value; `None` when an optional file is missing.
fn set(branch: &Branch, write: &Write) -> nix::Result<Option<OwnedFd>> {
    let put = |file: &str, value: &str| {
        let file = branch.open(file, OFlag::O_WRONLY)?;
        write_once(&file, value).map(|()| file)
    };
    let result = match (put(&write.file, &write.value), &write.instead) {
        (Err(Errno::ENOENT), Some((file, value))) => put(file, value),
        (result, _) => result,
    };
    match result {
        Err(Errno::ENOENT) if write.optional => Ok(None),
        result => result.map(Some),
    }
}

pub(super) fn refused(branch: &Branch, write: &Write, errno: Errno) -> Error {
    if errno == Errno::EBUSY && write.file == "memory.limit_in_bytes" {
        let number = |file: &str| branch.read(file).map_or("unknown".to_owned(), |text| text.trim().to_owned());
        return Error::new(
            Kind::System,
            format!(
                "cannot write {:?} to {}: {}: unable to set memory limit to {} (current usage: {}, peak usage: {})",
                write.value,
                branch.shown(&write.file),
                crate::error::errno_text(errno as i32),
                write.value,
                number("memory.usage_in_bytes"),
                number("memory.max_usage_in_bytes"),
            ),
        );
    }
    let hint = match (errno, write.controller.as_str()) {
        (Errno::ENOENT, "memory") if write.file.contains("sw") => {
            " (this kernel does not count swap: leave out linux.resources.memory.swap, or boot with swapaccount=1)"
        }
        (Errno::ENOENT, _) => " (this kernel does not have the file: leave the limit out)",
        (Errno::EBUSY, "memory") => " (the cgroup uses more than that already)",
        (Errno::EPERM, "devices") => " (the parent cgroup does not allow the device)",
        (Errno::EACCES | Errno::EINVAL | Errno::ERANGE, "cpuset") => " (the parent cgroup does not have these)",
        (Errno::EINVAL, "cpu") if write.file.contains("rt_") => {
            " (the parent cgroup has no such time left for real-time processes)"
        }
        _ => "",
    };
    let missing = errno == Errno::ENOENT;
    let file = write.instead.as_ref().filter(|_| missing).map_or(write.file.as_str(), |(file, _)| file.as_str());
    let error = Error::os(format!("cannot write {:?} to {}", write.value, branch.shown(file)), errno);
    let kind = if missing { Kind::Unsupported } else { error.kind() };
    Error::new(kind, format!("{error}{hint}"))
}

/// A folder to make.
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) mountpoint: &'a Path,
    /// Below the mountpoint, clean, at least one part.
    pub(super) path: String,
    pub(super) is_cpuset: bool,
}

impl Place<'_> {
    /// Makes the folder and those above it that are missing; whether it was not there before.
    fn make(&self, made: &mut Vec<PathBuf>, occupant: Option<i32>) -> Result<(Branch, bool)> {
        let full = self.mountpoint.join(&self.path);
        self.make_folder(&full, made)
            .map_err(|errno| {
                let hint = match errno {
                    Errno::EROFS => " (the cgroup file system is mounted read-only here)",
                    Errno::EAGAIN => " (the parent's cgroup.max.descendants or cgroup.max.depth is reached)",
                    _ => "",
                };
                let error = Error::os(
                    format!("unable to apply cgroup configuration: cannot make the cgroup {}", full.display()),
                    errno,
                );
                // The host refused it, whatever the words.
                let kind = if errno == Errno::EROFS { Kind::Permission } else { error.kind() };
                Error::new(kind, format!("{error}{hint}"))
            })
            .and_then(|(directory, fresh)| {
                let branch = Branch::open_at(self.name, full, directory);
                if !fresh {
                    refuse_used(&branch, occupant)?;
                }
                Ok((branch, fresh))
            })
    }

    fn make_folder(&self, full: &Path, made: &mut Vec<PathBuf>) -> nix::Result<(OwnedFd, bool)> {
        let base = open_mountpoint(self.mountpoint)?;
        let (above, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let opened = match above {
            "" => None,
            _ => Some(match open_beneath(&base, above) {
                Err(Errno::ENOENT) => self.make_parents(&base, above, made)?,
                opened => opened?,
            }),
        };
        let parent = opened.as_ref().unwrap_or(&base).as_fd();
        let fresh = mkdir(parent, name, full, made)?;
        let directory = open_beneath(parent, name)?;
        if !fresh {
            // Somebody else's cgroup of the same name: a user can neither use it nor remove it.
            faccessat(&directory, "cgroup.procs", AccessFlags::W_OK, AtFlags::AT_EACCESS)?;
        }
        if self.is_cpuset && !inherit_cpuset(parent, directory.as_fd(), fresh)? {
            // Somebody made the parents and left their cpusets empty.
            let parent = self.make_parents(&base, above, made)?;
            inherit_cpuset(parent.as_fd(), directory.as_fd(), false)?;
        }
        Ok((directory, fresh))
    }

    /// Makes what is missing of `above`, from the top, and opens it.
    fn make_parents(&self, base: &OwnedFd, above: &str, made: &mut Vec<PathBuf>) -> nix::Result<OwnedFd> {
        let mut parent = base.try_clone().map_err(|_| Errno::EMFILE)?;
        let mut path = self.mountpoint.to_owned();
        for name in above.split('/').filter(|name| !name.is_empty()) {
            path.push(name);
            let fresh = mkdir(parent.as_fd(), name, &path, made)?;
            let folder = open_beneath(&parent, name)?;
            if self.is_cpuset {
                inherit_cpuset(parent.as_fd(), folder.as_fd(), fresh)?;
            }
            parent = folder;
        }
        Ok(parent)
    }
}

/// Whether it was not there before.
fn mkdir(parent: BorrowedFd<'_>, name: &str, full: &Path, made: &mut Vec<PathBuf>) -> nix::Result<bool> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            made.push(full.to_owned());
            Ok(true)
        }
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Copies what is empty from the parent: a new v1 cpuset has no processors and no memory nodes, and no process may
/// join it so. (`cgroup.clone_children` would do it too, but is a setting of the parent, which is not ours.)
///
/// Whether the parent had something to give.
fn inherit_cpuset(parent: BorrowedFd<'_>, folder: BorrowedFd<'_>, fresh: bool) -> nix::Result<bool> {
    for file in CPUSET_FILES {
        if !fresh && !read_at(folder, file)?.trim().is_empty() {
            continue;
        }
        let value = read_at(parent, file)?;
        if value.trim().is_empty() {
            return Ok(false);
        }
        let file = nix::fcntl::openat(folder, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        write_once(&file, value.trim())?;
    }
    Ok(true)
}

/// Whether others use a cgroup at one of these places: see [`refuse_used`].
///
/// # Errors
///
/// `AlreadyExists` when they do; a cgroup that cannot be read.
pub(super) fn refuse_used_places(paths: &Paths) -> Result<()> {
    let cgroup = Cgroup::from_paths(paths);
    let there = |branch: &&Branch| branch.path.exists();
    cgroup.v1.iter().chain(&cgroup.unified).filter(there).try_for_each(|branch| refuse_used(branch, None))
}

/// A cgroup that was there before is taken when it is empty, and refused when others use it (as runc since 1.2).
fn refuse_used(branch: &Branch, occupant: Option<i32>) -> Result<()> {
    let path = branch.path.display();
    let mut processes = removal::processes_below(&branch.path)
        .map_err(|error| Error::os(format!("cannot read the processes of the cgroup {path}"), error))?;
    processes.retain(|&pid| Some(pid) != occupant);
    if !processes.is_empty() {
        return Err(Error::new(
            Kind::AlreadyExists,
            format!(
                "container's cgroup is not empty: {} process(es) found in {path}: give another linux.cgroupsPath",
                processes.len()
            ),
        ));
    }
    let is_frozen = (branch.has("freezer") && branch.read("freezer.state").is_ok_and(|state| state.trim() != "THAWED"))
        || (branch.name.is_empty() && branch.read("cgroup.freeze").is_ok_and(|state| state.trim() == "1"));
    if is_frozen {
        return Err(Error::new(
            Kind::AlreadyExists,
            format!("container's cgroup unexpectedly frozen: {path}: thaw or remove it"),
        ));
    }
    Ok(())
}

/// Enables the plan's controllers on the way down to the container.
///
/// First looks whether the container has them already, which is so from the second container on: writing the same again
/// would wait for every dying cgroup below the parent (`cgroup_lock_and_drain_offline`).
pub(super) fn enable_controllers(place: &Place<'_>, branch: &Branch, plan: &Plan) -> Result<()> {
    let has = |text: &str, name: &String| text.split_ascii_whitespace().any(|other| other == name);
    let mut wanted: Vec<&String> = plan.enable.iter().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let there = branch.read("cgroup.controllers").unwrap_or_default();
    if wanted.iter().all(|&name| has(&there, name)) {
        return Ok(());
    }
    let needed =
        |name: &String| plan.writes.iter().any(|w| w.hierarchy.is_empty() && !w.optional && &w.controller == name);
    let mut path = place.mountpoint.to_owned();
    for part in place.path.split('/') {
        let offered = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        if let Some(missing) = wanted.iter().find(|&&name| needed(name) && !has(&offered, name)) {
            return Err(Error::unsupported(format!(
                "a limit is set for the {missing} controller, but it is missing from {}",
                path.join("cgroup.controllers").display()
            )));
        }
        wanted.retain(|&name| has(&offered, name));
        let control = path.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).unwrap_or_default();
        for &name in wanted.iter().filter(|&&name| !has(&enabled, name)) {
            match fs::write(&control, format!("+{name}")) {
                Err(error) if needed(name) => {
                    let hint = match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EBUSY) => {
                            " (processes are in that cgroup itself: give a linux.cgroupsPath beside it, not below)"
                        }
                        _ => "",
                    };
                    let error =
                        Error::os(format!("cannot enable the {name} controller in {}", control.display()), error);
                    return Err(Error::new(error.kind(), format!("{error}{hint}")));
                }
                _ => {}
            }
        }
        path.push(part);
    }
    Ok(())
}
