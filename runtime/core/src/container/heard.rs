//! What must hold of anything that an init sends which was taken over: it is a message, an error or the end, and each
//! message has a sentence, whatever step, operation and number it names.

use std::cell::OnceCell;
use std::os::fd::AsRawFd as _;

use flint_init::protocol::{Message, SIZE, TEXT};
use nix::sys::socket::{MsgFlags, send};

use super::channel::{Channel, Heard};
use super::sentence;
use crate::Bundle;
use crate::compile::{compile, samples};
use crate::fuzzing::Verdict;
use crate::plan::Plan;

/// What was heard on one channel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Messages.
    pub(crate) said: usize,
    /// Whether a packet was refused; the channel is left then.
    pub(crate) refused: bool,
}

/// More packets than a handshake has; a socket holds some hundreds.
const PACKETS: usize = 40;

/// A packet of more than a message and a text is cut by the socket.
const PACKET: usize = 2 * TEXT;

/// Reads `bytes` as packets: a length in one byte (255: in the next two), and as many bytes; the first byte's bits tell
/// where the host waits for the throw-away process.
///
/// # Panics
///
/// When what must hold does not.
#[allow(clippy::must_use_candidate, reason = "what counts is that it returns")]
pub fn check(bytes: &[u8]) -> Verdict {
    let Some((&cloned, mut rest)) = bytes.split_first() else { return Verdict::Refused };
    let mut packets = Vec::new();
    while let Some((&short, behind)) = rest.split_first().filter(|_| packets.len() < PACKETS) {
        let (length, behind) = match *behind {
            [low, high, ref behind @ ..] if short == 255 => (usize::from(u16::from_le_bytes([low, high])), behind),
            _ => (usize::from(short), behind),
        };
        let (packet, behind) = behind.split_at(length.min(behind.len()).min(PACKET));
        packets.push(packet.to_vec());
        rest = behind;
    }
    let mut asked = 0;
    let counts = heard(&packets, || {
        asked += 1;
        cloned >> (asked % 8) & 1 == 1
    });
    if counts.refused { Verdict::Refused } else { Verdict::Taken }
}

/// Sends `packets` as init and hears them as the host, `cloned` telling each time whether it waits for the throw-away
/// process.
///
/// # Panics
///
/// When what must hold does not.
pub(crate) fn heard(packets: &[Vec<u8>], mut cloned: impl FnMut() -> bool) -> Counts {
    let (host, init) = Channel::pair().expect("a channel");
    for packet in packets {
        send(init.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL).expect("sent");
    }
    drop(init);
    let mut counts = Counts::default();
    loop {
        match if cloned() { host.hear_cloned() } else { host.hear() } {
            Ok(Heard::Said(message)) => {
                assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
                assert_eq!(message.to_bytes().len(), SIZE);
                told(&message);
                counts.said += 1;
            }
            Ok(Heard::End) => break,
            Err(error) => {
                assert!(error.to_string().contains("no message"), "{error}");
                counts.refused = true;
                break;
            }
        }
    }
    // A message that came early is heard once: each packet is one message at most.
    let said = counts.said;
    assert!(said <= packets.len() && host.hook_output().len() <= 3 * TEXT, "{said} messages of {}", packets.len());
    counts
}

/// A plan with steps of nearly every kind has a sentence for `message`.
fn told(message: &Message) {
    thread_local! {
        static PLAN: OnceCell<Plan> = const { OnceCell::new() };
    }
    PLAN.with(|plan| {
        let plan = plan.get_or_init(|| {
            let config = samples::with_user(samples::wide()).to_string().into_bytes();
            let bundle = Bundle::from_parts("/bundle".into(), config).expect("a bundle");
            let host = samples::unified_with(&["cpu", "cpuset", "hugetlb", "memory", "pids"]);
            compile(&bundle, &host, &samples::options()).expect("a plan")
        });
        assert!(!sentence::failed(plan, message).to_string().is_empty());
        assert!(!sentence::warned(plan, message).is_empty());
    });
}
