//! The runtime library.
#![forbid(unsafe_code)]
pub mod cgroup;
pub mod error;
pub mod plan;
pub mod seccomp;
pub use error::{Error, Kind, Result};
