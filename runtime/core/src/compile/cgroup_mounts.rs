//! Mounts of the cgroup file systems.

use std::path::{Path, PathBuf};

use flint_init::plan::{Attributes, MountSource, Step, Text};

use super::Compiler;
use super::mounts::{Entry, RDONLY};
use super::paths::bytes;
use crate::Result;
use crate::cgroup::{Hierarchy, Mode, Need};
use crate::plan::SlotSource;

impl Compiler<'_> {
    /// The cgroup file system: of the container's own cgroup namespace, or a view of its own folders.
    pub(super) fn cgroup_mount(&mut self, entry: &Entry<'_>) -> Result<()> {
        if self.host.layout.mode() == Mode::V2 {
            let source = if self.namespaces.has(libc::CLONE_NEWCGROUP) {
                self.new_filesystem(&entry.field(), "cgroup2", b"cgroup", &[])?
            } else {
                self.cgroup_tree(entry)?
            };
            return self.push_cgroup(entry, source, &entry.destination);
        }
        self.cgroup_top(entry)?;
        let hierarchies: Vec<Hierarchy> =
            self.host.layout.hierarchies().iter().filter(|hierarchy| hierarchy.is_joined()).cloned().collect();
        for hierarchy in &hierarchies {
            self.cgroup_hierarchy(entry, hierarchy)?;
        }
        // The folder of the hierarchies stays writable with `ro`, as under runc: it is the container's own tmpfs.
        Ok(())
    }

    /// The folder of the hierarchies. Where these are opened by the host, it is too, and before them: /proc/mounts
    /// lists mounts by their age, and its readers take the last line of a path for the uppermost mount.
    fn cgroup_top(&mut self, entry: &Entry<'_>) -> Result<()> {
        let options = [("mode".to_owned(), Some("755".to_owned()))];
        let mut attributes = entry.options.attributes;
        attributes.set &= !RDONLY;
        let by_host = !self.namespaces.has(libc::CLONE_NEWCGROUP)
            && !self.namespaces.has_user()
            && self.host.caller.cgroups == Need::Required;
        let tmpfs = if by_host {
            let (fstype, source, options) = ("tmpfs".to_owned(), b"tmpfs".to_vec(), options.to_vec());
            let slot = self.tables.slot(SlotSource::Filesystem { fstype, source, options, attributes, idmap: None });
            MountSource::Prepared { slot }
        } else {
            self.new_filesystem(&entry.field(), "tmpfs", b"tmpfs", &options)?
        };
        let target = self.tables.path(&entry.field(), bytes(&entry.destination))?;
        let mut folder = entry.step(tmpfs, target);
        folder.keep_mode = false;
        folder.attributes = if by_host { Attributes::default() } else { attributes };
        self.tables.push(Step::Mount(folder));
        Ok(())
    }

    fn cgroup_hierarchy(&mut self, entry: &Entry<'_>, hierarchy: &Hierarchy) -> Result<()> {
        let name = hierarchy.mountpoint.file_name().unwrap_or(hierarchy.name.as_ref());
        let destination = entry.destination.join(name);
        let source = if self.namespaces.has(libc::CLONE_NEWCGROUP) {
            let named = |name: &str| match name.split_once('=') {
                Some((key, value)) => vec![("none".to_owned(), None), (key.to_owned(), Some(value.to_owned()))],
                None => vec![(name.to_owned(), None)],
            };
            let data: Vec<_> = hierarchy.name.split(',').flat_map(named).collect();
            // What mountinfo shows under runc.
            let source: &[u8] = if hierarchy.name == "name=systemd" { b"systemd" } else { b"cgroup" };
            self.new_filesystem(&entry.field(), "cgroup", source, &data)?
        } else {
            self.cgroup_folder(Some(hierarchy), entry)?
        };
        self.push_cgroup(entry, source, &destination)?;
        // cpu -> cpu,cpuacct for those who look for one controller.
        for controller in hierarchy.name.split(',').filter(|_| hierarchy.name.contains(',')) {
            let path = self.tables.path(&entry.field(), bytes(&entry.destination.join(controller)))?;
            let target = self.tables.path(&entry.field(), name.as_encoded_bytes())?;
            self.tables.push(Step::Symlink { target, path, replace: false });
        }
        Ok(())
    }

    /// The container's own folder of a hierarchy (of the v2 tree: `None`). Where it may have to go without one, init
    /// looks, and shows it what it may see of its maker's.
    /// On v2 as under runc the host's whole tree: /proc/self/cgroup shows paths in it, and who asks for the host's
    /// cgroup namespace wants to look at them. A clone, since a new mount would reset the options of the host's
    /// (nsdelegate, memory_recursiveprot).
    fn cgroup_tree(&mut self, entry: &Entry<'_>) -> Result<MountSource> {
        if self.host.caller.cgroups != Need::Required {
            return self.cgroup_folder(None, entry);
        }
        let slot = self.tables.slot(SlotSource::BindMount {
            // It forbids nothing, and what is mounted below it could not be left out.
            locked: false,
            path: self.host.layout.unified().unwrap_or(Path::new("/sys/fs/cgroup")).to_path_buf(),
            recursive: false,
            attributes: entry.options.attributes,
            recursive_attributes: Attributes::default(),
            idmap: None,
        });
        Ok(MountSource::Prepared { slot })
    }

    fn cgroup_folder(&mut self, hierarchy: Option<&Hierarchy>, entry: &Entry<'_>) -> Result<MountSource> {
        let name = hierarchy.map_or("", |hierarchy| hierarchy.name.as_str());
        if self.host.caller.cgroups == Need::Required {
            let attributes = entry.options.attributes;
            let slot = self.tables.slot(SlotSource::CgroupMount { hierarchy: name.to_owned(), attributes });
            return Ok(MountSource::Prepared { slot });
        }
        let place = hierarchy.map_or(&self.cgroup_places.unified, |_| &None);
        let place = place.as_ref().or_else(|| self.cgroup_places.v1.get(name)).cloned();
        let own = hierarchy.map(|hierarchy| hierarchy.mountpoint.join(&hierarchy.own));
        let mut text =
            |path: Option<PathBuf>| path.map_or(Ok(Text::NONE), |path| self.tables.path(&entry.field(), bytes(&path)));
        Ok(MountSource::Cgroup { path: text(place)?, own: text(own)? })
    }

    fn push_cgroup(&mut self, entry: &Entry<'_>, source: MountSource, destination: &Path) -> Result<()> {
        let target = self.tables.path(&entry.field(), bytes(destination))?;
        let mut step = entry.step(source, target);
        if matches!(source, MountSource::Prepared { .. }) {
            step.attributes = Attributes::default();
        }
        self.tables.push(Step::Mount(step));
        Ok(())
    }
}
