//! The root of a container without a mount namespace of its own: init mounts it on itself in the host's, with all mounts
//! below it. What was made stays, as the config asks; of a making that fails it is taken away again.

use std::fs::read_link;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use flint_init::plan::{RootBind, Step};
use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

use crate::plan::Plan;
use crate::{Error, Result};

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub(super) struct HostRoot {
    /// The root, on the mount that it was on before.
    folder: OwnedFd,
}

impl HostRoot {
    /// Before init is there; `None` where its mounts are not the host's.
    pub(super) fn look(plan: &Plan) -> Result<Option<Self>> {
        let is_host = |step: &Step| matches!(step, Step::Root { bind: RootBind::Host, .. });
        if !plan.init.iter().any(is_host) {
            return Ok(None);
        }
        let failure = |errno: Errno| Error::os(format!("open the root {}", plan.rootfs.display()), errno);
        let folder = openat(CWD, plan.rootfs.as_path(), FOLDER, Mode::empty()).map_err(failure)?;
        Ok(Some(Self { folder }))
    }

    /// After init's end: unmounts what it has mounted. Whoever may swap the root's path meanwhile gains nothing: the
    /// mount is found from the descriptor of the folder that it covers, and unmounted by its own.
    pub(super) fn unmount(&self) -> Result<()> {
        self.take_away().map_err(|error| Error::os("unmount the root, which was mounted on itself on the host", error))
    }

    fn take_away(&self) -> io::Result<()> {
        let path = read_link(by_number(&self.folder))?;
        let name = path.file_name().ok_or(Errno::NOENT)?;
        let above = openat(&self.folder, "..", FOLDER, Mode::empty())?;
        let top = openat2(&above, name, FOLDER | OFlags::NOFOLLOW, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        let (covered, covering) = (place(&self.folder)?, place(&top)?);
        // Mounted on itself it is the same folder on another mount; anything else is not init's.
        if covering.mount == covered.mount || covering.inode != covered.inode {
            return Ok(());
        }
        Ok(umount2(by_number(&top).as_str(), MntFlags::MNT_DETACH)?)
    }
}

fn by_number(folder: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", folder.as_raw_fd())
}

struct Place {
    mount: u64,
    /// With the device's numbers.
    inode: (u32, u32, u64),
}

fn place(folder: &OwnedFd) -> io::Result<Place> {
    let file = statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::INO)?;
    Ok(Place { mount: file.stx_mnt_id, inode: (file.stx_dev_major, file.stx_dev_minor, file.stx_ino) })
}
