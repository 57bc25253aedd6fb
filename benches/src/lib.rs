//! Benchmarks: flint beside the kernel's floor and beside the runtimes that are installed.
//!
//! ```text
//!   spinup ──> bundle      one rootfs, one config.json in the shape of `runc spec`
//!          ──> contestant  floor, flint, runc, crun, youki: who runs, by which command
//!          ──> measure     one run: wall and CPU time of the waited tree, with a time limit
//!          ──> spin_up     rounds in shuffled order       query: `state` on a hundred containers
//!          ──> statistics, report (table, JSON, goals), plot (SVG)
//!
//!   flint-floor ──> floor  one container by raw system calls, nothing else
//!   pull ──> pull          an image from a registry, beside containerd, docker, skopeo with umoci, podman
//!   payload                what runs inside (bundles/examples/payload)
//! ```
//!
//! All contestants run in one place (the same mount namespace, cgroups, rootfs) and interleaved: only ratios of one
//! run mean something, since the machine's speed differs from hour to hour.
//!
//! What must not happen here: a contestant left out without a word; a measure that a contestant could win by
//! doing less than the others without it being written down.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod cgroup;
pub mod contestant;
pub mod floor;
pub mod measure;
pub mod plot;
pub mod pull;
pub mod query;
pub mod report;
pub mod spin_up;
pub mod statistics;
