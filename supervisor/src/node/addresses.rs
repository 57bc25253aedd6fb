//! Addresses that variables, arguments and checks of a container name, put in when they are known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::Node;
use crate::desired::{Container, Late, Network, Places};

/// The container with the addresses of its pod and of the node in its words.
pub(crate) fn with_addresses(node: &Node, uid: &str, mut container: Container) -> Container {
    let values = container.env.iter_mut().map(|variable| &mut variable.value);
    let words = container.entrypoint.iter_mut().chain(container.args.iter_mut()).flatten();
    put_in(node, uid, values.chain(words));
    container
}

/// The same for the words of a check or hook.
pub(super) fn put_in<'a>(node: &Node, uid: &str, texts: impl Iterator<Item = &'a mut String>) {
    let mut late = texts.filter(|text| Late::is_in(text)).peekable();
    if late.peek().is_none() {
        return;
    }
    let host = of_the_host();
    let pod = node.entry(uid).map(|entry| {
        entry.read(|record| match record.pod.network {
            Network::Host => host.clone(),
            _ => record.sandbox.addresses.clone(),
        })
    });
    let pod = pod.unwrap_or_default();
    for text in late {
        *text = Late::put_in(text, Places { pod: &pod, host: &host });
    }
}

/// The addresses that the host would speak to others from. Nothing is sent: the kernel chooses them by its routes. A host
/// without any route has none.
fn of_the_host() -> Vec<IpAddr> {
    // Addresses of documentation: they are nobody's.
    let others: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    let own = others.into_iter().filter_map(|(any, other)| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(other, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    own.collect()
}
