//! A process's terminal: its master's way here, its size, and the relay between it and the client's streams.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::log::{Log, Stream};
use super::logger::Logger;
use super::relay::{self, Sink};
use super::{Held, Streams, Target};
use crate::error::{Error, Result};
use crate::readiness;

/// How long the rest of the output may take once the process has ended.
const REST: Duration = Duration::from_secs(2);

/// The connection that init sends its terminal over.
#[derive(Debug)]
pub(crate) struct Socket {
    ours: OwnedFd,
    theirs: Option<OwnedFd>,
}

impl Socket {
    /// # Errors
    ///
    /// No free descriptor.
    pub(super) fn pair() -> Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| Error::system("make a socket for the terminal", errno))?;
        Ok(Self { ours, theirs: Some(theirs) })
    }

    /// The end for the runtime, once.
    pub(crate) fn take_theirs(&mut self) -> Option<OwnedFd> {
        self.theirs.take()
    }

    /// The terminal's master. The process was made: it has sent it.
    ///
    /// # Errors
    ///
    /// It has not.
    pub(crate) fn receive(self) -> Result<OwnedFd> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0u8; 64];
        let mut data = [std::io::IoSliceMut::new(&mut name)];
        recvmsg(&self.ours, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
            .map_err(|errno| Error::system("receive the terminal", errno))?;
        let mut messages = control.drain();
        messages
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .ok_or_else(|| Error::system("receive the terminal", "there was none in the message"))
    }
}

/// A terminal and its relay.
#[derive(Debug)]
pub(crate) struct Console {
    master: Arc<AsyncFd<OwnedFd>>,
    input: Option<JoinHandle<()>>,
    output: JoinHandle<()>,
}

impl Console {
    /// The terminal that has arrived at a socket, if there was one to expect.
    ///
    /// # Errors
    ///
    /// It has not arrived; a stream that cannot be opened.
    pub(crate) fn of(
        socket: Option<Socket>,
        streams: &Streams,
        namespace: &str,
        id: &str,
        held: &mut Held,
    ) -> Result<Option<Self>> {
        socket.map(|socket| Self::relay(socket.receive()?, streams, namespace, id, held)).transpose()
    }

    /// Relays between the terminal and the client's streams. Called where tasks can be spawned.
    ///
    /// # Errors
    ///
    /// A stream that cannot be opened.
    fn relay(master: OwnedFd, streams: &Streams, namespace: &str, id: &str, held: &mut Held) -> Result<Self> {
        let failure = |error| Error::system("watch the terminal", error);
        rustix::io::ioctl_fionbio(&master, true).map_err(|errno| failure(errno.into()))?;
        let sink = match Target::parse(&streams.stdout)? {
            Target::Null => Sink::Nowhere,
            Target::File(path) if !super::names_fifo(&path) => Sink::append(&path)?,
            Target::File(path) | Target::Fifo(path) => Sink::open(&path)?,
            Target::Log(form) => {
                let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)
                    .map_err(|errno| Error::system("make a pipe for a log", errno))?;
                held.logs.push(Log::start(form, vec![(Stream::Stdout, ours)])?);
                Sink::pipe(theirs)?
            }
            Target::Logger(program) => {
                let (logger, stdout, _) = Logger::start(&program, namespace, id)?;
                held.logger = Some(logger);
                Sink::pipe(stdout)?
            }
        };
        let master = Arc::new(readiness::watch(master, Interest::READABLE | Interest::WRITABLE).map_err(failure)?);
        let input = match Target::parse(&streams.stdin)? {
            Target::Fifo(path) => Some(tokio::spawn(relay::input(relay::source(&path)?, master.clone()))),
            _ => None,
        };
        let output = tokio::spawn(relay::output(master.clone(), sink));
        Ok(Self { master, input, output })
    }

    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Result<()> {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.get_ref(), size).map_err(|errno| Error::system("resize the terminal", errno))
    }

    pub(crate) fn close_stdin(&mut self) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
    }

    /// After the process's end: what it wrote last is still passed on, for a bounded time.
    pub(crate) async fn close(mut self) {
        self.close_stdin();
        let abort = self.output.abort_handle();
        if tokio::time::timeout(REST, self.output).await.is_err() {
            abort.abort();
        }
    }
}
