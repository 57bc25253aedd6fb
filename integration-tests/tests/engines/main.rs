//! Real engines: containerd, dockerd, podman, buildah and a CRI client, the machine's own and Debian sid's, with flint as their
//! runtime or as their shim.
//!
//! A `_scenario` is what an engine does with a runtime, whichever engine of its kind; the other files list which of them run where.
#![forbid(unsafe_code)]

mod buildah;
mod containerd;
mod containerd_scenario;
mod containerd_sid;
mod crash_scenario;
mod cri;
mod cri_scenario;
mod cri_sid;
mod docker;
mod docker_config;
mod docker_scenario;
mod docker_sid;
mod docker_tasks;
mod podman;
mod podman_scenario;
mod podman_sid;
mod rootless_podman;
mod rootless_scenario;
mod shim_containerd;
mod shim_containerd_sid;
mod shim_crash;
mod shim_crash_sid;
mod shim_docker_sid;
mod shim_scenario;
