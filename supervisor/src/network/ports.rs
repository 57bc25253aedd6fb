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
    /// The pod that has it until this one takes its place.
    after: Option<String>,
    /// None: another pod has it yet, this kernel has no such sockets, or after a restart a program of the host was faster.
    socket: Option<OwnedFd>,
}

impl Ports {
    /// Gives a pod all its ports or none, and says which the node chose for those that are 0. Those of the pod that it comes
    /// after are no obstacle: it gets them by [`Self::pass`], also one that the node chose.
    pub(super) fn claim(
        &mut self,
        uid: &str,
        pod: &Key,
        ports: &[HostPort],
        after: Option<&str>,
    ) -> Result<Vec<HostPort>> {
        let mut held: Vec<Held> = Vec::with_capacity(ports.len());
        let former: &[Held] = after.and_then(|after| self.held.get(after)).map_or(&[], Vec::as_slice);
        let others = || self.others(uid, after);
        for port in ports {
            if port.pod == 0 {
                return Err(Error::Refused(format!("host port {}: the pod's port cannot be 0", port.host)));
            }
            let same = others()
                .find(|other| overlap(&other.port, port))
                .or_else(|| held.iter().find(|own| overlap(&own.port, port)));
            if let Some(other) = same {
                return Err(taken(port, format!("pod {} has it", other.pod)));
            }
            let is_mine = |former: &&Held| serves(&former.port, port) || overlap(&former.port, port);
            let inherited =
                former.iter().filter(is_mine).find(|former| !held.iter().any(|own| overlap(&own.port, &former.port)));
            let (socket, host) = if let Some(former) = inherited {
                (None, former.port.host)
            } else if port.protocol == Protocol::Sctp {
                (None, self.sctp_port(port)?)
            } else {
                hold(port).map_err(|error| refusal(port, &error))?
            };
            let port = HostPort { host, ..port.clone() };
            held.push(Held { port, pod: pod.clone(), after: after.map(str::to_owned), socket });
        }
        let chosen = held.iter().map(|held| held.port.clone()).collect();
        if !held.is_empty() {
            self.held.insert(uid.to_owned(), held);
        }
        Ok(chosen)
    }

    /// What pods hold that have nothing to do with this one and the one that it comes after.
    fn others<'a>(&'a self, uid: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Held> {
        let others = self.held.iter().filter(move |(other, _)| Some(other.as_str()) != after);
        others
            .flat_map(|(_, held)| held)
            .filter(move |held| held.after.as_deref().is_none_or(|theirs| theirs != uid && Some(theirs) != after))
    }

    /// The ports of the pod `from` become those of the pod `to`, which came after it.
    pub(super) fn pass(&mut self, from: &str, to: &str) {
        let mut former = self.held.remove(from).unwrap_or_default();
        let Some(heirs) = self.held.get_mut(to) else { return };
        for heir in heirs.iter_mut() {
            heir.after = None;
            if let Some(same) = former.iter_mut().find(|former| serves(&former.port, &heir.port)) {
                heir.socket = heir.socket.take().or_else(|| same.socket.take());
            }
        }
        drop(former);
        for heir in heirs.iter_mut().filter(|heir| heir.socket.is_none()) {
            heir.socket = hold_again(&heir.port, &heir.pod);
        }
    }

    /// Holds the ports of a pod that a record tells of. What cannot be held any more still leads to the pod: it had the port
    /// before the other program had. `other`: the pod that they lead to in its place.
    pub(super) fn resume(&mut self, uid: &str, pod: &Key, ports: &[HostPort], other: Option<&str>) {
        let held = ports.iter().map(|port| {
            let socket = if other.is_none() { hold_again(port, pod) } else { None };
            Held { port: port.clone(), pod: pod.clone(), after: other.map(str::to_owned), socket }
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

fn hold_again(port: &HostPort, pod: &Key) -> Option<OwnedFd> {
    let held = match port.protocol {
        Protocol::Sctp => return None,
        Protocol::Tcp | Protocol::Udp => hold(port),
    };
    held.map_or_else(
        |error| {
            tracing::warn!(%pod, port = %name(port), %error, "a host port of a pod was taken while nobody held it");
            None
        },
        |(socket, _)| socket,
    )
}

/// Whether a port is what another pod asks for.
fn serves(has: &HostPort, asked: &HostPort) -> bool {
    let same_host = asked.host == has.host || (asked.host == 0 && asked.pod == has.pod);
    same_host && asked.protocol == has.protocol && asked.address == has.address
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
        let chosen = ports.claim("a", &key("a"), &asked, None).expect("claim");
        assert!(chosen.iter().all(|port| port.host != 0), "{chosen:?}");
        let again = ports.claim("b", &key("b"), &[port(None, 0, Protocol::Sctp)], None).expect("claim");
        assert_ne!(again.first().map(|port| port.host), chosen.last().map(|port| port.host));
    }

    #[test]
    fn a_port_has_one_pod() {
        let mut ports = Ports::default();
        let chosen = ports.claim("a", &key("a"), &[port(Some("127.0.0.1"), 0, Protocol::Tcp)], None).expect("claim");
        let host = chosen.first().expect("one").host;
        for address in [None, Some("0.0.0.0"), Some("127.0.0.1")] {
            let error = ports
                .claim("b", &key("b"), &[port(address, host, Protocol::Tcp)], None)
                .expect_err("taken")
                .to_string();
            assert!(error.contains("pod default/a has it") && error.contains("/tcp"), "{error}");
        }
        ports.claim("c", &key("c"), &[port(Some("127.0.0.1"), host, Protocol::Udp)], None).expect("another protocol");
        ports.free("a");
        ports.claim("b", &key("b"), &[port(Some("127.0.0.1"), host, Protocol::Tcp)], None).expect("it is free again");
        let twice = [port(None, 0, Protocol::Sctp), port(None, SCTP_RANGE.start, Protocol::Sctp)];
        ports.claim("d", &key("d"), &twice, None).expect_err("twice in one pod");
    }

    #[test]
    fn a_port_is_passed_to_the_pod_that_comes_after() {
        let mut ports = Ports::default();
        let asked = [port(Some("127.0.0.1"), 0, Protocol::Tcp)];
        let chosen = ports.claim("a", &key("a"), &asked, None).expect("claim");
        assert_eq!(ports.claim("b", &key("a"), &asked, Some("a")).expect("after the other"), chosen);
        assert_eq!(ports.claim("c", &key("a"), &chosen, Some("a")).expect("another one after it"), chosen);
        ports.claim("d", &key("d"), &chosen, None).expect_err("of a stranger");
        ports.free("b");
        ports.pass("a", "c");
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), chosen.first().expect("one").host);
        assert_eq!(TcpListener::bind(at).expect_err("held").kind(), io::ErrorKind::AddrInUse);
        ports.free("a");
        ports.claim("d", &key("d"), &chosen, None).expect_err("the other pod has it");
        ports.free("c");
        TcpListener::bind(at).expect("free again");
    }

    #[test]
    fn a_port_that_is_new_is_held_before_it_leads_anywhere() {
        let mut ports = Ports::default();
        let first = ports.claim("a", &key("a"), &[port(None, 0, Protocol::Tcp)], None).expect("claim");
        let more = [first.first().expect("one").clone(), port(None, 0, Protocol::Udp)];
        let chosen = ports.claim("b", &key("a"), &more, Some("a")).expect("after the other");
        let udp = chosen.last().expect("two").host;
        assert_eq!(UdpSocket::bind(("127.0.0.1", udp)).expect_err("held").kind(), io::ErrorKind::AddrInUse);
        // The first is gone before the second could follow it.
        ports.free("a");
        ports.pass("a", "b");
        let tcp = first.first().expect("one").host;
        assert_eq!(TcpListener::bind(("127.0.0.1", tcp)).expect_err("held").kind(), io::ErrorKind::AddrInUse);
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
            let error = ports.claim("a", &key("a"), &[asked], None).expect_err("taken").to_string();
            assert!(error.contains("a program of the host has it"), "{error}");
        }
        let error =
            ports.claim("a", &key("a"), &[port(Some("192.0.2.1"), 0, Protocol::Tcp)], None).expect_err("no address");
        assert!(error.to_string().contains("the host has no such address"), "{error}");
        assert!(ports.held.is_empty());
    }

    #[test]
    fn a_held_port_cannot_be_taken_and_does_not_answer() {
        let mut ports = Ports::default();
        let chosen = ports.claim("a", &key("a"), &[port(None, 0, Protocol::Tcp)], None).expect("claim");
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
        Ports::default().claim("a", &key("a"), &[port(None, at.port(), Protocol::Tcp)], None).expect("claim");
    }
}
