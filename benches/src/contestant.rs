//! Who takes part: flint and the installed peers, all by the command line of runc.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow};

use crate::measure::reap_orphans;

/// The peers that are looked for.
pub const PEERS: [&str; 3] = ["runc", "crun", "youki"];

/// A runtime with a state root and a log of its own.
#[derive(Debug)]
pub struct Runtime {
    /// How it is called in the tables.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// The first line of `--version`.
    pub version: String,
    state: PathBuf,
    errors: PathBuf,
}

impl Runtime {
    /// Prepares a runtime whose state and error output live in `folder`.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or the folder not be written.
    pub fn new(name: &str, path: &Path, folder: &Path) -> Result<Self> {
        let output = Command::new(path)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned();
        let state = folder.join(format!("{name}-state"));
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        let errors = folder.join(format!("{name}-stderr"));
        Ok(Self { name: name.to_owned(), path: path.to_owned(), version, state, errors })
    }

    /// A command of it, with its state root, and stderr in its file (youki's `run` hangs when that is a pipe).
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let errors = truncated(&self.errors)?;
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.state).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        Ok(command)
    }

    /// `run` or `create` of a bundle.
    ///
    /// # Errors
    ///
    /// As [`Runtime::command`].
    pub fn make(&self, verb: &str, bundle: &Path, id: &str) -> Result<Command> {
        self.command(&[OsStr::new(verb), OsStr::new("--bundle"), bundle.as_os_str(), OsStr::new(id)])
    }

    /// An error unless a command ended with 0: how it ended and what it wrote last.
    ///
    /// # Errors
    ///
    /// When it did not.
    pub fn check(&self, verb: &str, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let text = fs::read(&self.errors).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it wrote nothing to stderr");
        Err(anyhow!("`{} {verb}` ended with {status}: {last}", self.name))
    }

    /// `delete -f`.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn delete(&self, id: &str) -> Result<()> {
        let status = self.command(&["delete", "-f", id])?.status().context("cannot start `delete -f`")?;
        reap_orphans();
        self.check("delete -f", status)
    }

    /// Whether it still has a state of the container.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.state.join(id).exists()
    }
}

/// Opens a file for writing, empty, made when missing.
///
/// # Errors
///
/// When it cannot be opened.
pub fn truncated(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Finds a program in PATH (and in the system folders, which root's PATH sometimes lacks).
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/bin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A program beside this one, as `cargo build` and dist lay them.
///
/// # Errors
///
/// When there is none.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find the benchmark's own folder")?;
    let path = own.with_file_name(name);
    anyhow::ensure!(path.is_file(), "{} is missing: build all programs of benches", path.display());
    Ok(path)
}
