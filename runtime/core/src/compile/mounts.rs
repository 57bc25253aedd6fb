//! Mounts (runtime-spec, "Mounts").

use std::path::{Path, PathBuf};

use flint_init::plan::{Attributes, FsOption, IdMap, Mount, MountSource, Range, Remount, RootBind, Slot, Step, Text};
use oci_spec::runtime::Mount as SpecMount;

use super::Compiler;
use super::labels::Modules;
use super::mount_options::{self, MountOptions, NOSYMFOLLOW};
use super::paths::{bytes, clean};
use crate::plan::SlotSource;
use crate::{Error, Result};

pub(super) const RDONLY: u64 = 0x1;
/// Bytes of one value of fsconfig(2), without the NUL.
const LONGEST_VALUE: usize = 255;
/// Files of procfs that lxcfs and the like may cover; runc's list.
const ALLOWED_IN_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// One entry of `mounts`, read; or the one that is added to a running container.
pub(super) struct Entry<'a> {
    /// Its place in `mounts`; [`Mount::OWN`] for one that is added.
    index: u16,
    pub(super) mount: &'a SpecMount,
    pub(super) destination: PathBuf,
    pub(super) options: MountOptions,
    pub(super) kind: &'a str,
}

impl<'a> Entry<'a> {
    pub(super) fn read(
        index: u16,
        mount: &'a SpecMount,
        inside_root: impl Fn(&Path) -> Option<PathBuf>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut options = mount_options::parse(mount.options().as_deref().unwrap_or(&[]));
        if !mount.destination().is_absolute() {
            warnings.push(format!(
                "mount destination {} is not absolute; it is taken from the container's root",
                mount.destination().display()
            ));
        }
        let kind = match mount.typ().as_deref() {
            _ if options.bind => "bind",
            Some(kind) if !kind.is_empty() => kind,
            _ => return Err(Error::invalid(format!("mounts[{index}]: neither a type nor the option bind or rbind"))),
        };
        if kind != "bind" {
            // Nothing is below a new file system or a cgroup's folder: `rro` means `ro`.
            options.fold_recursive();
        }
        // Some callers write the destination as a path of the host, below the root filesystem; runc takes both.
        let destination = inside_root(mount.destination()).unwrap_or_else(|| clean(mount.destination()));
        let entry = Self { index, mount, destination, options, kind };
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::invalid(format!("{}: {why}", self.field())));
        if self.destination == Path::new("/") {
            return refuse("the destination must not be the root itself");
        }
        let inside_proc = self.destination.starts_with("/proc") && self.destination != Path::new("/proc");
        if inside_proc && !ALLOWED_IN_PROC.iter().any(|allowed| self.destination == Path::new(allowed)) {
            return refuse("a mount inside /proc could fake what the runtime reads and writes there");
        }
        if self.destination == Path::new("/proc") && !matches!(self.kind, "proc" | "bind") {
            return refuse("only a proc file system may be mounted on /proc");
        }
        // What init reads and writes below /proc must be the kernel's answer (CVE-2019-16884).
        let from_proc = self
            .mount
            .source()
            .as_ref()
            .is_some_and(|source| source.is_absolute() && clean(source) == Path::new("/proc"));
        if self.destination == Path::new("/proc") && self.kind == "bind" && !from_proc {
            return refuse("only the host's /proc may be bound there");
        }
        if self.options.copy_up && self.kind != "tmpfs" {
            return refuse("tmpcopyup is for tmpfs only");
        }
        Ok(())
    }

    pub(super) fn field(&self) -> String {
        match self.index {
            Mount::OWN => format!("mount {}", self.destination.display()),
            index => format!("mounts[{index}] {}", self.destination.display()),
        }
    }

    pub(super) fn step(&self, source: MountSource, target: Text) -> Mount {
        Mount {
            index: self.index,
            source,
            target,
            no_symlinks: matches!(self.kind, "proc" | "sysfs"),
            attributes: self.options.attributes,
            unlisted: 0,
            recursive_attributes: self.options.recursive_attributes,
            idmap: None,
            propagation: self.options.propagation,
            propagation_recursive: self.options.propagation_recursive,
            copy_up: self.options.copy_up,
            keep_mode: self.kind == "tmpfs" && self.options.data.iter().all(|(key, _)| key != "mode"),
            kept: None,
        }
    }
}

/// Whether the kernel has `MOUNT_ATTR_NOSYMFOLLOW` (Linux 5.14).
fn knows_nosymfollow() -> bool {
    let Ok(names) = nix::sys::utsname::uname() else { return false };
    let release = names.release().to_string_lossy();
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

impl Compiler<'_> {
    pub(super) fn mounts(&mut self) -> Result<()> {
        let mounts = self.spec.mounts().as_deref().unwrap_or(&[]);
        let mut warnings = Vec::new();
        if self.root_bind() == RootBind::Host {
            if self.namespaces.has_user() || self.host.caller.is_unprivileged() {
                return Err(Error::invalid(
                    "mounts and root.readonly need a mount namespace in linux.namespaces: only root of the host may mount in the host's",
                ));
            }
            // runc leaves them as well, and who asks for this unmounts them.
            warnings.push(
                "linux.namespaces has no mount namespace: the mounts are made in the host's, below root.path, and delete leaves them there (umount -R root.path takes them away)"
                    .to_owned(),
            );
        }
        for (index, mount) in mounts.iter().enumerate() {
            let mut entry = Entry::read(index as u16, mount, |path| self.inside_root(path), &mut warnings)?;
            if self.root_bind() == RootBind::Host && entry.options.propagation == 0 && !entry.options.remount {
                // As in a namespace of its own, whose mounts are all slaves: what the container mounts stays with it.
                (entry.options.propagation, entry.options.propagation_recursive) = (libc::MS_SLAVE, true);
            }
            match entry.kind {
                kind if entry.options.remount && kind != "cgroup" => self.remount(&entry)?,
                "bind" => self.bind(&entry, self.namespaces.has_user() && !self.host.caller.is_unprivileged())?,
                "cgroup" => {
                    self.entry_idmap(&entry)?;
                    self.cgroup_mount(&entry)?;
                }
                _ => self.filesystem(&entry)?,
            }
        }
        self.warnings.append(&mut warnings);
        Ok(())
    }

    pub(super) fn bind(&mut self, entry: &Entry<'_>, by_host: bool) -> Result<()> {
        let Some(source) = entry.mount.source().as_ref().filter(|source| !source.as_os_str().is_empty()) else {
            return Err(Error::invalid(format!("{}: a bind mount needs a source", entry.field())));
        };
        let (path, recursive) = (self.bundle.path().join(source), entry.options.bind_recursive);
        if !entry.options.data.is_empty() {
            let words: Vec<_> = entry.options.data.iter().map(|(key, _)| key.as_str()).collect();
            self.warnings.push(format!(
                "{}: a bind mount has no use for the options {}",
                entry.field(),
                words.join(", ")
            ));
        }
        let target = self.tables.path(&entry.field(), bytes(&entry.destination))?;
        let idmap = self.entry_idmap(entry)?;
        let (mut attributes, unlisted) = entry.options.bound();
        let mut step;
        // From the container's own root: of what is mounted there by then, and no link of the image leads out of it.
        if let Some(inside) = self.inside_root(&path) {
            let path = self.tables.path(&entry.field(), bytes(&inside))?;
            step = entry.step(MountSource::Inside { path, recursive }, target);
            (step.attributes, step.unlisted) = (attributes, unlisted);
            step.idmap = idmap.map(|idmap| IdMap { by_host, ..idmap });
        } else if by_host {
            // In its own user namespace init may not reach the source, nor change what it did not mount (trap 5).
            if unlisted & NOSYMFOLLOW != 0 && knows_nosymfollow() {
                attributes.clear |= NOSYMFOLLOW;
            }
            let slot = self.tables.slot(SlotSource::BindMount {
                locked: self.namespaces.has_user(),
                path,
                recursive,
                attributes,
                recursive_attributes: entry.options.recursive_attributes,
                idmap,
            });
            step = entry.step(MountSource::Prepared { slot }, target);
            (step.attributes, step.recursive_attributes) = (Attributes::default(), Attributes::default());
        } else {
            let path = self.tables.path(&entry.field(), bytes(&path))?;
            step = entry.step(MountSource::Bind { path, recursive }, target);
            (step.attributes, step.unlisted, step.idmap) = (attributes, unlisted, idmap);
        }
        self.tables.push(Step::Mount(step));
        Ok(())
    }

    fn filesystem(&mut self, entry: &Entry<'_>) -> Result<()> {
        let readonly = entry.options.attributes.set & RDONLY != 0;
        let late_readonly = readonly && is_readonly_late(entry);
        let mut data = filesystem_data(entry);
        // As mount(2) does with MS_RDONLY: the file system, not only this view of it.
        if readonly && !late_readonly {
            data.push(("ro".to_owned(), None));
        }
        let source = entry.mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
        let source = source.map_or(entry.kind.as_bytes(), |source| bytes(source)).to_vec();
        let mut attributes = entry.options.attributes;
        if late_readonly {
            attributes.set &= !RDONLY;
        }
        let target = self.tables.path(&entry.field(), bytes(&entry.destination))?;
        let mut step;
        let idmap = self.entry_idmap(entry)?;
        if idmap.is_some() && self.namespaces.has_user() {
            // Mapped by init, which is not root of the file system's user namespace then, it would be refused.
            let (fstype, options) = (entry.kind.to_owned(), split_lower_folders(entry.kind, &data));
            check_lengths(&entry.field(), &source, &options)?;
            let slot = self.tables.slot(SlotSource::Filesystem { fstype, source, options, attributes, idmap });
            step = entry.step(MountSource::Prepared { slot }, target);
            step.attributes = Attributes::default();
        } else {
            step = entry.step(self.new_filesystem(&entry.field(), entry.kind, &source, &data)?, target);
            (step.attributes, step.idmap) = (attributes, idmap);
        }
        step.kept = late_readonly.then(|| self.readonly_later(target));
        self.tables.push(Step::Mount(step));
        Ok(())
    }

    /// Of a mount that an earlier entry made.
    fn remount(&mut self, entry: &Entry<'_>) -> Result<()> {
        let options = &entry.options;
        if options.copy_up || self.entry_idmap(entry)?.is_some() {
            return Err(Error::invalid(format!("{}: remount changes no files and no owners", entry.field())));
        }
        let target = self.tables.path(&entry.field(), bytes(&entry.destination))?;
        let mut attributes = options.remounted();
        let mut kept = None;
        if attributes.set & RDONLY != 0 && is_readonly_late(entry) {
            attributes.set &= !RDONLY;
            kept = Some(self.readonly_later(target));
        }
        let data = (entry.kind != "bind").then(|| {
            let mut data = filesystem_data(entry);
            data.extend(options.unlisted().map(|flag| (flag.to_owned(), None)));
            data.push((if attributes.set & RDONLY != 0 { "ro" } else { "rw" }.to_owned(), None));
            data
        });
        let data = data.map(|data| self.filesystem_options(&entry.field(), &data)).transpose()?;
        let data = data.map(|data| self.tables.options(&data));
        self.tables.push(Step::Remount(Remount {
            index: entry.index,
            target,
            options: data,
            attributes,
            recursive_attributes: options.recursive_attributes,
            propagation: options.propagation,
            propagation_recursive: options.propagation_recursive,
            kept,
        }));
        Ok(())
    }

    /// A path of the host below the root filesystem, as a path inside it.
    pub(super) fn inside_root(&self, path: &Path) -> Option<PathBuf> {
        let root = self.bundle.path().join(self.spec.root().as_ref()?.path());
        let inside = clean(path).strip_prefix(clean(&root)).ok().map(|inside| Path::new("/").join(inside))?;
        (inside != Path::new("/")).then_some(inside)
    }

    pub(super) fn entry_idmap(&mut self, entry: &Entry<'_>) -> Result<Option<IdMap>> {
        self.idmap(&entry.field(), entry.kind, entry.mount, entry.options.idmap.as_ref())
    }

    /// As late as possible: hooks may still make nodes in /dev.
    pub(super) fn readonly_mounts(&mut self) {
        for (slot, path) in std::mem::take(&mut self.late_readonly) {
            self.tables.push(Step::RemountReadonly { slot, path });
        }
    }

    fn readonly_later(&mut self, path: Text) -> Slot {
        let slot = self.tables.slot(SlotSource::Made);
        self.late_readonly.push((slot, path));
        slot
    }

    fn filesystem_options(&mut self, field: &str, data: &[(String, Option<String>)]) -> Result<Vec<FsOption>> {
        check_lengths(field, b"", data)?;
        let mut options = Vec::with_capacity(data.len());
        for (key, value) in data {
            let value = value.as_ref().map_or(Ok(Text::NONE), |value| self.tables.text(field, value))?;
            options.push(FsOption { key: self.tables.text(field, key)?, value });
        }
        Ok(options)
    }

    pub(super) fn new_filesystem(
        &mut self,
        field: &str,
        kind: &str,
        source: &[u8],
        data: &[(String, Option<String>)],
    ) -> Result<MountSource> {
        let data = split_lower_folders(kind, data);
        check_lengths(field, source, &data)?;
        let mut options = self.filesystem_options(field, &data)?;
        if let Some((key, label)) = self.mount_label(kind, Modules::detect)? {
            options.push(FsOption { key: self.tables.text(field, key)?, value: self.tables.text(field, label)? });
        }
        let options = if options.is_empty() { Range::default() } else { self.tables.options(&options) };
        Ok(MountSource::New {
            fstype: self.tables.text(field, kind)?,
            source: self.tables.text(field, source)?,
            options,
        })
    }
}

/// Later mounts may need their targets made in it; runc delays the same ones.
fn is_readonly_late(entry: &Entry<'_>) -> bool {
    entry.destination == Path::new("/dev") || entry.kind == "tmpfs"
}

fn filesystem_data(entry: &Entry<'_>) -> Vec<(String, Option<String>)> {
    let mut data = entry.options.data.clone();
    if entry.options.versions && entry.kind == "ext4" {
        data.push(("i_version".to_owned(), None));
    }
    data
}

pub(super) fn check_lengths(field: &str, source: &[u8], data: &[(String, Option<String>)]) -> Result<()> {
    let mut values = data.iter().filter_map(|(_, value)| value.as_ref());
    if let Some(long) = values.find(|value| value.len() > LONGEST_VALUE) {
        return Err(Error::unsupported(format!(
            "{field}: the value {long:?} of an option has {} bytes, more than the {LONGEST_VALUE} that fsconfig(2) takes",
            long.len()
        )));
    }
    if source.len() > LONGEST_VALUE {
        return Err(Error::unsupported(format!("{field}: the source is longer than {LONGEST_VALUE} bytes")));
    }
    Ok(())
}

/// Long lists of an overlay's lower folders, folder by folder: mount(2) took a page, fsconfig(2) takes 255 bytes for
/// each value (`lowerdir+` and `datadir+`: Linux 6.8). A list with escaped colons is left as it is.
fn split_lower_folders(kind: &str, data: &[(String, Option<String>)]) -> Vec<(String, Option<String>)> {
    let mut split = Vec::with_capacity(data.len());
    for (key, value) in data {
        match value {
            Some(list)
                if kind == "overlay" && key == "lowerdir" && list.len() > LONGEST_VALUE && !list.contains('\\') =>
            {
                let (layers, layers_of_data) = list.split_once("::").unwrap_or((list, ""));
                let entries = |key: &str, list: &str, separator: &str| -> Vec<(String, Option<String>)> {
                    let folders = list.split(separator).filter(|folder| !folder.is_empty());
                    folders.map(|folder| (key.to_owned(), Some(folder.to_owned()))).collect()
                };
                split.extend(entries("lowerdir+", layers, ":"));
                split.extend(entries("datadir+", layers_of_data, "::"));
            }
            _ => split.push((key.clone(), value.clone())),
        }
    }
    split
}
