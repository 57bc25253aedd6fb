//! One CRIU process and the talk with it.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

use command_fds::{CommandFdExt as _, FdMapping};
use prost::Message as _;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags,
    SocketType,
};

use super::rpc::{Features, Notify, Request, Response, kind};
use crate::{Error, Kind, Result, container};

/// The oldest CRIU that does all that is asked of it here: pid namespaces from outside, the freezer of cgroup v2.
const OLDEST: (i32, i32) = (3, 15);
/// Largest answer. They have some dozen bytes.
const ANSWER: usize = 64 << 10;
/// The descriptor that CRIU is told to talk on.
const SOCKET: i32 = 3;

/// What CRIU has as its standard input, output and error.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Nothing; what it writes is kept for the error message.
    Apart,
    /// The caller's: they become the restored container's.
    Callers,
    /// These, which do.
    Given(container::Stdio),
}

/// A CRIU process that waits for its one request, or works at it.
#[derive(Debug)]
pub(crate) struct Criu {
    child: Child,
    socket: OwnedFd,
    written: Option<File>,
}

impl Criu {
    /// Starts CRIU. `fds` become its descriptors 4, 5, ...
    ///
    /// # Errors
    ///
    /// There is no CRIU, or no descriptors or processes to be had.
    pub(crate) fn start(program: &Path, stdio: Stdio, fds: Vec<OwnedFd>) -> Result<Self> {
        let failure = |errno| Error::os("make the socket for CRIU", errno);
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failure)?;
        let mut command = Command::new(program);
        command.args(["swrk", "3"]);
        let mut written = None;
        match stdio {
            Stdio::Callers => {}
            Stdio::Given(given) => {
                command.stdin(given.stdin).stdout(given.stdout).stderr(given.stderr);
            }
            Stdio::Apart => {
                // Not a pipe: nobody reads while CRIU works.
                let memory =
                    rustix::fs::memfd_create("flint-criu", rustix::fs::MemfdFlags::CLOEXEC).map_err(failure)?;
                let file = File::from(memory);
                let copy = || file.try_clone().map_err(|error| Error::os("duplicate a descriptor for CRIU", error));
                command.stdin(std::process::Stdio::null()).stdout(copy()?).stderr(copy()?);
                written = Some(file);
            }
        }
        let behind =
            fds.into_iter().zip(SOCKET + 1..).map(|(fd, number)| FdMapping { parent_fd: fd, child_fd: number });
        let mappings = std::iter::once(FdMapping { parent_fd: theirs, child_fd: SOCKET }).chain(behind).collect();
        command.fd_mappings(mappings).map_err(|error| Error::new(Kind::System, format!("prepare CRIU: {error}")))?;
        let child = command.spawn().map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let hint =
                if missing { " (checkpoint and restore need CRIU: install it, or name it with --criu)" } else { "" };
            let error = Error::os(format!("execute {}", program.display()), error);
            Error::new(error.kind(), format!("{error}{hint}"))
        })?;
        // With the command goes the other end of the socket: CRIU's death is then heard as the end of the talk.
        drop(command);
        Ok(Self { child, socket, written })
    }

    /// CRIU's pid.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Asks CRIU for something, and hears it out. `notified` is told what CRIU is at, and with which descriptor; when it
    /// fails, CRIU breaks off.
    ///
    /// # Errors
    ///
    /// That of `notified`; `Refused` inside when CRIU itself fails: its log says more.
    pub(crate) fn ask(
        mut self,
        request: &Request,
        notified: &mut dyn FnMut(&Notify, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        let answer = self.talk(request, notified);
        // A talk that is over is the end of CRIU; where it broke off, its end of the socket tells CRIU.
        drop(self.socket);
        let status = self.child.wait();
        match answer {
            Ok(Some(response)) => Ok(response),
            Ok(None) => {
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                let quoted = self.written.as_mut().map(quote).unwrap_or_default();
                Err(Error::new(Kind::System, format!("CRIU ended without an answer ({how}){quoted}")))
            }
            Err(error) => Err(error),
        }
    }

    /// `None` when CRIU ended.
    fn talk(
        &self,
        request: &Request,
        notified: &mut dyn FnMut(&Notify, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Option<Response>> {
        let mut failed = None;
        self.send(request)?;
        loop {
            let Some((response, fd)) = self.receive()? else { return failed.map_or(Ok(None), Err) };
            if response.kind != kind::NOTIFY {
                return failed.map_or(Ok(Some(response)), Err);
            }
            let notify = response.notify.unwrap_or_default();
            let heard = notified(&notify, fd);
            let success = heard.is_ok();
            if let Err(error) = heard {
                failed.get_or_insert(error);
            }
            self.send(&Request { kind: kind::NOTIFY, notify_success: Some(success), ..Request::default() })?;
        }
    }

    /// Also to a CRIU that has ended: what it said before is then still to be heard, and after it the end.
    fn send(&self, request: &Request) -> Result<()> {
        let data = request.encode_to_vec();
        let mut nothing = SendAncillaryBuffer::default();
        match rustix::net::sendmsg(&self.socket, &[IoSlice::new(&data)], &mut nothing, SendFlags::NOSIGNAL) {
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Error::os("send CRIU a request", errno)),
        }
    }

    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        let mut data = vec![0; ANSWER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let buffers = &mut [IoSliceMut::new(&mut data)];
            match rustix::net::recvmsg(&self.socket, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // A reset is told once, when CRIU ended with our request unread (unix(7)); what it sent before is still there.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                result => break result.map_err(|errno| Error::os("hear CRIU's answer", errno))?,
            }
        };
        if message.bytes == 0 {
            return Ok(None);
        }
        let fd = ancillary.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let response = data.get(..message.bytes).map(Response::decode);
        match response {
            Some(Ok(response)) => Ok(Some((response, fd))),
            _ => Err(Error::new(Kind::System, "CRIU's answer is not of its protocol")),
        }
    }
}

/// What CRIU wrote beside its log, which it has not opened yet when it fails early.
fn quote(written: &mut File) -> String {
    let mut text = Vec::new();
    let read = written.rewind().and_then(|()| written.take(1024).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    if read.is_err() || text.trim().is_empty() { String::new() } else { format!("; it wrote: {}", text.trim()) }
}

fn ask_alone(program: &Path, request: &Request) -> Result<Response> {
    let response = Criu::start(program, Stdio::Apart, Vec::new())?.ask(request, &mut |_, _| Ok(()))?;
    if response.success {
        return Ok(response);
    }
    Err(Error::unsupported(format!("{} does not answer what it can do: it is too old", program.display())))
}

/// Asks a CRIU for its version, and refuses one that is too old.
///
/// # Errors
///
/// There is no CRIU, or it is too old.
pub(crate) fn check_version(program: &Path) -> Result<()> {
    let response = ask_alone(program, &Request { kind: kind::VERSION, ..Request::default() })?;
    let found = response.version.map_or((0, 0), |version| (version.major, version.minor));
    if found >= OLDEST {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "CRIU {}.{} ({}) is too old: flint needs {}.{} or newer",
        found.0,
        found.1,
        program.display(),
        OLDEST.0,
        OLDEST.1
    )))
}

/// Asks whether CRIU and the kernel can do what is asked for with true.
///
/// # Errors
///
/// `Unsupported`, naming the first feature that is missing.
pub(crate) fn check_features(program: &Path, wanted: Features) -> Result<()> {
    let request = Request { kind: kind::FEATURE_CHECK, features: Some(wanted), ..Request::default() };
    let found = ask_alone(program, &request)?.features.unwrap_or_default();
    let is = |feature: Option<bool>| feature == Some(true);
    if is(wanted.mem_track) && !is(found.mem_track) {
        return Err(Error::unsupported(
            "--pre-dump needs a kernel that tells which memory was written (CONFIG_MEM_SOFT_DIRTY), and this one does not: checkpoint without it",
        ));
    }
    if is(wanted.lazy_pages) && !is(found.lazy_pages) {
        return Err(Error::unsupported(
            "--lazy-pages needs userfaultfd with its events in the kernel and in CRIU: checkpoint without it",
        ));
    }
    Ok(())
}
