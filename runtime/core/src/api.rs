//! The library's public surface, without its machinery.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process as ProcessSpec, Spec};
use serde::Serialize;

use crate::{Error, Result, plan};

fn missing<T>() -> Result<T> {
    Err(Error::unsupported("the runtime library is not part of this build"))
}

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupManager {
    /// Files.
    Cgroupfs,
    /// systemd.
    Systemd,
    /// Nobody.
    Disabled,
}

/// Whether refused cgroup permissions are forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootless {
    /// As the user and the user namespace tell.
    Auto,
    /// Yes.
    True,
    /// No.
    False,
}

/// Of a runtime.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the states.
    pub root: PathBuf,
    /// Who makes the cgroups.
    pub cgroup_manager: CgroupManager,
    /// Whether refused cgroup permissions are forgiven.
    pub rootless: Rootless,
}

/// Containers below one root.
#[derive(Debug)]
pub struct Runtime {}

/// A loaded bundle.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    spec: Spec,
}

/// For create and run.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Connected socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Socket that gets init's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets init's pid.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Number of fds, from 3 on, that the program gets.
    pub preserve_fds: u32,
}

/// For exec.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// Socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Connected socket that gets the terminal.
    pub console: Option<OwnedFd>,
    /// Socket that gets the pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the pid.
    pub pid_file: Option<PathBuf>,
    /// Number of fds, from 3 on, that the program gets.
    pub preserve_fds: u32,
    /// Cgroups below the container's.
    pub cgroup: Vec<String>,
    /// Exec in a paused container too.
    pub ignore_paused: bool,
}

/// A container that this process made.
#[derive(Debug)]
pub struct Container {
    pid: i32,
    pidfd: OwnedFd,
    warnings: Vec<String>,
}

/// A further process of a container.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    warnings: Vec<String>,
}

macro_rules! running {
    ($name:ident) => {
        impl $name {
            /// In the runtime's pid namespace.
            #[must_use]
            pub fn pid(&self) -> i32 {
                self.pid
            }
            /// Waits for its end.
            ///
            /// # Errors
            /// waitid(2)'s.
            pub fn wait(&self) -> Result<ExitStatus> {
                missing()
            }
            /// Readable once it has ended.
            #[must_use]
            pub fn pidfd(&self) -> BorrowedFd<'_> {
                std::os::fd::AsFd::as_fd(&self.pidfd)
            }
            /// Sentences to tell.
            #[must_use]
            pub fn warnings(&self) -> &[String] {
                &self.warnings
            }
        }
    };
}
running!(Container);
running!(Process);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
}

impl ExitStatus {
    /// As a shell tells it.
    #[must_use]
    pub fn code(&self) -> i32 {
        match *self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Waits for start.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Has ended.
    Stopped,
}

/// What `state` prints.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Of config.json.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's.
    pub id: String,
    /// 0 when stopped.
    pub pid: i32,
    /// Where in its life it is.
    pub status: Status,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// RFC 3339, nanoseconds, UTC.
    pub created: String,
    /// Of config.json.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// User name.
    pub owner: String,
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Runtime {
    pub fn open(_: Options) -> Result<Self> {
        Ok(Self {})
    }
    pub fn create(&self, _: &str, _: &Bundle, _: &CreateOptions) -> Result<Container> {
        missing()
    }
    pub fn run(&self, _: &str, _: &Bundle, _: &CreateOptions) -> Result<Container> {
        missing()
    }
    pub fn start(&self, _: &str) -> Result<()> {
        missing()
    }
    pub fn state(&self, _: &str) -> Result<State> {
        missing()
    }
    pub fn list(&self) -> Result<Vec<State>> {
        missing()
    }
    pub fn kill(&self, _: &str, _: i32, _: bool) -> Result<()> {
        missing()
    }
    pub fn delete(&self, _: &str, _: bool) -> Result<()> {
        missing()
    }
    pub fn exec(&self, _: &str, _: &ProcessSpec, _: &ExecOptions) -> Result<Process> {
        missing()
    }
    pub fn processes(&self, _: &str) -> Result<Vec<i32>> {
        missing()
    }
    pub fn plan(&self, _: &str, _: &Bundle, _: &CreateOptions) -> Result<plan::Plan> {
        missing()
    }
    pub fn container_spec(&self, _: &str) -> Result<Spec> {
        missing()
    }
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Bundle {
    pub fn load(_: impl AsRef<Path>) -> Result<Self> {
        missing()
    }
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The plan's steps as sentences.
#[must_use]
pub fn describe_plan(_: &plan::Plan) -> Vec<String> {
    Vec::new()
}

/// The plan for programs.
#[must_use]
pub fn plan_json(_: &plan::Plan) -> serde_json::Value {
    serde_json::Value::Null
}
