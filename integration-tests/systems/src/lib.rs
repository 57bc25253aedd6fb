//! The systems that tests start: Debian's of several kinds, images of real servers, a CRIU. Each is made once, from a mirror,
//! and kept in the machine's cache for all test programs.
//!
//! A crate of its own, with few dependencies: `cargo xtask test` builds it first and makes the systems while everything else
//! is still being compiled. Whoever needs one that is missing makes it.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test harness reports a failure")]

mod cache;
mod criu;
mod debian;
mod servers;
mod skip;

pub use criu::{criu_folder, criu_place};
pub use debian::{debian_rootfs, debian_system_rootfs, sid_rootfs};
pub use servers::{Server, ServerImage};
pub use skip::{find_program, missing, skip, test_name};
