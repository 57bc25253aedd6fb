//! `flintd`, the node supervisor, and `flintctl`, its client: desired state, images, network, logs, schedulers.
//!
//! ```text
//!  manifests, API, scheduler -> desired -> reconciler -> pod, task -> executor -> the shim
//!                                             ^                          |
//!                               reporter <- observed <-------------------+
//!
//!  reconciler: desired + observed -> actions, removals first; one step of a pod or task per call
//!  each record is written before the world is changed
//! ```
//!
//! The reconciler must not know clients, clocks or IO: it is a function of its arguments. The supervisor must not
//! call the runtime or the kernel in the shim's place (flint-runtime, flint-sys): it speaks the shim's protocol, so
//! that its own death ends no container.
#![forbid(unsafe_code)]

pub mod api;
pub mod capabilities;
pub mod desired;
pub mod executor;
pub mod images;
pub mod logs;
pub mod manifest;
pub mod manual;
pub mod network;
pub mod node;
pub mod observed;
pub mod page;
pub mod pod;
pub mod pressure;
pub mod probes;
pub mod reconciler;
pub mod scheduler;
pub mod store;
pub mod volumes;
