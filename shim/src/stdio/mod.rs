//! A process's standard streams, as a request names them.
//!
//! ```text
//!  fifo            no terminal: the container has the fifo itself, nothing is copied    terminal: relay
//!  binary://       a logger reads pipes (fds 3 and 4); binary-v2:// as well            terminal: relay into its pipe
//!  file://         the container has the file; a fifo as above                        terminal: relay into the file
//!  cri-log://      a thread of ours reads pipes and writes Kubernetes' log             terminal: relay into its pipe
//!  (nothing)       /dev/null
//! ```
//!
//! The shim holds a reader of each output fifo until the process is deleted: containerd may come and go, and the container
//! sees no broken pipe. While nobody reads, a container waits once the fifo is full (64 KiB), as it does with a pipe; others
//! are not touched. It holds a writer of the input fifo until CloseIO.
//!
//! Outputs of a container that may be adopted ([`Streams::lasting`]) outlive the shim: the container's end of a fifo is open for
//! reading, too, so that it sees no broken pipe while there is no shim.

mod console;
mod log;
mod logger;
mod relay;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flint_runtime::Stdio;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

pub(crate) use console::{Console, Socket};
pub(crate) use log::dropped as lines_dropped;
use log::{Form, Log, Stream};
use logger::{Logger, Program};

use crate::error::{Error, Result};

/// What a request says of the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The bundle of a container that another shim may adopt: its outputs outlive this one.
    pub(crate) lasting: Option<PathBuf>,
}

/// How long the last lines of a log may take to be written: longer, and its disk hangs.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Who owns the streams inside, so that the process may open them again by /dev/stdout: user and group on the host.
pub(crate) type Owner = (u32, Option<u32>);

/// What a process is given, and what the shim keeps.
#[derive(Debug)]
pub(crate) struct Opened {
    /// For the process; none with a terminal.
    pub(crate) stdio: Option<Stdio>,
    /// Where the terminal arrives.
    pub(crate) console: Option<Socket>,
    pub(crate) held: Held,
}

/// What is kept while the process is.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// A writer of the input fifo: without it a client that leaves would end the input.
    stdin: Option<File>,
    /// Readers of the output fifos.
    readers: Vec<File>,
    logger: Option<Logger>,
    logs: Vec<Log>,
    /// Fifos of our own, in the bundle.
    fifos: Vec<PathBuf>,
}

/// Where output goes.
#[derive(Debug)]
enum Target {
    Null,
    Fifo(String),
    File(String),
    Logger(Program),
    Log(Form),
}

impl Target {
    fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(if text.is_empty() { Self::Null } else { Self::Fifo(text.to_owned()) });
        };
        match scheme {
            "fifo" => Ok(Self::Fifo(rest.to_owned())),
            "file" => Ok(Self::File(rest.to_owned())),
            "cri-log" => Form::parse(rest).map(Self::Log),
            "binary" | "binary-v2" => {
                Ok(Self::Logger(Program { uri: rest.to_owned(), must_say_ready: scheme == "binary-v2" }))
            }
            other => Err(Error::invalid(format!("{text}: streams of the scheme {other} are unknown here"))),
        }
    }
}

impl Streams {
    /// Opens them. Called on a thread that may wait: a logger has to say that it is ready.
    ///
    /// # Errors
    ///
    /// A stream that cannot be opened; nothing is left open then.
    pub(crate) fn open(&self, namespace: &str, id: &str, owner: Owner) -> Result<Opened> {
        if self.terminal {
            return Ok(Opened { stdio: None, console: Some(Socket::pair()?), held: Held::default() });
        }
        let mut held = Held::default();
        let stdin = match Target::parse(&self.stdin)? {
            Target::Null => null()?,
            Target::Fifo(path) => input(&path, &mut held)?,
            _ => return Err(Error::invalid(format!("stdin {}: only a fifo can be read", self.stdin))),
        };
        let (stdout, stderr) = self.outputs(namespace, id, &mut held)?;
        for stream in [&stdin, &stdout, &stderr] {
            give(stream, owner)?;
        }
        Ok(Opened { stdio: Some(Stdio { stdin, stdout, stderr }), console: None, held })
    }

    fn outputs(&self, namespace: &str, id: &str, held: &mut Held) -> Result<(OwnedFd, OwnedFd)> {
        let targets = (Target::parse(&self.stdout)?, Target::parse(&self.stderr)?);
        if let (Target::Logger(program), _) | (_, Target::Logger(program)) = &targets {
            let (logger, stdout, stderr) = Logger::start(program, namespace, id)?;
            held.logger = Some(logger);
            return Ok((stdout, stderr));
        }
        let mut logs = Vec::new();
        let mut open = |target, stream| match target {
            Target::Log(form) => {
                let (ours, theirs) = self.pipe(stream, held)?;
                add(&mut logs, form, (stream, ours));
                Ok(theirs)
            }
            target => output(target, self.lasting.is_some(), held),
        };
        let outputs = (open(targets.0, Stream::Stdout)?, open(targets.1, Stream::Stderr)?);
        start(logs, held)?;
        Ok(outputs)
    }

    /// A pipe to a log: its end that does not block, and the container's.
    fn pipe(&self, stream: Stream, held: &mut Held) -> Result<(OwnedFd, OwnedFd)> {
        let Some(bundle) = &self.lasting else {
            let (ours, theirs) =
                nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::system("make a pipe for a log", errno))?;
            rustix::io::ioctl_fionbio(&ours, true).map_err(|errno| Error::system("prepare a log's pipe", errno))?;
            return Ok((ours, theirs));
        };
        let path = fifo_of(bundle, stream);
        let failure = |error: std::io::Error| Error::system(format!("make the fifo {}", path.display()), error);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failure(error)),
            _ => {}
        }
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600))
            .map_err(|errno| failure(errno.into()))?;
        held.fifos.push(path.clone());
        // Its own reader, too: see above.
        let theirs = fifo_options().read(true).write(true).open(&path).map_err(failure)?;
        let ours = fifo_options().read(true).open(&path).map_err(failure)?;
        blocking(&theirs)?;
        Ok((ours.into(), theirs.into()))
    }

    /// Takes over the streams of a container that another shim opened. A terminal has gone with that shim; what is a file, or
    /// has a logger, needs nobody.
    ///
    /// # Errors
    ///
    /// A stream that is there and cannot be opened.
    pub(crate) fn adopt(&self) -> Result<Held> {
        let mut held = Held::default();
        if self.terminal {
            return Ok(held);
        }
        if let Target::Fifo(path) = Target::parse(&self.stdin)? {
            // Without a reader the program has closed it: there is nothing to hold.
            held.stdin = fifo_options().write(true).open(path).ok();
        }
        let mut logs = Vec::new();
        for (text, stream) in [(&self.stdout, Stream::Stdout), (&self.stderr, Stream::Stderr)] {
            match (Target::parse(text)?, &self.lasting) {
                (Target::File(path), _) if !names_fifo(&path) => {}
                (Target::File(path) | Target::Fifo(path), _) => {
                    let reader = fifo_options().read(true).open(&path).map_err(failed(&path))?;
                    held.readers.extend(is_fifo(&reader).then_some(reader));
                }
                (Target::Log(form), Some(bundle)) => {
                    let path = fifo_of(bundle, stream);
                    match fifo_options().read(true).open(&path) {
                        Ok(reader) => add(&mut logs, form, (stream, reader.into())),
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(failed(&path.display().to_string())(error)),
                    }
                    held.fifos.push(path);
                }
                _ => {}
            }
        }
        start(logs, &mut held)?;
        Ok(held)
    }
}

/// A log's streams, by what the log is.
type Logs = Vec<(Form, Vec<(Stream, OwnedFd)>)>;

/// Outputs that go to the same file have one log.
fn add(logs: &mut Logs, form: Form, source: (Stream, OwnedFd)) {
    match logs.iter_mut().find(|(other, _)| *other == form) {
        Some((_, sources)) => sources.push(source),
        None => logs.push((form, vec![source])),
    }
}

fn start(logs: Logs, held: &mut Held) -> Result<()> {
    for (form, sources) in logs {
        held.logs.push(Log::start(form, sources)?);
    }
    Ok(())
}

/// Removes what the streams of a container left in its bundle whose shim has died.
pub(crate) fn remove_fifos(bundle: &Path) {
    for stream in [Stream::Stdout, Stream::Stderr] {
        let _ = std::fs::remove_file(fifo_of(bundle, stream));
    }
}

/// Where the pipe of a log is bound, so that it is found again.
fn fifo_of(bundle: &Path, stream: Stream) -> PathBuf {
    bundle.join(format!("{}.fifo", stream.name()))
}

impl Held {
    /// Ends the input: once the client leaves too, the process reads its end.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Ready when all is in its logs that was written before.
    pub(crate) fn written(&self) -> impl Future<Output = ()> + Send + use<> {
        let logs: Vec<_> = self.logs.iter().map(Log::emptied).collect();
        async move {
            let all = async {
                for log in logs {
                    let _ = log.await;
                }
            };
            let _ = tokio::time::timeout(LAST_LINES, all).await;
        }
    }

    /// Closes its logs, with their last lines, and removes what is ours in the bundle.
    pub(crate) async fn close_logs(&mut self) {
        for log in std::mem::take(&mut self.logs) {
            let _ = tokio::time::timeout(LAST_LINES, log.close()).await;
        }
        for fifo in std::mem::take(&mut self.fifos) {
            let _ = std::fs::remove_file(fifo);
        }
    }

    /// After the process's end: a logger gets some time for its last lines.
    pub(crate) fn close(mut self) {
        if let Some(logger) = self.logger.take() {
            logger.finish();
        }
    }
}

fn null() -> Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).map_err(|error| Error::system("open /dev/null", error))
}

fn failed(path: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::system(format!("open the stream {path}"), error)
}

/// Non-blocking, so that a fifo without its other end does not hold anybody up.
fn fifo_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC);
    options
}

fn input(path: &str, held: &mut Held) -> Result<OwnedFd> {
    let reader = fifo_options().read(true).open(path).map_err(failed(path))?;
    if is_fifo(&reader) {
        held.stdin = Some(fifo_options().write(true).open(path).map_err(failed(path))?);
    }
    blocking(&reader)?;
    Ok(reader.into())
}

fn output(target: Target, lasting: bool, held: &mut Held) -> Result<OwnedFd> {
    let path = match target {
        Target::Null | Target::Log(_) => return null(),
        Target::File(path) if !names_fifo(&path) => return append(&path).map(OwnedFd::from),
        Target::File(path) | Target::Fifo(path) => path,
        Target::Logger(program) => {
            return Err(Error::invalid(format!("binary://{}: both outputs go to one logger", program.uri)));
        }
    };
    // A client may name a file where a fifo is meant.
    let reader = match fifo_options().read(true).open(&path) {
        Ok(reader) if is_fifo(&reader) => reader,
        Ok(_) => return append(&path).map(OwnedFd::from),
        Err(error) => return Err(failed(&path)(error)),
    };
    let writer = fifo_options().read(lasting).write(true).open(&path).map_err(failed(&path))?;
    blocking(&writer)?;
    held.readers.push(reader);
    Ok(writer.into())
}

/// A log file, for several writers. Of a fifo that took its place meanwhile nobody waits for the reader.
fn append(path: &str) -> Result<File> {
    if let Some(folder) = Path::new(path).parent() {
        std::fs::create_dir_all(folder).map_err(failed(path))?;
    }
    let file = fifo_options().append(true).create(true).mode(0o644).open(path).map_err(failed(path))?;
    blocking(&file)?;
    Ok(file)
}

fn names_fifo(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

fn is_fifo(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// The container's programs expect streams that wait.
fn blocking(fd: &impl AsFd) -> Result<()> {
    let failure = |errno| Error::system("prepare a stream", errno);
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(failure)?;
    let flags = OFlag::from_bits_retain(flags) - OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop).map_err(failure)
}

/// Files of the host keep their owner: only what is a channel to this process is given away.
fn give(stream: &OwnedFd, (uid, gid): Owner) -> Result<()> {
    use nix::sys::stat::{SFlag, fstat};
    let stat = fstat(stream).map_err(|errno| Error::system("look at a stream", errno))?;
    let fifo = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
    if !fifo || (stat.st_uid == uid && gid.is_none_or(|gid| gid == stat.st_gid)) {
        return Ok(());
    }
    match nix::unistd::fchown(stream, Some(uid.into()), gid.map(Into::into)) {
        // Then the process has its streams, and cannot open them again.
        Ok(()) | Err(nix::errno::Errno::EPERM | nix::errno::Errno::EROFS) => Ok(()),
        Err(errno) => Err(Error::system(format!("give a stream to user {uid}"), errno)),
    }
}
