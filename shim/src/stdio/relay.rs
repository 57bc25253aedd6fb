//! Copying between a terminal and the client's streams. A side that does not take what it is given stops its own copy,
//! nobody else's.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::{log, readiness};

/// A terminal gives at most this much at once.
const CHUNK: usize = 4096;

/// Where a terminal's output goes.
pub(super) enum Sink {
    Nowhere,
    /// On a disk, which may hang, or a device: written on a thread that may wait.
    File(Arc<File>),
    Pollable(AsyncFd<File>),
}

impl Sink {
    /// A fifo, or a file that the client named in its place. Read-write: the fifo has a reader while the client is away.
    pub(super) fn open(path: &str) -> Result<Self> {
        let file = super::fifo_options().read(true).write(true).open(path).map_err(super::failed(path))?;
        if super::is_fifo(&file) { Self::pollable(file) } else { Self::append(path) }
    }

    pub(super) fn append(path: &str) -> Result<Self> {
        super::append(path).map(|file| Self::File(Arc::new(file)))
    }

    pub(super) fn pipe(pipe: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true).map_err(|errno| Error::system("prepare the logger's pipe", errno))?;
        Self::pollable(pipe.into())
    }

    fn pollable(file: File) -> Result<Self> {
        readiness::watch(file, Interest::WRITABLE)
            .map(Self::Pollable)
            .map_err(|error| Error::system("watch a stream", error))
    }

    async fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::File(file) => {
                let (file, bytes) = (file.clone(), bytes.to_vec());
                tokio::task::spawn_blocking(move || (&*file).write_all(&bytes)).await?
            }
            Self::Pollable(fd) => {
                while !bytes.is_empty() {
                    let written = fd.async_io(Interest::WRITABLE, |mut file: &File| (&mut file).write(bytes)).await?;
                    bytes = bytes.get(written..).unwrap_or_default();
                }
                Ok(())
            }
        }
    }
}

/// The input fifo. Read-write: a client that leaves does not end the terminal's input.
pub(super) fn source(path: &str) -> Result<AsyncFd<File>> {
    let file = super::fifo_options().read(true).write(true).open(path).map_err(super::failed(path))?;
    readiness::watch(file, Interest::READABLE).map_err(|error| Error::system("watch a stream", error))
}

async fn read(master: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> std::io::Result<usize> {
    master.async_io(Interest::READABLE, |fd| nix::unistd::read(fd.as_fd(), buffer).map_err(std::io::Error::from)).await
}

/// Until the last process has closed the terminal (EIO), or the client's stream fails.
pub(super) async fn output(master: Arc<AsyncFd<OwnedFd>>, mut sink: Sink) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match read(&master, &mut buffer).await {
            Ok(0) => return,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if let Err(error) = sink.write(bytes).await {
                    log::warn(&format!("the output of a terminal is lost from here on: {error}"));
                    // Read on, or the program would wait for ever.
                    sink = Sink::Nowhere;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Until the terminal is gone, or it is told to end.
pub(super) async fn input(source: AsyncFd<File>, master: Arc<AsyncFd<OwnedFd>>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = source.async_io(Interest::READABLE, |mut file: &File| (&mut file).read(&mut buffer)).await;
        let Ok(count) = read else { return };
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let write = |fd: &OwnedFd| nix::unistd::write(fd, rest).map_err(std::io::Error::from);
            match master.async_io(Interest::WRITABLE, write).await {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(_) => return,
            }
        }
    }
}
