//! What the runtime does, one file for each part of it: flint beside runc on real bundles.
//!
//! One program, as each has to be compiled and linked; `cargo test -p integration-tests --test runtime mounts::` runs one file.
#![forbid(unsafe_code)]

mod annotations;
mod apparmor;
mod cgroup;
mod checkpoint;
mod command_line;
mod debug_log;
mod differential;
mod errors;
mod events;
mod exec;
mod exec_cgroup;
mod harness;
mod hooks;
mod host_mounts;
mod idmap;
mod lifecycle;
mod mount_verb;
mod mounts;
mod net_devices;
mod pause;
mod process_features;
mod rootless;
mod rootless_features;
mod run;
mod sd_notify;
mod seccomp;
mod seccomp_notify;
mod security;
mod security_descriptors;
mod security_joining;
mod spec;
mod system_container;
mod systemd;
mod terminal;
mod time_namespace;
mod unified;
mod update;
mod user_namespace;
