//! The host's end of the channel to init.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use flint_init::plan::Barrier;
use flint_init::protocol::{BEFORE_STEPS, Kind as Said, Message, SIZE};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::{Error, Kind, Result};

/// A connection to init: one of the pair made before the clone, or `start`'s own.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    /// Heard while something else was waited for.
    early: RefCell<VecDeque<Message>>,
}

/// What init said next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message.
    Said(Message),
    /// init closed the channel: it executed its program, or died.
    End,
}

impl Channel {
    /// The host's end and init's.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub(crate) fn pair() -> Result<(Self, OwnedFd)> {
        let (host, init) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| Error::os("make the channel to init", errno))?;
        Ok((Self::from_fd(host), init))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, early: RefCell::default() }
    }

    /// init's pid, from the throw-away process that cloned it. init may be quicker to speak than that process.
    ///
    /// # Errors
    ///
    /// A packet that is no message.
    pub(crate) fn hear_cloned(&self) -> Result<Heard> {
        loop {
            match self.receive()? {
                Heard::Said(message) if message.kind != Said::Cloned && message.step != BEFORE_STEPS => {
                    self.early.borrow_mut().push_back(message);
                }
                heard => return Ok(heard),
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// A packet that is no message.
    pub(crate) fn hear(&self) -> Result<Heard> {
        let early = self.early.borrow_mut().pop_front();
        early.map_or_else(|| self.receive(), |message| Ok(Heard::Said(message)))
    }

    fn receive(&self) -> Result<Heard> {
        let mut buffer = [0u8; SIZE + 1];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                // The other end died with something unread: its end all the same.
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(Heard::End),
                Ok(length) => {
                    return Message::from_bytes(&buffer[..length]).map(Heard::Said).ok_or_else(|| {
                        Error::new(Kind::System, format!("init sent {length} bytes that are no message"))
                    });
                }
                Err(errno) => return Err(Error::os("read from the channel to init", errno)),
            }
        }
    }

    /// Tells init to go on from a barrier.
    pub(crate) fn release(&self, barrier: Barrier) -> Result<()> {
        self.say(Message { step: barrier as u32, ..Message::of(Said::Proceed) })
    }

    /// Tells init to execute its program.
    pub(crate) fn start(&self) -> Result<()> {
        self.say(Message::of(Said::Start))
    }

    /// A dead peer is no error here: what it said last, or its end, is heard next and tells more.
    fn say(&self, message: Message) -> Result<()> {
        loop {
            match send(self.fd.as_raw_fd(), &message.to_bytes(), MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(errno) => return Err(Error::os("write to the channel to init", errno)),
            }
        }
    }
}
