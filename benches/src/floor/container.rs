//! What the cloned process does: only system calls, on what was prepared.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fmt::{self, Write};

use flint_sys::mount::{self, Change};
use flint_sys::{Errno, Fd, file, namespace, process};

use super::Floor;
use super::names::{Joined, Names};

/// Everything the container's side needs.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    pub(super) floor: &'a Floor,
    pub(super) names: &'a Names,
    pub(super) joined: &'a Joined,
}

const NOSUID_NOEXEC_NODEV: u64 = mount::ATTR_NOSUID | mount::ATTR_NOEXEC | mount::ATTR_NODEV;
const FOLDER_PATH: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// A new file system of the default spec: name, options, attributes, and its place in the rootfs.
struct New {
    fstype: &'static CStr,
    options: &'static [(&'static CStr, Option<&'static CStr>)],
    attributes: u64,
    target: &'static CStr,
}

const DEV: New = New {
    fstype: c"tmpfs",
    options: &[(c"mode", Some(c"755")), (c"size", Some(c"65536k"))],
    attributes: mount::ATTR_NOSUID | mount::ATTR_STRICTATIME,
    target: c"dev",
};

/// Below /dev, after it; then what needs nothing of /dev.
const OTHERS: [New; 5] = [
    New {
        fstype: c"devpts",
        options: &[
            (c"newinstance", None),
            (c"ptmxmode", Some(c"0666")),
            (c"mode", Some(c"0620")),
            (c"gid", Some(c"5")),
        ],
        attributes: mount::ATTR_NOSUID | mount::ATTR_NOEXEC,
        target: c"dev/pts",
    },
    New {
        fstype: c"tmpfs",
        options: &[(c"mode", Some(c"1777")), (c"size", Some(c"65536k"))],
        attributes: NOSUID_NOEXEC_NODEV,
        target: c"dev/shm",
    },
    New { fstype: c"mqueue", options: &[], attributes: NOSUID_NOEXEC_NODEV, target: c"dev/mqueue" },
    New { fstype: c"proc", options: &[], attributes: 0, target: c"proc" },
    New { fstype: c"sysfs", options: &[], attributes: NOSUID_NOEXEC_NODEV | mount::ATTR_RDONLY, target: c"sys" },
];

/// Name and numbers of the character devices that every container has (config-linux, "Default Devices").
const DEVICES: [(&CStr, u32, u32); 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

const LINKS: [(&CStr, &CStr); 6] = [
    (c"pts/ptmx", c"ptmx"),
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
];

/// The step that failed.
struct Failure(&'static str, Errno);

trait Step<T> {
    fn step(self, name: &'static str) -> Result<T, Failure>;
}

impl<T> Step<T> for flint_sys::Result<T> {
    fn step(self, name: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure(name, errno))
    }
}

/// The container's side of clone3.
pub(super) fn run(lane: Lane<'_>) -> Infallible {
    let Err(Failure(step, Errno(number))) = set_up(lane);
    let _ = writeln!(Stderr, "flint-floor: {step}: errno {number}");
    process::exit(127)
}

fn set_up(lane: Lane<'_>) -> Result<Infallible, Failure> {
    for &tasks in &lane.joined.tasks {
        file::write(tasks, b"0").step("write tasks")?;
    }
    if let Some(rootfs) = &lane.floor.rootfs {
        process::umask(0);
        let root = open_root(rootfs)?;
        make_dev(root)?;
        for new in &OTHERS {
            attach(root, new)?;
        }
        mount_cgroups(root, lane)?;
        namespace::sethostname(c"runc").step("sethostname")?;
        file::fchdir(root).step("fchdir")?;
        mount::pivot_root_here().step("pivot_root")?;
        mount::detach_here().step("umount2")?;
        file::chdir(c"/").step("chdir")?;
        process::umask(0o022);
    }
    let program = lane.floor.program.as_c_str();
    let none = std::ptr::null();
    let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Err(Failure("execve", process::execve(program, &[program.as_ptr(), none], &[path.as_ptr(), none])))
}

/// A read-only bind of the rootfs on itself.
fn open_root(rootfs: &CStr) -> Result<Fd, Failure> {
    let host = file::openat(Fd::CWD, c"/", FOLDER_PATH, 0).step("open /")?;
    let private = Change { propagation: libc::MS_PRIVATE, recursive: true, ..Change::default() };
    mount::mount_setattr(host, private).step("mount_setattr private")?;
    let target = file::openat(Fd::CWD, rootfs, FOLDER_PATH, 0).step("open rootfs")?;
    let root = mount::open_tree(target, c"", mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE).step("open_tree rootfs")?;
    read_only(root, mount::ATTR_RDONLY)?;
    mount::move_mount(root, target).step("move_mount rootfs")?;
    Ok(root)
}

fn make_dev(root: Fd) -> Result<(), Failure> {
    let dev = attach(root, &DEV)?;
    for folder in [c"pts", c"shm", c"mqueue"] {
        file::mkdirat(dev, folder, 0o755).step("mkdir in /dev")?;
    }
    for (name, major, minor) in DEVICES {
        file::mknodat(dev, name, libc::S_IFCHR | 0o666, major, minor).step("mknod")?;
    }
    for (target, name) in LINKS {
        file::symlinkat(target, dev, name).step("symlink in /dev")?;
    }
    Ok(())
}

/// v2 alone: one mount, in a cgroup namespace. v1: a tmpfs with the container's folder of each hierarchy.
fn mount_cgroups(root: Fd, lane: Lane<'_>) -> Result<(), Failure> {
    const TARGET: &CStr = c"sys/fs/cgroup";
    if lane.floor.hierarchies.is_empty() {
        return Ok(());
    }
    if lane.floor.pure_unified {
        namespace::unshare(libc::CLONE_NEWCGROUP as u32).step("unshare cgroup")?;
        let attributes = NOSUID_NOEXEC_NODEV | mount::ATTR_RDONLY;
        return attach(root, &New { fstype: c"cgroup2", options: &[], attributes, target: TARGET }).map(drop);
    }
    let mode = &[(c"mode", Some(c"755"))];
    let all = attach(root, &New { fstype: c"tmpfs", options: mode, attributes: NOSUID_NOEXEC_NODEV, target: TARGET })?;
    for (paths, hierarchy) in lane.names.cgroups.iter().zip(&lane.floor.hierarchies) {
        file::mkdirat(all, &hierarchy.target, 0o755).step("mkdir for a cgroup")?;
        let target = file::openat(all, &hierarchy.target, FOLDER_PATH, 0).step("open for a cgroup")?;
        let bind = mount::open_tree(Fd::CWD, &paths.folder, mount::OPEN_TREE_CLONE).step("open_tree cgroup")?;
        read_only(bind, NOSUID_NOEXEC_NODEV | mount::ATTR_RDONLY)?;
        mount::move_mount(bind, target).step("move_mount cgroup")?;
    }
    read_only(all, mount::ATTR_RDONLY)
}

fn read_only(mount: Fd, attributes: u64) -> Result<(), Failure> {
    mount::mount_setattr(mount, Change { set: attributes, ..Change::default() }).step("mount_setattr read-only")
}

/// Makes and attaches a file system. Nothing is closed: exec closes all at once, cheaper.
fn attach(root: Fd, new: &New) -> Result<Fd, Failure> {
    let context = mount::fsopen(new.fstype).step("fsopen")?;
    for &(key, value) in new.options {
        mount::fsconfig_set(context, key, value).step("fsconfig")?;
    }
    mount::fsconfig_create(context).step("fsconfig create")?;
    let made = mount::fsmount(context, new.attributes).step("fsmount")?;
    let target = file::openat(root, new.target, FOLDER_PATH, 0).step("open a mount's target")?;
    mount::move_mount(made, target).step("move_mount")?;
    Ok(made)
}

/// Descriptor 2 without a buffer or a lock.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        file::write(Fd(2), text.as_bytes()).map(drop).map_err(|_| fmt::Error)
    }
}
