//! The late birth of a process of `exec`: into a pid namespace where somebody may have CAP_SYS_PTRACE.
//!
//! ```text
//!  throw-away process: joins ─▶ cgroups, keyring, limits, filter, user, capabilities ─▶ Birth: clones, ends
//!  process of exec                                                                        └─▶ waits ─▶ session ─▶ exec
//! ```
//!
//! Whoever has that capability may take over any process of the pid namespace, dumpable or not, unless a user namespace is
//! in between (ptrace(2)). What it would get of a process that is born there first and becomes the program then are all
//! rights of the host's root (CVE-2016-9962 was of the descriptors alone). So what needs them is done before, by a process
//! that is not in the pid namespace; only its child is.

use core::convert::Infallible;

use flint_sys::process::{self, Clone};
use flint_sys::{Fd, file};

use crate::executor::{Init, go_on};
use crate::failure::{At, Failure, Operation, Outcome};
use crate::protocol::{self, Kind, Message};

impl Init<'_> {
    /// Clones the process that goes on behind this step, as the caller's own child, and ends.
    pub(crate) fn birth(&mut self) -> Outcome {
        for fd in &mut *self.fds {
            if fd.0 >= 0 {
                let _ = file::close(*fd);
            }
            *fd = Fd(-1);
        }
        let options = Clone { flags: libc::CLONE_PARENT as u64, ..Clone::default() };
        let child = process::spawn(options, &mut *self, born).at(Operation::Clone)?;
        let message = Message { number: child.pid, ..Message::of(Kind::Cloned) };
        protocol::send(self.channel, message).at(Operation::Channel)?;
        process::exit(0)
    }
}

/// The child: waits until the host knows it.
// Never inlined: the check of the linked program finds it by its name.
#[inline(never)]
fn born(init: &mut Init<'_>) -> Infallible {
    match init.answer() {
        Ok(Some(Kind::Proceed)) => {}
        answer => {
            let failure = answer.err().unwrap_or(Failure::new(Operation::Channel, libc::EPIPE));
            init.fail(failure);
        }
    }
    init.step = init.step.wrapping_add(1);
    go_on(init)
}
