//! flint's shim by its own protocol, without containerd: races can be forced so.
#![forbid(unsafe_code)]

mod checkpoint;
mod clients;
mod resources;
mod sandbox;
mod streams;
mod task;
