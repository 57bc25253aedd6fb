//! The thread that reads containers' outputs and writes their logs.
//!
//! Not the executor's: a disk may make it wait, and requests must not. It is started with the first log, and ends with the
//! shim. What it holds for a stream is a descriptor and the beginning of a line.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use tokio::sync::oneshot;

use super::file::{DROPPED, LogFile, Writing};
use super::lines::Lines;
use super::{Form, Stream};
use crate::error::{Error, Result};
use crate::log;

/// Read at once, in bytes: half of what a pipe holds.
const CHUNK: usize = 32 << 10;
/// What is read of a stream at most when it is to be emptied; one that is still written to is never empty.
const EMPTIED: usize = 1 << 20;
/// Until a stream is read again that the kernel does not let us watch.
const AGAIN: Duration = Duration::from_millis(100);
/// For system calls and the standard library's; the buffers are on the heap.
const STACK: usize = 128 << 10;
/// Of the eventfd, among the streams' numbers.
const WAKE: u64 = 0;

static WRITER: OnceLock<Arc<Writer>> = OnceLock::new();
static NUMBERS: AtomicU64 = AtomicU64::new(WAKE + 1);

/// A log that is being written; closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Log(u64);

#[derive(Debug)]
struct Writer {
    commands: Mutex<Vec<Command>>,
    wake: OwnedFd,
}

#[derive(Debug)]
enum Command {
    Add { log: u64, form: Form, sources: Vec<(Stream, OwnedFd)> },
    Empty { log: u64, done: oneshot::Sender<()> },
    Close { log: u64, done: Option<oneshot::Sender<()>> },
}

/// Lines of all logs that were lost since the shim's start.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

impl Log {
    /// Writes what is read of these pipes, until their end. They do not block.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn start(form: Form, sources: Vec<(Stream, OwnedFd)>) -> Result<Self> {
        let log = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Writer::get()?.send(Command::Add { log, form, sources });
        Ok(Self(log))
    }

    /// Ready once all is in the file that was written to the pipes before.
    pub(crate) fn emptied(&self) -> oneshot::Receiver<()> {
        let (done, ready) = oneshot::channel();
        if let Some(writer) = WRITER.get() {
            writer.send(Command::Empty { log: self.0, done });
        }
        ready
    }

    /// Closes it, with all that was written before; ready when that is done.
    pub(crate) fn close(self) -> oneshot::Receiver<()> {
        let (done, ready) = oneshot::channel();
        if let Some(writer) = WRITER.get() {
            writer.send(Command::Close { log: self.0, done: Some(done) });
        }
        std::mem::forget(self);
        ready
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(writer) = WRITER.get() {
            writer.send(Command::Close { log: self.0, done: None });
        }
    }
}

impl Writer {
    fn get() -> Result<&'static Self> {
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = WRITER.get() {
            return Ok(writer);
        }
        let failure = |error: std::io::Error| Error::system("start the thread that writes logs", error);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failure(errno.into()))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| failure(errno.into()))?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN).map_err(|errno| failure(errno.into()))?;
        let writer = Arc::new(Self { commands: Mutex::default(), wake });
        let theirs = writer.clone();
        std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(STACK)
            .spawn(move || Work::new(epoll).run(&theirs))
            .map_err(failure)?;
        Ok(WRITER.get_or_init(|| writer))
    }

    fn send(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn take(&self) -> Vec<Command> {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream that is read.
#[derive(Debug)]
struct Source {
    pipe: File,
    lines: Lines,
    log: u64,
}

/// What the thread has.
struct Work {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    logs: HashMap<u64, LogFile>,
    /// Sources with a line that has not ended.
    unfinished: HashSet<u64>,
    /// Sources that the epoll has not taken, and when they are read again.
    refused: HashSet<u64>,
    again: Instant,
    chunk: Vec<u8>,
    gathered: Vec<u8>,
}

impl Work {
    fn new(epoll: OwnedFd) -> Self {
        Self {
            epoll,
            sources: HashMap::new(),
            logs: HashMap::new(),
            unfinished: HashSet::new(),
            refused: HashSet::new(),
            again: Instant::now(),
            chunk: vec![0; CHUNK],
            gathered: Vec::new(),
        }
    }

    fn run(mut self, writer: &Writer) {
        let mut events: Vec<Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            let patience = self.until_due().map(|patience| Timespec {
                tv_sec: patience.as_secs() as i64,
                tv_nsec: i64::from(patience.subsec_nanos()),
            });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), patience.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Nothing that a retry could mend; without a pause it would take a CPU.
                Err(_) => std::thread::sleep(Duration::from_secs(1)),
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => writer.take().into_iter().for_each(|command| self.obey(command)),
                    source => {
                        self.read(source, CHUNK);
                    }
                }
            }
            self.read_refused();
            self.flush_due();
        }
    }

    fn until_due(&self) -> Option<Duration> {
        let due = self.unfinished.iter().filter_map(|source| self.sources.get(source)?.lines.due());
        let again = (!self.refused.is_empty()).then_some(self.again);
        due.chain(again).min().map(|due| due.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { log, form, sources } => {
                let (delay, path) = (form.delay, form.path.clone());
                self.logs.insert(log, LogFile::new(form));
                for (stream, pipe) in sources {
                    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                    let source = Source { pipe: pipe.into(), lines: Lines::new(stream, delay), log };
                    // Whatever the kernel is short of: memory, or what fs.epoll.max_user_watches allows.
                    if let Err(error) = watch(&self.epoll, &source.pipe, number) {
                        log::warn(&format!(
                            "watch {} of {}, again each {AGAIN:?}: {error}",
                            stream.name(),
                            path.display()
                        ));
                        self.refused.insert(number);
                    }
                    self.sources.insert(number, source);
                }
            }
            Command::Empty { log, done } => {
                self.empty(log);
                let _ = done.send(());
            }
            Command::Close { log, done } => {
                self.empty(log);
                for source in self.sources_of(log) {
                    self.end(source);
                }
                self.logs.remove(&log);
                if let Some(done) = done {
                    let _ = done.send(());
                }
            }
        }
    }

    fn sources_of(&self, log: u64) -> Vec<u64> {
        self.sources.iter().filter(|(_, source)| source.log == log).map(|(number, _)| *number).collect()
    }

    fn empty(&mut self, log: u64) {
        for source in self.sources_of(log) {
            self.read(source, EMPTIED);
        }
    }

    /// Those that nobody is told of, and whether they can be watched now.
    fn read_refused(&mut self) {
        if self.refused.is_empty() || Instant::now() < self.again {
            return;
        }
        for number in self.refused.iter().copied().collect::<Vec<_>>() {
            let Some(source) = self.sources.get(&number) else { continue };
            if watch(&self.epoll, &source.pipe, number).is_ok() {
                self.refused.remove(&number);
            } else {
                self.read(number, EMPTIED);
            }
        }
        self.again = Instant::now() + AGAIN;
    }

    /// Reads what there is, at most so many bytes.
    fn read(&mut self, number: u64, most: usize) {
        let mut total = 0;
        while total < most {
            let Some(source) = self.sources.get_mut(&number) else { return };
            let count = match source.pipe.read(&mut self.chunk) {
                Ok(0) => return self.end(number),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end(number),
            };
            total += count;
            let Some(file) = self.logs.get_mut(&source.log) else { return };
            let mut writing = Writing { file, gathered: &mut self.gathered };
            source.lines.take(self.chunk.get(..count).unwrap_or_default(), stamp().as_bytes(), &mut writing);
            writing.write();
            if source.lines.due().is_some() {
                self.unfinished.insert(number);
            } else {
                self.unfinished.remove(&number);
            }
        }
    }

    /// No more comes of it.
    fn end(&mut self, number: u64) {
        self.flush(number);
        self.refused.remove(&number);
        // The pipe leaves the epoll when it is closed.
        let Some(Source { log, .. }) = self.sources.remove(&number) else { return };
        if !self.sources.values().any(|source| source.log == log) {
            self.logs.remove(&log);
        }
    }

    fn flush(&mut self, number: u64) {
        self.unfinished.remove(&number);
        let Some(source) = self.sources.get_mut(&number) else { return };
        let Some(file) = self.logs.get_mut(&source.log) else { return };
        let mut writing = Writing { file, gathered: &mut self.gathered };
        source.lines.flush(stamp().as_bytes(), &mut writing);
        writing.write();
    }

    fn flush_due(&mut self) {
        if self.unfinished.is_empty() {
            return;
        }
        let now = Instant::now();
        let is_due = |number: &u64| self.sources.get(number).is_none_or(|source| source.lines.due() <= Some(now));
        let due: Vec<u64> = self.unfinished.iter().copied().filter(is_due).collect();
        for number in due {
            self.flush(number);
        }
    }
}

fn watch(epoll: &OwnedFd, pipe: &File, number: u64) -> rustix::io::Result<()> {
    epoll::add(epoll, pipe, EventData::new_u64(number), EventFlags::IN)
}

fn stamp() -> String {
    flint_runtime::rfc3339(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use rustix::event::epoll::{self, CreateFlags};
    use rustix::event::{EventfdFlags, eventfd};

    use super::{AGAIN, Command, Form, Stream, Work};

    #[test]
    fn a_stream_that_cannot_be_watched_is_read_again_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
        // It takes no descriptor at all.
        let mut work = Work::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let (ours, mut theirs) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        let form = Form { path: path.clone(), max_bytes: 1000, max_files: 2, delay: Duration::from_secs(1) };
        work.obey(Command::Add { log: 1, form, sources: vec![(Stream::Stdout, ours.into())] });
        theirs.write_all(b"one\n").unwrap();
        work.read_refused();
        assert_eq!(lines(), 1);
        theirs.write_all(b"two\n").unwrap();
        let patience = work.until_due().unwrap();
        assert!(patience <= AGAIN + Duration::from_millis(1), "{patience:?}");
        work.again = Instant::now();
        work.read_refused();
        assert_eq!(lines(), 2);
        // From now on it is told.
        work.epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        work.again = Instant::now();
        work.read_refused();
        assert_eq!((work.until_due(), work.sources.len()), (None, 1));
        theirs.write_all(b"three\n").unwrap();
        let mut events = Vec::with_capacity(1);
        epoll::wait(&work.epoll, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        work.read(events[0].data.u64(), 100);
        assert_eq!(lines(), 3);
        drop(theirs);
        work.read(events[0].data.u64(), 100);
        assert!(work.sources.is_empty() && work.logs.is_empty());
    }
}
