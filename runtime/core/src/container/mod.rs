//! A container's life: one file for each thing that is done to it.
//!
//! ```text
//!            create                start                 (program ends)              delete
//!  (nothing) ──────▶ creating ─▶ created ──────▶ running ──────────────▶ stopped ──────────▶ (nothing)
//!                        └──────── killed half-way ─────────────────────────┘
//!                          pause: created, running ─▶ paused ─▶ resume
//! ```
//!
//! The state on disk says how far the making came; whether the process lives is asked of the kernel each time.
//! A command that changes a container holds the lock on its folder.

mod adopt;
mod bind;
mod channel;
mod checkpoint;
mod create;
mod delete;
mod detached;
mod events;
mod exec;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod heard;
mod hooks;
mod host_root;
mod idmap;
mod kill;
mod listener;
mod making;
mod mount;
mod net_devices;
mod notify;
mod pause;
mod pid_namespace;
mod process;
mod restore;
mod sentence;
mod start;
mod update;
mod user_namespace;

pub use adopt::Adopted;
pub use bind::Stdio;
pub use create::CreateOptions;
pub use detached::idmapped_clones;
pub use events::{Event, Watch};
pub use exec::ExecOptions;
pub(crate) use folder::{Folder, check_id};
pub(crate) use kill::signal_listed;
pub use listener::SeccompListener;
pub use notify::Notifications;
pub(crate) use process::signal_pidfd;
pub use process::{Container, ExitStatus, Process, start_time};
