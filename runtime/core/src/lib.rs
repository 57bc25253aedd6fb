//! The runtime library.
#![forbid(unsafe_code)]
pub mod api;
pub mod cgroup;
pub mod error;
pub mod plan;
<<<<<<< HEAD
pub mod seccomp;
=======
pub use api::*;
>>>>>>> cli
pub use error::{Error, Kind, Result};
