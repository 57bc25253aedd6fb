//! Networks and ports: the node's own network, the host's, and ports of the host. Overlay networks are libnetwork's.

use super::{Unmappable, none};
use crate::desired::{HostPort, Network, Protocol};
use crate::scheduler::swarm::wire::task::{NetworkAttachment, PortConfig, PortStatus, PublishMode, Task};

const OVERLAY: &str = "flintd has the networks `host` and `bridge` alone, no overlay networks and no routing mesh";

pub(super) fn network(task: &Task) -> Result<Network, Unmappable> {
    match task.networks.as_slice() {
        [] => Ok(Network::Node),
        [attachment] => one_network(attachment),
        _ => Err(Unmappable::new("networks", "flintd attaches a task to one network")),
    }
}

fn one_network(attachment: &NetworkAttachment) -> Result<Network, Unmappable> {
    let options = &attachment.driver_attachment_opts;
    none(options.is_empty(), "networks.driver_attachment_opts", "flintd's networks have none")?;
    let network = attachment.network.clone().unwrap_or_default();
    let spec = network.spec.unwrap_or_default();
    let driver = network.driver_state.or(spec.driver_config).unwrap_or_default().name;
    let name = spec.annotations.unwrap_or_default().name;
    match driver.as_str() {
        "host" => Ok(Network::Host),
        // The predefined one; a bridge of a swarm's own is another matter.
        "bridge" if name == "bridge" => Ok(Network::Node),
        _ => Err(Unmappable::new("networks", format!("{name:?} ({driver}): {OVERLAY}"))),
    }
}

pub(super) fn host_ports(task: &Task, network: &Network) -> Result<Vec<HostPort>, Unmappable> {
    let ports = task.endpoint.as_ref().map_or(&[][..], |endpoint| &endpoint.ports);
    // As docker does: the host's network has its ports already.
    let ports = if *network == Network::Host { &[] } else { ports };
    ports.iter().map(host_port).collect()
}

fn host_port(port: &PortConfig) -> Result<HostPort, Unmappable> {
    none(port.publish_mode == i32::from(PublishMode::Host), "endpoint.ports", OVERLAY)?;
    let number = |value: u32, field: &str| {
        u16::try_from(value).map_err(|_| Unmappable::new(field, format!("{value} is no port")))
    };
    Ok(HostPort {
        address: None,
        host: number(port.published_port, "endpoint.ports.published_port")?,
        pod: number(port.target_port, "endpoint.ports.target_port")?,
        protocol: match port.protocol {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            2 => Protocol::Sctp,
            other => return Err(Unmappable::new("endpoint.ports.protocol", format!("{other} is not known"))),
        },
    })
}

/// Ports of the host as they are, in a manager's words.
#[must_use]
pub(crate) fn port_status(task: &Task, ports: &[HostPort]) -> Option<PortStatus> {
    let wanted = task.endpoint.as_ref().map_or(&[][..], |endpoint| &endpoint.ports);
    let ports: Vec<PortConfig> = ports
        .iter()
        .map(|port| {
            let protocol = match port.protocol {
                Protocol::Tcp => 0,
                Protocol::Udp => 1,
                Protocol::Sctp => 2,
            };
            let target_port = u32::from(port.pod);
            let same = |other: &&PortConfig| other.target_port == target_port && other.protocol == protocol;
            PortConfig {
                name: wanted.iter().find(same).map(|other| other.name.clone()).unwrap_or_default(),
                protocol,
                target_port,
                published_port: u32::from(port.host),
                publish_mode: PublishMode::Host.into(),
            }
        })
        .collect();
    (!ports.is_empty()).then_some(PortStatus { ports })
}
