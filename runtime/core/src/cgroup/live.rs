//! A container's cgroups in use: joining, listing, freezing, killing, removing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroups_rs::pid::PidController;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::branch::{Branch, keyed};
use super::layout::Layout;
use super::plan::{Need, Plan};
use super::removal;
use super::systemd::Unit;
use super::tree::Tree;
use crate::container::signal_listed;
use crate::{Error, Result};

/// How often [`Cgroup::kill_all`] looks for processes that were forked in between, without `cgroup.kill`.
const KILL_ROUNDS: u32 = 100;

/// Where a container's cgroups are; kept in the container's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Absolute folders by the v1 hierarchy's name (`cpu,cpuacct`, `name=systemd`); empty on v2.
    #[serde(default)]
    pub v1: BTreeMap<String, PathBuf>,
    /// The absolute folder in the v2 tree, alone or beside the v1 hierarchies.
    #[serde(default)]
    pub unified: Option<PathBuf>,
    /// The unit of systemd that they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// A container's cgroups.
///
/// Dropping it closes its descriptors and removes nothing: that is [`Cgroup::delete`].
#[derive(Debug)]
pub struct Cgroup {
    pub(super) v1: Vec<Branch>,
    pub(super) unified: Option<Branch>,
    pub(super) paths: Paths,
}

impl Cgroup {
    /// Makes the folders in every hierarchy and writes the limits, before any process is in them. Folders that are there
    /// already are taken when they are empty.
    ///
    /// # Errors
    ///
    /// A folder cannot be made or is in use ([`Kind::AlreadyExists`](crate::Kind::AlreadyExists)), a limit is refused by the
    /// kernel, a file for it is missing ([`Kind::Unsupported`](crate::Kind::Unsupported)). Then exactly what was made is
    /// removed again.
    pub fn create(layout: &Layout, plan: &Plan) -> Result<Self> {
        Self::create_around(layout, plan, None)
    }

    /// The same around a process that systemd has put into some of them already, and that does not count as a use.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::create`].
    pub fn create_around(layout: &Layout, plan: &Plan, occupant: Option<i32>) -> Result<Self> {
        let tree = Tree::grow(layout, plan, occupant)?;
        let unit = plan.systemd.as_ref().map(|scope| scope.unit.clone());
        let paths = paths_of(&tree.v1, tree.unified.as_ref(), unit);
        let cgroup = Self { v1: tree.v1, unified: tree.unified, paths };
        // Above a cgroup of the program's own nothing is its user's.
        let owner = plan.owner.filter(|_| plan.subgroup.is_none());
        let given = owner.zip(cgroup.unified.as_ref()).map_or(Ok(()), |(uid, branch)| give(&branch.path, uid));
        match given {
            Ok(()) => Ok(cgroup),
            Err(error) => Err(error.with_cleanup(cgroup.delete())),
        }
    }

    /// Where [`Cgroup::create`] will make them: recorded before, so that a maker that is killed half-way leaves
    /// nothing that nobody knows of.
    #[must_use]
    pub fn places(layout: &Layout, plan: &Plan) -> Paths {
        Tree::places(layout, plan)
    }

    /// The cgroups of a container that another command made. Opens nothing yet.
    #[must_use]
    pub fn from_paths(paths: &Paths) -> Self {
        Self {
            v1: paths.v1.iter().map(|(name, path)| Branch::recorded(name, path)).collect(),
            unified: paths.unified.as_ref().map(|path| Branch::recorded("", path)),
            paths: paths.clone(),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The v2 folder for `CLONE_INTO_CGROUP` (Linux 5.7): then [`Cgroup::add`] is needed for v1 only. `None` without one, and
    /// when it cannot be opened.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref()?.directory().ok()
    }

    /// The files `tasks` of the v1 hierarchies, by which a process enters them itself. Empty without such, and when one cannot be
    /// opened: then [`Cgroup::add`] says why.
    #[must_use]
    pub fn entrances(&self) -> Vec<OwnedFd> {
        self.v1
            .iter()
            .map(|branch| branch.open("tasks", OFlag::O_WRONLY))
            .collect::<nix::Result<_>>()
            .unwrap_or_default()
    }

    /// Whether a process that has entered by all [`Cgroup::entrances`] is everywhere.
    #[must_use]
    pub fn is_entered(&self, entrances: usize, born_in_unified: bool) -> bool {
        !self.is_nowhere() && entrances == self.v1.len() && (self.unified.is_none() || born_in_unified)
    }

    /// Moves a process, with all its threads, into every cgroup.
    ///
    /// # Errors
    ///
    /// The kernel refuses it in one of them; in a named hierarchy, which limits nothing, that is no error.
    pub fn add(&self, pid: i32) -> Result<()> {
        for branch in self.v1.iter().chain(&self.unified) {
            match (branch.write("cgroup.procs", &pid.to_string()), &self.paths.unit) {
                (Ok(()), _) => {}
                (Err(_), _) if branch.name.starts_with("name=") => {}
                // A user may not move processes from a session to the user's manager, which may.
                (Err(Errno::EACCES | Errno::EPERM), Some(unit)) => unit.attach(pid)?,
                (Err(errno), _) => {
                    let hint = match errno {
                        Errno::EOPNOTSUPP => " (the cgroup is below one that is threaded or holds processes itself)",
                        Errno::EBUSY => {
                            " (the cgroup has controllers enabled for sub-cgroups and cannot hold processes)"
                        }
                        _ => "",
                    };
                    let error = Error::os(format!("cannot move process {pid} into {}", branch.path.display()), errno);
                    return Err(Error::new(error.kind(), format!("{error}{hint}")));
                }
            }
        }
        Ok(())
    }

    /// As [`Cgroup::add`], by the plan that the cgroups were made by: where the container may go without one, a cgroup that
    /// the process may not be moved into is removed again.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::add`]; a limit is set in a cgroup that the process may not be moved into.
    pub fn join(&mut self, plan: &Plan, pid: i32) -> Result<()> {
        if plan.need == Need::Required {
            return self.add(pid);
        }
        let text = pid.to_string();
        let (mut refused, mut branches) = (Vec::new(), std::mem::take(&mut self.v1));
        branches.extend(self.unified.take());
        for branch in branches {
            match branch.write("cgroup.procs", &text) {
                Err(errno @ (Errno::EPERM | Errno::EACCES)) => refused.push((branch, errno)),
                Err(errno) if !branch.name.starts_with("name=") => {
                    return Err(Error::os(format!("cannot move process {pid} into {}", branch.path.display()), errno));
                }
                _ if branch.name.is_empty() => self.unified = Some(branch),
                _ => self.v1.push(branch),
            }
        }
        self.paths = paths_of(&self.v1, self.unified.as_ref(), self.paths.unit.take());
        for (branch, errno) in refused {
            removal::remove(&branch.path)?;
            if let Some(write) = plan.writes.iter().find(|write| write.is_needed_in(&branch.name)) {
                let error = Error::os(format!("cannot move process {pid} into {}", branch.path.display()), errno);
                return Err(Error::new(
                    error.kind(),
                    format!(
                        "cannot set {} limit: container could not join or create cgroup: {error}",
                        write.controller
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether it has folders in v1 hierarchies.
    #[must_use]
    pub fn has_v1(&self) -> bool {
        !self.v1.is_empty()
    }

    /// Whether it has none at all: the container's processes are in the cgroups of those who started them.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        self.v1.is_empty() && self.unified.is_none()
    }

    /// Moves a process into an existing cgroup below the container's: `[controller,..:]path`, in the hierarchies of
    /// those controllers, or in all of them (`exec --cgroup`).
    ///
    /// # Errors
    ///
    /// A path that leaves the container's cgroup, a controller without a hierarchy, a cgroup that does not exist.
    pub fn add_below(&self, place: &str, pid: i32) -> Result<()> {
        let (controllers, path) = place.split_once(':').map_or((None, place), |(names, path)| (Some(names), path));
        let path = path.trim_start_matches('/');
        if path.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!(
                "bad sub cgroup path {place:?}: it must not leave the container's cgroup"
            )));
        }
        for controller in controllers.into_iter().flat_map(|names| names.split(',')) {
            if self.with(controller).is_none() && self.unified.as_ref().is_none_or(|_| !self.v1.is_empty()) {
                return Err(Error::invalid(format!(
                    "unknown controller {controller} in the cgroup {place:?}: the container has no cgroup of it"
                )));
            }
        }
        let wanted = |branch: &&Branch| match controllers {
            Some(names) if !branch.name.is_empty() => names.split(',').any(|name| branch.has(name)),
            Some(_) => self.v1.is_empty(),
            None => true,
        };
        for branch in self.v1.iter().chain(&self.unified).filter(wanted) {
            let failure = |errno: Errno| {
                Error::os(format!("adding pid {pid} to cgroups: {}", branch.path.join(path).display()), errno)
            };
            let directory = branch.directory().map_err(failure)?;
            let folder = super::branch::open_beneath(directory, if path.is_empty() { "." } else { path });
            let inner = Branch::open_at(&branch.name, branch.path.join(path), folder.map_err(failure)?);
            inner.write("cgroup.procs", &pid.to_string()).map_err(failure)?;
        }
        Ok(())
    }

    /// Moves a process into a cgroup below the v2 one, which is made, and its `owner`'s; what was made there is removed with the
    /// container.
    ///
    /// # Errors
    ///
    /// There is no v2 tree; the kernel refuses it.
    pub(crate) fn enter_below(&self, below: &[&str], owner: Option<u32>, pid: i32) -> Result<()> {
        let Some(branch) = &self.unified else {
            return Err(Error::unsupported("a cgroup below the container's needs cgroup v2"));
        };
        let path = below.iter().fold(branch.path.clone(), |path, part| path.join(part));
        let failure = |error| Error::os(format!("adding pid {pid} to cgroups: {}", path.display()), error);
        std::fs::create_dir_all(&path).map_err(failure)?;
        owner.map_or(Ok(()), |uid| give(&path, uid))?;
        std::fs::write(path.join("cgroup.procs"), pid.to_string()).map_err(failure)
    }

    /// All processes, those of sub-cgroups too. Empty when the cgroup is gone.
    ///
    /// # Errors
    ///
    /// A `cgroup.procs` cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(branch) = self.listing() else {
            return Ok(Vec::new());
        };
        removal::processes_below(&branch.path)
            .map_err(|error| Error::os(format!("cannot list the processes of {}", branch.path.display()), error))
    }

    /// The hierarchy whose processes are the container's: one that a container cannot well be moved out of.
    fn listing(&self) -> Option<&Branch> {
        ["devices", "freezer", "pids"]
            .iter()
            .find_map(|controller| self.with(controller))
            .or(self.unified.as_ref())
            .or(self.v1.first())
    }

    pub(super) fn with(&self, controller: &str) -> Option<&Branch> {
        self.v1.iter().find(|branch| branch.has(controller))
    }

    /// Sends SIGKILL to every process, also to those that are forked meanwhile, and thaws them so that they can die. Does not
    /// wait for their end.
    ///
    /// # Errors
    ///
    /// Processes cannot be listed or killed, or new ones keep appearing.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(unified) = &self.unified {
            // Linux 5.14; in a hybrid it reaches all that were not moved out of the v2 tree alone.
            let killed = unified.write("cgroup.kill", "1");
            if self.v1.is_empty() && matches!(killed, Ok(()) | Err(Errno::ENODEV)) {
                return Ok(());
            }
        }
        self.kill_listed()
    }

    /// Kills what is listed until nothing new is. A process with SIGKILL pending cannot fork, so one list without a new entry is the
    /// end. From the third round on the processes are frozen, so that a fork bomb cannot outrun the rounds.
    fn kill_listed(&self) -> Result<()> {
        let mut killed = BTreeSet::new();
        for round in 0..KILL_ROUNDS {
            let frozen = round > 1 && self.freeze().is_ok();
            let processes = self.processes()?;
            let new: Vec<i32> = processes.into_iter().filter(|&pid| killed.insert(pid)).collect();
            if let Err(error) = signal_listed(&new, || self.processes(), libc::SIGKILL) {
                self.thaw()?;
                return Err(error.context("kill the container's processes"));
            }
            // On v1 a frozen process does not even die; it may have been frozen before (pause).
            if frozen || round == 0 {
                self.thaw()?;
                self.thaw_below();
            }
            if new.is_empty() {
                return Ok(());
            }
        }
        Err(Error::new(crate::Kind::System, "new processes keep appearing in the container's cgroup: freeze it first"))
    }

    /// How many processes the kernel killed for want of memory; 0 when it cannot be known. For error messages.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let text = match (self.with("memory"), &self.unified) {
            (Some(memory), _) => memory.read("memory.oom_control"),
            (None, Some(unified)) => unified.read("memory.events"),
            (None, None) => return 0,
        };
        text.ok().and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0)
    }

    /// The limit that the kernel killed a process for, in words; `None` when it killed none. For error messages.
    #[must_use]
    pub fn out_of_memory(&self) -> Option<String> {
        if self.oom_kills() == 0 {
            return None;
        }
        let limit = match (self.with("memory"), &self.unified) {
            (Some(memory), _) => memory.read("memory.limit_in_bytes"),
            (None, Some(unified)) => unified.read("memory.max"),
            (None, None) => return None,
        };
        Some(format!("memory limit {}", limit.map_or("(unknown)".to_owned(), |limit| limit.trim().to_owned())))
    }

    /// How many forks failed at `pids.max`; 0 when it cannot be known. For error messages.
    #[must_use]
    pub fn refused_forks(&self) -> u64 {
        let v1 = self.with("pids");
        let Some(branch) = v1.or(self.unified.as_ref()) else {
            return 0;
        };
        PidController::new(branch.path.clone(), v1.is_none()).get_pid_events().unwrap_or(0)
    }

    /// Removes the sub-cgroups, deepest first, and the cgroups themselves, but none above. Waits for processes that were killed, at
    /// most some seconds. Missing is fine. A unit of systemd is stopped and forgotten.
    ///
    /// # Errors
    ///
    /// A cgroup still has processes, or cannot be removed; the others are removed all the same.
    pub fn delete(&self) -> Result<()> {
        let stopped = self.paths.unit.as_ref().map_or(Ok(()), Unit::stop);
        // The v2 tree first: there the kernel tells when the last process has left.
        let mut branches = self.unified.iter().chain(&self.v1);
        let failures: Vec<Error> = branches.by_ref().filter_map(|branch| removal::remove(&branch.path).err()).collect();
        match (failures.into_iter().reduce(|first, next| first.with_cleanup(Err(next))), stopped) {
            (Some(error), stopped) => Err(error.with_cleanup(stopped)),
            // The folders are gone. Without systemd so is the unit; a busy one has the job in its queue.
            (None, Err(error)) if matches!(error.kind(), crate::Kind::Unsupported | crate::Kind::Busy) => Ok(()),
            (None, stopped) => stopped,
        }
    }

    /// The hierarchies with the container's folder in them, for bind mounts into the container on v1. The v2 tree has the
    /// empty name.
    pub fn mount_sources(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.v1.iter().chain(&self.unified).map(|branch| (branch.name.as_str(), branch.path.as_path()))
    }
}

/// Gives a cgroup of v2 to a user: the folder, and those of its files that the kernel lists for that (cgroup-v2.rst, "Delegation";
/// runtime-spec, config-linux.md, "Cgroup ownership").
fn give(path: &Path, uid: u32) -> Result<()> {
    const LIST: &str = "/sys/kernel/cgroup/delegate";
    const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
    let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| USUAL.to_owned());
    let files = list.lines().map(|file| path.join(file));
    for file in std::iter::once(path.to_owned()).chain(files) {
        match std::os::unix::fs::lchown(&file, Some(uid), None) {
            // Not all controllers are there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(|error| {
                Error::os(format!("give the cgroup to its container's uid {uid}: chown {}", file.display()), error)
            })?,
        }
    }
    Ok(())
}

fn paths_of(v1: &[Branch], unified: Option<&Branch>, unit: Option<Unit>) -> Paths {
    Paths {
        v1: v1.iter().map(|branch| (branch.name.clone(), branch.path.clone())).collect(),
        unified: unified.map(|branch| branch.path.clone()),
        unit,
    }
}
