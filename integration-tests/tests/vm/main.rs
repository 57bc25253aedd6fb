//! What only a virtual machine can show: `cargo xtask vm --test vm_cgroup`.
#![forbid(unsafe_code)]

mod vm_cgroup;
mod vm_kernel;
mod vm_limits;
mod vm_reboot;
