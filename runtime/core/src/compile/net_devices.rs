//! `linux.netDevices` (runtime-spec 1.3): which devices of the host go to the container, and as what.

use flint_init::plan::{Barrier, Step};

use super::Compiler;
use crate::plan::NetDevice;
use crate::{Error, Result};

/// IFNAMSIZ without the NUL.
const LONGEST_NAME: usize = 15;

impl Compiler<'_> {
    /// The devices, by name; init waits for them once it has its network namespace.
    pub(super) fn net_devices(&mut self) -> Result<Vec<NetDevice>> {
        let listed = self.linux.and_then(|linux| linux.net_devices().as_ref()).into_iter().flatten();
        let mut devices = Vec::new();
        for (name, device) in listed {
            let renamed = device.name().as_deref().filter(|renamed| !renamed.is_empty()).unwrap_or(name);
            for name in [name.as_str(), renamed] {
                if !is_device_name(name) {
                    return Err(Error::invalid(format!(
                        "linux.netDevices: {name:?} is no name of a network device: 1 to {LONGEST_NAME} bytes without /, :, % and spaces"
                    )));
                }
            }
            devices.push(NetDevice { name: name.clone(), renamed: renamed.to_owned() });
        }
        if devices.is_empty() {
            return Ok(devices);
        }
        devices.sort();
        if !self.namespaces.has(libc::CLONE_NEWNET) || self.joins_our_own(libc::CLONE_NEWNET) {
            return Err(Error::invalid(
                "linux.netDevices: they need a network namespace in linux.namespaces that is not the host's",
            ));
        }
        for (index, device) in devices.iter().enumerate() {
            if let Some(other) = devices[..index].iter().find(|other| other.renamed == device.renamed) {
                return Err(Error::invalid(format!(
                    "linux.netDevices: {} and {} would both be {} in the container",
                    other.name, device.name, device.renamed
                )));
            }
        }
        self.tables.push(Step::Barrier(Barrier::Network));
        Ok(devices)
    }
}

/// As the kernel has it, and without the patterns that it would number itself (`eth%d`).
fn is_device_name(name: &str) -> bool {
    let forbidden = |byte: u8| matches!(byte, b'/' | b':' | b'%' | 0) || byte.is_ascii_whitespace();
    (1..=LONGEST_NAME).contains(&name.len()) && name != "." && name != ".." && !name.bytes().any(forbidden)
}
