//! From a registry to an unpacked image: flint-bundle beside containerd, docker, skopeo with umoci, and podman.
//!
//! ```text
//!  image ──> an OCI layout of this machine's own files, pushed to Debian's docker-registry on loopback
//!  contestant ──> who takes part: a daemon if it has one, the commands that pull and unpack, the one that makes a container
//!  tree ──> CPU time and memory of a process with all below it
//! ```
//!
//! Each run begins with an empty store; a daemon is started for it before the clock. All work in one network and mount
//! namespace with its own loopback. What is compared is what people type, and that differs: flint-bundle and containerd have the
//! blobs on the disk when they end, the others have all of it in the kernel's memory.

pub mod contestant;
pub mod image;
pub mod tree;
