//! A conversation with rtnetlink(7), without an executor: the kernel answers before send(2) returns.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// What a request may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meets {
    /// It makes something that must not be there.
    New,
    /// It makes something, in the place of what may be there.
    Replace,
    /// It changes or removes what is there.
    Present,
}

/// A conversation with one network namespace's rtnetlink.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A network device as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number in its namespace.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// The other end's number, in that one's namespace.
    pub(super) peer: Option<u32>,
    /// Its largest packet.
    pub(super) mtu: Option<u32>,
}

impl Netlink {
    /// With the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes requests, all in one message to the kernel, which does one after the other whatever became of those before.
    pub(super) fn run(&mut self, requests: Vec<(RouteNetlinkMessage, Meets)>) -> io::Result<Vec<io::Result<()>>> {
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        let mut bytes = Vec::with_capacity(count * 128);
        for (message, meets) in requests {
            let flags = match meets {
                Meets::New => NLM_F_CREATE | NLM_F_EXCL,
                Meets::Replace => NLM_F_CREATE | NLM_F_REPLACE,
                Meets::Present => 0,
            };
            self.put(&mut bytes, message, NLM_F_ACK | flags);
        }
        let mut results: Vec<Option<io::Result<()>>> = (0..count).map(|_| None).collect();
        if count == 0 {
            return Ok(Vec::new());
        }
        self.socket.send(&bytes, 0)?;
        while results.iter().any(Option::is_none) {
            self.receive(|sequence, payload| {
                let place = results.get_mut(sequence.wrapping_sub(first) as usize);
                if let (Some(place), NetlinkPayload::Error(error)) = (place, payload) {
                    *place = Some(error.code.map_or(Ok(()), |code| Err(errno(code.get()))));
                }
            })?;
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Makes one request.
    pub(super) fn one(&mut self, message: RouteNetlinkMessage, meets: Meets) -> io::Result<()> {
        self.run(vec![(message, meets)])?.pop().unwrap_or(Ok(()))
    }

    /// What the kernel tells about a question that has many answers.
    pub(super) fn list(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(question, NLM_F_DUMP)
    }

    /// The device of that name.
    pub(super) fn device(&mut self, name: &str) -> io::Result<Option<Device>> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(question), NLM_F_ACK) {
            Ok(answers) => Ok(answers.iter().find_map(device)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All devices.
    pub(super) fn devices(&mut self) -> io::Result<Vec<Device>> {
        let answers = self.list(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers.iter().filter_map(device).collect())
    }

    /// Brings a device up.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        self.one(up(index), Meets::Present)
    }

    /// Removes a device; true: it was there.
    pub(super) fn remove(&mut self, index: u32) -> io::Result<bool> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        match self.one(RouteNetlinkMessage::DelLink(request), Meets::Present) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        self.put(&mut bytes, message, flags);
        self.socket.send(&bytes, 0)?;
        let asked = self.sequence;
        let mut answers = Vec::new();
        let mut end = None;
        while end.is_none() {
            self.receive(|sequence, payload| match payload {
                _ if sequence != asked => {}
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                NetlinkPayload::Error(error) => end = Some(error.code.map_or(Ok(()), |code| Err(errno(code.get())))),
                NetlinkPayload::Done(_) => end = Some(Ok(())),
                _ => {}
            })?;
        }
        end.unwrap_or(Ok(())).map(|()| answers)
    }

    fn put(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let start = bytes.len();
        // Messages are aligned to four bytes.
        bytes.resize(start + packet.buffer_len().next_multiple_of(4), 0);
        if let Some(place) = bytes.get_mut(start..) {
            packet.serialize(place);
        }
    }

    fn receive(&self, mut each: impl FnMut(u32, NetlinkPayload<RouteNetlinkMessage>)) -> io::Result<()> {
        let (received, _) = self.socket.recv_from_full()?;
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = (answer.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or(&[]);
            each(answer.header.sequence_number, answer.payload);
        }
        Ok(())
    }
}

/// The request that brings a device up.
pub(super) fn up(index: u32) -> RouteNetlinkMessage {
    let mut change = LinkMessage::default();
    change.header.index = index;
    change.header.flags = LinkFlags::Up;
    change.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(change)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.wrapping_neg())
}

fn device(answer: &RouteNetlinkMessage) -> Option<Device> {
    let RouteNetlinkMessage::NewLink(link) = answer else { return None };
    let mut device = Device { index: link.header.index, name: String::new(), peer: None, mtu: None };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Link(peer) => device.peer = Some(*peer),
            LinkAttribute::Mtu(mtu) => device.mtu = Some(*mtu),
            _ => {}
        }
    }
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found() {
        let mut netlink = Netlink::open().expect("a socket");
        assert_eq!(netlink.device("lo").expect("ask").map(|device| device.index), Some(1));
        assert_eq!(netlink.device("flint-none").expect("ask"), None);
        assert!(netlink.devices().expect("list").iter().any(|device| device.name == "lo"));
    }

    #[test]
    fn each_request_of_a_batch_has_its_own_answer() {
        let mut netlink = Netlink::open().expect("a socket");
        let results = netlink.run(vec![(up(1), Meets::Present), (up(999_999), Meets::Present)]).expect("run");
        // Without privileges both are refused, and each says so.
        assert_eq!(results.len(), 2);
        assert!(results.get(1).is_some_and(Result::is_err), "{results:?}");
    }
}
