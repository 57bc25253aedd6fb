//! Kubernetes' documents become pods.
//!
//! ```text
//!  text ─> documents ─> ConfigMap, Secret, claim: Object ──────────┐
//!              └──────> Pod: PodDocument ── resolve(Context) ──────┴─> desired::Pod, or every problem with its path
//! ```
//!
//! Each field of each type is honoured, without effect, or refused with a reason: the lists are in `fields`, and
//! `docs/manifests.md` shows them. An unknown field is refused, as kubectl's strict validation does.
//!
//! [`Folder`] follows a folder of such files. Nothing here knows the store, the API or the runtime, and nothing here is told
//! that would show a secret.

mod container;
mod context;
mod credentials;
mod documents;
mod downward;
mod environment;
mod expansion;
mod fields;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod metadata;
mod names;
mod objects;
mod placement;
mod pod;
mod probe;
mod problem;
mod quantity;
mod reading;
mod resources;
mod security;
mod strategy;
mod volume;
mod watch;

pub use context::Context;
pub use documents::{Content, Document, PodDocument, read};
pub use folder::{Change, Folder};
pub use objects::{Data, Object, Objects};
pub use problem::Problem;
pub use watch::{KnownUid, watch};

/// A quantity (`100Mi`, `1.5`) in whole ones, rounded up; None: it is none.
pub(crate) fn whole(text: &str) -> Option<u64> {
    quantity::Quantity::parse(text).map(quantity::Quantity::whole)
}

/// The same in thousandths.
pub(crate) fn milli(text: &str) -> Option<u64> {
    quantity::Quantity::parse(text).map(quantity::Quantity::milli)
}

#[cfg(test)]
mod tests;
