//! The foreground's terminal: our tty in raw mode on one side, the container's pty on the other.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize};

/// The end of a socket pair on which init sends the pty's master.
#[derive(Debug)]
pub(crate) struct Console(UnixStream);

impl Console {
    /// Our end and the container's.
    ///
    /// # Errors
    /// No sockets to be had.
    pub(crate) fn pair() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().context("making the socket for the terminal")?;
        Ok((Self(ours), theirs.into()))
    }

    /// The master. Init has sent it before the library says that the container is there, so it is not waited for.
    ///
    /// # Errors
    /// It was not sent.
    pub(crate) fn receive(self) -> Result<OwnedFd> {
        // The pty's name comes with it; it is of the container's devpts and means nothing here.
        let mut name = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut name)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )
        .context("receiving the container's terminal")?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(master) = fds.next()
            {
                return Ok(master);
            }
        }
        bail!("the container has sent no terminal")
    }
}

/// The first of stdin, stdout and stderr that is a tty.
pub(crate) fn our_tty() -> Option<BorrowedFd<'static>> {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .find(|fd| rustix::termios::isatty(fd))
}

/// Columns and rows of our tty, when it has a size.
pub(crate) fn our_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(our_tty()?).ok()?;
    (size.ws_col != 0 && size.ws_row != 0).then_some((size.ws_col, size.ws_row))
}

/// How to restore a tty when we cannot return normally; the release build aborts on a panic without unwinding.
static SAVED: Mutex<Option<(BorrowedFd<'static>, Termios)>> = Mutex::new(None);

/// A tty in raw mode until this is dropped, or until a panic. Signals cannot end us meanwhile: they are blocked.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Sets our tty raw; `None` when there is none, or when we are in its background, where it is not ours to
    /// change (SIGTTOU, which would stop us, is blocked).
    ///
    /// # Errors
    /// The tty refuses.
    pub(crate) fn enter() -> Result<Option<Self>> {
        static HOOK: Once = Once::new();
        let Some(tty) = our_tty() else { return Ok(None) };
        // A tty that controls no session of ours has no foreground: whoever gave it to us means it.
        if rustix::termios::tcgetpgrp(tty).is_ok_and(|foreground| foreground != rustix::process::getpgrp()) {
            return Ok(None);
        }
        let cooked = rustix::termios::tcgetattr(tty).context("reading the settings of our terminal")?;
        let mut raw = cooked.clone();
        raw.make_raw();
        // The container's terminal leaves line ends as they are (see `Relay::new`): ours turns them into new lines.
        raw.output_modes |= cooked.output_modes & OutputModes::OPOST;
        raw.output_modes |= cooked.output_modes & OutputModes::ONLCR;
        HOOK.call_once(|| {
            let inner = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                inner(panic);
            }));
        });
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some((tty, cooked));
        let guard = Self(());
        rustix::termios::tcsetattr(tty, OptionalActions::Now, &raw).context("setting our terminal raw")?;
        Ok(Some(guard))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// At most once. Nothing can be done about a terminal that has gone away.
fn restore() {
    if let Some((tty, cooked)) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = rustix::termios::tcsetattr(tty, OptionalActions::Now, &cooked);
    }
}

/// Bytes on their way.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    done: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.done >= self.bytes.len()
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.done = 0;
    }

    fn drain(&mut self, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.done += rustix::io::write(to, self.bytes.get(self.done..).unwrap_or_default())?;
        Ok(())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.done = 0;
    }
}

/// One read's worth. A pipe that is ready takes so much without blocking (`PIPE_BUF`).
const CHUNK: usize = 4096;
/// More than a pty holds: what is written before the program's end is all within it.
const PTY_HOLDS: usize = 256 * 1024;

/// Copies between our stdio and the pty's master.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Each end closes by itself; they are no states of one machine.
pub(crate) struct Relay<'a> {
    master: OwnedFd,
    input: BorrowedFd<'a>,
    output: BorrowedFd<'a>,
    to_container: Buffer,
    to_user: Buffer,
    input_open: bool,
    output_open: bool,
    master_open: bool,
    line_begun: bool,
}

/// What poll(2) said about the relay's three ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// Our stdin.
    pub(crate) input: PollFlags,
    /// The pty.
    pub(crate) master: PollFlags,
    /// Our stdout.
    pub(crate) output: PollFlags,
}

impl<'a> Relay<'a> {
    /// A relay that has not begun. The pty is told not to end lines with a carriage return: where our stdout is a
    /// pipe or a file, it gets the program's own bytes, as from runc.
    ///
    /// # Errors
    /// The master cannot be made non-blocking.
    pub(crate) fn new(master: OwnedFd, input: BorrowedFd<'a>, output: BorrowedFd<'a>) -> Result<Self> {
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)
            .context("making the container's terminal non-blocking")?;
        // As runc does: what is not shown on a terminal (a pipe, a file) shall have \n where the program wrote \n.
        if let Ok(mut settings) = rustix::termios::tcgetattr(&master) {
            settings.output_modes.remove(OutputModes::ONLCR);
            let _ = rustix::termios::tcsetattr(&master, OptionalActions::Now, &settings);
        }
        Ok(Self {
            master,
            input,
            output,
            to_container: Buffer::default(),
            to_user: Buffer::default(),
            input_open: true,
            output_open: true,
            master_open: true,
            line_begun: false,
        })
    }

    /// Gives the container's terminal the size of ours. A terminal without a size keeps its own.
    pub(crate) fn resize(&self) {
        if let Some((columns, rows)) = our_size() {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // Only cosmetic, and the container may be gone.
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    /// What to poll for, as (input, master, output); `None` for an end that has nothing to do, since poll(2)
    /// would tell of its hang-up for ever.
    pub(crate) fn interests(&self) -> [Option<PollFd<'_>>; 3] {
        let mut master = PollFlags::empty();
        if self.master_open {
            master.set(PollFlags::POLLIN, self.to_user.is_empty());
            master.set(PollFlags::POLLOUT, !self.to_container.is_empty());
        }
        [
            (self.input_open && self.master_open && self.to_container.is_empty())
                .then(|| PollFd::new(self.input, PollFlags::POLLIN)),
            (!master.is_empty()).then(|| PollFd::new(self.master.as_fd(), master)),
            (!self.to_user.is_empty()).then(|| PollFd::new(self.output, PollFlags::POLLOUT)),
        ]
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn pump(&mut self, ready: Ready) {
        if !ready.input.is_empty() {
            self.read_input();
        }
        if !ready.master.is_empty() && !self.to_container.is_empty() {
            match self.to_container.drain(self.master.as_fd()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.to_container.clear(),
            }
        }
        if !ready.master.is_empty() && self.to_user.is_empty() {
            self.read_master();
        }
        if !ready.output.is_empty() && !self.to_user.is_empty() {
            self.write_output();
        }
    }

    fn read_input(&mut self) {
        let mut bytes = [0; CHUNK];
        match rustix::io::read(self.input, &mut bytes) {
            Ok(0) => self.end_input(),
            Ok(count) => {
                let bytes = &bytes[..count];
                self.line_begun = bytes.last() != Some(&b'\n');
                self.to_container.fill(bytes);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO: a tty whose background we are in, or that has gone away.
            Err(_) => self.input_open = false,
        }
    }

    /// A pty has no end of input but its EOF character: once after a whole line, twice within one.
    fn end_input(&mut self) {
        self.input_open = false;
        let eof = rustix::termios::tcgetattr(&self.master)
            .map_or(4, |settings| settings.special_codes[SpecialCodeIndex::VEOF]);
        let characters = [eof, eof];
        self.to_container.fill(if self.line_begun { &characters } else { &characters[..1] });
    }

    /// Whether there was something.
    fn read_master(&mut self) -> bool {
        let mut bytes = [0; CHUNK];
        match rustix::io::read(&self.master, &mut bytes) {
            Ok(count @ 1..) => {
                if self.output_open {
                    self.to_user.fill(&bytes[..count]);
                }
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // EIO: nobody has the other end open any more.
            Ok(0) | Err(_) => {
                self.master_open = false;
                false
            }
        }
    }

    fn write_output(&mut self) {
        match self.to_user.drain(self.output) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(self.output, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            // Nobody reads any more; the container is not told, as with a closed window of a real terminal.
            Err(_) => {
                self.output_open = false;
                self.to_user.clear();
            }
        }
    }

    /// The program has ended: shows all that it had written. The kernel flushes a pty into a read that finds
    /// nothing, so EAGAIN is the end even when somebody else still holds the other side.
    pub(crate) fn finish(&mut self) {
        let mut rounds = 0;
        loop {
            while !self.to_user.is_empty() {
                self.write_output();
            }
            rounds += 1;
            if rounds > PTY_HOLDS / CHUNK * 16 || !self.master_open || !self.read_master() {
                break;
            }
        }
    }
}
