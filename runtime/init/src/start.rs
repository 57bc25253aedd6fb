//! Where init waits: barriers, and `start`.

use flint_sys::{file, socket};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::{Barrier, Slot};
use crate::protocol::{self, Kind, Message};

impl Init<'_> {
    /// Tells the host and waits for it. A host that is gone, or says anything else, is the end.
    pub(crate) fn barrier(&mut self, barrier: Barrier) -> Outcome {
        let reached = Message { step: barrier as u32, ..Message::of(Kind::Reached) };
        protocol::send(self.channel, reached).at(Operation::Channel)?;
        self.expect(Kind::Proceed)
    }

    fn expect(&self, kind: Kind) -> Outcome {
        match protocol::receive(self.channel).at(Operation::Channel)? {
            Some(message) if message.kind == kind => Ok(()),
            _ => Err(Failure::new(Operation::Channel, libc::EPIPE)),
        }
    }

    /// Says READY and waits for `start`. With a listener any number of `start`s may come and die before one
    /// says what it wants; the channel is then the connection to that one.
    pub(crate) fn await_start(&mut self, listener: Option<Slot>) -> Outcome {
        protocol::send(self.channel, Message::of(Kind::Ready)).at(Operation::Channel)?;
        let Some(listener) = listener else { return self.expect(Kind::Start) };
        let listener = self.slot(listener)?;
        let _ = file::close(self.channel);
        loop {
            let connection = socket::accept(listener).at(Operation::Channel)?;
            // A peer that hangs up early is no reason to end: the next one may mean it.
            let said =
                protocol::send(connection, Message::of(Kind::Accepted)).and_then(|()| protocol::receive(connection));
            if let Ok(Some(message)) = said
                && message.kind == Kind::Start
            {
                self.channel = connection;
                let _ = file::close(listener);
                return Ok(());
            }
            let _ = file::close(connection);
        }
    }
}
