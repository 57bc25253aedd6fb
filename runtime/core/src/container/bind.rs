//! Binding a plan's slots: opening what belongs to one container.

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use flint_init::plan::{Attributes, IdMap, Mount, Slot, Step};
use flint_init::protocol::Message;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, sendmsg,
    socket,
};
use nix::sys::stat::{Mode, fstat};
use rustix::process::PidfdGetfdFlags;

use crate::cgroup::Cgroup;
use crate::container::channel::Channel;
use crate::container::folder::Folder;
use crate::container::{detached, hooks, user_namespace};
use crate::plan::{Plan, SlotSource};
use crate::{Error, Kind, Result};

/// What slots are bound from.
pub(crate) struct Sources<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) cgroup: Option<&'a Cgroup>,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) init: Option<OwnedFd>,
    /// Namespaces that init handed out, by their `CLONE_NEW*`.
    pub(crate) namespaces: Vec<(u32, OwnedFd)>,
}

/// The descriptors of a plan's slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    fds: Vec<Option<OwnedFd>>,
}

impl Slots {
    pub(crate) fn for_plan(plan: &Plan) -> Self {
        Self { fds: plan.slots.iter().map(|_| None).collect() }
    }

    /// Opens what a slot needs.
    pub(crate) fn bind(&mut self, plan: &Plan, slot: Slot, sources: &mut Sources<'_>) -> Result<()> {
        let index = usize::from(slot.0);
        let Some(source) = plan.slots.get(index).filter(|_| index < self.fds.len()) else {
            return Err(Error::new(Kind::System, format!("the plan has no slot {index}")));
        };
        let opened = match source {
            SlotSource::Made => return Ok(()),
            SlotSource::BindMount { locked: true, path, .. } => {
                let mount = detached::locked(|| bind_mount(source))?;
                self.map_ids_of(source, &mount, path)?;
                mount
            }
            SlotSource::BindMount { path, .. } => {
                let mount = bind_mount(source)?;
                self.map_ids_of(source, &mount, path)?;
                mount
            }
            SlotSource::Filesystem { fstype, source, options, attributes, idmap } => {
                let mount = detached::filesystem(fstype, source, options, *attributes)?;
                self.map_ids(&mount, *idmap, || format!("a new {fstype}"))?;
                mount
            }
            source => open_source(source, sources)?,
        };
        if let Some(place) = self.fds.get_mut(index) {
            *place = Some(opened);
        }
        Ok(())
    }

    /// Opens the mounts that are bound late, in the mount namespace of `init`.
    pub(crate) fn bind_late(&mut self, plan: &Plan, init: i32) -> Result<()> {
        let late: Vec<_> = (0..self.fds.len()).filter(|&index| plan.is_bound_late(Slot(index as u16))).collect();
        let sources = || late.iter().filter_map(|&index| plan.slots.get(index));
        let mounts = detached::in_mounts_of(init, || sources().map(bind_mount).collect::<Result<Vec<_>>>())?;
        for ((&index, source), mount) in late.iter().zip(sources()).zip(mounts) {
            if let SlotSource::BindMount { path, .. } = source {
                self.map_ids_of(source, &mount, path)?;
            }
            if let Some(place) = self.fds.get_mut(index) {
                *place = Some(mount);
            }
        }
        Ok(())
    }

    /// Gives init what was bound since its clone.
    pub(crate) fn hand_over_late(&mut self, plan: &Plan, channel: &Channel) -> Result<()> {
        for (index, place) in self.fds.iter_mut().enumerate() {
            let slot = Slot(index as u16);
            if plan.is_bound_late(slot)
                && let Some(fd) = place.take()
            {
                channel.bind(slot, fd.as_fd())?;
            }
        }
        Ok(())
    }

    fn map_ids_of(&self, source: &SlotSource, mount: &OwnedFd, path: &Path) -> Result<()> {
        let SlotSource::BindMount { idmap, .. } = source else { return Ok(()) };
        self.map_ids(mount, *idmap, || detached::filesystem_of(path))
    }

    fn map_ids(&self, mount: &OwnedFd, idmap: Option<IdMap>, what: impl FnOnce() -> String) -> Result<()> {
        let Some(IdMap { slot, recursive, .. }) = idmap else { return Ok(()) };
        let Some(maps) = self.get(slot) else {
            return Err(Error::new(Kind::System, "a mount's id maps were to be bound before it"));
        };
        detached::map_ids(mount, maps, recursive, what)
    }

    /// What init cannot do itself and asks for (`Map` of the protocol): its detached mount gets the maps that its step names.
    ///
    /// # Errors
    ///
    /// A step without maps; a mount that cannot be taken out of init or mapped.
    pub(crate) fn map_ids_for(&self, init: BorrowedFd<'_>, plan: &Plan, asked: &Message) -> Result<()> {
        let Some(Step::Mount(Mount { idmap: Some(idmap), target, .. })) = plan.init.get(asked.step as usize) else {
            return Err(Error::new(Kind::System, "init asks for the maps of a mount that has none"));
        };
        let mount = rustix::process::pidfd_getfd(init, asked.number, PidfdGetfdFlags::empty())
            .map_err(|errno| Error::os("take a mount out of init, to idmap it (it takes CAP_SYS_PTRACE)", errno))?;
        self.map_ids(&mount, Some(*idmap), || format!("the source of {}", plan.string(*target)))
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&OwnedFd> {
        self.fds.get(usize::from(slot.0))?.as_ref()
    }

    /// As numbers, by slot; -1 where nothing was bound.
    pub(crate) fn numbers(&self) -> Vec<flint_init::Fd> {
        self.fds.iter().map(|fd| flint_init::Fd(fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))).collect()
    }
}

fn bind_mount(source: &SlotSource) -> Result<OwnedFd> {
    match source {
        SlotSource::BindMount { path, recursive, attributes, recursive_attributes, .. } => {
            detached::bind(path, *recursive, *attributes, *recursive_attributes)
        }
        _ => Err(Error::new(Kind::System, "the plan's slot is no bind mount")),
    }
}

fn open_source(source: &SlotSource, sources: &mut Sources<'_>) -> Result<OwnedFd> {
    let missing = |what: &str| Error::new(Kind::System, format!("the plan needs {what}, and there is none"));
    match source {
        SlotSource::Proc => open_proc(),
        SlotSource::Namespace { kind, path } => open_namespace(*kind, path),
        SlotSource::InitNamespace { kind } => {
            let place = sources.namespaces.iter().position(|(found, _)| found == kind);
            place.map(|place| sources.namespaces.swap_remove(place).1).ok_or_else(|| missing("init's namespaces"))
        }
        SlotSource::ContainerInit => sources.init.take().ok_or_else(|| missing("the container's init")),
        SlotSource::ConsoleSocket => sources.console.take().ok_or_else(|| missing("a console socket")),
        SlotSource::Listener => listen_for_start(sources.folder),
        SlotSource::HookState => memory_file(),
        SlotSource::HookOutput { path } => hooks::output(path).map(OwnedFd::from),
        SlotSource::CgroupMount { hierarchy, attributes } => {
            let cgroup = sources.cgroup.ok_or_else(|| missing("a cgroup"))?;
            let (_, path) = cgroup
                .mount_sources()
                .find(|(name, _)| name == hierarchy)
                .ok_or_else(|| missing(&format!("a cgroup in the hierarchy {hierarchy}")))?;
            detached::bind(path, false, *attributes, Attributes::default())
        }
        SlotSource::IdMapping { uid, gid } => user_namespace::with_maps(uid, gid),
        SlotSource::BindMount { .. } | SlotSource::Filesystem { .. } | SlotSource::Made => {
            Err(missing("a detached mount"))
        }
    }
}

/// The host's procfs: a real one, at its root, so that nothing mounted over it can fake what is written
/// (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn open_proc() -> Result<OwnedFd> {
    /// `PROC_ROOT_INO`
    const PROC_ROOT: u64 = 1;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open("/proc", flags, Mode::empty()).map_err(|errno| Error::os("open /proc", errno))?;
    let magic = nix::sys::statfs::fstatfs(&fd).map_err(|errno| Error::os("statfs /proc", errno))?.filesystem_type();
    let inode = fstat(&fd).map_err(|errno| Error::os("stat /proc", errno))?.st_ino;
    if magic != nix::sys::statfs::PROC_SUPER_MAGIC || inode != PROC_ROOT {
        return Err(Error::new(Kind::System, "/proc is not the root of a procfs: mount one there"));
    }
    Ok(fd)
}

fn open_namespace(kind: u32, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let fd = open(path, flags, Mode::empty())
        .map_err(|errno| Error::os(format!("open the namespace {}", path.display()), errno))?;
    #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
    let nsfs = nix::sys::statfs::fstatfs(&fd).is_ok_and(|stat| stat.filesystem_type().0 as u64 == NSFS_MAGIC);
    let wrong = |is: &str| {
        Error::invalid(format!("{} is {is}, not a namespace of the kind that config.json says", path.display()))
    };
    if !nsfs {
        return Err(wrong("no namespace"));
    }
    match flint_init::namespace_kind(flint_init::Fd(fd.as_raw_fd())) {
        Ok(found) if found == kind => Ok(fd),
        _ => Err(wrong("a namespace of another kind")),
    }
}

/// `NSFS_MAGIC`
const NSFS_MAGIC: u64 = 0x6e73_6673;

fn listen_for_start(folder: &Folder) -> Result<OwnedFd> {
    let failure = |errno: nix::Error| Error::os("make the socket for start", errno);
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failure)?;
    let address = UnixAddr::new(&folder.socket_path()).map_err(failure)?;
    bind(fd.as_raw_fd(), &address).map_err(failure)?;
    let backlog = Backlog::new(8).map_err(failure)?;
    listen(&fd, backlog).map_err(failure)?;
    Ok(fd)
}

/// Connects to a unix stream socket (`--console-socket`, `--pidfd-socket`).
pub(crate) fn connect_to(path: &Path) -> Result<OwnedFd> {
    let failure = |errno: nix::Error| Error::os(format!("connect to the socket {}", path.display()), errno);
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failure)?;
    let address = UnixAddr::new(path).map_err(failure)?;
    connect(fd.as_raw_fd(), &address).map_err(failure)?;
    Ok(fd)
}

/// What a program gets as standard input, output and error.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// As init takes them.
///
/// # Errors
///
/// A descriptor from 0 to 2, which another one would replace before it is used.
pub(crate) fn stdio(stdio: Option<&Stdio>) -> Result<Option<[flint_init::Fd; 3]>> {
    let Some(stdio) = stdio else { return Ok(None) };
    let fds = [&stdio.stdin, &stdio.stdout, &stdio.stderr].map(|fd| flint_init::Fd(fd.as_raw_fd()));
    if fds.iter().any(|fd| fd.0 < 3) {
        return Err(Error::invalid("descriptors below 3 cannot be given as a program's stdio: open 0, 1 and 2 first"));
    }
    Ok(Some(fds))
}

/// Sends one descriptor over a connected unix socket.
pub(crate) fn send_fd(socket: &OwnedFd, data: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let descriptors = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &[std::io::IoSlice::new(data)], &control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(|errno| Error::os("send a descriptor over a socket", errno))
}

fn memory_file() -> Result<OwnedFd> {
    rustix::fs::memfd_create("flint-hook-state", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| Error::os("memfd_create for the hooks' state", errno))
}

/// All descriptors that init keeps: stdio, the preserved ones up to the first that is not open, the slots and its channel;
/// ascending.
pub(crate) fn keep(slots: &Slots, channel: RawFd, preserve: u32, more: &[flint_init::Fd]) -> Vec<flint_init::Fd> {
    let is_open = |fd: &i32| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    let preserved = (3..i32::MAX).take(preserve as usize).take_while(is_open);
    let mut keep: Vec<_> = (0..3).chain(preserved).map(flint_init::Fd).collect();
    keep.extend(slots.numbers().into_iter().filter(|fd| fd.0 >= 0));
    keep.push(flint_init::Fd(channel));
    keep.extend_from_slice(more);
    keep.sort_unstable();
    keep.dedup();
    keep
}
