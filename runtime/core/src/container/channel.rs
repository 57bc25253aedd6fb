//! The host's end of the channel to init.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use flint_init::plan::{Barrier, Slot};
use flint_init::protocol::{BEFORE_STEPS, Kind as Said, Message, SIZE, TEXT};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::container::bind;
use crate::{Error, Kind, Result};

/// A connection to init: one of the pair made before the clone, or `start`'s own.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    /// Heard while something else was waited for.
    early: RefCell<VecDeque<Message>>,
    /// What a failed hook wrote.
    text: RefCell<String>,
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
        Self { fd, early: RefCell::default(), text: RefCell::default() }
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

    /// What a failed hook wrote, heard before the failure; empty when it wrote nothing.
    pub(crate) fn hook_output(&self) -> String {
        self.text.borrow().trim().to_owned()
    }

    fn receive(&self) -> Result<Heard> {
        let mut buffer = [0u8; SIZE + 1];
        loop {
            let length = self.packet(&mut buffer)?;
            if length == 0 {
                return Ok(Heard::End);
            }
            let message = Message::from_bytes(&buffer[..length])
                .ok_or_else(|| Error::new(Kind::System, format!("init sent {length} bytes that are no message")))?;
            if message.kind != Said::Wrote {
                return Ok(Heard::Said(message));
            }
            let mut text = [0u8; TEXT];
            let length = self.packet(&mut text)?;
            *self.text.borrow_mut() = String::from_utf8_lossy(&text[..length]).into_owned();
        }
    }

    /// Bytes of the next packet; 0 at the end of the channel.
    fn packet(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                // The other end died with something unread, which is told once and before what it said last.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                result => return result.map_err(|errno| Error::os("read from the channel to init", errno)),
            }
        }
    }

    /// Tells init to go on from a barrier.
    pub(crate) fn release(&self, barrier: Barrier) -> Result<()> {
        self.say(Message { step: barrier as u32, ..Message::of(Said::Proceed) })
    }

    /// Gives init, which waits at its first barrier, what a slot holds.
    pub(crate) fn bind(&self, slot: Slot, fd: BorrowedFd<'_>) -> Result<()> {
        let message = Message { step: u32::from(slot.0), ..Message::of(Said::Bound) };
        bind::send_fd(&self.fd, &message.to_bytes(), fd)
    }

    /// Tells init to go on from where the host did something for it.
    pub(crate) fn proceed(&self) -> Result<()> {
        self.say(Message::of(Said::Proceed))
    }

    /// Lets init send its listener.
    ///
    /// # Errors
    ///
    /// Its filter forbids that; init has died.
    pub(crate) fn ask_for_listener(&self) -> Result<OwnedFd> {
        self.say(Message::of(Said::Pass))?;
        let refused = || {
            Error::new(
                Kind::Permission,
                "init cannot send its seccomp listener: let linux.seccomp allow sendmsg, or give flint CAP_SYS_PTRACE",
            )
        };
        match self.descriptor()? {
            Some((message, descriptor)) if message.kind == Said::Listener => Ok(descriptor),
            _ => Err(refused()),
        }
    }

    /// Asks a waiting init for its namespaces of these `CLONE_NEW*` flags: descriptors with their flag.
    ///
    /// # Errors
    ///
    /// It sends fewer.
    pub(crate) fn ask_for_namespaces(&self, kinds: u32) -> Result<Vec<(u32, OwnedFd)>> {
        self.say(Message { number: kinds as i32, ..Message::of(Said::Namespaces) })?;
        let mut found = Vec::new();
        while let Some((message, descriptor)) = self.descriptor()? {
            found.push((message.number as u32, descriptor));
        }
        if found.iter().fold(0, |flags, (kind, _)| flags | kind) == kinds {
            return Ok(found);
        }
        Err(Error::new(Kind::System, "init does not hand out its namespaces: start the container first"))
    }

    /// A message with a descriptor; `None` at the end of the channel, and for one without.
    fn descriptor(&self) -> Result<Option<(Message, OwnedFd)>> {
        let mut data = [0u8; SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut data)];
            match recvmsg(&self.fd, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                result => break result.map_err(|errno| Error::os("read from the channel to init", errno))?.bytes,
            }
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(data.get(..received).and_then(Message::from_bytes).zip(descriptor))
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

#[cfg(test)]
mod tests {
    use flint_init::protocol::{Kind as Said, Message, TEXT};

    use super::{Channel, Heard};
    use crate::container::heard::{check, heard};
    use crate::fuzzing::corpus;
    use crate::mutation::{Random, runs, seed};

    /// A packet as an init writes it that was taken over: a message, a damaged one, or any bytes.
    fn packet(random: &mut Random) -> Vec<u8> {
        let kind =
            *random.pick(&[Said::Reached, Said::Warned, Said::Wrote, Said::Failed, Said::Cloned, Said::Namespaces]);
        let mut bytes = Message { step: random.below(9) as u32, ..Message::of(kind) }.to_bytes().to_vec();
        match random.below(6) {
            0 => random.damage(&mut bytes),
            1 => bytes = (0..random.below(2 * TEXT)).map(|_| random.below(256) as u8).collect(),
            2 => bytes[0] = random.below(256) as u8,
            _ => {}
        }
        bytes
    }

    #[test]
    fn what_init_said_last_is_heard_though_it_left_something_unread() {
        let (channel, init) = Channel::pair().unwrap();
        channel.start().unwrap();
        let failed = Message { step: 7, ..Message::of(Said::Failed) };
        rustix::io::write(&init, &failed.to_bytes()).unwrap();
        drop(init);
        assert_eq!(channel.hear().unwrap(), Heard::Said(failed));
        assert_eq!(channel.hear().unwrap(), Heard::End);
        assert!(channel.ask_for_listener().is_err());
    }

    #[test]
    fn whatever_init_sends_is_a_message_an_error_or_the_end() {
        let (mut random, runs) = (Random(seed()), runs());
        let (mut said, mut refused, mut ended) = (0, 0, 0);
        for _ in 0..runs {
            let packets: Vec<_> = (0..=random.below(5)).map(|_| packet(&mut random)).collect();
            let counts = heard(&packets, || random.below(4) == 0);
            said += counts.said;
            *(if counts.refused { &mut refused } else { &mut ended }) += 1;
        }
        println!("{runs} channels: {said} messages, {refused} refused, {ended} ended");
        assert!(said > runs / 20 && refused > runs / 20 && ended > runs / 20, "the inputs show nothing");
    }

    #[test]
    fn packets_of_the_corpus_are_messages_errors_or_the_end() {
        for bytes in corpus("init_handshake") {
            check(&bytes);
        }
    }
}
