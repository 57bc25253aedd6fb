//! Who the program will be: user, groups, capabilities, limits, the seccomp filter.

use flint_sys::{Fd, file, identity, process};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::Range;
use crate::protocol::{self, Kind, Message};

impl Init<'_> {
    /// uid 0 and gid 0 of a new user namespace, once its maps are written. Supplementary groups of the maker
    /// stay until [`Self::become_user`], which is the only one that knows whether setgroups is allowed.
    pub(crate) fn become_root() -> Outcome {
        identity::setgid(0).at(Operation::Setgid)?;
        identity::setuid(0).at(Operation::Setuid)
    }

    pub(crate) fn resource_limit(&mut self, resource: u32, soft: u64, hard: u64) -> Outcome {
        match process::setrlimit(resource, soft, hard) {
            // Without CAP_SYS_RESOURCE (nested use) a hard limit cannot be raised.
            Err(errno) if errno.0 == libc::EPERM => self.warn(Failure::new(Operation::Setrlimit, errno.0)),
            result => result.at(Operation::Setrlimit),
        }
    }

    /// One system call for each capability that must go, up to the last one that the kernel knows: also those that
    /// are newer than this program.
    pub(crate) fn bounding_set(keep: u64) -> Outcome {
        for capability in 0..u64::BITS {
            if keep & (1 << capability) != 0 {
                continue;
            }
            match identity::drop_bounding(capability) {
                Err(errno) if errno.0 == libc::EINVAL => return Ok(()),
                result => result.at(Operation::BoundingDrop)?,
            }
        }
        Ok(())
    }

    /// Without `groups` those of the maker stay.
    pub(crate) fn become_user(&mut self, uid: u32, gid: u32, groups: Option<Range>, may_be_denied: bool) -> Outcome {
        if uid != 0 {
            // Until capset says which stay.
            identity::keep_capabilities(true).at(Operation::Prctl)?;
        }
        if let Some(groups) = groups {
            let groups = groups.of(self.plan.ids);
            match identity::setgroups(groups) {
                Err(errno) if errno.0 == libc::EPERM && may_be_denied && groups.is_empty() => {}
                result => result.at(Operation::Setgroups)?,
            }
        }
        identity::setgid(gid).at(Operation::Setgid)?;
        identity::setuid(uid).at(Operation::Setuid)
    }

    /// The maker's ambient set goes first; what cannot be raised is warned about, as runc does.
    pub(crate) fn ambient(&mut self, set: u64) -> Outcome {
        identity::clear_ambient().at(Operation::Ambient)?;
        let mut raise = set;
        while raise != 0 {
            if let Err(errno) = identity::raise_ambient(raise.trailing_zeros()) {
                self.warn(Failure::new(Operation::Ambient, errno.0))?;
            }
            raise &= raise.wrapping_sub(1);
        }
        Ok(())
    }

    /// EXECUTING is said before the filter is in force: it may forbid saying it (trap 10).
    pub(crate) fn seccomp(&mut self, program: Range, flags: u32, early: bool) -> Outcome {
        if !early {
            self.announce()?;
        }
        let listener = identity::set_filter(program.of(self.plan.filter), flags).at(Operation::Seccomp)?;
        if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 == 0 {
            return Ok(());
        }
        self.hand_listener_over(listener)
    }

    /// The host takes the listener out of this process, which waits: exec would close it. Written and read, since
    /// these two calls are what a filter is likeliest to allow; a `read` that the filter asks the agent about is
    /// answered as soon as the agent has the listener. A host without the right to do so asks for it to be sent.
    fn hand_listener_over(&self, listener: usize) -> Outcome {
        let message = Message { number: listener as i32, ..Message::of(Kind::Listener) };
        protocol::send(self.channel, message).at(Operation::Listener)?;
        match self.answer()? {
            Some(Kind::Proceed) => return Ok(()),
            Some(Kind::Pass) => {
                protocol::send_fd(self.channel, message, Fd(listener as i32)).at(Operation::Listener)?;
            }
            _ => return Err(Failure::new(Operation::Listener, libc::EPIPE)),
        }
        match self.answer()? {
            Some(Kind::Proceed) => Ok(()),
            _ => Err(Failure::new(Operation::Listener, libc::EPIPE)),
        }
    }

    pub(crate) fn answer(&self) -> Outcome<Option<Kind>> {
        let mut answer = [0u8; protocol::SIZE];
        let length = file::read(self.channel, &mut answer).at(Operation::Listener)?;
        Ok(answer.get(..length).and_then(Message::from_bytes).map(|message| message.kind))
    }

    pub(crate) fn announce(&mut self) -> Outcome {
        if self.announced {
            return Ok(());
        }
        self.announced = true;
        protocol::send(self.channel, Message::of(Kind::Executing)).at(Operation::Channel)
    }
}
