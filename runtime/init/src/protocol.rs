//! What init and the host say to each other, one fixed-size message a packet (`SOCK_SEQPACKET`).
//!
//! ```text
//!   create / run                     init                             start
//!     <------------- Cloned(pid) -----|   (only from the throw-away process that joins first)
//!     <------------- Reached(1) ------|
//!     |------------- Proceed -------->|
//!     <------------- Reached(4) ------|   (only with mounts that only the host may open, in init's mount namespace)
//!     |------------- Bound(slot)* --->|
//!     |------------- Proceed -------->|
//!     <------------- Reached(2) ------|   (only with host hooks)
//!     |------------- Proceed -------->|
//!     <------------- Warned* ---------|
//!     <------------- Map* ------------|   (a mount that only the host may idmap)
//!     |------------- Proceed* ------->|
//!     <------------- Ready -----------|
//!     |   (run) ---- Start ---------->|<---------- connect ---------------|
//!                                     |----------- Accepted ------------->|
//!                                     |<---------- Start -----------------|
//!                                     |----------- Executing ------------>|
//!                                     |----------- end of channel ------->|   execve closed it
//! ```
//!
//! `Wrote` and its text come before the `Failed` of a hook. `Failed` may come instead of any message of init, and after `Executing` too. The end of the channel without
//! `Ready` (create) or `Executing` (start) is a death.

use flint_sys::{Fd, Result, file, socket};

use crate::failure::{Failure, Operation};

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// init waits at the barrier in `step`. `operation` is 0 when it could enter its cgroups by itself, else which one
    /// refused it (from 1), with the errno in `number`.
    Reached = 1,
    /// All that `create` promises is done; init waits for `Start`.
    Ready = 2,
    /// The next thing is execve.
    Executing = 3,
    /// A step failed; init ends.
    Failed = 4,
    /// A step could not be done and is not needed for safety.
    Warned = 5,
    /// init listens to this connection.
    Accepted = 6,
    /// init was cloned by the throw-away process; `number` is its pid.
    Cloned = 7,
    /// The host: go on from the barrier.
    Proceed = 8,
    /// The host: execute the program.
    Start = 9,
    /// The packet after this one is text, [`TEXT`] bytes at most: what a failed hook wrote.
    Wrote = 10,
    /// The filter is in force and its notifications can be read from the descriptor in `number`; init waits for
    /// `Proceed`. Before `Ready` or after `Start`.
    Listener = 11,
    /// The host may not take the listener itself: init sends it (`SCM_RIGHTS`), and waits on.
    Pass = 12,
    /// Somebody who may not look into init asks for its namespaces, those of the flags in `number`: each comes back in a
    /// message of this kind (`SCM_RIGHTS`) with its own flag.
    Namespaces = 13,
    /// The step `step` has its mount, detached, in the descriptor `number`: the host maps its owners, and says `Proceed`.
    Map = 14,
    /// The host, before `Proceed` from [`Barrier::Sources`](crate::plan::Barrier::Sources): the descriptor of the slot `step` (`SCM_RIGHTS`).
    Bound = 15,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// A step's index in the plan, or a barrier's number.
    pub step: u32,
    /// Which part of the step ([`Operation`] as its number).
    pub operation: u32,
    /// An errno, or what the kind says.
    pub number: i32,
}

/// The `step` of a failure before the first step: joining and cloning.
pub const BEFORE_STEPS: u32 = u32::MAX;

/// Most bytes of the text after [`Kind::Wrote`].
pub const TEXT: usize = 1024;

/// Bytes of a message.
pub const SIZE: usize = 16;

impl Message {
    /// A message that only says what it is.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self { kind, step: 0, operation: 0, number: 0 }
    }

    /// A failed or warned-about step.
    #[must_use]
    pub const fn failure(kind: Kind, step: u32, failure: Failure) -> Self {
        Self { kind, step, operation: failure.operation as u32, number: failure.number }
    }

    /// The failure that the message tells of; an unknown operation is [`Operation::Plan`].
    #[must_use]
    pub fn as_failure(&self) -> Failure {
        Failure { operation: Operation::from_number(self.operation).unwrap_or(Operation::Plan), number: self.number }
    }

    /// As bytes, in the machine's own order: both sides are the same program.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; SIZE] {
        let [a0, a1, a2, a3] = (self.kind as u32).to_ne_bytes();
        let [b0, b1, b2, b3] = self.step.to_ne_bytes();
        let [c0, c1, c2, c3] = self.operation.to_ne_bytes();
        let [d0, d1, d2, d3] = self.number.to_ne_bytes();
        [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
    }

    /// From a packet; `None` when it has another size or an unknown kind (CVE-2021-43784: lengths are checked).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *bytes else { return None };
        let kind = match u32::from_ne_bytes([a0, a1, a2, a3]) {
            1 => Kind::Reached,
            2 => Kind::Ready,
            3 => Kind::Executing,
            4 => Kind::Failed,
            5 => Kind::Warned,
            6 => Kind::Accepted,
            7 => Kind::Cloned,
            8 => Kind::Proceed,
            9 => Kind::Start,
            10 => Kind::Wrote,
            11 => Kind::Listener,
            12 => Kind::Pass,
            13 => Kind::Namespaces,
            14 => Kind::Map,
            15 => Kind::Bound,
            _ => return None,
        };
        Some(Self {
            kind,
            step: u32::from_ne_bytes([b0, b1, b2, b3]),
            operation: u32::from_ne_bytes([c0, c1, c2, c3]),
            number: i32::from_ne_bytes([d0, d1, d2, d3]),
        })
    }
}

/// Sends a message. By write(2), which a seccomp filter is likeliest to allow (trap 10).
pub(crate) fn send(channel: Fd, message: Message) -> Result<()> {
    file::write(channel, &message.to_bytes()).map(drop)
}

/// Sends a text, of which no more than [`TEXT`] bytes are heard.
pub(crate) fn send_text(channel: Fd, text: &[u8]) -> Result<()> {
    send(channel, Message::of(Kind::Wrote)).and_then(|()| file::write(channel, text)).map(drop)
}

/// Sends a message and a descriptor.
pub(crate) fn send_fd(channel: Fd, message: Message, fd: Fd) -> Result<()> {
    socket::send_with_fd(channel, &message.to_bytes(), fd)
}

/// As [`receive`], with the descriptor that came with it.
pub(crate) fn receive_fd(channel: Fd) -> Result<(Option<Message>, Option<Fd>)> {
    let mut buffer = [0u8; SIZE + 1];
    let (length, fd) = socket::receive_with_fd(channel, &mut buffer)?;
    Ok((buffer.get(..length).and_then(Message::from_bytes), fd))
}

/// Receives a message; `None` at the end of the channel or for anything that is no message.
pub(crate) fn receive(channel: Fd) -> Result<Option<Message>> {
    // One byte more than a message, so that a longer packet is seen to be one.
    let mut buffer = [0u8; SIZE + 1];
    let length = socket::receive(channel, &mut buffer)?;
    Ok(buffer.get(..length).and_then(Message::from_bytes))
}

#[cfg(test)]
mod tests {
    use super::{Kind, Message, SIZE};

    #[test]
    fn messages_survive_the_channel() {
        let message = Message { kind: Kind::Failed, step: 7, operation: 3, number: 13 };
        assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
    }

    #[test]
    fn other_lengths_and_kinds_are_refused() {
        let bytes = Message::of(Kind::Start).to_bytes();
        assert_eq!(Message::from_bytes(&bytes[..SIZE - 1]), None);
        assert_eq!(Message::from_bytes(&[0; SIZE]), None);
        assert_eq!(Message::from_bytes(&[9; SIZE + 1]), None);
    }
}
