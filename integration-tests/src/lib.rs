//! The harness of the integration tests: real bundles, real runtimes, real daemons.
//!
//! A test asks for its [`peers`] (flint and runc), opens a [`Case`] for each, builds a [`Bundle`] in it, runs the
//! runtime as a person would and looks at what the container saw. `Case::finish` then asserts that nothing is left:
//! no mount, cgroup, process, file or open fd that carries the case's own prefix.
//!
//! ```text
//! peers() ──> Case::new(&runtime) ──> case.bundle().args(..).edit(..) ──> case.run(&bundle) ──> case.finish()
//!                  │ unique prefix, own --root, own folder                                         │
//!                  └── Drop: delete -f, kill, rmdir, umount: only what carries the prefix <────────┘ (also after a panic)
//! ```
//!
//! Rules: only things that carry the case's prefix are looked at or cleaned up, because tests run in parallel and other
//! programs use the machine. Nothing here asserts on time; waits are bounded only so that a hang becomes a failure.
//! When something that a test needs is missing, the test calls [`skip`] and returns.
//!
//! `FLINT_BIN` names the runtime under test (else target/dist/flint, else target/debug/flint). With
//! `FLINT_BIN=/usr/sbin/runc` the tests compare runc with itself: this proves the harness, not flint.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test harness reports a failure")]

mod bundle;
mod bundler;
mod case;
mod console;
mod containerd;
pub mod cri;
mod criu;
mod daemon;
mod docker;
mod engine;
mod generated;
mod leaks;
mod place;
mod podman;
mod process;
mod program;
mod runtime;
mod scenarios;
mod shim;
mod shim_calls;
mod shim_events;
mod shim_node;
mod spec;
mod strace;
mod swap;
pub mod swarm;
mod unified;
mod user;
mod view;

pub use bundle::{Bundle, fill_rootfs};
pub use bundler::{Bundler, Guarded, Registry, tree, tree_differences};
pub use case::{Case, new_prefix};
pub use console::{ConsoleSocket, PtyRun, ReceivedConsole, TELL_SIZE, Terminal};
pub use containerd::{Containerd, whole_output};
pub use criu::{criu, criu_has};
pub use daemon::Daemon;
pub use docker::{Dockerd, DockerdOptions, Reply};
pub use engine::{COUNTING, SECCOMP_DENIED, SECCOMP_PROFILE, SECCOMP_TRIES, cgroup_of, cgroup_value};
pub use generated::{Generated, Random};
pub use leaks::{Leaks, children_of, processes_with, sweep};
pub use place::{Layout, Place, System};
pub use podman::{Podman, remove_by_force};
pub use process::{Command, Output, Running, pause_until_frozen, wait_until};
pub use program::{copy_program, write_program};
pub use runtime::{Runtime, flint, peers, runc, under_test_only};
pub use shim::{
    Fifo, Shim, Streams, TASK_V2, TASK_V3, make_fifo, refused, shim_case, shim_command, shim_delete, shim_namespace,
    shim_program,
};
pub use shim_calls::{Answer, Pending};
pub use shim_events::{EventListener, EventServer};
pub use shim_node::Node;
pub use spec::{default_spec, merge};
pub use strace::{Tampered, strace};
pub use swap::{Swap, race, race_time};
pub use systems::{
    Server, ServerImage, debian_rootfs, debian_system_rootfs, find_program, missing, sid_rootfs, skip, test_name,
};
pub use unified::on_v2;
pub use user::{Rootless, TestUser};
pub use view::{Allowed, View, assert_same, differences, view_script};
