//! What the kernel remembers of datagrams to host ports: forgotten when it is not true any more.
//!
//! A translation is chosen by a flow's first packet, and a flow of UDP lasts as long as packets come. A client that goes on sending
//! from one port would so send to a pod that is gone, or to nobody, for ever. A flow of TCP ends by itself: its next connection is another one.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::nftables::{attribute, message};

/// linux/netfilter/nfnetlink_conntrack.h
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_CTNETLINK as u16;
const GET: u16 = (SUBSYSTEM << 8) | 1;
const DELETE: u16 = (SUBSYSTEM << 8) | 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
/// An attribute's kind without its flags.
const TYPE: u16 = 0x3fff;
/// Bytes that the kernel puts into one answer at most.
const ANSWER: usize = 64 << 10;

/// A flow of UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    /// Where its first packet was sent to.
    pub(super) to: (IpAddr, u16),
    /// Who answers.
    pub(super) by: IpAddr,
    /// Whether any address of it is another one on its way.
    pub(super) is_translated: bool,
}

/// Forgets the flows of UDP that `is_over` tells.
pub(super) fn forget(is_over: impl Fn(&Flow) -> bool) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10)))?;
    let mut question = Vec::new();
    message(&mut question, GET, libc::NLM_F_DUMP as u16, 1, libc::AF_UNSPEC as u8, 0, |_| ());
    socket.send(&question, 0)?;
    let mut over = Vec::new();
    let mut is_done = false;
    while !is_done {
        let mut answer = Vec::with_capacity(ANSWER);
        socket.recv(&mut answer, 0)?;
        for (kind, body) in messages(&answer) {
            if kind == libc::NLMSG_DONE as u16 || kind == libc::NLMSG_ERROR as u16 {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code < 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                is_done = true;
            } else if let Some((family, rest)) = body.split_first()
                && flow(rest.get(3..).unwrap_or(&[])).is_some_and(|flow| is_over(&flow))
            {
                over.push((*family, rest.get(3..).unwrap_or(&[]).to_vec()));
            }
        }
    }
    over.iter().try_for_each(|(family, attributes)| delete(&socket, *family, attributes))
}

/// Deletes a flow; one that is gone already is no error.
fn delete(socket: &Socket, family: u8, told: &[u8]) -> io::Result<()> {
    let mut request = Vec::new();
    message(&mut request, DELETE, libc::NLM_F_ACK as u16, 2, family, 0, |bytes| {
        // Its id: another one may have its addresses by now.
        for (kind, value) in attributes(told).filter(|(kind, _)| [ORIGINAL, ID, ZONE].contains(kind)) {
            let nested = if kind == ORIGINAL { libc::NLA_F_NESTED as u16 } else { 0 };
            attribute(bytes, kind | nested, |bytes| bytes.extend(value));
        }
    });
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(ANSWER);
    socket.recv(&mut answer, 0)?;
    let code =
        messages(&answer).next().and_then(|(_, body)| body.first_chunk()).map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 || code == -libc::ENOENT { Ok(()) } else { Err(io::Error::from_raw_os_error(code.wrapping_neg())) }
}

/// Kinds and bodies of the messages in an answer.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, l2, l3, k0, k1, ..] = *bytes.first_chunk::<16>()?;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([k0, k1]), body))
    })
}

/// Kinds, without their flags, and values of attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([k0, k1]) & TYPE, value))
    })
}

/// One way of a flow: from, to, protocol, the port that it is to.
fn way(tuple: &[u8]) -> Option<(IpAddr, IpAddr, u8, u16)> {
    let of = |wanted, bytes| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (addresses, protocol) = (of(TUPLE_ADDRESSES, tuple)?, of(TUPLE_PROTOCOL, tuple)?);
    let mut both = attributes(addresses).filter_map(|(_, value)| match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    });
    let (from, to) = (both.next()?, both.next()?);
    let port = of(DESTINATION_PORT, protocol).and_then(|port| port.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some((from, to, *of(PROTOCOL_NUMBER, protocol)?.first()?, port))
}

/// What a message tells of a flow; none: it is not of UDP.
fn flow(told: &[u8]) -> Option<Flow> {
    let of = |wanted| attributes(told).find(|(kind, _)| *kind == wanted).and_then(|(_, tuple)| way(tuple));
    let ((from, to, protocol, port), (by, back, ..)) = (of(ORIGINAL)?, of(REPLY)?);
    let is_translated = by != to || back != from;
    (protocol == libc::IPPROTO_UDP as u8).then_some(Flow { to: (to, port), by, is_translated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_as_the_kernel_tells_them() {
        // 192.0.2.2:40000 to 192.0.2.1:5353, which 10.66.0.5:53 answers; CTA_ID behind it.
        let told = b"\x34\x00\x01\x80\x14\x00\x01\x80\x08\x00\x01\x00\xc0\x00\x02\x02\x08\x00\x02\x00\xc0\x00\x02\x01\
            \x1c\x00\x02\x80\x05\x00\x01\x00\x11\x00\x00\x00\x06\x00\x02\x00\x9c\x40\x00\x00\x06\x00\x03\x00\x14\xe9\x00\x00\
            \x34\x00\x02\x80\x14\x00\x01\x80\x08\x00\x01\x00\x0a\x42\x00\x05\x08\x00\x02\x00\xc0\x00\x02\x02\
            \x1c\x00\x02\x80\x05\x00\x01\x00\x11\x00\x00\x00\x06\x00\x02\x00\x00\x35\x00\x00\x06\x00\x03\x00\x9c\x40\x00\x00\
            \x08\x00\x0c\x00\x01\x02\x03\x04";
        let to = ("192.0.2.1".parse().expect("an address"), 5353);
        let by = "10.66.0.5".parse().expect("an address");
        assert_eq!(flow(told), Some(Flow { to, by, is_translated: true }));
        // Whatever is cut off, or of another protocol, is none.
        assert!((0..told.len() - 8).all(|end| flow(&told[..end]).is_none()));
        let mut of_tcp = *told;
        of_tcp.iter_mut().filter(|byte| **byte == 0x11).for_each(|byte| *byte = 6);
        assert_eq!(flow(&of_tcp), None);
    }
}
