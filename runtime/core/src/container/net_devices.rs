//! `linux.netDevices`: devices of the host's network namespace become the container's.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use crate::error::errno_text;
use crate::netlink::Netlink;
use crate::plan::NetDevice;
use crate::{Error, Kind, Result};

/// Moves the devices to the network namespace that process `pid` is in.
///
/// What is moved already when a later one fails is left to the kernel, as the specification has it: it goes back to the
/// host or away with the namespace.
pub(super) fn move_all(devices: &[NetDevice], pid: i32) -> Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))
        .map_err(|error| Error::os("open the container's network namespace", error))?;
    let netlink = |error| Error::os("open a netlink socket", error);
    let mut host = Netlink::open().map_err(netlink)?;
    let mut container = Netlink::open_in(namespace.as_fd()).map_err(netlink)?;
    for device in devices {
        move_one(device, &mut host, &mut container, &namespace)?;
    }
    Ok(())
}

fn move_one(device: &NetDevice, host: &mut Netlink, container: &mut Netlink, namespace: &File) -> Result<()> {
    let failure = |doing: &str, error: &io::Error| {
        let (name, renamed) = (&device.name, &device.renamed);
        let to = if name == renamed { String::new() } else { format!(" as {renamed}") };
        let (reason, hint) = match error.raw_os_error() {
            Some(errno) => (errno_text(errno), hint(errno)),
            None => (error.to_string(), ""),
        };
        Error::new(Kind::System, format!("linux.netDevices: {name}{to}: {doing}: {reason}{hint}"))
    };
    let there = host.device(&device.name).map_err(|error| failure("find it on the host", &error))?;
    // The kernel would move it first and then fail to rename it: it would go away with the namespace.
    if container.device(&device.renamed).is_ok() {
        return Err(failure(
            "move it to the container's network namespace",
            &io::Error::from_raw_os_error(libc::EEXIST),
        ));
    }
    // Before it goes down: that takes its IPv6 addresses.
    let addresses = host.lasting_addresses(there.index).map_err(|error| failure("list its addresses", &error))?;
    host.set_up(there.index, false).map_err(|error| failure("take it down", &error))?;
    if let Err(error) = host.move_to(there.index, namespace.as_fd(), &device.renamed) {
        if there.up {
            // It stays the host's, as it was.
            let _ = host.set_up(there.index, true);
            for address in &addresses {
                let _ = host.add_address(there.index, address);
            }
        }
        return Err(failure("move it to the container's network namespace", &error));
    }
    let moved = container.device(&device.renamed).map_err(|error| failure("find it in the container", &error))?;
    for address in &addresses {
        container
            .add_address(moved.index, address)
            .map_err(|error| failure("give it its address in the container", &error))?;
    }
    container.set_up(moved.index, true).map_err(|error| failure("bring it up in the container", &error))
}

fn hint(errno: i32) -> &'static str {
    match errno {
        libc::ENODEV => " (the host has no device of this name)",
        libc::EEXIST => " (the container has a device of this name already)",
        libc::EINVAL => " (the kernel does not let this kind of device change its namespace)",
        libc::EPERM => " (it needs CAP_NET_ADMIN on the host and in the container's network namespace)",
        _ => "",
    }
}
