//! `flint-bundle`: from an image to a bundle.
//!
//! What is written so far is the core that strangers' bytes go through: [`unpack::unpack`] takes one layer of an image,
//! of any known compression, and writes it into a folder, for overlayfs or merged. The store, the registry, config.json
//! and the program are not written yet. `examples/` has the program of the bundles that examples and measurements run.
//!
//! ```text
//!  reference -> pull (manifest, layers by digest) -> verify -> unpack, layer by layer -> config.json -> bundle
//!                                                              ^^^^^^ this is there
//! ```
//!
//! It must not know a runtime, trust a name, link or size in a layer, or write outside the folder it was given.
#![forbid(unsafe_code)]

mod digest;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod layer;
mod rootfs;
pub mod unpack;
mod whiteout;

pub use digest::Digest;
pub use error::{Error, Kind, Result};
pub use layer::Limits;
