//! flint's shim by its own protocol, without containerd: races can be forced so.
#![forbid(unsafe_code)]

mod adopt;
mod checkpoint;
mod clients;
mod delays;
mod failures;
mod kills;
mod leaks;
mod logs;
mod node;
mod pods;
mod resources;
mod sandbox;
mod streams;
mod task;
