//! The node's own network: every pod is routed, none is bridged.
//!
//! ```text
//!   pod                          host                                  others
//!   eth0 10.66.0.5/32  ───────── flint-5   route 10.66.0.5/32 ┐
//!   eth0 10.66.0.6/32  ───────── flint-6   route 10.66.0.6/32 ┼─ forwarding ─ NAT ─── eth0
//!        default via 10.66.0.1   flint-0   10.66.0.1/32       ┘
//! ```
//!
//! Both ends know each other's Ethernet address for ever, so there is no ARP and no neighbour discovery. The host's address
//! in the network is on a device of its own; packets to addresses without a pod are refused.

mod flows;
mod host;
mod messages;
mod table;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock};

use netlink_packet_route::link::InfoKind;

pub(super) use self::flows::forget_nobody;
use self::messages::Mac;
use super::namespace::Namespace;
use super::netlink::{Meets, Netlink};
use super::nftables::Nftables;
use super::settings::{Settings, Subnet};
use super::{Attached, Error, Result};
use crate::desired::{HostPort, Key};

/// The pod's device.
const DEVICE: &str = "eth0";
/// The host's end of every pair: they share no network, so one address is enough. Locally administered; `flint`.
const HOST_MAC: Mac = [0x02, 0x66, 0x6c, 0x69, 0x6e, 0x74];
/// The gateway of IPv6 has an address of its link, as gateways have (RFC 4861).
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A pod in the node's network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat<'a> {
    /// Its distance from the first addresses.
    pub(super) offset: u32,
    /// Its name.
    pub(super) key: &'a Key,
    /// Its host ports, all chosen.
    pub(super) ports: &'a [HostPort],
}

/// The node's own network.
#[derive(Debug)]
pub(super) struct Node {
    name: String,
    nft: std::path::PathBuf,
    ipv4: Subnet,
    ipv6: Option<Subnet>,
    mtu: Option<u32>,
    /// What all pods share, once it is there. Elements of the table are changed under the read lock, the whole table
    /// under the write lock.
    base: RwLock<Option<Base>>,
}

#[derive(Debug, Clone, Copy)]
struct Base {
    mtu: u32,
}

impl Node {
    pub(super) fn new(settings: &Settings) -> Self {
        let ipv6 = settings.ipv6_subnet().filter(|_| host::has_ipv6());
        Self {
            name: settings.name.clone(),
            nft: settings.nft.clone(),
            ipv4: settings.ipv4,
            ipv6,
            mtu: settings.mtu,
            base: RwLock::new(None),
        }
    }

    /// The addresses of a pod.
    pub(super) fn addresses(&self, offset: u32) -> Vec<IpAddr> {
        [Some(self.ipv4), self.ipv6].into_iter().flatten().map(|subnet| subnet.at(offset)).collect()
    }

    /// What a pod got.
    pub(super) fn attached(&self, seat: &Seat<'_>) -> Attached {
        Attached {
            addresses: self.addresses(seat.offset),
            ports: seat.ports.to_vec(),
            gateway: Some(self.ipv4.at(1)),
            interface: Some(DEVICE.to_owned()),
        }
    }

    /// Makes all of a pod's network that is not there. `others` are the pods that the table has to know if it is made anew.
    pub(super) fn attach(
        &self,
        seat: &Seat<'_>,
        namespace: &mut Namespace,
        others: &dyn Fn() -> Vec<Ported>,
    ) -> Result<()> {
        let base = self.base(others)?;
        let mut netlink = open()?;
        let index = self.pair(seat, namespace, &mut netlink, base.mtu)?;
        self.host_side(seat, &mut netlink, index)?;
        let elements = table::elements(&self.addresses(seat.offset), seat.ports);
        if elements.is_empty() {
            return Ok(());
        }
        self.open_loopback(seat.offset, &mut netlink, index)?;
        let add = || {
            let _shared = self.base.read().unwrap_or_else(PoisonError::into_inner);
            Nftables::open(&self.name).and_then(|nftables| nftables.add(&elements))
        };
        match add() {
            // Somebody removed the table: `nft flush ruleset` does, and a restart of nftables.service with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self.base.write().unwrap_or_else(PoisonError::into_inner) = None;
                self.base(others)?;
                add()
            }
            result => result,
        }
        .map_err(|source| Error::system(format!("add the pod's host ports to nftables' table {:?}", self.name), source))
    }

    /// Lets host ports lead to a pod that led to another one, or to nobody, in one transaction.
    pub(super) fn switch(
        &self,
        former: Option<Ported>,
        seat: &Seat<'_>,
        others: &dyn Fn() -> Vec<Ported>,
    ) -> Result<()> {
        let former = former.map_or(Vec::new(), |(offset, ports)| table::elements(&self.addresses(offset), &ports));
        let elements = table::elements(&self.addresses(seat.offset), seat.ports);
        if !elements.is_empty() {
            let name = self.device(seat.offset);
            let mut netlink = open()?;
            let failed = |source| Error::system(format!("find the pod's device {name}"), source);
            let device = netlink.device(&name).map_err(failed)?;
            let index = device.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?.index;
            self.open_loopback(seat.offset, &mut netlink, index)?;
        }
        let switched = {
            let _shared = self.base.read().unwrap_or_else(PoisonError::into_inner);
            Nftables::open(&self.name).and_then(|nftables| nftables.replace(&former, &elements))
        };
        if switched.is_ok() {
            return Ok(());
        }
        // What is there is not what was: an earlier call was interrupted, or somebody removed the table. The records know.
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.base(others).map(drop)
    }

    /// A pod with host ports answers the host's loopback addresses.
    fn open_loopback(&self, offset: u32, netlink: &mut Netlink, index: u32) -> Result<()> {
        host::route_localnet(&self.device(offset))?;
        if self.ipv6.is_some() {
            let step = |source| Error::system("make the way of answers to the host's ::1", source);
            netlink.one(messages::loopback6_route(index), Meets::Replace).map_err(step)?;
        }
        Ok(())
    }

    /// Removes all of a pod's network.
    pub(super) fn detach(&self, seat: &Seat<'_>) -> Result<()> {
        let elements = table::elements(&self.addresses(seat.offset), seat.ports);
        let remove = || {
            let _shared = self.base.read().unwrap_or_else(PoisonError::into_inner);
            Nftables::open(&self.name)?.remove(&elements)
        };
        if !elements.is_empty() {
            let step = format!("remove the pod's host ports from nftables' table {:?}", self.name);
            remove().map_err(|source| Error::system(step, source))?;
        }
        remove_device(&mut open()?, &self.device(seat.offset))
    }

    /// Removes devices of pods that nobody knows: `keep` tells the known distances.
    pub(super) fn sweep(&self, keep: &dyn Fn(u32) -> bool) -> Result<()> {
        let mut netlink = open()?;
        let devices = netlink.devices().map_err(|source| Error::system("list the host's network devices", source))?;
        let prefix = format!("{}-", self.name);
        for device in devices {
            let offset = device.name.strip_prefix(&prefix).and_then(|text| u32::from_str_radix(text, 16).ok());
            if offset.is_some_and(|offset| offset != 0 && !keep(offset)) {
                tracing::info!(device = device.name, "a device of a pod that is gone is removed");
                remove_device(&mut netlink, &device.name)?;
            }
        }
        Ok(())
    }

    /// Makes the table anew if somebody removed it.
    pub(super) fn repair(&self, others: &dyn Fn() -> Vec<Ported>) -> Result<()> {
        let has = Nftables::open(&self.name).and_then(|nftables| nftables.has_table());
        if !has.map_err(|source| Error::system("look for nftables' table", source))? {
            *self.base.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.base(others).map(drop)
    }

    /// Removes what all pods share; there are none.
    pub(super) fn clear(&self) -> Result<()> {
        let mut base = self.base.write().unwrap_or_else(PoisonError::into_inner);
        let has = Nftables::open(&self.name).and_then(|nftables| nftables.has_table());
        // Without nf_tables in the kernel there is no table either.
        if has.unwrap_or(false) {
            self.run_nft(&format!("delete table inet {}\n", self.name))?;
        }
        let mut netlink = open()?;
        remove_device(&mut netlink, &self.device(0))?;
        for subnet in self.subnets() {
            match netlink.one(delete(messages::dead_route(subnet)), Meets::Present) {
                Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => {
                    return Err(Error::system(format!("remove the route to {subnet}"), error));
                }
                _ => {}
            }
        }
        *base = None;
        Ok(())
    }

    /// What all pods share: made by the first of them.
    fn base(&self, others: &dyn Fn() -> Vec<Ported>) -> Result<Base> {
        if let Some(base) = *self.base.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(base);
        }
        let mut place = self.base.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = *place {
            return Ok(base);
        }
        let mut netlink = open()?;
        let subnets: Vec<Subnet> = self.subnets().collect();
        let found = host::survey(&mut netlink, &subnets)?;
        self.anchor(&mut netlink, &subnets)?;
        let elements: Vec<_> =
            others().iter().flat_map(|(offset, ports)| table::elements(&self.addresses(*offset), ports)).collect();
        // The guards come before the forwarding.
        self.run_nft(&table::text(&self.name, self.ipv4, self.ipv6, &elements))?;
        host::forward(self.ipv6.is_some())?;
        let base = Base { mtu: self.mtu.unwrap_or(found) };
        *place = Some(base);
        Ok(base)
    }

    /// The device with the host's addresses, and the routes that refuse what no pod has.
    fn anchor(&self, netlink: &mut Netlink, subnets: &[Subnet]) -> Result<()> {
        let name = self.device(0);
        let failed = |source| Error::system(format!("make the host's device {name}"), source);
        if netlink.device(&name).map_err(failed)?.is_none() {
            // A kernel without `dummy` has bridges, which nothing needs to be a port of.
            match netlink.one(messages::anchor(&name, InfoKind::Dummy), Meets::New) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {
                    netlink.one(messages::anchor(&name, InfoKind::Bridge), Meets::New)
                }
                result => result,
            }
            .map_err(failed)?;
        }
        let index = netlink.device(&name).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?.index;
        let requests = subnets.iter().flat_map(|subnet| {
            [(messages::address(index, subnet.at(1)), Meets::Replace), (messages::dead_route(*subnet), Meets::Replace)]
        });
        all(netlink.run(requests.collect()).map_err(failed)?).map_err(failed)
    }

    /// The pod's devices, addresses and routes in its namespace; the number of the host's device.
    fn pair(&self, seat: &Seat<'_>, namespace: &mut Namespace, netlink: &mut Netlink, mtu: u32) -> Result<u32> {
        let name = self.device(seat.offset);
        let failed = |source| Error::system(format!("make the pair {name} (host) and {DEVICE} (pod)"), source);
        let mac = self.pod_mac(seat.offset);
        let inside = namespace.netlink.device(DEVICE).map_err(failed)?;
        let outside = netlink.device(&name).map_err(failed)?;
        let connected = outside.as_ref().zip(inside.as_ref()).is_some_and(|(outside, inside)| {
            // The number alone could be another namespace's: its own word for the pair is the other end's number.
            outside.peer == Some(inside.index) && inside.peer == Some(outside.index)
        });
        let (outside, inside) = match (outside, inside) {
            (Some(outside), Some(inside)) if connected => (outside.index, inside.index),
            (outside, inside) => {
                if let Some(outside) = outside {
                    // Of a namespace that this pod had before.
                    netlink.remove(outside.index).map_err(failed)?;
                } else if inside.is_some() {
                    return Err(Error::system(
                        format!(
                            "make {DEVICE} in the pod's namespace: it has a device of that name that is not flintd's"
                        ),
                        io::Error::from_raw_os_error(nix::libc::EEXIST),
                    ));
                }
                let alias = seat.key.to_string();
                let request = messages::pair((&name, HOST_MAC), (DEVICE, mac), &namespace.file, mtu, &alias);
                netlink.one(request, Meets::New).map_err(failed)?;
                let outside = netlink.device(&name).map_err(failed)?;
                let outside = outside.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                (outside.index, outside.peer.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?)
            }
        };
        let mut requests = vec![(super::netlink::up(1), Meets::Present), (super::netlink::up(inside), Meets::Present)];
        for (subnet, gateway) in self.gateways() {
            requests.push((messages::address(inside, subnet.at(seat.offset)), Meets::Replace));
            requests.push((messages::neighbour(inside, gateway, HOST_MAC), Meets::Replace));
            requests.push((messages::default_route(inside, gateway), Meets::Replace));
        }
        let step = |source| Error::system(format!("give the pod's {DEVICE} its addresses and routes"), source);
        all(namespace.netlink.run(requests).map_err(step)?).map_err(step)?;
        Ok(outside)
    }

    fn host_side(&self, seat: &Seat<'_>, netlink: &mut Netlink, index: u32) -> Result<()> {
        let mac = self.pod_mac(seat.offset);
        let mut requests = vec![(super::netlink::up(index), Meets::Present)];
        for subnet in self.subnets() {
            let pod = subnet.at(seat.offset);
            requests.push((messages::neighbour(index, pod, mac), Meets::Replace));
            requests.push((messages::pod_route(index, pod, subnet.at(1)), Meets::Replace));
        }
        let step = |source| Error::system(format!("make the host's routes to pod {}", seat.key), source);
        all(netlink.run(requests).map_err(step)?).map_err(step)
    }

    fn run_nft(&self, text: &str) -> Result<()> {
        let program = self.nft.display();
        let failed = |source: io::Error| {
            let hint = if source.kind() == io::ErrorKind::NotFound { " (package nftables)" } else { "" };
            Error::system(format!("run {program}{hint}"), source)
        };
        let mut child = Command::new(&self.nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // It may end with its input unread; then its words tell why.
            let _ = input.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let first = words.lines().next().unwrap_or("it says nothing");
        Err(Error::system(
            format!("write nftables' table {:?} by {program}", self.name),
            io::Error::other(first.to_owned()),
        ))
    }

    /// The host's device of a pod, at most 15 letters: 8, a hyphen and 6.
    fn device(&self, offset: u32) -> String {
        format!("{}-{offset:x}", self.name)
    }

    fn subnets(&self) -> impl Iterator<Item = Subnet> {
        [Some(self.ipv4), self.ipv6].into_iter().flatten()
    }

    fn gateways(&self) -> impl Iterator<Item = (Subnet, IpAddr)> {
        let ipv6 = self.ipv6.map(|subnet| (subnet, GATEWAY6.into()));
        [Some((self.ipv4, self.ipv4.at(1))), ipv6].into_iter().flatten()
    }

    /// Made of the IPv4 address: as unique as it is.
    fn pod_mac(&self, offset: u32) -> Mac {
        let IpAddr::V4(address) = self.ipv4.at(offset) else { return HOST_MAC };
        let [a, b, c, d] = Ipv4Addr::octets(&address);
        [0x02, 0x66, a, b, c, d]
    }
}

/// A pod with host ports: its distance, and the ports.
pub(super) type Ported = (u32, Vec<HostPort>);

fn open() -> Result<Netlink> {
    Netlink::open().map_err(|source| Error::system("open a netlink socket", source))
}

fn remove_device(netlink: &mut Netlink, name: &str) -> Result<()> {
    let failed = |source| Error::system(format!("remove the host's device {name}"), source);
    match netlink.device(name).map_err(failed)? {
        Some(device) => netlink.remove(device.index).map(drop).map_err(failed),
        None => Ok(()),
    }
}

/// The first error of a batch.
fn all(results: Vec<io::Result<()>>) -> io::Result<()> {
    results.into_iter().collect()
}

fn delete(message: netlink_packet_route::RouteNetlinkMessage) -> netlink_packet_route::RouteNetlinkMessage {
    use netlink_packet_route::RouteNetlinkMessage::{DelRoute, NewRoute};
    match message {
        NewRoute(route) => DelRoute(route),
        other => other,
    }
}
