//! Networks of pods, each test with a host of its own.

mod cni;
mod node;
pub(crate) mod place;
mod repair;
mod rollover;
