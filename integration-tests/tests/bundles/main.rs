//! flint-bundle with real builders, a real registry and other tools' trees beside its own.
#![forbid(unsafe_code)]

mod create;
mod images;
mod large;
mod progress;
mod registry;
