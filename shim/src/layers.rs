//! An overlay whose layers are shown with other owners. For a pod with a user namespace, containerd's overlay snapshotter
//! asks for it by the options `uidmap=` and `gidmap=`, which are not the kernel's.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Error, Result};

/// The id on disk, the id it is shown as, and how many.
type Line = (u32, u32, u32);

/// What the two options say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Maps {
    uid: Vec<Line>,
    gid: Vec<Line>,
}

impl Maps {
    /// Takes them out of the options; None when they are not there.
    ///
    /// # Errors
    ///
    /// One without the other; a map that is none.
    pub(crate) fn take(options: &mut Vec<&str>) -> Result<Option<Self>> {
        let mut take = |name: &str| {
            let index = options.iter().position(|option| option.starts_with(name))?;
            let option = options.remove(index);
            // Lines are parted by commas, as the options are; the list has them apart.
            Some(option[name.len()..].split(',').map(line).collect::<Option<Vec<_>>>().ok_or(option))
        };
        match (take("uidmap="), take("gidmap=")) {
            (None, None) => Ok(None),
            (Some(Ok(uid)), Some(Ok(gid))) => Ok(Some(Self { uid, gid })),
            (Some(Err(option)), _) | (_, Some(Err(option))) => {
                Err(Error::invalid(format!("the option {option} is not container:host:count")))
            }
            _ => Err(Error::invalid("of the options uidmap and gidmap one is missing")),
        }
    }

    /// Mounts an overlay; its lower layers are mapped, the upper one has the owners already.
    ///
    /// # Errors
    ///
    /// Another kind of mount; layers that cannot be mapped; the kernel refuses.
    pub(crate) fn mount(&self, entry: &Mount, target: &Path, flags: MsFlags, options: &[&str]) -> Result<()> {
        let lower = options.iter().find_map(|option| option.strip_prefix("lowerdir="));
        let Some(lower) = lower.filter(|_| entry.type_ == "overlay") else {
            let kind = &entry.type_;
            return Err(Error::invalid(format!("ids are mapped for an overlay with lower layers, not for {kind}")));
        };
        let folders: Vec<&Path> = lower.split(':').map(Path::new).collect();
        let layers = flint_runtime::idmapped_clones(&folders, &self.uid, &self.gid)?;
        let names: Vec<String> = (0..layers.len()).map(|number| number.to_string()).collect();
        let rest = options.iter().filter(|option| !option.starts_with("lowerdir=")).copied();
        let options = rest.chain([format!("lowerdir={}", names.join(":")).as_str()]).collect::<Vec<_>>().join(",");
        let absolute = std::path::absolute(target).map_err(|error| Error::system("the bundle's path", error))?;
        let making = std::thread::spawn(move || detached_overlay(&absolute, &layers, &names, flags, &options));
        let overlay = making.join().map_err(|_| Error::system("mount", "its thread ended"))??;
        move_mount(overlay.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| Error::system("attach the overlay", errno))
    }
}

/// An overlay of layers that are mounted nowhere else: in a mount namespace of this thread's own, that ends with it, the
/// layers get paths, which the kernel wants before 6.15. Nothing has to be taken away after a failure.
fn detached_overlay(
    target: &PathBuf,
    layers: &[OwnedFd],
    names: &[String],
    flags: MsFlags,
    options: &str,
) -> Result<OwnedFd> {
    let failed = |doing: &'static str| move |errno: nix::errno::Errno| Error::system(doing, errno);
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).map_err(failed("leave the host's mounts"))?;
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), None::<&str>).map_err(failed("mount a tmpfs"))?;
    nix::unistd::chdir(target).map_err(failed("enter the root filesystem"))?;
    for (layer, name) in layers.iter().zip(names) {
        std::fs::create_dir(name).map_err(|error| Error::system("make a folder for a layer", error))?;
        move_mount(layer.as_fd(), "", CWD, name.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| Error::system("attach a layer", errno))?;
    }
    std::fs::create_dir("overlay").map_err(|error| Error::system("make a folder for the overlay", error))?;
    mount(Some("overlay"), "overlay", Some("overlay"), flags, Some(options)).map_err(failed("mount"))?;
    open_tree(CWD, "overlay", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .map_err(|errno| Error::system("detach the overlay", errno))
}

/// `container:host:count`
fn line(text: &str) -> Option<Line> {
    let mut numbers = text.split(':').map(str::parse);
    let line = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some(line)
}

#[cfg(test)]
mod tests {
    use super::Maps;

    #[test]
    fn maps_are_taken_out_of_the_options() {
        let mut options = vec!["index=off", "uidmap=0:1000:5,5:3000:1", "gidmap=0:2000:5", "lowerdir=/a:/b"];
        let maps = Maps::take(&mut options).unwrap().unwrap();
        assert_eq!(maps, Maps { uid: vec![(0, 1000, 5), (5, 3000, 1)], gid: vec![(0, 2000, 5)] });
        assert_eq!(options, ["index=off", "lowerdir=/a:/b"]);
        assert_eq!(Maps::take(&mut options).unwrap(), None);
        for wrong in [vec!["uidmap=0:0:1"], vec!["uidmap=0:0", "gidmap=0:0:1"], vec!["uidmap=0:0:1", "gidmap=x"]] {
            assert!(Maps::take(&mut wrong.clone()).is_err(), "{wrong:?}");
        }
    }
}
