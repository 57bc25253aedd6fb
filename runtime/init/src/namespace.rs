//! Joining namespaces, the keyring, kernel parameters.

use flint_sys::{file, identity};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::{Slot, Text};

impl Init<'_> {
    pub(crate) fn join_namespace(&mut self, slot: Slot, kind: u32) -> Outcome {
        flint_sys::namespace::setns(self.slot(slot)?, kind).at(Operation::Setns)
    }

    /// A kernel without keyrings, or one that refuses more keys, is warned about: the old keyring then stays
    /// linked, as with runc on such a kernel.
    pub(crate) fn keyring(&mut self, name: Text) -> Outcome {
        match identity::new_session_keyring(self.text(name)?) {
            Err(errno) if errno.0 == libc::ENOSYS => Ok(()),
            Err(errno) => self.warn(Failure::new(Operation::Keyctl, errno.0)),
            Ok(()) => Ok(()),
        }
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
