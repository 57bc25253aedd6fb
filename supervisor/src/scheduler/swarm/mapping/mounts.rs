//! Mounts of a task: folders of the host, volumes of the node, memory.

use super::template::Values;
use super::{Unmappable, none};
use crate::desired::{self, Container, Pod, Propagation, Volume, VolumeSource};
use crate::scheduler::swarm::wire::container::{
    BindOptions, ContainerSpec, Mount, MountKind, MountPropagation, VolumeOptions,
};

/// `rwxrwxrwt` as Go's os.FileMode has it.
const STICKY_FOR_ALL: u32 = 0o777 | 1 << 20;

pub(super) fn add(
    spec: &ContainerSpec,
    values: &Values,
    pod: &mut Pod,
    container: &mut Container,
) -> Result<(), Unmappable> {
    for (index, mount) in spec.mounts.iter().enumerate() {
        let name = format!("mount-{index}");
        let source = values.expand("mounts.source", &mount.source)?;
        let target = values.expand("mounts.target", &mount.target)?;
        if !target.starts_with('/') {
            return Err(Unmappable::new("mounts.target", format!("{target:?} is not absolute")));
        }
        let mut own = desired::Mount {
            volume: name.clone(),
            path: target,
            sub_path: None,
            read_only: mount.readonly,
            propagation: Propagation::Private,
        };
        let source = match MountKind::try_from(mount.kind) {
            Ok(MountKind::Bind) => bind(mount, &source, &mut own)?,
            Ok(MountKind::Volume) => volume(mount, &source, &mut own)?,
            Ok(MountKind::Tmpfs) => tmpfs(mount)?,
            _ => return Err(Unmappable::new("mounts.type", "flintd has bind, volume and tmpfs")),
        };
        pod.volumes.push(Volume { name, source });
        container.mounts.push(own);
    }
    Ok(())
}

fn bind(mount: &Mount, source: &str, own: &mut desired::Mount) -> Result<VolumeSource, Unmappable> {
    none(
        mount.volume_options.is_none() && mount.tmpfs_options.is_none(),
        "mounts",
        "a bind mount has options of another kind",
    )?;
    if !source.starts_with('/') {
        return Err(Unmappable::new("mounts.source", format!("{source:?} is not absolute")));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    let BindOptions { propagation, nonrecursive, createmountpoint, readonlynonrecursive, readonlyforcerecursive } =
        options;
    own.propagation = match MountPropagation::try_from(propagation) {
        Ok(MountPropagation::Rprivate) => Propagation::Private,
        Ok(MountPropagation::Rslave) => Propagation::HostToContainer,
        Ok(MountPropagation::Rshared) => Propagation::Bidirectional,
        _ => {
            let reason = "flintd has rprivate, rslave and rshared";
            return Err(Unmappable::new("mounts.bind_options.propagation", reason));
        }
    };
    none(!nonrecursive, "mounts.bind_options.nonrecursive", "flintd binds with what is mounted below")?;
    none(
        !readonlynonrecursive && !readonlyforcerecursive,
        "mounts.bind_options.readonly",
        "flintd does not choose what is read-only below a mount",
    )?;
    Ok(VolumeSource::HostPath { path: source.into(), make_folder: createmountpoint, make_file: false, kind: None })
}

fn volume(mount: &Mount, source: &str, own: &mut desired::Mount) -> Result<VolumeSource, Unmappable> {
    none(
        mount.bind_options.is_none() && mount.tmpfs_options.is_none(),
        "mounts",
        "a volume has options of another kind",
    )?;
    // Labels are for those who list volumes.
    let VolumeOptions { nocopy: _, labels: _, driver_config, subpath } =
        mount.volume_options.clone().unwrap_or_default();
    if let Some(driver) = driver_config {
        let field = "mounts.volume_options.driver_config";
        none(matches!(driver.name.as_str(), "" | "local"), field, "flintd has local volumes alone")?;
        none(driver.options.is_empty(), field, "flintd's volumes are folders, without options")?;
    }
    own.sub_path = (!subpath.is_empty()).then_some(subpath);
    // One without a name is the task's own.
    Ok(if source.is_empty() {
        VolumeSource::EmptyDir { size_limit: None }
    } else {
        VolumeSource::Named(source.to_owned())
    })
}

fn tmpfs(mount: &Mount) -> Result<VolumeSource, Unmappable> {
    none(
        mount.bind_options.is_none() && mount.volume_options.is_none(),
        "mounts",
        "a tmpfs has options of another kind",
    )?;
    none(mount.source.is_empty(), "mounts.source", "a tmpfs has none")?;
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    none(options.options.is_empty(), "mounts.tmpfs_options.options", "flintd gives a tmpfs a size alone")?;
    let is_usual = [0, STICKY_FOR_ALL].contains(&options.mode);
    none(is_usual, "mounts.tmpfs_options.mode", "a tmpfs of flintd is for all, as docker's is by default")?;
    Ok(VolumeSource::Memory { size_limit: u64::try_from(options.size_bytes).ok().filter(|size| *size > 0) })
}
