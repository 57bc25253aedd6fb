//! Follows a folder of manifests by inotify(7).

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::folder::{Change, Folder};
use crate::desired::{Key, Source};
use crate::scheduler::NodeDescription;

/// So long nothing must have happened before the folder is looked at: whoever writes several files is let finish.
const QUIET: Duration = Duration::from_millis(150);
/// But no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);
/// A file that is written in place is not looked at before its writer has closed it; for so long at most.
const OPEN: Duration = Duration::from_secs(30);
/// Without any event (a network file system has none of other hosts') the folder is looked at so often, as kubelet does.
const EVERY: Duration = Duration::from_secs(20);

/// The uid of the pod of this name and source in the store.
pub type KnownUid = Arc<dyn Fn(&Key, &Source) -> Option<String> + Send + Sync>;

/// Follows a folder and tells its changes, until nobody listens any more. A folder that is missing is waited for.
pub async fn watch(path: PathBuf, node: NodeDescription, known_uid: KnownUid, changes: mpsc::Sender<Change>) {
    let mut folder = Folder::new(&path);
    let mut events = Events::open(&path);
    loop {
        let busy = events.busy();
        let (node, known) = (node.clone(), Arc::clone(&known_uid));
        // Files are read on a thread that may wait for a disk.
        let looked = tokio::task::spawn_blocking(move || {
            let found = folder.scan(&node, &|key, source| known(key, source), &busy);
            (folder, found)
        });
        let Ok((back, found)) = looked.await else { return };
        folder = back;
        for change in found {
            if changes.send(change).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = events.next() => events.settle().await,
            () = tokio::time::sleep(EVERY) => {}
            () = changes.closed() => return,
        }
        if events.is_lost() {
            events = Events::open(&path);
        }
    }
}

/// What happens in the folder. Without inotify, or without the folder, nothing does, and time alone counts.
struct Events {
    path: PathBuf,
    fd: Option<AsyncFd<OwnedFd>>,
    /// Files that were written to and are not closed yet, and since when.
    open: BTreeMap<PathBuf, Instant>,
}

impl Events {
    fn open(path: &Path) -> Self {
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|fd| {
            inotify::add_watch(&fd, path, what)?;
            Ok(fd)
        });
        let fd = fd.ok().and_then(|fd| register(fd).ok());
        Self { path: path.to_path_buf(), fd, open: BTreeMap::new() }
    }

    /// Whether another one has to be opened: the folder was missing, or is another one now.
    fn is_lost(&self) -> bool {
        self.fd.is_none()
    }

    fn busy(&mut self) -> BTreeSet<PathBuf> {
        self.open.retain(|_, since| since.elapsed() < OPEN);
        self.open.keys().cloned().collect()
    }

    /// Waits for something to happen.
    async fn next(&mut self) {
        let Some(fd) = &self.fd else { return std::future::pending().await };
        let Ok(mut ready) = fd.readable().await else { return self.fd = None };
        let drained = drain(fd.get_ref(), &self.path, &mut self.open);
        ready.clear_ready();
        if drained.is_err() {
            self.fd = None;
        }
    }

    /// Waits until nothing happens any more.
    async fn settle(&mut self) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            tokio::select! {
                () = self.next() => {}
                () = tokio::time::sleep(QUIET) => return,
            }
        }
    }
}

/// An `OwnedFd` is open as long as it lives, which is all that the safe constructor was found to leave open; the one that is
/// named in its place is unsafe, and this crate has no unsafe code.
#[allow(deprecated, reason = "sound for an OwnedFd")]
fn register(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Takes all events there are; an error is the end of the watch.
fn drain(fd: &OwnedFd, folder: &Path, open: &mut BTreeMap<PathBuf, Instant>) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        let what = event.events();
        if what.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            return Err(Errno::NOENT);
        }
        let Some(name) = event.file_name() else { continue };
        let path = folder.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
        if what.contains(ReadFlags::MODIFY) {
            open.entry(path).or_insert_with(Instant::now);
        } else {
            // Closed, or another file of this name.
            open.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests;
