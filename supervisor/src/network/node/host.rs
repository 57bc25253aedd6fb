//! What the node's network needs of the host beside devices: forwarding, and room for its addresses.

use std::fs;
use std::io;
use std::path::Path;

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::messages::all_routes;
use crate::network::netlink::Netlink;
use crate::network::settings::Subnet;
use crate::network::{Error, Result};

const SYSCTLS: &str = "/proc/sys/net";
/// The largest packet where nothing is known of the host's devices.
const ETHERNET: u32 = 1500;

/// Whether the kernel has IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    Path::new(SYSCTLS).join("ipv6").exists()
}

/// Lets the host route between pods and its networks, and says so, since it is the whole host that changes.
pub(super) fn forward(with_ipv6: bool) -> Result<()> {
    let ipv4 = Path::new(SYSCTLS).join("ipv4/ip_forward");
    if read(&ipv4)? != "1" {
        write(&ipv4, "1")?;
        tracing::warn!(
            sysctl = "net.ipv4.ip_forward",
            "forwarding of IPv4 was off and is on now, for the pods' network: this host routes between all its networks"
        );
    }
    let ipv6 = Path::new(SYSCTLS).join("ipv6/conf/all/forwarding");
    if with_ipv6 && read(&ipv6)? != "1" {
        keep_advertisements()?;
        write(&ipv6, "1")?;
        tracing::warn!(
            sysctl = "net.ipv6.conf.all.forwarding",
            "forwarding of IPv6 was off and is on now, for the pods' network: this host routes between all its networks"
        );
    }
    Ok(())
}

/// A host that forwards ignores routers' advertisements where accept_ra is 1, and loses its default route when the last
/// one runs out: 2 accepts them all the same.
fn keep_advertisements() -> Result<()> {
    let folder = Path::new(SYSCTLS).join("ipv6/conf");
    let entries =
        fs::read_dir(&folder).map_err(|source| Error::system(format!("read {}", folder.display()), source))?;
    for entry in entries.flatten() {
        if entry.file_name() == "all" {
            continue;
        }
        let file = entry.path().join("accept_ra");
        if read(&file).is_ok_and(|value| value == "1") {
            write(&file, "2")?;
        }
    }
    Ok(())
}

/// Lets packets between the host's loopback address and this device through; the table's chain `raw` guards it.
pub(super) fn route_localnet(device: &str) -> Result<()> {
    write(&Path::new(SYSCTLS).join(format!("ipv4/conf/{device}/route_localnet")), "1")
}

/// Checks that no other route of the host leads to the pods' addresses, and takes the size of packets from the device of its
/// default route.
pub(super) fn survey(netlink: &mut Netlink, subnets: &[Subnet]) -> Result<u32> {
    let failed = |source: io::Error| Error::system("read the host's routes", source);
    let mut mtu = None;
    for subnet in subnets {
        let family = if subnet.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        for answer in netlink.list(all_routes(family)).map_err(failed)? {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            if route.header.table != RouteHeader::RT_TABLE_MAIN || route.header.kind != RouteType::Unicast {
                continue;
            }
            let (target, device) = target(&route);
            let Some(target) = target.filter(|target| target.prefix > 0) else {
                let devices = netlink.devices().map_err(failed)?;
                let found = devices.iter().find(|other| Some(other.index) == device).and_then(|device| device.mtu);
                mtu = mtu.or(found);
                continue;
            };
            // A single address is a pod's, left by a crash: the records tell.
            let host_route = target.prefix == if target.address.is_ipv4() { 32 } else { 128 };
            if !host_route && target.overlaps(subnet) {
                return Err(Error::Settings(format!(
                    "{subnet} is to be the pods', and the host has a route to {target} already (`ip route`): set another subnet"
                )));
            }
        }
    }
    Ok(mtu.unwrap_or(ETHERNET))
}

fn target(route: &RouteMessage) -> (Option<Subnet>, Option<u32>) {
    let mut target = None;
    let mut device = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => target = Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => target = Some((*address).into()),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let prefix = route.header.destination_prefix_length;
    (target.map(|address| Subnet { address, prefix }), device)
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|source| Error::system(format!("read {}", path.display()), source))?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(|source| Error::system(format!("write {value} to {}", path.display()), source))
}
