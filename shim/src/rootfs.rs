//! The root filesystem that a Create request asks for: mounts below the bundle, made before the container and unmounted
//! after it.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::error::{Error, Result};
use crate::layers::Maps;

/// The most that mount(2) takes as data, with the byte at its end.
const PAGE: usize = 4096;

/// Flags of mount(2) by their option; the third tells whether the option takes the flag away.
const FLAGS: &[(&str, MsFlags, bool)] = &[
    ("async", MsFlags::MS_SYNCHRONOUS, true),
    ("atime", MsFlags::MS_NOATIME, true),
    ("bind", MsFlags::MS_BIND, false),
    ("defaults", MsFlags::empty(), false),
    ("dev", MsFlags::MS_NODEV, true),
    ("diratime", MsFlags::MS_NODIRATIME, true),
    ("dirsync", MsFlags::MS_DIRSYNC, false),
    ("exec", MsFlags::MS_NOEXEC, true),
    ("mand", MsFlags::MS_MANDLOCK, false),
    ("noatime", MsFlags::MS_NOATIME, false),
    ("nodev", MsFlags::MS_NODEV, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, false),
    ("noexec", MsFlags::MS_NOEXEC, false),
    ("nomand", MsFlags::MS_MANDLOCK, true),
    ("norelatime", MsFlags::MS_RELATIME, true),
    ("nostrictatime", MsFlags::MS_STRICTATIME, true),
    ("nosuid", MsFlags::MS_NOSUID, false),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), false),
    ("relatime", MsFlags::MS_RELATIME, false),
    ("remount", MsFlags::MS_REMOUNT, false),
    ("ro", MsFlags::MS_RDONLY, false),
    ("rw", MsFlags::MS_RDONLY, true),
    ("strictatime", MsFlags::MS_STRICTATIME, false),
    ("suid", MsFlags::MS_NOSUID, true),
    ("sync", MsFlags::MS_SYNCHRONOUS, false),
];

/// The root filesystem of a task: unmounted when it is dropped before [`Rootfs::keep`].
#[derive(Debug)]
pub(crate) struct Rootfs {
    path: PathBuf,
    mounted: bool,
    kept: bool,
}

impl Rootfs {
    /// Mounts them in their order on `rootfs` below the bundle. Without any, the bundle brings its own.
    ///
    /// # Errors
    ///
    /// A mount that fails, with its number and kind; those before it are unmounted again.
    pub(crate) fn mount(bundle: &Path, mounts: &[Mount]) -> Result<Self> {
        let path = bundle.join("rootfs");
        if mounts.is_empty() {
            return Ok(Self { path, mounted: false, kept: false });
        }
        match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o711).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::system(format!("make {}", path.display()), error));
            }
            _ => {}
        }
        let rootfs = Self { path, mounted: true, kept: false };
        for (index, entry) in mounts.iter().enumerate() {
            let target = below(&rootfs.path, &entry.target)?;
            mount_one(entry, &target).map_err(|error| {
                let (kind, source) = (&entry.type_, &entry.source);
                error.context(format!(
                    "mount #{index} of the root filesystem ({kind}, {source} -> {})",
                    target.display()
                ))
            })?;
        }
        Ok(rootfs)
    }

    /// That of a container that another shim made.
    pub(crate) fn of(bundle: &Path, mounted: bool) -> Self {
        Self { path: bundle.join("rootfs"), mounted, kept: true }
    }

    /// Its container is there: it stays until it is unmounted, also when this shim ends.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// Unmounts all there; a root filesystem that is not mounted is none to unmount.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn unmount(&mut self) -> Result<()> {
        if self.mounted {
            unmount_all(&self.path)?;
            // Not before: what failed is tried again by the next Delete.
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        if !self.kept {
            // On the way out of a failure, which is what is told.
            let _ = self.unmount();
        }
    }
}

/// Unmounts what is mounted on the path, one over the other; detached, so that a busy one does not stay.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn unmount_all(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINTR) => {}
            // EINVAL: nothing is mounted there.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(Error::system(format!("unmount {}", path.display()), errno)),
        }
    }
}

/// A mount's own target is below the root (containerd 2.0). What is mounted there already is an image's, perhaps an attacker's: its
/// symbolic links are followed as the container would follow them (openat2, Linux 5.6).
fn below(root: &Path, target: &str) -> Result<PathBuf> {
    let relative = target.trim_start_matches('/');
    if relative.is_empty() {
        return Ok(root.to_owned());
    }
    let failed = |errno: rustix::io::Errno| {
        Error::system(format!("find the target {target} of a mount below {}", root.display()), errno)
    };
    let folder = File::open(root).map_err(|error| Error::system(format!("open {}", root.display()), error))?;
    let (flags, inside) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let found = openat2(folder, relative, flags, Mode::empty(), inside).map_err(failed)?;
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    std::fs::read_link(&link).map_err(|error| Error::system(format!("read {link}"), error))
}

fn mount_one(entry: &Mount, target: &Path) -> Result<()> {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for option in &entry.options {
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, flag, true)) => flags.remove(*flag),
            Some((_, flag, false)) => flags.insert(*flag),
            None if option == "loop" => {
                return Err(Error::new(
                    ttrpc::Code::UNKNOWN,
                    "the option loop is not supported: attach the device first",
                ));
            }
            None => data.push(option.as_str()),
        }
    }
    if let Some(maps) = Maps::take(&mut data)? {
        return maps.mount(entry, target, flags, &data);
    }
    let kind = if matches!(entry.type_.as_str(), "bind" | "rbind") { "" } else { entry.type_.as_str() };
    let data = data.join(",");
    let failed = |errno: Errno| Error::system("mount", errno);
    if data.len() >= PAGE {
        return mount_from_common_folder(entry, target, flags, &data);
    }
    mount(Some(entry.source.as_str()), target, Some(kind), flags, Some(data.as_str())).map_err(failed)?;
    // A bind takes its flags in a second step.
    let rest = flags - (MsFlags::MS_BIND | MsFlags::MS_REC);
    if flags.contains(MsFlags::MS_BIND) && !rest.is_empty() {
        let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | rest;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>).map_err(failed)?;
    }
    Ok(())
}

/// An overlay of many layers has more to say than a page: its layers are then named from the folder that they have in common,
/// by a thread that stands there.
fn mount_from_common_folder(entry: &Mount, target: &Path, flags: MsFlags, data: &str) -> Result<()> {
    let too_long = || Error::invalid(format!("options of {} bytes: mount(2) takes less than {PAGE}", data.len()));
    let (common, shorter) = shorten(data).filter(|(_, shorter)| shorter.len() < PAGE).ok_or_else(too_long)?;
    let target = std::path::absolute(target).map_err(|error| Error::system("the bundle's path", error))?;
    let (source, kind) = (entry.source.clone(), entry.type_.clone());
    let mounting = std::thread::spawn(move || {
        // A working folder of its own: the other threads' stays.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        nix::unistd::chdir(common.as_path())?;
        mount(Some(source.as_str()), &target, Some(kind.as_str()), flags, Some(shorter.as_str()))
    });
    match mounting.join() {
        Ok(result) => result.map_err(|errno| Error::system("mount", errno)),
        Err(_) => Err(Error::system("mount", "its thread ended")),
    }
}

/// The longest folder that all lower layers share, and the options with the layers named from there.
fn shorten(data: &str) -> Option<(PathBuf, String)> {
    let lower = data.split(',').find_map(|option| option.strip_prefix("lowerdir="))?;
    let layers: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let mut common = layers.first()?.parent()?;
    while !layers.iter().all(|layer| layer.starts_with(common)) {
        common = common.parent()?;
    }
    let relative: Option<Vec<&str>> =
        layers.iter().map(|layer| layer.strip_prefix(common).ok().and_then(Path::to_str)).collect();
    let shorter = data.replace(&format!("lowerdir={lower}"), &format!("lowerdir={}", relative?.join(":")));
    common.is_absolute().then(|| (common.to_owned(), shorter))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{below, shorten};

    #[test]
    fn targets_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("rootfs");
        std::fs::create_dir_all(root.join("etc/x")).unwrap();
        for (link, target) in [("out", "/etc/x"), ("up", "../../../etc/x"), ("lost", "/no")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        assert_eq!(below(&root, "").unwrap(), root);
        for target in ["etc/x", "/etc/x", "/out", "up", "../etc/x"] {
            assert_eq!(below(&root, target).unwrap(), root.join("etc/x"), "{target}");
        }
        assert!(below(&root, "lost").unwrap_err().to_string().contains("target lost"));
    }

    #[test]
    fn many_layers_are_named_from_their_folder() {
        let layers: Vec<String> = (0..120).map(|number| format!("/var/lib/snapshots/{number}/fs")).collect();
        let data = format!("index=off,workdir=/w,upperdir=/u,lowerdir={}", layers.join(":"));
        let (folder, shorter) = shorten(&data).unwrap();
        assert_eq!(folder, Path::new("/var/lib/snapshots"));
        assert!(shorter.starts_with("index=off,workdir=/w,upperdir=/u,lowerdir=0/fs:1/fs:"), "{shorter}");
        assert!(shorten("ro").is_none());
    }
}
