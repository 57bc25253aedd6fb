//! A real swarm: dockerd as its managers, and flintd with its shims and containers as a worker.
//!
//! ```text
//!  Manager 1 ── bridge `lan` 10.213.0.1 ──┬── Manager 2, 3: 10.213.0.2, .3
//!                                         └── whoever is connected: 10.213.0.4, ...
//! ```
//!
//! Each manager has a place of its own. flintd is in the first one's network, in one of its own, or in a place as a whole.

mod flintd;
mod manager;

pub use flintd::Flintd;
pub use manager::{Manager, Task};
