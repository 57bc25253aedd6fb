//! What flintd itself may do.
//!
//! flintd is started as root with all capabilities, and its shims and the plugins of CNI need them: what a container may have at most
//! comes down to it through the bounding set, which flintd leaves alone. For itself it keeps what its own work takes. A program that it
//! starts as root has all of the bounding set again (capabilities(7), "Capabilities and execution of programs by root").

use rustix::io;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What flintd keeps, and what for.
pub const NEEDED: [(CapabilitySet, &str); 9] = [
    (CapabilitySet::CHOWN, "owners of files in images, volumes and the API's socket"),
    (CapabilitySet::DAC_OVERRIDE, "files of images and volumes, whoever they belong to"),
    (CapabilitySet::FOWNER, "modes and times of such files"),
    (CapabilitySet::FSETID, "set-id bits of such files"),
    (CapabilitySet::MKNOD, "devices and whiteouts of images"),
    (CapabilitySet::SETFCAP, "capabilities of files in images"),
    (CapabilitySet::NET_ADMIN, "networks of pods: devices, addresses, routes, nftables, sysctls"),
    (CapabilitySet::NET_BIND_SERVICE, "host ports, and the page's, below 1024"),
    (CapabilitySet::SYS_ADMIN, "mounts, and network namespaces of pods"),
];

/// Gives up all others, for ever. Only the calling thread and those that it starts are meant: call it before there are any.
///
/// # Errors
///
/// The kernel refuses; nothing was given up then.
pub fn keep_needed() -> io::Result<()> {
    let had = capabilities(None)?;
    let needed = NEEDED.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    let kept = had.permitted & needed;
    // Those that its own maker has not left it are not asked for: in a container there may be fewer.
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
}
