//! The local API: what `flintctl` asks of the node, over ttrpc on a unix socket.
//!
//! ```text
//!  flintctl ──ttrpc──> server (who is it? decode) ──> Backend (the node) ──> store, reconciler, shims
//! ```
//!
//! The server knows messages, streams and rights; the [`Backend`] knows the node. Neither knows of the other more than
//! the values below, so each is tested without the other.

mod backend;

pub use backend::{
    Action, Backend, Change, Exec, Failure, FailureKind, ImageView, Manifest, NodeFacts, PodUsage, PodView, PullStep,
    Refusal, Session, SessionControl,
};
