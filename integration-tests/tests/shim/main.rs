//! flint's shim by its own protocol, without containerd: races can be forced so.
#![forbid(unsafe_code)]

mod adopt;
mod backlog;
mod checkpoint;
mod clients;
mod delays;
mod failures;
mod hangs;
mod kills;
mod leaks;
mod logs;
mod node;
mod pods;
mod races;
mod resources;
mod sandbox;
mod starts;
mod streams;
mod task;
