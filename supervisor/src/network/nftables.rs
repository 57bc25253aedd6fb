//! Elements of nftables' sets and maps, added and removed over netlink in one transaction.
//!
//! The table itself is written once by the program `nft`, in words that a person can read. An element of it changes with each
//! pod: starting a program for that costs more than all else that a pod's network needs.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::ports::protocol_name;
use crate::desired::Protocol;

/// linux/netfilter/nfnetlink.h, nf_tables.h
const BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const NEW_ELEMENT: u16 = (SUBSYSTEM << 8) | libc::NFT_MSG_NEWSETELEM as u16;
const DELETE_ELEMENT: u16 = (SUBSYSTEM << 8) | libc::NFT_MSG_DELSETELEM as u16;
const GET_TABLE: u16 = (SUBSYSTEM << 8) | libc::NFT_MSG_GETTABLE as u16;
const TABLE_NAME: u16 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// A message's header, and nfnetlink's behind it.
const HEADERS: usize = 20;

/// One field of a key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `ipv4_addr`, `ipv6_addr`
    Address(IpAddr),
    /// `inet_proto`
    Protocol(Protocol),
    /// `inet_service`
    Port(u16),
}

/// An element of a set, or of a map if it has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    /// The set's name.
    pub(super) set: &'static str,
    /// Its key.
    pub(super) key: Vec<Part>,
    /// Its value.
    pub(super) value: Vec<Part>,
}

/// What is done to an element: a message's kind, and its flags.
type Change<'a> = (u16, u16, &'a Element);

impl Element {
    /// As `nft` reads it.
    pub(super) fn text(&self) -> String {
        let words = |parts: &[Part]| parts.iter().map(Part::text).collect::<Vec<_>>().join(" . ");
        if self.value.is_empty() { words(&self.key) } else { format!("{} : {}", words(&self.key), words(&self.value)) }
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Protocol(protocol) => protocol_name(*protocol).to_owned(),
            Self::Port(port) => port.to_string(),
        }
    }

    /// Fields of a concatenation fill registers of four bytes, in the order of the network.
    fn put(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(address)) => bytes.extend(address.octets()),
            Self::Address(IpAddr::V6(address)) => bytes.extend(address.octets()),
            Self::Protocol(Protocol::Tcp) => bytes.push(libc::IPPROTO_TCP as u8),
            Self::Protocol(Protocol::Udp) => bytes.push(libc::IPPROTO_UDP as u8),
            Self::Protocol(Protocol::Sctp) => bytes.push(libc::IPPROTO_SCTP as u8),
            Self::Port(port) => bytes.extend(port.to_be_bytes()),
        }
        pad(bytes);
    }
}

/// A conversation with the nftables of one network namespace.
pub(super) struct Nftables {
    socket: Socket,
    table: String,
}

impl Nftables {
    /// With the network namespace of the calling thread, about a table of the family `inet`.
    pub(super) fn open(table: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10)))?;
        Ok(Self { socket, table: table.to_owned() })
    }

    /// Whether the table is there.
    pub(super) fn has_table(&self) -> io::Result<bool> {
        let mut bytes = Vec::new();
        message(&mut bytes, GET_TABLE, libc::NLM_F_ACK as u16, 1, libc::NFPROTO_INET as u8, 0, |bytes| {
            attribute(bytes, TABLE_NAME, |bytes| text(bytes, &self.table));
        });
        self.socket.send(&bytes, 0)?;
        match self.answers(1..=1) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the ones and adds the others, in one step; nothing is done unless all of the first are there.
    pub(super) fn replace(&self, former: &[Element], elements: &[Element]) -> io::Result<()> {
        let removals = former.iter().map(|element| (DELETE_ELEMENT, 0, element));
        let additions = elements.iter().map(|element| (NEW_ELEMENT, libc::NLM_F_CREATE as u16, element));
        self.transaction(&removals.chain(additions).collect::<Vec<_>>())
    }

    /// Adds all elements or none; those that are there already stay.
    pub(super) fn add(&self, elements: &[Element]) -> io::Result<()> {
        self.replace(&[], elements)
    }

    /// Removes elements; those that are not there are no error.
    pub(super) fn remove(&self, elements: &[Element]) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        };
        match self.replace(elements, &[]) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && elements.len() > 1 => {
                elements.iter().try_for_each(|one| gone(self.replace(std::slice::from_ref(one), &[])))
            }
            result => gone(result),
        }
    }

    fn transaction(&self, changes: &[Change<'_>]) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let bytes = self.batch(changes);
        self.socket.send(&bytes, 0)?;
        self.answers(1..=changes.len() as u32)
    }

    fn batch(&self, changes: &[Change<'_>]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 128 * changes.len());
        message(&mut bytes, BATCH_BEGIN, 0, 0, 0, SUBSYSTEM, |_| ());
        for (sequence, (kind, flags, element)) in (1..).zip(changes.iter().copied()) {
            let flags = flags | libc::NLM_F_ACK as u16;
            message(&mut bytes, kind, flags, sequence, libc::NFPROTO_INET as u8, 0, |bytes| {
                attribute(bytes, LIST_TABLE, |bytes| text(bytes, &self.table));
                attribute(bytes, LIST_SET, |bytes| text(bytes, element.set));
                attribute(bytes, LIST_ELEMENTS | NESTED, |bytes| {
                    attribute(bytes, LIST_ELEMENT | NESTED, |bytes| {
                        value(bytes, ELEMENT_KEY, &element.key);
                        if !element.value.is_empty() {
                            value(bytes, ELEMENT_DATA, &element.value);
                        }
                    });
                });
            });
        }
        message(&mut bytes, BATCH_END, 0, changes.len() as u32 + 1, 0, SUBSYSTEM, |_| ());
        bytes
    }

    /// Waits for the acknowledgements of all these messages; the first error of any, also of the batch's own.
    fn answers(&self, mut expected: std::ops::RangeInclusive<u32>) -> io::Result<()> {
        let mut failed = None;
        while !expected.is_empty() {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while let Some((header, _)) = rest.split_first_chunk::<16>() {
                let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
                let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
                let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
                let code = rest.get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if u16::from_ne_bytes([k0, k1]) == libc::NLMSG_ERROR as u16 {
                    if code != 0 {
                        let error = io::Error::from_raw_os_error(code.wrapping_neg());
                        if !expected.contains(&sequence) {
                            // Of the batch's first or last message: there is no other answer.
                            return Err(error);
                        }
                        failed.get_or_insert(error);
                    }
                    if sequence == *expected.start() {
                        expected = sequence + 1..=*expected.end();
                    }
                }
                rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or(&[]);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

pub(super) fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    content: impl FnOnce(&mut Vec<u8>),
) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, libc::NFNETLINK_V0 as u8]);
    bytes.extend(resource.to_be_bytes());
    debug_assert_eq!(bytes.len() - start, HEADERS);
    content(bytes);
    let length = (bytes.len() - start) as u32;
    if let Some(place) = bytes.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

pub(super) fn attribute(bytes: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 2]);
    bytes.extend(kind.to_ne_bytes());
    content(bytes);
    let length = (bytes.len() - start) as u16;
    if let Some(place) = bytes.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
    pad(bytes);
}

fn value(bytes: &mut Vec<u8>, kind: u16, parts: &[Part]) {
    attribute(bytes, kind | NESTED, |bytes| {
        attribute(bytes, DATA_VALUE, |bytes| parts.iter().for_each(|part| part.put(bytes)));
    });
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(text.bytes());
    bytes.push(0);
}

/// All messages, attributes and fields begin at multiples of four bytes from the start of the batch.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element() -> Element {
        let address = |text: &str| Part::Address(text.parse().expect("an address"));
        Element {
            set: "at4",
            key: vec![address("1.2.3.4"), Part::Protocol(Protocol::Tcp), Part::Port(8082)],
            value: vec![address("10.66.0.5"), Part::Port(80)],
        }
    }

    #[test]
    fn elements_are_written_as_nft_reads_them() {
        assert_eq!(element().text(), "1.2.3.4 . tcp . 8082 : 10.66.0.5 . 80");
    }

    /// The bytes that `nft add element inet flint at4 { 1.2.3.4 . tcp . 8082 : 10.66.0.5 . 80 }` sends (nftables 1.0.6,
    /// by strace), but for what it says beside: an id of the set in its transaction.
    #[test]
    fn elements_are_sent_as_nft_sends_them() {
        let table = Nftables { socket: Socket::new(NETLINK_NETFILTER).expect("a socket"), table: "flint".to_owned() };
        let bytes = table.batch(&[(NEW_ELEMENT, libc::NLM_F_CREATE as u16, &element())]);
        let sent: &[u8] = b"\x0a\x00\x01\x00flint\x00\x00\x00\x08\x00\x02\x00at4\x00\x2c\x00\x03\x80\
            \x28\x00\x01\x80\x14\x00\x01\x80\x10\x00\x01\x00\x01\x02\x03\x04\x06\x00\x00\x00\x1f\x92\x00\x00\
            \x10\x00\x02\x80\x0c\x00\x01\x00\x0a\x42\x00\x05\x00\x50\x00\x00";
        assert_eq!(bytes.len(), 20 + 20 + sent.len() + 20);
        assert_eq!(bytes.get(40..40 + sent.len()), Some(sent));
        assert_eq!(bytes.get(16..20), Some(&[0, 0, 0, 10][..]), "the batch is of nf_tables");
    }
}
