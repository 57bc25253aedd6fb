//! `flint.shim.v1.Node`: what a node's supervisor asks of a shim, beside containerd's task API on the same socket.
//!
//! ```text
//!  Configure ─▶ MakeSandboxes ─▶ Create (+ start) ─▶ task API, events ─▶ Remove ─▶ RemoveSandboxes
//!                    ▲               ▲
//!  the shim died:  again           Adopt            List, Status: at any time
//! ```
//!
//! Calls take batches and answer item by item, in the order of the request: one that fails takes no other along. Each may be
//! repeated: what is there already is told, and not made twice.
//!
//! These are messages, names and the two ends of the wire. What must not be here: the runtime, IO of its own, decisions.
#![forbid(unsafe_code)]

mod client;
mod messages;
mod server;

pub use client::Client;
pub use messages::{
    AdoptRequest, AdoptResponse, Bounds, ConfigureRequest, ConfigureResponse, Container, ContainerState, CreateRequest,
    CreateResponse, Created, Failure, ListRequest, ListResponse, MakeSandboxesRequest, MakeSandboxesResponse, Mount,
    Network, Phase, Pool, RemoveRequest, RemoveResponse, RemoveSandboxesRequest, RemoveSandboxesResponse, Removed,
    Sandbox, SandboxMade, SandboxRemoved, SandboxState, StatusRequest, StatusResponse,
};
pub use server::{Node, service};

/// The service's full name.
pub const SERVICE: &str = "flint.shim.v1.Node";

/// The exit status of a container whose end nobody could see: of one that was adopted, where the kernel does not tell it. In
/// `TaskExit`, `Wait` and `State` of the task API, where the field is a plain number; no program can end with it.
pub const STATUS_UNKNOWN: u32 = u32::MAX;
