//! `flint-bundle`: from an image to a bundle: pull, unpack, generate config.json.
//!
//! Not written yet: this crate holds its place in the workspace and the rules it will keep. What is there is
//! `examples/`, the program of the bundles that examples and measurements run.
//!
//! ```text
//!  reference -> pull (manifest, layers by digest) -> verify -> unpack, layer by layer -> config.json -> bundle
//! ```
//!
//! It must not know a runtime, trust a name, link or size in a layer, or write outside the folder it was given.
#![forbid(unsafe_code)]
