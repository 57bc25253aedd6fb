//! The runtime: a state root, and what is known of the host.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::cgroup::{self, Cgroup, Need};
use crate::compile::Host;
use crate::container::{Folder, check_id, start_time};
use crate::features::SPEC_VERSION;
use crate::state::{Phase, Record, State, Status};
use crate::{Error, Kind, Result};

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupManager {
    /// flint, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, by D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's cgroups.
    Disabled,
}

/// How a runtime is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that holds a folder for each container; made when it is missing (0700).
    pub root: PathBuf,
    /// Who makes the cgroups.
    pub cgroup_manager: CgroupManager,
    /// Go on without cgroups where the caller may not make them and nothing asks for them.
    pub rootless: bool,
}

/// A state root and its containers. Shared by threads at will: nothing in it changes.
#[derive(Debug)]
pub struct Runtime {
    root: PathBuf,
    fd: OwnedFd,
    cgroups: Need,
    host: OnceLock<Host>,
    cgroup_manager: CgroupManager,
}

impl Runtime {
    /// Opens a state root.
    ///
    /// # Errors
    ///
    /// A root that cannot be made or opened; a cgroup manager that this version lacks.
    pub fn open(options: Options) -> Result<Self> {
        let root = options.root;
        if root == Path::new("/") {
            return Err(Error::invalid("the state root must not be /"));
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = match open(&root, flags, Mode::empty()) {
            Err(Errno::ENOENT) => make_root(&root).and_then(|()| {
                open(&root, flags, Mode::empty())
                    .map_err(|errno| Error::os(format!("open the state root {}", root.display()), errno))
            })?,
            result => result.map_err(|errno| Error::os(format!("open the state root {}", root.display()), errno))?,
        };
        let cgroups = match options.cgroup_manager {
            CgroupManager::Disabled => Need::Nowhere,
            _ if options.rootless => Need::WherePermitted,
            _ => Need::Required,
        };
        Ok(Self { root, fd, cgroups, host: OnceLock::new(), cgroup_manager: options.cgroup_manager })
    }

    pub(crate) fn cgroup_manager(&self) -> CgroupManager {
        self.cgroup_manager
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn root_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What the host offers; found out when it is first needed.
    pub(crate) fn host(&self) -> Result<&Host> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let found = Host::detect(self.cgroups)?;
        Ok(self.host.get_or_init(|| found))
    }

    /// Which cgroups the host has.
    ///
    /// # Errors
    ///
    /// None are mounted, and some are needed.
    pub fn cgroup_mode(&self) -> Result<crate::cgroup::Mode> {
        Ok(self.host()?.layout.mode())
    }

    /// Removes a cgroup, named by its path in each hierarchy, with all below it; a missing one is fine. For what holds the
    /// cgroups of several containers: those of a container go with it.
    ///
    /// # Errors
    ///
    /// A path that names the root of the hierarchies; a cgroup that has processes.
    pub fn remove_cgroup(&self, path: &str) -> Result<()> {
        let host = self.host()?;
        let plan = cgroup::Plan { path: cgroup::clean_path(path)?, ..cgroup::Plan::default() };
        Cgroup::from_paths(&Cgroup::places(&host.layout, &plan)).delete()
    }

    /// The folder of a container that something is done to: the caller's own.
    pub(crate) fn folder(&self, id: &str) -> Result<Folder> {
        let folder = self.anybodys_folder(id)?;
        folder.must_be_own()?;
        Ok(folder)
    }

    /// The folder of a container that is looked at.
    fn anybodys_folder(&self, id: &str) -> Result<Folder> {
        check_id(id)?;
        Folder::open(self.root_fd(), &self.root, id)
    }

    /// A container's state (runtime-spec, "State").
    ///
    /// # Errors
    ///
    /// `NotFound`; a record that is damaged or of a newer version.
    pub fn state(&self, id: &str) -> Result<State> {
        let folder = self.anybodys_folder(id)?;
        match folder.load()? {
            Some(record) => Ok(State::of(&record, status(&folder, Some(&record)))),
            None => unrecorded(id, &folder),
        }
    }

    /// None while its maker has not written a record.
    fn state_with_owner(&self, id: &str) -> Result<Option<State>> {
        let folder = self.anybodys_folder(id)?;
        let Some(record) = folder.load()? else {
            let state = unrecorded(id, &folder)?;
            // Times of the future do not count: such a folder would never be shown.
            let is_new = folder.changed()?.elapsed().is_ok_and(|age| age < CLAIMING);
            return Ok(Some(state).filter(|state| !is_new && state.status != Status::Creating));
        };
        let state = State::of(&record, status(&folder, Some(&record)));
        Ok(Some(State { owner: crate::state::owner_name(record.owner), ..state }))
    }

    /// All containers of the root, by id; what cannot be read is left to the caller as an error with its id. One whose maker
    /// has yet to say what it will be is not there yet, as under runc.
    ///
    /// # Errors
    ///
    /// A root that cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Result<State>)>> {
        let failure = |error| Error::os(format!("read the state root {}", self.root.display()), error);
        let mut states = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(failure)? {
            let entry = entry.map_err(failure)?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            if check_id(&id).is_err() || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match self.state_with_owner(&id).transpose() {
                // Deleted in the meantime.
                Some(Err(error)) if error.kind() == Kind::NotFound => {}
                Some(state) => states.push((id, state)),
                None => {}
            }
        }
        states.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(states)
    }

    /// The config.json that a container was made with.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn container_bundle(&self, id: &str) -> Result<Bundle> {
        let folder = self.folder(id)?;
        Bundle::from_parts(folder.record()?.bundle, folder.config()?)
    }
}

/// What a container is doing: the record says how far its making came, the kernel the rest.
pub(crate) fn status(folder: &Folder, record: Option<&Record>) -> Status {
    or_paused(record, status_if(record, || folder.is_idle()))
}

/// The same for a command that holds the container's lock: nobody else can be at work on it.
pub(crate) fn status_under_lock(record: &Record) -> Status {
    or_paused(Some(record), status_if(Some(record), || true))
}

/// Whether the container's init has ended, or was never made; without a look at the freezer.
pub(crate) fn has_stopped(folder: &Folder, record: &Record) -> bool {
    status_if(Some(record), || folder.is_idle()) == Status::Stopped
}

/// A freezer that cannot be read freezes nobody.
fn or_paused(record: Option<&Record>, status: Status) -> Status {
    let frozen = |record: &Record| Cgroup::from_paths(&record.cgroup).is_frozen().unwrap_or(false);
    match status {
        Status::Created | Status::Running if record.is_some_and(frozen) => Status::Paused,
        status => status,
    }
}

/// `idle` tells whether nobody is making the container just now.
fn status_if(record: Option<&Record>, idle: impl Fn() -> bool) -> Status {
    let alive = |record: &Record| start_time(record.pid).is_some_and(|time| time == record.start_time);
    match record {
        Some(record) if record.phase == Phase::Running && alive(record) => Status::Running,
        Some(record) if record.phase == Phase::Created && alive(record) => Status::Created,
        Some(record) if record.phase == Phase::Starting && alive(record) => {
            if idle() {
                Status::Running
            } else {
                Status::Creating
            }
        }
        Some(record) if record.phase != Phase::Creating => Status::Stopped,
        // Somebody is at work on it, or was killed at it.
        _ => {
            if idle() {
                Status::Stopped
            } else {
                Status::Creating
            }
        }
    }
}

/// How long a folder without a record, which nobody has locked, counts as one that its maker is about to lock.
const CLAIMING: Duration = Duration::from_secs(1);

/// A container whose maker has not written a record yet, or never will: it was killed, or the folder is no container's at all.
/// Either way it takes the id, and `delete` removes it.
fn unrecorded(id: &str, folder: &Folder) -> Result<State> {
    Ok(State {
        oci_version: SPEC_VERSION.to_owned(),
        id: id.to_owned(),
        pid: 0,
        status: status(folder, None),
        bundle: PathBuf::new(),
        rootfs: PathBuf::new(),
        created: crate::state::rfc3339_of(folder.changed()?),
        annotations: std::collections::BTreeMap::new(),
        owner: String::new(),
    })
}

fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(|error| Error::os(format!("make the state root {}", root.display()), error))
}
