//! Requests to rtnetlink: devices, addresses, routes and neighbours of the node's own network.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::network::settings::Subnet;

/// RT_TABLE_LOCAL of rtnetlink.h.
const LOCAL_TABLE: u8 = 255;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// Both ends of a pair, the pod's end in its namespace from the start: at no moment is a device of that name in the host's
/// namespace. The host's end is up; a pod's end cannot be before it has its other end.
pub(super) fn pair(
    host: (&str, Mac),
    pod: (&str, Mac),
    namespace: &File,
    mtu: u32,
    alias: &str,
) -> RouteNetlinkMessage {
    let end = |(name, mac): (&str, Mac)| {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        // An address that was set keeps systemd-udevd from choosing another one a moment later.
        link.attributes.push(LinkAttribute::Address(mac.to_vec()));
        link.attributes.push(LinkAttribute::Mtu(mtu));
        link
    };
    let mut peer = end(pod);
    peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut link = end(host);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(link)
}

/// The device that has the host's addresses in the network.
pub(super) fn anchor(name: &str, kind: InfoKind) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    RouteNetlinkMessage::NewLink(link)
}

/// A single address of a device. Nobody else can have it, so nobody is asked (IPv6's duplicate address detection takes a
/// second, in which it cannot be used).
pub(super) fn address(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = bits(address);
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.push(AddressAttribute::Local(address));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    RouteNetlinkMessage::NewAddress(message)
}

/// Who has an address on a device, for ever: nobody asks, no answer is forged, and the entry does not count towards the
/// limit of the kernel's table (1,024 as it comes, gc_thresh3).
pub(super) fn neighbour(index: u32, address: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// A pod's way to everything, through the host.
pub(super) fn default_route(index: u32, gateway: IpAddr) -> RouteNetlinkMessage {
    let mut message = route(family(gateway), 0);
    // The gateway is on no network of the device: the pod has a single address.
    message.header.flags = RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

/// The host's way to a pod. `source` is what the host's own packets to it come from.
pub(super) fn pod_route(index: u32, pod: IpAddr, source: IpAddr) -> RouteNetlinkMessage {
    let mut message = route(family(pod), bits(pod));
    message.header.scope = if pod.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(pod)));
    message.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

/// No way to addresses that no pod has: without it packets to them would leave by the host's default route.
pub(super) fn dead_route(subnet: Subnet) -> RouteNetlinkMessage {
    let mut message = route(family(subnet.address), subnet.prefix);
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(subnet.address)));
    RouteNetlinkMessage::NewRoute(message)
}

/// Lets answers of a pod to the host's ::1 in, once NAT has made them that: the kernel looks for a way to ::1 on the device
/// that they came by only. What says ::1 on the wire is refused by the kernel before.
pub(super) fn loopback6_route(index: u32) -> RouteNetlinkMessage {
    let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut message = route(family(loopback), bits(loopback));
    message.header.table = LOCAL_TABLE;
    message.header.kind = RouteType::Local;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(loopback)));
    message.attributes.push(RouteAttribute::Oif(index));
    // Behind the kernel's own, which the host's programs use among themselves.
    message.attributes.push(RouteAttribute::Priority(2048));
    RouteNetlinkMessage::NewRoute(message)
}

/// The question for all routes of a kind of address.
pub(super) fn all_routes(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    RouteNetlinkMessage::GetRoute(message)
}

fn route(family: AddressFamily, prefix: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.destination_prefix_length = prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
}

const fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
