//! Networks of pods, each test with a host of its own.

mod node;
mod place;
