//! The shim's log: lines into the fifo `log` of the bundle that it was started in, which containerd reads.
//!
//! Never waited for: without a reader, or with one that is too slow, a line is lost.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    file: File,
    debug: bool,
}

/// Opens the log of a bundle. Read-write, so that it opens without a reader and outlives containerd's restarts.
pub(crate) fn open(bundle: &Path, debug: bool) {
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC | nix::libc::O_NOFOLLOW)
        .open(bundle.join("log"));
    if let Ok(file) = options {
        let _ = LOG.set(Log { file, debug });
    }
}

pub(crate) fn warn(message: &str) {
    write("warning", message);
}

pub(crate) fn debug(message: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", &message());
    }
}

/// In logrus's text form, which is what containerd expects there.
fn write(level: &str, message: &str) {
    let Some(log) = LOG.get() else { return };
    let line = format!("level={level} msg={message:?} runtime=io.containerd.flint.v1\n");
    // One write a line: lines of several threads do not mix.
    let _ = (&log.file).write(line.as_bytes());
}
