//! Programs that tests make and have executed at once.
//!
//! execve(2) fails with ETXTBSY while anybody has the file open for writing. What a test writes itself is open in each child that
//! another thread starts meanwhile, until that child has executed its own program: so it is written by a process that has no
//! other threads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Command;

/// Copies `from` to `to`, with its mode whatever the umask is.
#[track_caller]
pub fn copy_program(from: &Path, to: &Path) {
    let _ = Command::new("cp").args([Path::new("--preserve=mode"), from, to]).output().ok();
}

/// Writes `text` to `path`, for all to read and execute.
#[track_caller]
pub fn write_program(path: &Path, text: impl Into<Vec<u8>>) {
    let _ = Command::new("cp").args([Path::new("/dev/stdin"), path]).input(text).output().ok();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("let a program be executed");
}
