//! Folders in which something has changed, by inotify: one instance for all readers.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// All watches.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: AsyncFd<OwnedFd>,
    folders: Mutex<HashMap<i32, Folder>>,
}

#[derive(Debug)]
struct Folder {
    /// Whether the folder is gone.
    sender: watch::Sender<bool>,
    readers: usize,
}

/// A reader's watch of a folder.
#[derive(Debug)]
pub(super) struct Watch {
    watches: Arc<Watches>,
    descriptor: i32,
    receiver: watch::Receiver<bool>,
}

impl Watches {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[allow(deprecated, reason = "the other constructors are unsafe; an OwnedFd keeps their condition")]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self { inotify, folders: Mutex::default() })
    }

    /// Watches a folder.
    pub(super) fn add(self: &Arc<Self>, folder: &Path) -> io::Result<Watch> {
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: the same folder has the same number, which the last reader of before may be giving back.
        let descriptor = inotify::add_watch(self.inotify.get_ref(), folder, flags).map_err(|error| match error {
            Errno::NOSPC => io::Error::other(format!(
                "watching {}: the limit of inotify watches is reached; raise the sysctl fs.inotify.max_user_watches",
                folder.display()
            )),
            error => error.into(),
        })?;
        let entry =
            folders.entry(descriptor).or_insert_with(|| Folder { sender: watch::Sender::new(false), readers: 0 });
        entry.readers += 1;
        Ok(Watch { watches: Arc::clone(self), descriptor, receiver: entry.sender.subscribe() })
    }

    /// Hands events on, for ever.
    pub(super) async fn dispatch(self: Arc<Self>) {
        while let Ok(mut ready) = self.inotify.readable().await {
            let mut buffer = [MaybeUninit::uninit(); 8192];
            let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => self.tell_all(),
                    Ok(event) => self.tell(event.wd(), event.events()),
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
            ready.clear_ready();
        }
    }

    fn tell(&self, descriptor: i32, events: ReadFlags) {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gone = events.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF);
        if let Some(folder) = folders.get(&descriptor) {
            folder.sender.send_modify(|gone| *gone |= is_gone);
        }
        if events.contains(ReadFlags::IGNORED) {
            folders.remove(&descriptor);
        }
    }

    /// Events were lost: anything may have changed.
    fn tell_all(&self) {
        for folder in self.folders.lock().unwrap_or_else(PoisonError::into_inner).values() {
            folder.sender.send_modify(|_| {});
        }
    }
}

impl Watch {
    /// What has changed until now is of no interest.
    pub(super) fn mark_seen(&mut self) {
        self.receiver.borrow_and_update();
    }

    /// Whether the folder was removed.
    pub(super) fn is_gone(&self) -> bool {
        *self.receiver.borrow() || self.receiver.has_changed().is_err()
    }

    /// Waits until something changes.
    pub(super) async fn changed(&mut self) {
        // An error: the folder is gone, which is_gone tells.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut folders = self.watches.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folders.get_mut(&self.descriptor) {
            folder.readers -= 1;
            if folder.readers == 0 {
                folders.remove(&self.descriptor);
                let _ = inotify::remove_watch(self.watches.inotify.get_ref(), self.descriptor);
            }
        }
    }
}
