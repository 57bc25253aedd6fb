//! The local API: what `flintctl` asks of the node, over ttrpc on a unix socket.
//!
//! ```text
//!  flintctl: client ──ttrpc──> access (who is it?) ──> server (decode) ──> Backend (the node) ──> store, reconciler, shims
//!                      <──── tell (pods, logs, events, pulls), session (exec, attach) <──┘
//! ```
//!
//! The server knows messages, streams and rights; the [`Backend`] knows the node. Neither knows of the other more than
//! the values between them, so each is tested without the other. Whoever may connect has root's power over the host: a pod may be
//! privileged. What must not be here: secrets in an answer or a log ([`redact`]), a client that another one waits for.

mod access;
mod backend;
pub mod client;
mod connection;
mod messages;
mod redaction;
mod server;
mod session;
mod stream;
pub mod summary;
mod tell;

pub use access::Access;
pub use backend::{
    Action, Attach, Backend, Change, Exec, Failure, FailureKind, ImageView, Inspection, Manifest, NodeFacts, PodUsage,
    PodView, PullStep, Refusal, Session, SessionControl,
};
pub use redaction::redact;
pub use server::Server;

/// Where the node's socket is unless it is told otherwise.
pub const SOCKET: &str = "/run/flint/flintd.sock";

/// A node in memory, for tests of whoever shows one.
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
