//! Mounts: made or cloned detached, given their attributes, then attached by descriptor.

use flint_sys::mount::{self, Change};
use flint_sys::{Errno, Fd, file};

use crate::copy_up;
use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::{PathBuffer, push_mode, push_number};
use crate::plan::{Attributes, IdMap, Mount, MountSource, Range, Remount, Slot, Text};
use crate::protocol::{self, Kind, Message};

/// `PROC_SUPER_MAGIC`
const PROC_MAGIC: u64 = 0x9fa0;

impl Init<'_> {
    pub(crate) fn mount(&mut self, plan: &Mount) -> Outcome {
        let path = self.text(plan.target)?;
        // A file system that takes the mode of what it covers shows it among its options, so the folder comes first.
        let covered = match plan.source {
            MountSource::New { .. } if plan.keep_mode => Some(self.target(path, true, plan.no_symlinks)?),
            _ => None,
        };
        let mode = match covered {
            Some((target, true)) => Some(file::stat(target, c"").at(Operation::Stat)?.mode & 0o7777),
            _ => None,
        };
        let mount = self.detached(plan, mode)?;
        let folder = match plan.source {
            MountSource::New { .. } => true,
            _ => file::stat(mount, c"").at(Operation::Stat)?.is_folder(),
        };
        let (target, existed) = match covered {
            Some(covered) => covered,
            None => self.target(path, folder, plan.no_symlinks)?,
        };
        if !below_proc(path.to_bytes()) {
            refuse_proc(target)?;
        }
        if plan.copy_up {
            copy_up::copy_folder(target, mount)?;
        }
        // Where the host made it, or copying has changed it.
        if plan.keep_mode && existed && (mode.is_none() || plan.copy_up) {
            let mode = file::stat(target, c"").at(Operation::Stat)?.mode & 0o7777;
            file::chmodat(mount, c".", mode).at(Operation::CopyUp)?;
        }
        mount::move_mount(mount, target).at(Operation::MoveMount)?;
        set_propagation(mount, plan.propagation, plan.propagation_recursive)?;
        let _ = file::close(target);
        if let MountSource::Prepared { slot } = plan.source {
            self.fill_slot(slot, Fd(-1))?;
        }
        if let Some(slot) = plan.kept {
            return self.fill_slot(slot, mount);
        }
        if self.empty != Some(mount) {
            let _ = file::close(mount);
        }
        Ok(())
    }

    /// The mount, not yet attached, with its attributes.
    fn detached(&mut self, plan: &Mount, mode: Option<u32>) -> Outcome<Fd> {
        let mount = match plan.source {
            MountSource::New { fstype, source, options } => {
                let mount = self.new_filesystem((fstype, source), options, mode, plan.attributes.set)?;
                self.map_ids(mount, plan.idmap)?;
                return Ok(mount);
            }
            MountSource::Prepared { slot } => return self.slot(slot),
            MountSource::Bind { path, recursive } => {
                let flags = mount::OPEN_TREE_CLONE | if recursive { mount::AT_RECURSIVE } else { 0 };
                mount::open_tree(Fd::CWD, self.text(path)?, flags).at(Operation::OpenSource)?
            }
            MountSource::Inside { path, recursive } => {
                let flags = mount::OPEN_TREE_CLONE | if recursive { mount::AT_RECURSIVE } else { 0 };
                let source = self.open_inside(self.text(path)?, libc::O_PATH, 0).at(Operation::OpenSource)?;
                let tree = mount::open_tree(source, c"", flags).at(Operation::OpenSource)?;
                let _ = file::close(source);
                tree
            }
            MountSource::Cgroup { path, own } => match self.cgroup_folder(path)? {
                Some(mount) => mount,
                None => self.foreign_cgroup(own)?,
            },
        };
        self.map_ids(mount, plan.idmap)?;
        lose_unlisted(mount, plan.unlisted)?;
        set_attributes(mount, plan.attributes, plan.recursive_attributes)?;
        Ok(mount)
    }

    /// The file system first: a mount that is read-only meanwhile may not be what it shall be at the end.
    pub(crate) fn remount(&mut self, plan: &Remount) -> Outcome {
        let path = self.text(plan.target)?;
        let target = self.open_inside(path, libc::O_PATH, file::RESOLVE_NO_SYMLINKS).at(Operation::OpenTarget)?;
        if let Some(options) = plan.options {
            let context = mount::fspick(target).at(Operation::Fspick)?;
            self.set_options(context, options)?;
            mount::fsconfig_reconfigure(context).at(Operation::Reconfigure)?;
            let _ = file::close(context);
        }
        set_attributes(target, plan.attributes, plan.recursive_attributes)?;
        set_propagation(target, plan.propagation, plan.propagation_recursive)?;
        match plan.kept {
            Some(slot) => self.fill_slot(slot, target),
            None => file::close(target).at(Operation::OpenTarget),
        }
    }

    fn set_options(&self, context: Fd, options: Range) -> Outcome {
        for option in options.of(self.plan.options) {
            let value = self.optional_text(option.value)?;
            mount::fsconfig_set(context, self.text(option.key)?, value).at(Operation::Fsconfig)?;
        }
        Ok(())
    }

    fn map_ids(&self, mount: Fd, idmap: Option<IdMap>) -> Outcome {
        let Some(IdMap { slot, recursive, by_host }) = idmap else { return Ok(()) };
        if by_host {
            let message = Message { step: self.step, number: mount.0, ..Message::of(Kind::Map) };
            protocol::send(self.channel, message).at(Operation::Channel)?;
            return self.expect(Kind::Proceed);
        }
        let change = Change { idmap: Some(self.slot(slot)?), recursive, ..Change::default() };
        mount::mount_setattr(mount, change).at(Operation::IdMap)
    }

    /// The path is resolved once, inside the root; what is unmounted is the descriptor, by its name in the host's
    /// procfs, which the current folder leads to. No link is followed: the container's root can put one in the place of a
    /// folder on the way (not of a mountpoint), and so lead the unmount to what hides or protects parts of /proc.
    pub(crate) fn detach(&mut self, proc: Slot, path: Text) -> Outcome {
        let target =
            self.open_inside(self.text(path)?, libc::O_PATH, file::RESOLVE_NO_SYMLINKS).at(Operation::OpenTarget)?;
        if !file::stat(target, c"").at(Operation::Stat)?.mount_root {
            return Err(Failure::new(Operation::Unmount, libc::EINVAL));
        }
        file::fchdir(self.slot(proc)?).at(Operation::Chdir)?;
        let mut name = PathBuffer::new();
        name.push(b"self/fd/")?;
        push_number(&mut name, target.0 as u32)?;
        mount::detach(name.as_c_str()).at(Operation::Unmount)
    }

    /// A folder of a hierarchy, unless there is none.
    fn cgroup_folder(&self, path: Text) -> Outcome<Option<Fd>> {
        let Some(path) = self.optional_text(path)? else { return Ok(None) };
        match mount::open_tree(Fd::CWD, path, mount::OPEN_TREE_CLONE) {
            Err(Errno(libc::ENOENT)) => Ok(None),
            result => result.map(Some).at(Operation::OpenSource),
        }
    }

    /// For a container without a cgroup of its own in a hierarchy.
    fn foreign_cgroup(&mut self, own: Text) -> Outcome<Fd> {
        let Some(mount) = self.cgroup_folder(own)? else { return self.empty_folder() };
        let change = Change { set: mount::ATTR_RDONLY, ..Change::default() };
        mount::mount_setattr(mount, change).at(Operation::MountSetattr)?;
        Ok(mount)
    }

    /// By init and not by the host: proc, sysfs and mqueue show the namespaces of the caller of fsopen (trap 5).
    fn new_filesystem(
        &mut self,
        (fstype, source): (Text, Text),
        options: Range,
        mode: Option<u32>,
        attributes: u64,
    ) -> Outcome<Fd> {
        let context = mount::fsopen(self.text(fstype)?).at(Operation::Fsopen)?;
        if let Some(source) = self.optional_text(source)? {
            mount::fsconfig_set(context, c"source", Some(source)).at(Operation::Fsconfig)?;
        }
        self.set_options(context, options)?;
        if let Some(mode) = mode {
            let mut text = PathBuffer::new();
            push_mode(&mut text, mode)?;
            mount::fsconfig_set(context, c"mode", Some(text.as_c_str())).at(Operation::Fsconfig)?;
        }
        mount::fsconfig_create(context).at(Operation::FsconfigCreate)?;
        let mount = mount::fsmount(context, attributes).at(Operation::Fsmount)?;
        let _ = file::close(context);
        Ok(mount)
    }
}

fn set_attributes(mount: Fd, own: Attributes, recursive: Attributes) -> Outcome {
    for (attributes, recursive) in [(own, false), (recursive, true)] {
        if !attributes.is_empty() {
            let change = Change { set: attributes.set, clear: attributes.clear, recursive, ..Change::default() };
            mount::mount_setattr(mount, change).at(Operation::MountSetattr)?;
        }
    }
    Ok(())
}

/// What a more privileged user namespace has locked stays (mount_namespaces(7)). A kernel before 5.14 has no mark for links.
fn lose_unlisted(mount: Fd, unlisted: u64) -> Outcome {
    for clear in [unlisted & !mount::ATTR_NOSYMFOLLOW, unlisted & mount::ATTR_NOSYMFOLLOW] {
        if clear == 0 {
            continue;
        }
        match mount::mount_setattr(mount, Change { clear, ..Change::default() }) {
            Err(Errno(libc::EPERM)) => {}
            Err(Errno(libc::EINVAL)) if clear == mount::ATTR_NOSYMFOLLOW => {}
            result => result.at(Operation::MountSetattr)?,
        }
    }
    Ok(())
}

fn set_propagation(mount: Fd, propagation: u64, recursive: bool) -> Outcome {
    if propagation == 0 {
        return Ok(());
    }
    mount::mount_setattr(mount, Change { propagation, recursive, ..Change::default() }).at(Operation::MountSetattr)
}

/// Whether the target is meant to be below /proc; those were checked by the compiler.
fn below_proc(path: &[u8]) -> bool {
    path.strip_prefix(b"/proc").is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
}

/// A link of the image may lead a target into procfs, where a mount could fake what init itself reads and
/// writes (CVE-2019-16884, CVE-2025-52881).
fn refuse_proc(target: Fd) -> Outcome {
    match file::filesystem_magic(target) {
        Ok(PROC_MAGIC) => Err(Failure::new(Operation::TargetInProc, libc::EPERM)),
        // Old kernels answer EBADF for O_PATH; none that has mount_setattr.
        Ok(_) => Ok(()),
        Err(Errno(number)) => Err(Failure::new(Operation::Stat, number)),
    }
}

#[cfg(test)]
mod tests {
    use super::below_proc;

    #[test]
    fn knows_what_is_below_proc() {
        assert!(below_proc(b"/proc"));
        assert!(below_proc(b"/proc/cpuinfo"));
        assert!(!below_proc(b"/process"));
        assert!(!below_proc(b"/a/proc"));
    }
}
