//! Joining namespaces, a new time namespace, the keyring, CPUs, kernel parameters.

use core::ffi::CStr;

use flint_sys::{Errno, Fd, file, identity, schedule};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::{Range, Slot, Text};

/// More CPUs than any kernel can be built for.
const ALL_CPUS: &[u64] = &[u64::MAX; 1024];
/// Room for a keyring's description: its name has the container's id.
const KEY_TEXT: usize = 1536;
/// `CLONE_NEWTIME`
const NEW_TIME: u32 = 0x80;

/// A time namespace for the next child of the caller, with its offsets written: they are fixed once a process is in it.
pub(crate) fn new_time(offsets: &CStr) -> Outcome {
    flint_sys::namespace::unshare(NEW_TIME).at(Operation::NewTime)?;
    if offsets.is_empty() {
        return Ok(());
    }
    let file = file::openat(Fd::CWD, c"/proc/self/timens_offsets", libc::O_WRONLY, 0).at(Operation::TimeOffsets)?;
    let written = file::write(file, offsets.to_bytes()).at(Operation::TimeOffsets);
    let _ = file::close(file);
    written.map(drop)
}

/// A time namespace for the caller itself. For who has the right to it only in a user namespace of its own: before that
/// there is no process that could be made in it.
pub(crate) fn enter_new_time(offsets: &CStr) -> Outcome {
    new_time(offsets)?;
    let made = file::openat(Fd::CWD, c"/proc/self/ns/time_for_children", libc::O_RDONLY, 0).at(Operation::NewTime)?;
    let entered = flint_sys::namespace::setns(made, NEW_TIME).at(Operation::Setns);
    let _ = file::close(made);
    entered
}

/// The fourth field of a key's description, in hexadecimal digits.
fn key_permissions(text: &[u8]) -> Option<u32> {
    let digits = text.split(|&byte| byte == b';').nth(3)?;
    let mut permissions = 0u32;
    for &digit in digits {
        let value = char::from(digit).to_digit(16)?;
        permissions = permissions.checked_mul(16)?.checked_add(value)?;
    }
    Some(permissions)
}

impl Init<'_> {
    pub(crate) fn join_namespace(&mut self, slot: Slot, kind: u32) -> Outcome {
        flint_sys::namespace::setns(self.slot(slot)?, kind).at(Operation::Setns)
    }

    /// A kernel without keyrings, or one that refuses more keys, is warned about: the old keyring then stays
    /// linked, as with runc on such a kernel.
    pub(crate) fn keyring(&mut self, name: Text, permissions: u32) -> Outcome {
        let key = match identity::join_session_keyring(self.text(name)?) {
            Err(Errno(libc::ENOSYS)) => return Ok(()),
            Err(Errno(number)) => return self.warn(Failure::new(Operation::Keyctl, number)),
            Ok(key) => key,
        };
        if permissions == 0 {
            return Ok(());
        }
        let mut text = [0u8; KEY_TEXT];
        let length = identity::describe_key(key, &mut text).at(Operation::Keyctl)?;
        let own = key_permissions(text.get(..length).unwrap_or(&text));
        let own = own.ok_or(Failure::new(Operation::Keyctl, libc::EINVAL))?;
        identity::set_key_permissions(key, own | permissions).at(Operation::Keyctl)
    }

    /// The kernel leaves out CPUs that it does not have or that the cgroup forbids, now and when the cgroup changes.
    pub(crate) fn cpu_affinity(&mut self, mask: Range) -> Outcome {
        if mask.length > 0 {
            return schedule::set_affinity(mask.of(self.plan.masks)).at(Operation::SchedSetaffinity);
        }
        match schedule::set_affinity(ALL_CPUS) {
            Err(Errno(number)) => self.warn(Failure::new(Operation::SchedSetaffinity, number)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a label for the calling thread below the host's procfs. Its `self` is a link, and the only one that is
    /// followed: it leads to this process by its number there, and the file system is proven.
    pub(crate) fn label(&mut self, proc: Slot, path: Text, older: Text, value: Text) -> Outcome {
        const INSIDE: u64 = file::RESOLVE_BENEATH | file::RESOLVE_NO_MAGICLINKS | file::RESOLVE_NO_XDEV;
        let proc = self.slot(proc)?;
        let opened = match file::openat2(proc, self.text(path)?, libc::O_WRONLY, 0, INSIDE) {
            Err(Errno(libc::ENOENT)) if !older.is_none() => {
                file::openat2(proc, self.text(older)?, libc::O_WRONLY, 0, INSIDE)
            }
            result => result,
        };
        let fd = opened.at(Operation::Open)?;
        let result = file::write(fd, self.text(value)?.to_bytes()).at(Operation::Write);
        let _ = file::close(fd);
        result.map(drop)
    }

    /// Writes a parameter below the host's procfs, which the host verified: what the image mounted or linked is
    /// never looked at (CVE-2025-52881). The namespaced ones answer for the caller's own namespaces.
    pub(crate) fn sysctl(&mut self, proc: Slot, path: Text, value: Text) -> Outcome {
        const INSIDE: u64 =
            file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS | file::RESOLVE_NO_MAGICLINKS | file::RESOLVE_NO_XDEV;
        let fd = file::openat2(self.slot(proc)?, self.text(path)?, libc::O_WRONLY, 0, INSIDE).at(Operation::Open)?;
        let result = file::write(fd, self.text(value)?.to_bytes()).at(Operation::Write);
        let _ = file::close(fd);
        result.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::key_permissions;

    #[test]
    fn permissions_of_keys() {
        assert_eq!(key_permissions(b"keyring;0;0;3f130000;_ses.a;b\0"), Some(0x3f13_0000));
        for wrong in [&b""[..], b"keyring;0;0", b"keyring;0;0;3g;_ses", b"keyring;0;0;13f130000;_ses"] {
            assert_eq!(key_permissions(wrong), None);
        }
    }
}
