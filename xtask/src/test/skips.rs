//! Where the tests and the steps tell what they skip.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::tally::{self, Skip};

/// A file to which each skipped test appends its line.
#[derive(Clone)]
pub(super) struct SkipLog(PathBuf);

impl SkipLog {
    /// An empty one at this path.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn new(path: PathBuf) -> anyhow::Result<Self> {
        fs::write(&path, "").with_context(|| format!("emptying {}", path.display()))?;
        Ok(Self(path))
    }

    /// Tells a program of tests where it is.
    pub(super) fn name_to(&self, command: &mut Command) {
        command.env("FLINT_SKIP_LOG", &self.0);
    }

    /// Appends a line, `SKIP <test>: <reason>`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn add(&self, line: &str) -> anyhow::Result<()> {
        let log = OpenOptions::new().append(true).open(&self.0);
        let written = log.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
        written.with_context(|| format!("writing {}", self.0.display()))
    }

    /// What was skipped.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) fn read(&self) -> anyhow::Result<Vec<Skip>> {
        let log = fs::read_to_string(&self.0).with_context(|| format!("reading {}", self.0.display()))?;
        Ok(tally::skips(&log))
    }
}
