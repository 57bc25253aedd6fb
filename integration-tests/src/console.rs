//! Terminals: the receiving end of a console socket, and programs that run on a pseudo-terminal of ours.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::becomes_true;
use crate::{Output, wait_until};

/// A unix socket that waits for the master of a container's terminal.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// What came over a console socket.
#[derive(Debug)]
pub struct ReceivedConsole {
    /// The text of the message: the terminal's name.
    pub name: String,
    /// How many file descriptors came with it.
    pub descriptors: usize,
    /// What is read from and written to the terminal.
    pub terminal: Terminal,
}

impl ConsoleSocket {
    /// Listens in the folder `dir`.
    #[must_use]
    pub fn listen(dir: &Path) -> Self {
        let path = dir.join("console.sock");
        let _ = std::fs::remove_file(&path);
        Self { listener: UnixListener::bind(&path).expect("bind the console socket"), path }
    }

    /// What is passed as `--console-socket`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts one connection and takes the master from it. Waits until one comes.
    #[must_use]
    pub fn receive(&self) -> ReceivedConsole {
        self.listener.set_nonblocking(true).expect("make the console socket non-blocking");
        let mut stream = None;
        wait_until("a connection on the console socket", || {
            stream = self.listener.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("a connection");
        stream.set_nonblocking(false).expect("make the connection blocking");
        let mut text = [0_u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .expect("receive the console");
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        let count = descriptors.len();
        let master = descriptors.into_iter().next().expect("a descriptor in the message");
        ReceivedConsole {
            name: String::from_utf8_lossy(&text[..message.bytes]).into_owned(),
            descriptors: count,
            terminal: Terminal::new(File::from(master)),
        }
    }
}

/// What a shell is told to type, to print `size 33 77` and its terminal's name. Clients tell the size some time after the start: until
/// then it is 0. The words are put together so that the echo of what is typed does not match.
pub const TELL_SIZE: &str =
    "until stty size 2>/dev/null | grep -q 33; do sleep 0.05; done; tty; echo si'ze' $(stty size)\n";

/// The master of a terminal; what the other side prints is collected.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Terminal {
    fn new(master: File) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut source = master.try_clone().expect("dup the master");
        let sink = Arc::clone(&seen);
        // Ends with EIO once nobody holds the other side any more.
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = source.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                sink.lock().expect("the terminal's text").extend_from_slice(&buffer[..count]);
            }
        });
        Self { master, seen, reader }
    }

    /// Sets the window's size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("set the window's size");
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type into the terminal");
    }

    /// What was printed until now, line ends as `\n`.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("the terminal's text")).replace("\r\n", "\n")
    }

    /// Waits until `text` was printed.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let shown = becomes_true(|| self.text().contains(text));
        assert!(shown, "{text:?} never appears on the terminal, which shows {:?}", self.text());
    }

    /// Waits until the other side is closed; all that was printed.
    #[track_caller]
    #[must_use]
    pub fn finish(self) -> String {
        wait_until("the end of the terminal", || self.reader.is_finished());
        self.text()
    }
}

/// A program whose stdin, stdout and stderr are a pseudo-terminal. Dropping it kills it, by its own pid.
#[derive(Debug)]
pub struct PtyRun {
    child: Child,
    /// The terminal.
    pub terminal: Option<Terminal>,
}

impl PtyRun {
    /// Starts `program` on a new terminal of `rows` times `columns`.
    #[must_use]
    pub fn start(program: &Path, args: &[&str], environment: &[(&str, &str)], rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname").into_string().expect("a path");
        let terminal = Terminal::new(File::from(master));
        terminal.resize(rows, columns);
        let other = File::options()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOCTTY.bits().cast_signed())
            .open(&name)
            .unwrap_or_else(|error| panic!("open {name}: {error}"));
        // The command holds the other side; it is dropped here, so that the program's end ends the terminal.
        let child = std::process::Command::new(program)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::from(other.try_clone().expect("dup")))
            .stdout(Stdio::from(other.try_clone().expect("dup")))
            .stderr(Stdio::from(other))
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
        Self { child, terminal: Some(terminal) }
    }

    /// The program's pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        if let Some(terminal) = &mut self.terminal {
            terminal.send(text);
        }
    }

    /// Waits until `text` was printed.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        if let Some(terminal) = &self.terminal {
            terminal.wait_for(text);
        }
    }

    /// Waits for the program's end. What it printed is in `stdout`.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Output {
        let mut status = None;
        wait_until("the end of a program on a terminal", || {
            status = self.child.try_wait().expect("wait for the program");
            status.is_some()
        });
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        let stdout = self.terminal.take().map(Terminal::finish).unwrap_or_default();
        Output { code, stdout_bytes: stdout.clone().into_bytes(), stdout, stderr: String::new() }
    }
}

impl Drop for PtyRun {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
