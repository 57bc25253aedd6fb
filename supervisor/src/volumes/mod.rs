//! Volumes: folders and files of the host that containers have.
//!
//! ```text
//!  DATA/pods/UID/empty/NAME    emptyDir on disk, 0777
//!  DATA/pods/UID/files/NAME    files of known content, exchanged as a whole
//!  DATA/volumes/NAME           named volumes: they outlive their pods
//!  RUN/pods/UID/memory/NAME    emptyDir in memory, a tmpfs each
//!  RUN/secrets/UID/NAME        secrets, in one tmpfs for all, 0700
//!  RUN/pods/UID/parts/CONTAINER/N   what subPath leads to, bound once it is resolved
//! ```
//!
//! A pod: [`Volumes::prepare`] before its sandbox; [`Volumes::refresh`] when the content of its files has changed; [`Volumes::mounts`] before each start of a
//! container; [`Volumes::release`] when it is gone. [`Volumes::retain`] after a start of flintd. All of it blocks, may be
//! repeated, and finds by itself what an earlier flintd left.
//!
//! It must not follow a link that a container made, delete through a mount, write a secret to a disk, or remove a named volume
//! on its own. flintd must be in the host's mount namespace: what is mounted here is what shims see.

mod empty;
mod error;
mod files;
mod group;
mod host_path;
mod mountinfo;
mod named;
mod parts;
mod release;
mod removal;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::desired::{Container, Mount, Pod, Propagation, Volume, VolumeSource};

pub use error::{Error, Result};
pub use named::NamedVolume;
pub use usage::TooBig;
pub(crate) use usage::{disk_usage, inodes};

/// Where volumes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// On disk; what has to outlive a reboot is here (`/var/lib/flintd`).
    pub data: PathBuf,
    /// In memory, or gone with a reboot at least (`/run/flintd`).
    pub run: PathBuf,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its folder or file on the host.
    pub path: PathBuf,
    /// Whether containers may only read it, whatever they ask for.
    pub read_only: bool,
}

/// A bind mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host. Nobody but root can put something else in its place.
    pub source: PathBuf,
    /// In the container.
    pub destination: String,
    /// Options as config.json has them: `rbind`, `ro` or `rw`, `rprivate`, `rslave` or `rshared`.
    pub options: Vec<String>,
}

/// The volumes of the node.
#[derive(Debug)]
pub struct Volumes {
    config: Config,
}

impl Volumes {
    /// Makes the folders that are missing, and the tmpfs of secrets.
    ///
    /// # Errors
    ///
    /// A folder cannot be made, or is not root's alone.
    pub fn open(config: Config) -> Result<Self> {
        let volumes = Self { config };
        for folder in [volumes.data("pods"), volumes.run("pods"), volumes.run("secrets")] {
            private_folder(&folder)?;
        }
        make_folder(&volumes.data("volumes"), 0o711)?;
        files::hold_in_memory(&volumes.run("secrets"))?;
        Ok(volumes)
    }

    fn data(&self, folder: &str) -> PathBuf {
        self.config.data.join(folder)
    }

    fn run(&self, folder: &str) -> PathBuf {
        self.config.run.join(folder)
    }

    /// Makes each volume of a pod that is missing, and brings the content of files up to date.
    ///
    /// # Errors
    ///
    /// The first volume that cannot be made. What was made before is kept for the next try, or for [`Self::release`].
    pub fn prepare(&self, pod: &Pod) -> Result<BTreeMap<String, Place>> {
        check_name(&pod.uid, "a pod's uid")?;
        let mut places = BTreeMap::new();
        for volume in &pod.volumes {
            check_name(&volume.name, "a volume's name")?;
            let place = self.make(pod, volume).map_err(|error| error.about(format!("volume {}", volume.name)))?;
            places.insert(volume.name.clone(), place);
        }
        Ok(places)
    }

    /// Brings the content of files up to date in a pod whose volumes are there; nothing else of them is touched.
    ///
    /// # Errors
    ///
    /// The first volume whose files cannot be exchanged: it has all of the old.
    pub fn refresh(&self, pod: &Pod) -> Result<()> {
        check_name(&pod.uid, "a pod's uid")?;
        let has_content = |volume: &&Volume| matches!(volume.source, VolumeSource::Files(_) | VolumeSource::Secret(_));
        for volume in pod.volumes.iter().filter(has_content) {
            check_name(&volume.name, "a volume's name")?;
            self.make(pod, volume).map_err(|error| error.about(format!("volume {}", volume.name)))?;
        }
        Ok(())
    }

    fn make(&self, pod: &Pod, volume: &Volume) -> Result<Place> {
        let place = self.place(pod, volume);
        let group = pod.volume_group;
        match &volume.source {
            VolumeSource::EmptyDir { .. } => empty::on_disk(&place.path, group)?,
            VolumeSource::Memory { size_limit } => empty::in_memory(&place.path, *size_limit, group)?,
            VolumeSource::HostPath { path, make_folder, make_file, kind } => {
                host_path::check(path, *make_folder, *make_file, *kind)?;
            }
            VolumeSource::Named(name) => named::make(&self.data("volumes"), name, group)?,
            VolumeSource::Secret(_) if pod.has_forgotten(volume) => files::must_be_there(&place.path)?,
            VolumeSource::Files(items) | VolumeSource::Secret(items) => files::put(&place.path, items, group)?,
        }
        Ok(place)
    }

    fn place(&self, pod: &Pod, volume: &Volume) -> Place {
        let on_disk = |kind: &str| self.data("pods").join(&pod.uid).join(kind).join(&volume.name);
        let (path, read_only) = match &volume.source {
            VolumeSource::EmptyDir { .. } => (on_disk("empty"), false),
            VolumeSource::Files(_) => (on_disk("files"), true),
            VolumeSource::Memory { .. } => (self.run("pods").join(&pod.uid).join("memory").join(&volume.name), false),
            VolumeSource::Secret(_) => (self.run("secrets").join(&pod.uid).join(&volume.name), true),
            VolumeSource::Named(name) => (self.data("volumes").join(name), false),
            VolumeSource::HostPath { path, .. } => (path.clone(), false),
        };
        Place { path, read_only }
    }

    /// The mounts of a container, in the order in which they are to be made. Parts of volumes (subPath) are resolved inside
    /// their volume and bound to a folder that only root reaches, so that nobody can exchange them between this and the
    /// mount in the container (CVE-2017-1002101, CVE-2021-25741). Parts of an earlier start of the container are let go:
    /// it must have ended.
    ///
    /// # Errors
    ///
    /// A part cannot be resolved, made or bound; a volume is not among the pod's.
    pub fn mounts(&self, pod: &Pod, container: &Container) -> Result<Vec<Bind>> {
        check_name(&pod.uid, "a pod's uid")?;
        check_name(&container.name, "a container's name")?;
        let parts = self.run("pods").join(&pod.uid).join("parts").join(&container.name);
        parts::let_go(&parts)?;
        let mut binds = Vec::with_capacity(container.mounts.len());
        for (index, mount) in container.mounts.iter().enumerate() {
            let bind = self.bind(pod, mount, &parts.join(index.to_string()));
            binds.push(bind.map_err(|error| error.about(format!("mount at {}", mount.path)))?);
        }
        Ok(binds)
    }

    fn bind(&self, pod: &Pod, mount: &Mount, part: &Path) -> Result<Bind> {
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
        let volume = volume.ok_or_else(|| Error::wrong(format!("the pod has no volume {:?}", mount.volume)))?;
        let place = self.place(pod, volume);
        let source = match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => parts::hold(&place.path, path, place.read_only, part)?,
            None => place.path,
        };
        let access = if mount.read_only || place.read_only { "ro" } else { "rw" };
        let propagation = match mount.propagation {
            Propagation::Private => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        };
        let options = ["rbind", propagation, access].map(str::to_owned).to_vec();
        Ok(Bind { source, destination: mount.path.clone(), options })
    }
}

/// A name becomes a file's name, so it must not lead elsewhere.
fn check_name(name: &str, what: &str) -> Result<()> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.bytes().all(is_good) {
        return Ok(());
    }
    Err(Error::wrong(format!("{name:?} is no name of a folder, so it cannot be {what}")))
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Error::os(format!("make folder {}", path.display()), error))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
        .map_err(|error| Error::os(format!("set the mode of folder {}", path.display()), error))
}

/// A folder that nobody but root looks into: what is below is reached by mounts alone.
fn private_folder(path: &Path) -> Result<()> {
    make_folder(path, 0o700)
}

#[cfg(test)]
mod tests;
