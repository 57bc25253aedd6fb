//! A Docker Swarm: flintd as one of its workers, without dockerd.
//!
//! ```text
//!  identity ─> session ─┬─ assignments ─> worker ─> mapping ─> Host
//!     ^                 ├─ reports <──────┘ ^ state, seen <── statuses
//!     └─ ROTATE, root ──┴─ logs             store
//! ```
//!
//! The wire is swarmkit's (package `docker.swarmkit.v1`); a worker opens connections to managers and accepts none. This folder must
//! not know how pods are made, and nothing outside of it what a task is.
//!
//! What a swarm has that this worker has not (overlay networks, the routing mesh, CSI volumes, plugins, the manager's part) is not
//! announced, so that managers place no such task here; one that comes all the same is rejected with the field's name.

mod assignments;
mod describe;
mod entry;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
pub mod identity;
mod logs;
mod managers;
mod mapping;
mod membership;
mod reports;
mod roster;
pub mod rpc;
mod run;
mod seen;
mod session;
pub mod state;
mod store;
pub mod wire;
mod worker;

pub use membership::{JoinOptions, join, leave};
pub use run::Swarm;
