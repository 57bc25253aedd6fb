//! Whether CRIU works here.

use std::path::{Path, PathBuf};

use systems::criu_folder;

use crate::{Command, skip};

/// The folder, for PATH, that holds a `criu` which finds what it needs of the kernel; None after a skip.
#[must_use]
pub fn criu() -> Option<PathBuf> {
    let folder = criu_folder()?;
    let check = Command::new(folder.join("criu")).args(["check"]).output();
    if check.code != 0 {
        skip(&format!("criu check: {}", check.stderr.lines().last().unwrap_or("it printed nothing")));
        return None;
    }
    Some(folder)
}

/// Whether CRIU and the kernel have a feature of `criu check --feature`.
#[must_use]
pub fn criu_has(path: &Path, feature: &str) -> bool {
    Command::new(path.join("criu")).args(["check", "--feature", feature]).output().code == 0
}
