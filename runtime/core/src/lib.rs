//! flint's runtime as a library: compile an OCI bundle to a [`plan::Plan`], and run it.
//!
//! ```text
//!  Bundle::load ─▶ compile ─▶ Plan ─▶ container::create ─clone3─▶ flint_init executes its lane
//!                  (pure)             (the host's lane)
//!  Runtime: create, run, start, exec, kill, delete, state, list, pause, resume, update, stats, watch, adopt: each synchronous, from any thread
//! ```
//!
//! A program may call this from any of its threads while others allocate and lock: what runs between clone and
//! exec is flint-init's, which does neither. Such a program must leave the exits of the processes made here to
//! [`Process::wait`]; a `waitpid(-1)` elsewhere is tolerated and costs the exit status.
//!
//! What must not happen here: async runtimes, argument parsing, printing, unsafe code.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cgroup;
pub mod children;
pub mod compile;
mod container;
mod criu;
pub mod describe;
pub mod error;
mod fault;
pub mod features;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(test, feature = "fuzzing"))]
mod mutation;
mod netlink;
pub mod plan;
mod procfs;
pub mod resctrl;
mod runtime;
pub mod seal;
pub mod seccomp;
mod spelling;
mod state;
mod unique_keys;

pub use bundle::Bundle;
pub use compile::in_user_namespace;
pub use container::{
    Adopted, Container, CreateOptions, Event, ExecOptions, ExitStatus, Notifications, Process, SeccompListener, Stdio,
    Watch, idmapped_clones, start_time,
};
pub use criu::{CgroupsMode, CheckpointOptions, CriuOptions, NetworkLock, RestoreOptions};
pub use error::{Error, Kind, Result};
pub use netlink::loopback_up;
pub use runtime::{CgroupManager, Options, Runtime};
pub use state::{State, Status, rfc3339_of as rfc3339};
