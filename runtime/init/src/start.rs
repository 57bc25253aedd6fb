//! Where init waits: barriers, and `start`.

use core::ffi::CStr;

use flint_sys::signal::Mask;
use flint_sys::{Fd, file, process, signal, socket};

use crate::executor::{Arrival, Init};
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::{Barrier, Slot};
use crate::protocol::{self, Kind, Message};

/// What ends a created container before its program is there: a pid namespace shields its first process from the
/// default action of every other signal than SIGKILL (pid_namespaces(7)).
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// A process's own namespaces below the host's procfs, by their `CLONE_NEW*`.
const NAMESPACES: [(i32, &CStr); 8] = [
    (libc::CLONE_NEWUSER, c"self/ns/user"),
    (libc::CLONE_NEWPID, c"self/ns/pid"),
    (libc::CLONE_NEWNET, c"self/ns/net"),
    (libc::CLONE_NEWNS, c"self/ns/mnt"),
    (libc::CLONE_NEWIPC, c"self/ns/ipc"),
    (libc::CLONE_NEWUTS, c"self/ns/uts"),
    (libc::CLONE_NEWCGROUP, c"self/ns/cgroup"),
    (0x80, c"self/ns/time"),
];

impl Init<'_> {
    /// Tells the host, which works on while init does. Outside its cgroups init has nothing to do yet: it waits at once.
    pub(crate) fn announce_barrier(&mut self, barrier: Barrier) -> Outcome {
        self.tell_reached(barrier)?;
        self.arrival = Arrival::Announced;
        if self.entered {
            return Ok(());
        }
        self.await_host()?;
        self.arrival = Arrival::Released;
        Ok(())
    }

    /// Tells the host and waits for it, as far as that was not done before.
    pub(crate) fn barrier(&mut self, barrier: Barrier) -> Outcome {
        let arrival = core::mem::replace(&mut self.arrival, Arrival::Untold);
        if arrival == Arrival::Untold {
            self.tell_reached(barrier)?;
        }
        if arrival == Arrival::Released { Ok(()) } else { self.await_host() }
    }

    fn tell_reached(&self, barrier: Barrier) -> Outcome {
        let (operation, number) = self.refused;
        let reached = Message { step: barrier as u32, operation, number, ..Message::of(Kind::Reached) };
        protocol::send(self.channel, reached).at(Operation::Channel)
    }

    /// Until the host lets init go on. A host that is gone, or says anything else, is the end.
    fn await_host(&mut self) -> Outcome {
        loop {
            match protocol::receive_fd(self.channel).at(Operation::Channel)? {
                (Some(Message { kind: Kind::Proceed, .. }), _) => return Ok(()),
                (Some(Message { kind: Kind::Bound, step, .. }), Some(fd)) => self.fill_slot(Slot(step as u16), fd)?,
                _ => return Err(Failure::new(Operation::Channel, libc::EPIPE)),
            }
        }
    }

    pub(crate) fn expect(&self, kind: Kind) -> Outcome {
        match protocol::receive(self.channel).at(Operation::Channel)? {
            Some(message) if message.kind == kind => Ok(()),
            _ => Err(Failure::new(Operation::Channel, libc::EPIPE)),
        }
    }

    /// Says READY and waits for `start`. With a listener any number of `start`s may come and die before one
    /// says what it wants; the channel is then the connection to that one.
    pub(crate) fn await_start(&mut self, listener: Option<Slot>, proc: Option<Slot>) -> Outcome {
        protocol::send(self.channel, Message::of(Kind::Ready)).at(Operation::Channel)?;
        let Some(listener) = listener else { return self.expect(Kind::Start) };
        let listener = self.slot(listener)?;
        let _ = file::close(self.channel);
        self.close_covers();
        let ending = ENDING.iter().fold(0, |set: Mask, signal| set | 1 << (signal - 1));
        let signals = signal::descriptor(ending).at(Operation::Signals)?;
        loop {
            if !socket::first_readable(listener, signals).at(Operation::Channel)? {
                end_by_signal(signals);
            }
            let connection = socket::accept(listener).at(Operation::Channel)?;
            // A peer that hangs up early is no reason to end: the next one may mean it.
            let said =
                protocol::send(connection, Message::of(Kind::Accepted)).and_then(|()| protocol::receive(connection));
            if let Ok(Some(message)) = said
                && message.kind == Kind::Start
            {
                self.channel = connection;
                let _ = file::close(listener);
                let _ = file::close(signals);
                return Ok(());
            }
            if let Ok(Some(message)) = said
                && message.kind == Kind::Namespaces
                && let Some(proc) = proc
            {
                // What went wrong shows at the other end, which is told no more.
                let _ = self.hand_namespaces_out(connection, proc, message.number);
            }
            let _ = file::close(connection);
        }
    }

    /// Sends the descriptors of init's own namespaces, one a message.
    fn hand_namespaces_out(&self, connection: Fd, proc: Slot, kinds: i32) -> Outcome {
        let proc = self.slot(proc)?;
        for (kind, path) in NAMESPACES {
            if kinds & kind == 0 {
                continue;
            }
            let namespace = file::openat2(proc, path, libc::O_RDONLY, 0, 0).at(Operation::Open)?;
            let message = Message { number: kind, ..Message::of(Kind::Namespaces) };
            let sent = protocol::send_fd(connection, message, namespace).at(Operation::Channel);
            let _ = file::close(namespace);
            sent?;
        }
        Ok(())
    }

    /// A container may stay created for long: what only served its making is not kept.
    fn close_covers(&mut self) {
        if let Some((null, _)) = self.null.take() {
            let _ = file::close(null);
        }
        if let Some(empty) = self.empty.take() {
            let _ = file::close(empty);
        }
    }
}

/// Ends as a program does that a signal ended: in a shell's words, 128 and the signal's number.
fn end_by_signal(signals: Fd) -> ! {
    // struct signalfd_siginfo, which starts with the number.
    let mut info = [0u8; 128];
    let _ = file::read(signals, &mut info);
    let [number, ..] = info;
    process::exit(128 + i32::from(number))
}
