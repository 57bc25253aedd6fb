//! A mount added to a running container, and one taken from it: a short plan for a process that visits the
//! container's mount namespace.
//!
//! ```text
//!  host: opens the mount, detached, with the host's paths   visitor: joins ─▶ finds the target inside the root ─▶ attaches
//! ```
//!
//! The container owns the tree that the target lies in and may change it meanwhile, so the visitor does what init does
//! when it makes the container: one resolution inside the root, then only descriptors. Nothing of the source is looked
//! up inside the container.

use std::path::{Path, PathBuf};

use flint_init::plan::{Attributes, Barrier, Mount, MountSource, Step};
use oci_spec::runtime::Mount as SpecMount;

use super::mounts::{Entry, check_lengths};
use super::paths::{bytes, clean};
use super::{Compiler, Host};
use crate::bundle::Bundle;
use crate::cgroup;
use crate::plan::{HostHooks, Plan, SlotSource};
use crate::{Error, Result};

/// File systems that show the namespaces of whoever makes them: made by the host they would show the host's.
const OF_NAMESPACES: &[&str] = &["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"];

/// Compiles a mount for a running container. `init` is the pid of the container's init.
///
/// # Errors
///
/// `Invalid` and `Unsupported` as for an entry of `mounts`; file systems that would show the host's namespaces.
pub fn compile_mount(bundle: &Bundle, host: &Host, mount: &SpecMount, init: i32) -> Result<Plan> {
    let mut compiler = visitor(bundle, host)?;
    if compiler.namespaces.has_user() {
        let path = PathBuf::from(format!("/proc/{init}/ns/user"));
        let slot = compiler.tables.slot(SlotSource::Namespace { kind: libc::CLONE_NEWUSER as u32, path });
        compiler.namespaces.found_user(slot);
    }
    let mut warnings = Vec::new();
    let entry = Entry::read(Mount::OWN, mount, |_| None, &mut warnings)?;
    if entry.options.copy_up {
        return Err(Error::invalid(format!(
            "{}: tmpcopyup is for mounts that are made with the container",
            entry.field()
        )));
    }
    if entry.options.remount {
        return Err(Error::invalid(format!(
            "{}: remount is for mounts that are made with the container",
            entry.field()
        )));
    }
    if OF_NAMESPACES.contains(&entry.kind) {
        return Err(Error::invalid(format!(
            "{}: a {} file system would show the host's namespaces, not the container's: bind one of its own instead",
            entry.field(),
            entry.kind
        )));
    }
    compiler.join(libc::CLONE_NEWNS | if compiler.namespaces.has_user() { libc::CLONE_NEWUSER } else { 0 });
    if compiler.namespaces.has_user() {
        // What is made for the target belongs to the container's root.
        compiler.tables.push(Step::BecomeRoot);
    }
    if entry.kind == "bind" {
        compiler.bind(&entry, true)?;
    } else {
        compiler.prepared_filesystem(&entry)?;
    }
    compiler.warnings.append(&mut warnings);
    compiler.visit()
}

/// Compiles the removal of a mount from a running container.
///
/// # Errors
///
/// `Invalid` for the container's root.
pub fn compile_umount(bundle: &Bundle, host: &Host, destination: &Path) -> Result<Plan> {
    let mut compiler = visitor(bundle, host)?;
    let path = clean(destination);
    if path == Path::new("/") {
        return Err(Error::invalid("umount: the container's root cannot be unmounted"));
    }
    compiler.join(libc::CLONE_NEWNS);
    let proc = compiler.tables.slot(SlotSource::Proc);
    let path = compiler.tables.path("umount", bytes(&path))?;
    compiler.tables.push(Step::Detach { proc, path });
    compiler.visit()
}

fn visitor<'a>(bundle: &'a Bundle, host: &'a Host) -> Result<Compiler<'a>> {
    let mut compiler = Compiler::new(bundle, host, false, 0)?;
    if !compiler.namespaces.has(libc::CLONE_NEWNS) {
        return Err(Error::unsupported("the container has no mount namespace of its own: mount on the host"));
    }
    // The paths in config.json may be gone by now: init is in all of the container's namespaces.
    compiler.tables.slots.clear();
    Ok(compiler)
}

impl Compiler<'_> {
    fn join(&mut self, kinds: i32) {
        let slot = self.tables.slot(SlotSource::ContainerInit);
        self.tables.push(Step::CloseFds);
        self.tables.push(Step::NotDumpable);
        self.tables.push(Step::JoinNamespace { slot, kind: kinds as u32 });
        // The host looks whose they are.
        self.tables.push(Step::Barrier(Barrier::Born));
    }

    /// A new file system, made by the host whatever the container: its source is a path of the host.
    fn prepared_filesystem(&mut self, entry: &Entry<'_>) -> Result<()> {
        let mut options = entry.options.data.clone();
        if entry.kind == "tmpfs" && self.namespaces.has_user() {
            let (uid, gid) = self.namespaces.id_maps();
            for (key, map) in [("uid", uid), ("gid", gid)] {
                let root = map.iter().find(|&&(inside, ..)| inside == 0).map(|&(_, outside, _)| outside);
                if let Some(root) = root.filter(|_| options.iter().all(|(known, _)| known != key)) {
                    options.push((key.to_owned(), Some(root.to_string())));
                }
            }
        }
        let source = entry.mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
        let source = source.map_or(entry.kind.as_bytes(), |source| bytes(source)).to_vec();
        check_lengths(&entry.field(), &source, &options)?;
        let idmap = self.entry_idmap(entry)?;
        let (fstype, attributes) = (entry.kind.to_owned(), entry.options.attributes);
        let slot = self.tables.slot(SlotSource::Filesystem { fstype, source, options, attributes, idmap });
        let target = self.tables.path(&entry.field(), bytes(&clean(entry.mount.destination())))?;
        let mut step = entry.step(MountSource::Prepared { slot }, target);
        step.attributes = Attributes::default();
        // A read-only mount keeps what it was made with.
        step.keep_mode &= attributes.set == 0;
        self.tables.push(Step::Mount(step));
        Ok(())
    }

    /// The visitor says READY when it has done its work, and is ended.
    fn visit(mut self) -> Result<Plan> {
        self.tables.push(Step::AwaitStart { listener: None, proc: None });
        let process = self.process()?;
        let mut plan =
            self.finish(Vec::new(), PathBuf::new(), HostHooks::default(), cgroup::Plan::default(), process)?;
        plan.clone_flags = 0;
        plan.join_before_clone = Vec::new();
        Ok(plan)
    }
}
