//! flintd as a worker of a real Docker Swarm: dockerd as the manager, drained, so that all tasks come to the worker.
//!
//! ```text
//!  Manager (a Place: dockerd 20.10, or sid's) <── TCP 2377 ── Worker (flintd's scheduler, in the Place's network) ── Fake host
//! ```
//!
//! The fake host makes nothing and tells of its pods what their images say: what is tested is the protocol, from the manager's view
//! and from the host's. `real` has flintd itself and containers.
#![forbid(unsafe_code)]

mod cluster;
mod fake;
mod identity;
mod life;
mod payloads;
mod real;
mod restarts;
mod sid;
mod worker;
