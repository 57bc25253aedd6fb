//! `binary://`: a program of the client's that takes the output (containerd's docs/runtime "Logging").
//!
//! It gets stdout as descriptor 3, stderr as 4, writes to 5 or closes it when it is ready, and finds its arguments in the URI's query.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use crate::error::{Error, Result};

/// How long a logger may take until it is ready, in milliseconds; and to end after the last writer.
const READY: u16 = 10_000;
const LAST_LINES: Duration = Duration::from_secs(10);
/// Of the thread that waits for one, in bytes.
const STACK: usize = 64 << 10;

/// What the URI of a logger says.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Behind the scheme.
    pub(super) uri: String,
    /// Whether closing descriptor 5 is not enough (`binary-v2`, containerd 2.2): one that crashes closes it, too.
    pub(super) must_say_ready: bool,
}

#[derive(Debug)]
pub(crate) struct Logger {
    /// Until it is waited for.
    child: Option<Child>,
}

impl Drop for Logger {
    /// Of a process that was not made after all: it has no writers, and must not stay as a zombie.
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let waiting = std::thread::Builder::new().stack_size(STACK).spawn(move || finish(child));
            drop(waiting);
        }
    }
}

impl Logger {
    /// Starts the program; with the ends of its pipes for stdout and stderr.
    ///
    /// # Errors
    ///
    /// A program that cannot be executed, or does not become ready in time.
    pub(super) fn start(named: &Program, namespace: &str, id: &str) -> Result<(Self, OwnedFd, OwnedFd)> {
        let uri = &named.uri;
        let (program, query) = uri.split_once('?').unwrap_or((uri, ""));
        let failure = |error: std::io::Error| Error::system(format!("start the logger {program}"), error);
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| failure(errno.into()));
        let ((stdout, to_stdout), (stderr, to_stderr), (ready, says_ready)) = (pipe()?, pipe()?, pipe()?);
        let mut command = Command::new(program);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            command.arg(unescape(name));
            if !value.is_empty() {
                command.arg(unescape(value));
            }
        }
        command
            .env("CONTAINER_ID", id)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .fd_mappings(vec![
                FdMapping { parent_fd: stdout, child_fd: 3 },
                FdMapping { parent_fd: stderr, child_fd: 4 },
                FdMapping { parent_fd: says_ready, child_fd: 5 },
            ])
            .map_err(|error| Error::system(format!("start the logger {program}"), error))?;
        let child = command.spawn().map_err(failure)?;
        // The command holds our copies of its ends.
        drop(command);
        match wait_ready(ready, named.must_say_ready) {
            Ok(()) => Ok((Self { child: Some(child) }, to_stdout, to_stderr)),
            Err(error) => {
                end(child);
                Err(error.context(format!("start the logger {program}")))
            }
        }
    }

    /// After the last writer has gone it reads its end; one that goes on nevertheless is killed.
    pub(super) fn finish(mut self) {
        if let Some(child) = self.child.take() {
            finish(child);
        }
    }
}

fn finish(mut child: Child) {
    let deadline = Instant::now() + LAST_LINES;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    end(child);
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn wait_ready(ready: OwnedFd, must_say: bool) -> Result<()> {
    use std::os::fd::AsFd as _;
    let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(READY)) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) => return Err(Error::system("wait for it", format!("it was not ready after {} s", READY / 1000))),
            Ok(_) => break,
            Err(errno) => return Err(Error::system("wait for it", errno)),
        }
    }
    // A byte or, for old ones, the end: both mean ready.
    let said = std::fs::File::from(ready).read(&mut [0]);
    if must_say && !matches!(said, Ok(1)) {
        return Err(Error::system("wait for it", "it has closed descriptor 5 without a word: has it crashed?"));
    }
    Ok(())
}

/// Percent and plus, as in a URL's query; what is no escape stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn queries() {
        assert_eq!(unescape("a%2Fb+c%"), "a/b c%");
        assert_eq!(unescape("%zz%41"), "%zzA");
    }
}
