//! Network devices and their addresses, by rtnetlink(7): what `linux.netDevices` asks of the kernel and no more.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, setns};

/// Brings the loopback device of the calling thread's network namespace up.
///
/// # Errors
///
/// The kernel refuses.
pub fn loopback_up() -> crate::Result<()> {
    flint_sys::namespace::loopback_up()
        .map_err(|errno| crate::Error::os("bring the loopback device up", io::Error::from_raw_os_error(errno.0)))
}

/// A conversation with one network namespace's rtnetlink.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A network device as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    /// Its number in its namespace.
    pub(crate) index: u32,
    /// Whether it is up.
    pub(crate) up: bool,
}

impl Netlink {
    /// With the network namespace of the caller.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// With another network namespace: a socket belongs to that of the thread that made it, so a thread of its own
    /// joins; the caller's stays where it is.
    pub(crate) fn open_in(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let joined = || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Self::open()
        };
        std::thread::scope(|scope| scope.spawn(joined).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that joins a network namespace has panicked")))
    }

    /// The device of that name; ENODEV when there is none.
    pub(crate) fn device(&mut self, name: &str) -> io::Result<Device> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        for answer in self.ask(RouteNetlinkMessage::GetLink(question), NLM_F_ACK)? {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                return Ok(Device { index: link.header.index, up: link.header.flags.contains(LinkFlags::Up) });
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Brings a device up or down.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let mut change = LinkMessage::default();
        change.header.index = index;
        change.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        change.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(change), NLM_F_ACK).map(drop)
    }

    /// Moves a device to another namespace, with its name there, in one step: there is no moment in which the new
    /// name could meet one of the old namespace.
    pub(crate) fn move_to(&mut self, index: u32, namespace: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut change = LinkMessage::default();
        change.header.index = index;
        change.attributes.push(LinkAttribute::IfName(name.to_owned()));
        change.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        self.ask(RouteNetlinkMessage::SetLink(change), NLM_F_ACK).map(drop)
    }

    /// The addresses that somebody gave the device and that mean the same elsewhere: permanent ones of global scope.
    pub(crate) fn lasting_addresses(&mut self, index: u32) -> io::Result<Vec<AddressMessage>> {
        let answers = self.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(addresses.filter(|address| address.header.index == index && is_lasting(address)).collect())
    }

    /// Gives a device an address that was another's.
    pub(crate) fn add_address(&mut self, index: u32, address: &AddressMessage) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(carried(index, address));
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sends a message; all answers to it until its acknowledgement or the end of its list.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are aligned to four bytes.
                let length = (answer.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or(&[]);
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                            None => Ok(answers),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn is_lasting(address: &AddressMessage) -> bool {
    let flags = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let permanent = match flags {
        Some(flags) => flags.contains(AddressFlags::Permanent),
        None => address.header.flags.contains(AddressHeaderFlags::Permanent),
    };
    permanent && address.header.scope == AddressScope::Universe
}

/// What of an address goes with it: not its label, which is the device's old name, nor counters and flags.
fn carried(index: u32, address: &AddressMessage) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address.header.family;
    message.header.prefix_len = address.header.prefix_len;
    message.header.scope = address.header.scope;
    message.header.index = index;
    let keep = |attribute: &&AddressAttribute| {
        matches!(
            attribute,
            AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
                | AddressAttribute::RoutePriority(_)
        )
    };
    message.attributes = address.attributes.iter().filter(keep).cloned().collect();
    message
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use netlink_packet_route::AddressFamily;

    use super::*;

    fn address(scope: AddressScope, flags: AddressFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 24;
        message.header.scope = scope;
        message.header.index = 7;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
            AddressAttribute::Label("eth0".to_owned()),
            AddressAttribute::Flags(flags),
        ];
        message
    }

    #[test]
    fn only_permanent_addresses_of_global_scope_last() {
        assert!(is_lasting(&address(AddressScope::Universe, AddressFlags::Permanent)));
        assert!(!is_lasting(&address(AddressScope::Universe, AddressFlags::empty())));
        assert!(!is_lasting(&address(AddressScope::Link, AddressFlags::Permanent)));
        assert!(!is_lasting(&address(AddressScope::Host, AddressFlags::Permanent)));
    }

    #[test]
    fn an_address_leaves_its_label_behind() {
        let carried = carried(9, &address(AddressScope::Universe, AddressFlags::Permanent));
        assert_eq!((carried.header.index, carried.header.prefix_len), (9, 24));
        assert_eq!(carried.attributes, [AddressAttribute::Local(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))]);
    }

    #[test]
    fn the_loopback_device_is_found() {
        let mut netlink = Netlink::open().expect("a socket");
        assert_eq!(netlink.device("lo").expect("lo").index, 1);
        let missing = netlink.device("flint-none").expect_err("no such device");
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }
}
