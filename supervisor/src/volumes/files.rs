//! Files of known content, exchanged as a whole.
//!
//! ```text
//!  VOLUME/key      -> ..data/key
//!  VOLUME/..data   -> ..1b2c3d         renamed over: a reader sees all of the old or all of the new
//!  VOLUME/..1b2c3d/key                 named by the hash of all that is in it, and of the boot
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use super::empty::{is_in_memory, is_mount_point, mount_tmpfs, set_mode};
use super::error::{Error, Result};
use super::{group, make_folder, private_folder, removal};
use crate::desired::{Item, SpecHash, VolumeGroup};

const CURRENT: &str = "..data";
const NEXT: &str = "..data_next";
/// The id of this boot of the host (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Makes sure that what is written below a folder never reaches a disk: mounts a tmpfs on it, unless one is there.
pub(super) fn hold_in_memory(folder: &Path) -> Result<()> {
    if is_mount_point(folder)? && is_in_memory(folder)? {
        return Ok(());
    }
    // Kernels before 6.4 cannot promise that it is never swapped out.
    mount_tmpfs(folder, "mode=0700,noswap").or_else(|_| mount_tmpfs(folder, "mode=0700"))
}

/// Brings a volume's files up to date.
pub(super) fn put(volume: &Path, items: &[Item], wanted: Option<VolumeGroup>) -> Result<()> {
    for item in items {
        check_path(&item.path)?;
    }
    private_folder(volume.parent().unwrap_or(volume))?;
    make_folder(volume, 0o755)?;
    // They are not synced: after a power cut those of another boot may be there in name alone.
    let boot = fs::read_to_string(BOOT).map_err(|error| Error::os(format!("read {BOOT}"), error))?;
    let generation = format!("..{}", SpecHash::of(&(items, wanted, boot)));
    let current = fs::read_link(volume.join(CURRENT)).ok();
    if current.as_deref() != Some(Path::new(&generation)) {
        write_all(volume, &generation, items, wanted)?;
        let next = volume.join(NEXT);
        let _none = fs::remove_file(&next);
        symlink(&generation, &next).map_err(|error| Error::os(format!("link {}", next.display()), error))?;
        fs::rename(&next, volume.join(CURRENT))
            .map_err(|error| Error::os(format!("exchange the files of {}", volume.display()), error))?;
    }
    // Also if nothing has changed: an earlier flintd may have been killed right here.
    show(volume, items)?;
    sweep(volume, &generation, items)
}

/// For files whose content nobody knows any more: they stay as they are.
pub(super) fn must_be_there(volume: &Path) -> Result<()> {
    if fs::read_link(volume.join(CURRENT)).is_ok() {
        return Ok(());
    }
    Err(Error::wrong("its content was in memory alone and has not come again since flintd was started".to_owned()))
}

/// Relative, not upwards, and none of our own names at the top.
fn check_path(path: &str) -> Result<()> {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let is_plain = !parts.is_empty() && parts.iter().all(|part| matches!(part, Component::Normal(_)));
    if is_plain && !path.starts_with("..") && !path.contains('\0') {
        return Ok(());
    }
    Err(Error::wrong(format!("{path:?} is no path of a file in a volume: relative, without .. in front or between")))
}

fn write_all(volume: &Path, generation: &str, items: &[Item], wanted: Option<VolumeGroup>) -> Result<()> {
    let folder = volume.join(generation);
    removal::remove_tree(&folder)?;
    make_folder(&folder, 0o755)?;
    for item in items {
        let path = folder.join(&item.path);
        let parents: Vec<&Path> =
            Path::new(&item.path).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        for parent in parents.iter().rev() {
            make_folder(&folder.join(parent), 0o755)?;
        }
        write(&path, item)?;
    }
    match wanted {
        Some(wanted) => group::give_read(&folder, wanted.gid),
        None => Ok(()),
    }
}

fn write(path: &Path, item: &Item) -> Result<()> {
    let doing = |what: &str| format!("{what} {}", path.display());
    // 0600 until it is its owner's.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::os(doing("make"), error))?;
    file.write_all(&item.content).map_err(|error| Error::os(doing("write"), error))?;
    std::os::unix::fs::fchown(&file, Some(item.uid), Some(item.gid)).map_err(|error| Error::os(doing("own"), error))?;
    set_mode(path, item.mode & 0o7777)
}

/// The names that are to be seen at the top of the volume: of files, and of folders of files.
fn tops(items: &[Item]) -> BTreeSet<PathBuf> {
    items
        .iter()
        .filter_map(|item| Path::new(&item.path).components().next())
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

fn show(volume: &Path, items: &[Item]) -> Result<()> {
    for name in tops(items) {
        let (link, target) = (volume.join(&name), Path::new(CURRENT).join(&name));
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        let _none = fs::remove_file(&link);
        symlink(&target, &link).map_err(|error| Error::os(format!("link {}", link.display()), error))?;
    }
    Ok(())
}

/// Removes what is shown no more, and earlier content.
fn sweep(volume: &Path, generation: &str, items: &[Item]) -> Result<()> {
    let tops = tops(items);
    let doing = |error| Error::os(format!("read {}", volume.display()), error);
    for entry in fs::read_dir(volume).map_err(doing)? {
        let name: OsString = entry.map_err(doing)?.file_name();
        let is_ours = name == CURRENT || name == generation || tops.contains(Path::new(&name));
        if !is_ours {
            removal::remove_tree(&volume.join(&name))?;
        }
    }
    Ok(())
}
