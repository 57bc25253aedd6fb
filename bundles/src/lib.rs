//! `flint-bundle`: from an image to a bundle.
//!
//! ```text
//!  registry ─┐                                      ┌─> layers/ ──(overlay)──┐
//!  layout   ─┼─> manifest ─> Arriving (verified) ───┤                        ├─> DIR/rootfs, DIR/config.json
//!  archive  ─┤               bytes written once     └─> blobs/ ──(copy)──────┘
//!  rootfs   ─┘
//!   reference, registry, import     store, fetch, unpack        bundle, config
//! ```
//!
//! The library of the program of the same name, synchronous. `examples/` has the program of the bundles that examples and
//! measurements run.
//!
//! It must not know a runtime, trust a name, link or size in a layer, write outside the folders it was given, or believe
//! content that is not what its digest says.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod config;
mod digest;
mod error;
mod export;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
mod import;
mod layer;
mod progress;
mod reference;
pub mod registry;
mod rootfs;
#[cfg(test)]
mod samples;
mod source;
pub mod store;
pub mod unpack;
mod whiteout;

pub use config::{BindMount, Resources, Wishes};
pub use digest::Digest;
pub use error::{Error, Kind, Result};
pub use export::export;
pub use fetch::Fetch;
pub use import::{Import, import};
pub use layer::Limits;
pub use progress::{Cancellable, Event, Progress, Silent};
pub use reference::Reference;
pub use rootfs::remove as remove_tree;
