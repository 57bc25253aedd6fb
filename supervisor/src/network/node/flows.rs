//! Flows of datagrams that lead where nobody is any more.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::{Node, open};
use crate::desired::{HostPort, Protocol};
use crate::network::Result;
use crate::network::conntrack::{Flow, forget};

impl Node {
    /// Forgets those of host ports to a pod that has gone.
    pub(in crate::network) fn forget_pod(&self, offset: u32, ports: &[HostPort]) {
        let pod = self.addresses(offset);
        tell(ports, |flow| pod.contains(&flow.by) && flow.is_translated);
    }
}

/// Forgets those to the host itself, now that a pod has these ports.
pub(in crate::network) fn forget_nobody(ports: &[HostPort]) -> Result<()> {
    if !has_datagrams(ports) {
        return Ok(());
    }
    let failed = |source| crate::network::Error::system("list the host's addresses", source);
    let answers = open()?.list(RouteNetlinkMessage::GetAddress(AddressMessage::default())).map_err(failed)?;
    let mut own = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        own.extend(message.attributes.iter().filter_map(|attribute| match attribute {
            AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
            _ => None,
        }));
    }
    let is_led = |flow: &Flow| {
        let is_at = |port: &HostPort| port.address.is_none_or(|at| at.is_unspecified() || at == flow.to.0);
        datagrams(ports).any(|port| port.host == flow.to.1 && is_at(port))
    };
    tell(ports, |flow| !flow.is_translated && own.contains(&flow.to.0) && is_led(flow));
    Ok(())
}

fn datagrams(ports: &[HostPort]) -> impl Iterator<Item = &HostPort> {
    ports.iter().filter(|port| port.protocol == Protocol::Udp)
}

fn has_datagrams(ports: &[HostPort]) -> bool {
    datagrams(ports).next().is_some()
}

/// A kernel that cannot forget them (nf_conntrack_netlink is missing) makes their clients wait, and nobody else.
fn tell(ports: &[HostPort], is_over: impl Fn(&Flow) -> bool) {
    if has_datagrams(ports)
        && let Err(error) = forget(is_over)
    {
        tracing::warn!(%error, "clients of UDP ports that go on sending may not reach the pod until they pause for 30 s");
    }
}
