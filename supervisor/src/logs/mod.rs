//! Logs of containers: files in CRI's form, which the shims write and rotate, read by whoever asks.
//!
//! ```text
//!  FOLDER/0.log.20261128-155900   rotated: older
//!  FOLDER/0.log                   what the shim writes to, of the container's first attempt
//!  FOLDER/1.log                   of its second
//!
//!  files ──> cursor (where a reader is) ──> line (parse) ──> joiner (parts to lines) ──> a bounded channel for each reader
//!              ^── watch (inotify: something has changed in the folder)
//! ```
//!
//! flintd is not between a container and its log, so its death loses no line, and a reader that is slow holds up itself alone: it has
//! a position in a file, and no more. Nothing here polls.

mod cursor;
mod files;
mod joiner;
mod line;
mod tail;
mod watch;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

pub use line::{parse_rfc3339, rfc3339};

use crate::scheduler::{LogLine, LogRequest};
use cursor::{Attempt, Cursor, Step};
use watch::{Watch, Watches};

/// Lines that a reader may be behind before its cursor waits, if they are short: a longer one counts as one for each [`SHORT`] bytes.
const AHEAD: usize = 256;
const SHORT: usize = 256;

/// Reads logs. One for the node: all readers share its inotify instance, of which a user has but 128.
#[derive(Debug)]
pub struct Logs {
    watches: Arc<Watches>,
    dispatcher: tokio::task::JoinHandle<()>,
}

impl Logs {
    /// A reader of logs, and its task.
    ///
    /// # Errors
    ///
    /// The kernel gives no inotify instance.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let watches = Arc::new(Watches::new()?);
        let dispatcher = tokio::spawn(Arc::clone(&watches).dispatch());
        Ok(Self { watches, dispatcher })
    }

    /// Reads the log of a container in `folder`: of its last attempt and, when following, those after it. The channel closes at the end.
    /// When following that is once `over` is done and what was written by then is read, or the folder is removed.
    ///
    /// # Errors
    ///
    /// There is no such folder, or it cannot be watched.
    pub fn read(
        &self,
        folder: &Path,
        request: &LogRequest,
        over: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<mpsc::Receiver<LogLine>> {
        let watch = if request.follow { Some(self.watches.add(folder)?) } else { None };
        let cursor = Cursor::new(folder, request.clone(), Attempt::Last)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(run(folder.to_owned(), cursor, watch, sender, over));
        Ok(receiver)
    }

    /// Follows one attempt of a container, byte for byte as it wrote: from its beginning or, without `whole`, from the line that has
    /// not ended, as a prompt. The channel closes as that of [`Logs::read`].
    ///
    /// # Errors
    ///
    /// There is no such folder, or it cannot be watched.
    pub fn follow_attempt(
        &self,
        folder: &Path,
        attempt: u32,
        whole: bool,
        over: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<mpsc::Receiver<LogLine>> {
        let watch = self.watches.add(folder)?;
        let request = LogRequest { follow: true, tail: (!whole).then_some(0), since: None };
        let cursor = Cursor::new(folder, request, Attempt::Only(attempt))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(run(folder.to_owned(), cursor, Some(watch), sender, over));
        Ok(receiver)
    }

    /// Reads the log of the attempt before the last one.
    ///
    /// # Errors
    ///
    /// There is no such folder, or no such attempt in it.
    pub fn read_previous(&self, folder: &Path, request: &LogRequest) -> io::Result<mpsc::Receiver<LogLine>> {
        let request = LogRequest { follow: false, ..request.clone() };
        let cursor = Cursor::new(folder, request, Attempt::Previous)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(run(folder.to_owned(), cursor, None, sender, std::future::pending()));
        Ok(receiver)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.dispatcher.abort();
    }
}

/// A reader's task.
async fn run(
    folder: PathBuf,
    mut cursor: Cursor,
    mut watch: Option<Watch>,
    sender: mpsc::Sender<LogLine>,
    over: impl Future<Output = ()> + Send,
) {
    tokio::pin!(over);
    let mut is_over = false;
    loop {
        if let Some(watch) = &mut watch {
            // Before the read, so that a change during it is not missed.
            watch.mark_seen();
            is_over |= watch.is_gone();
        }
        // Disks are slow; the executor's threads are for what is not.
        let stepped = tokio::task::spawn_blocking(move || (cursor.step(), cursor)).await;
        let Ok((step, returned)) = stepped else { return };
        cursor = returned;
        let lines = match step {
            Ok(Step::Lines(lines)) => lines,
            Ok(Step::End(lines)) if !lines.is_empty() => lines,
            Ok(Step::End(_)) => {
                let Some(watch) = watch.as_mut().filter(|_| !is_over) else { return };
                tokio::select! {
                    () = watch.changed() => {}
                    () = &mut over => is_over = true,
                    () = sender.closed() => return,
                }
                continue;
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot read a container's log");
                return;
            }
        };
        if sender.is_closed() {
            return;
        }
        for line in lines {
            // Of long lines there are fewer: 4 MiB wait for a reader at most.
            let room = (line.bytes.len() / SHORT).clamp(1, AHEAD);
            let Ok(mut permits) = sender.reserve_many(room).await else { return };
            if let Some(permit) = permits.next() {
                permit.send(line);
            }
        }
    }
}

#[cfg(test)]
mod tests;
