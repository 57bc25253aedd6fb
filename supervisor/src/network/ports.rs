//! Ports of the host that lead to pods: who has which.
//!
//! A port is held by a socket that is bound and never used, as long as its pod has it. So a program of the host cannot be
//! given a port whose packets would go to a pod, `ss -lnp` shows who has it, and a program that already has it is found.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt};

use super::{Error, Result};
use crate::desired::{HostPort, Key, Protocol};

/// Where the node looks for an SCTP port itself: for TCP and UDP the kernel chooses.
const SCTP_RANGE: std::ops::Range<u16> = 32_768..61_000;

/// All host ports that pods have.
#[derive(Debug, Default)]
pub(super) struct Ports {
    held: HashMap<String, Vec<Held>>,
}

#[derive(Debug)]
struct Held {
    port: HostPort,
    pod: Key,
    /// None: this kernel has no such sockets, or after a restart a program of the host was faster.
    _socket: Option<OwnedFd>,
}

impl Ports {
    /// Gives a pod all its ports or none, and says which the node chose for those that are 0.
    pub(super) fn claim(&mut self, uid: &str, pod: &Key, ports: &[HostPort]) -> Result<Vec<HostPort>> {
        let mut held: Vec<Held> = Vec::with_capacity(ports.len());
        for port in ports {
            if port.pod == 0 {
                return Err(Error::Refused(format!("host port {}: the pod's port cannot be 0", port.host)));
            }
            let same = self.held.values().flatten().chain(&held).find(|other| overlap(&other.port, port));
            if let Some(other) = same {
                return Err(taken(port, format!("pod {} has it", other.pod)));
            }
            let (socket, host) = if port.protocol == Protocol::Sctp {
                (None, self.sctp_port(port)?)
            } else {
                hold(port).map_err(|error| refusal(port, &error))?
            };
            held.push(Held { port: HostPort { host, ..port.clone() }, pod: pod.clone(), _socket: socket });
        }
        let chosen = held.iter().map(|held| held.port.clone()).collect();
        if !held.is_empty() {
            self.held.insert(uid.to_owned(), held);
        }
        Ok(chosen)
    }

    /// Holds the ports of a pod that a record tells of. What cannot be held any more still leads to the pod: it had the port
    /// before the other program had.
    pub(super) fn resume(&mut self, uid: &str, pod: &Key, ports: &[HostPort]) {
        let held = ports.iter().map(|port| {
            let socket = match port.protocol {
                Protocol::Sctp => None,
                Protocol::Tcp | Protocol::Udp => hold(port).map_or_else(|error| {
                    tracing::warn!(%pod, port = %name(port), %error, "a host port of a pod was taken while flintd was away");
                    None
                }, |(socket, _)| socket),
            };
            Held { port: port.clone(), pod: pod.clone(), _socket: socket }
        });
        let held: Vec<Held> = held.collect();
        if !held.is_empty() {
            self.held.insert(uid.to_owned(), held);
        }
    }

    /// Takes a pod's ports back.
    pub(super) fn free(&mut self, uid: &str) {
        self.held.remove(uid);
    }

    fn sctp_port(&self, port: &HostPort) -> Result<u16> {
        if port.host != 0 {
            return Ok(port.host);
        }
        let is_free = |host: &u16| {
            let wanted = HostPort { host: *host, ..port.clone() };
            !self.held.values().flatten().any(|other| overlap(&other.port, &wanted))
        };
        SCTP_RANGE.clone().find(is_free).ok_or_else(|| taken(port, "no port of the ephemeral range is free".to_owned()))
    }
}

/// Whether a packet could be meant for either.
fn overlap(one: &HostPort, other: &HostPort) -> bool {
    let everywhere = |address: &Option<IpAddr>| address.is_none_or(|address| address.is_unspecified());
    let same_kind = match (one.address, other.address) {
        (Some(one), Some(other)) => one.is_ipv4() == other.is_ipv4(),
        _ => true,
    };
    let same_address = everywhere(&one.address) || everywhere(&other.address) || one.address == other.address;
    one.host != 0 && one.host == other.host && one.protocol == other.protocol && same_kind && same_address
}

/// Binds a socket to a port, so that nobody else can; also the port, if the kernel chose it.
fn hold(port: &HostPort) -> io::Result<(Option<OwnedFd>, u16)> {
    let at = SocketAddr::new(port.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port.host);
    let both = port.address.is_none();
    match bound(at, port.protocol, both, false) {
        Err(error) if both && error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port.host);
            bound(at, port.protocol, false, false)
        }
        // Connections that have ended are remembered for a minute, and keep a port from who does not say that they may be
        // there. Whoever listens does keep it from us then, too.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port.protocol == Protocol::Tcp => {
            bound(at, port.protocol, both, true)
        }
        result => result,
    }
    .map(|(socket, host)| (Some(socket), host))
}

/// With `reuse` another socket finds out whether somebody listens, which a bind alone does not tell then.
fn bound(at: SocketAddr, protocol: Protocol, both: bool, reuse: bool) -> io::Result<(OwnedFd, u16)> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Tcp | Protocol::Sctp => (SocketType::STREAM, ipproto::TCP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !both)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)?;
    if reuse {
        let probe = socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&probe, !both)?;
        }
        sockopt::set_socket_reuseaddr(&probe, true)?;
        bind(&probe, &at)?;
        listen(&probe, 0)?;
    }
    let name = SocketAddr::try_from(getsockname(&socket)?).map_err(io::Error::other)?;
    Ok((socket, name.port()))
}

fn refusal(port: &HostPort, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => taken(port, "a program of the host has it (`ss -lntup` says which)".to_owned()),
        io::ErrorKind::AddrNotAvailable => taken(port, "the host has no such address".to_owned()),
        _ => Error::system(format!("hold host port {}", name(port)), io::Error::new(error.kind(), error.to_string())),
    }
}

fn taken(port: &HostPort, reason: String) -> Error {
    Error::PortTaken { port: name(port), reason }
}

/// `80/tcp`, `127.0.0.1:53/udp`, `[::1]:53/udp`.
fn name(port: &HostPort) -> String {
    let protocol = protocol_name(port.protocol);
    match port.address {
        Some(address) => format!("{}/{protocol}", SocketAddr::new(address, port.host)),
        None => format!("{}/{protocol}", port.host),
    }
}

/// `tcp`, `udp`, `sctp`: as nft, ss and plugins of CNI name them.
pub(super) const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn port(address: Option<&str>, host: u16, protocol: Protocol) -> HostPort {
        HostPort { address: address.map(|address| address.parse().expect("an address")), host, pod: 80, protocol }
    }

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    #[test]
    fn the_node_chooses_ports() {
        let mut ports = Ports::default();
        let asked =
            [port(Some("127.0.0.1"), 0, Protocol::Tcp), port(None, 0, Protocol::Udp), port(None, 0, Protocol::Sctp)];
        let chosen = ports.claim("a", &key("a"), &asked).expect("claim");
        assert!(chosen.iter().all(|port| port.host != 0), "{chosen:?}");
        let again = ports.claim("b", &key("b"), &[port(None, 0, Protocol::Sctp)]).expect("claim");
        assert_ne!(again.first().map(|port| port.host), chosen.last().map(|port| port.host));
    }

    #[test]
    fn a_port_has_one_pod() {
        let mut ports = Ports::default();
        let chosen = ports.claim("a", &key("a"), &[port(Some("127.0.0.1"), 0, Protocol::Tcp)]).expect("claim");
        let host = chosen.first().expect("one").host;
        for address in [None, Some("0.0.0.0"), Some("127.0.0.1")] {
            let error =
                ports.claim("b", &key("b"), &[port(address, host, Protocol::Tcp)]).expect_err("taken").to_string();
            assert!(error.contains("pod default/a has it") && error.contains("/tcp"), "{error}");
        }
        ports.claim("c", &key("c"), &[port(Some("127.0.0.1"), host, Protocol::Udp)]).expect("another protocol");
        ports.free("a");
        ports.claim("b", &key("b"), &[port(Some("127.0.0.1"), host, Protocol::Tcp)]).expect("it is free again");
        let twice = [port(None, 0, Protocol::Sctp), port(None, SCTP_RANGE.start, Protocol::Sctp)];
        ports.claim("d", &key("d"), &twice).expect_err("twice in one pod");
    }

    #[test]
    fn a_port_of_the_hosts_programs_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let mut ports = Ports::default();
        let tcp = listener.local_addr().expect("an address").port();
        let udp = datagrams.local_addr().expect("an address").port();
        for asked in [
            port(None, tcp, Protocol::Tcp),
            port(Some("127.0.0.1"), tcp, Protocol::Tcp),
            port(None, udp, Protocol::Udp),
            port(Some("127.0.0.1"), udp, Protocol::Udp),
        ] {
            let error = ports.claim("a", &key("a"), &[asked]).expect_err("taken").to_string();
            assert!(error.contains("a program of the host has it"), "{error}");
        }
        let error = ports.claim("a", &key("a"), &[port(Some("192.0.2.1"), 0, Protocol::Tcp)]).expect_err("no address");
        assert!(error.to_string().contains("the host has no such address"), "{error}");
        assert!(ports.held.is_empty());
    }

    #[test]
    fn a_held_port_cannot_be_taken_and_does_not_answer() {
        let mut ports = Ports::default();
        let chosen = ports.claim("a", &key("a"), &[port(None, 0, Protocol::Tcp)]).expect("claim");
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), chosen.first().expect("one").host);
        assert_eq!(TcpListener::bind(at).expect_err("held").kind(), io::ErrorKind::AddrInUse);
        assert_eq!(TcpStream::connect(at).expect_err("nobody answers").kind(), io::ErrorKind::ConnectionRefused);
        ports.free("a");
        TcpListener::bind(at).expect("free again");
    }

    #[test]
    fn ended_connections_do_not_keep_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let at = listener.local_addr().expect("an address");
        let client = TcpStream::connect(at).expect("connect");
        // Who closes first remembers.
        drop(listener.accept().expect("accept"));
        drop((client, listener));
        Ports::default().claim("a", &key("a"), &[port(None, at.port(), Protocol::Tcp)]).expect("claim");
    }
}
