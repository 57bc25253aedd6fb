//! CRIU, which writes processes to files and brings them back: spoken to by its swrk protocol.
//!
//! ```text
//!  flint ── spawn `criu swrk 3` ──▶ criu        descriptor 3 is a SEQPACKET socket, one protobuf message a packet
//!        ── Request{DUMP, opts} ──▶
//!        ◀─ Response{NOTIFY} ──────             any number: setup-namespaces, post-restore, orphan-pts-master...
//!        ── Request{NOTIFY, ok} ──▶
//!        ◀─ Response{DUMP, ok} ────             its log says why not
//! ```
//!
//! What a container is to CRIU (its mounts of the host's, its joined namespaces) follows from its Plan: [`external`].
//! What is dumped and restored when is the business of `container::checkpoint` and `container::restore`.

pub(crate) mod descriptors;
pub(crate) mod external;
mod log;
mod options;
pub(crate) mod root;
pub(crate) mod rpc;
mod swrk;

pub(crate) use log::first_error;
pub use options::{CgroupsMode, CheckpointOptions, CriuOptions, NetworkLock, RestoreOptions};
pub(crate) use swrk::{Criu, Stdio, check_features, check_version};

/// The configuration file that CRIU reads on top of what it is asked for: its options overrule flint's.
const CONFIG_FILE: &str = "/etc/criu/flint.conf";
/// The annotation that names another; an empty one means none.
const CONFIG_ANNOTATION: &str = "org.criu.config";

/// The configuration file for a container with these annotations. CRIU takes a missing one for empty.
pub(crate) fn config_file(annotations: &std::collections::BTreeMap<String, String>) -> Option<String> {
    match annotations.get(CONFIG_ANNOTATION) {
        Some(file) => Some(file.clone()).filter(|file| !file.is_empty()),
        // What people have set up for runc holds for flint, unless they say otherwise.
        None if std::path::Path::new(CONFIG_FILE).exists() => Some(CONFIG_FILE.to_owned()),
        None => Some("/etc/criu/runc.conf".to_owned()),
    }
}
