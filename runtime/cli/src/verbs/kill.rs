//! `flint kill`

use std::str::FromStr;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{CONTAINER, Verb};
use crate::Session;
use crate::arguments::{Arguments, Order, switch};

pub(super) const VERB: Verb = Verb {
    name: "kill",
    summary: "send a signal to a container",
    operands: "<container-id> [signal]",
    count: (1, 2),
    order: Order::OptionsFirst,
    description: "Sends the signal to the container's init: a number, or a name with or without SIG
(default: TERM).",
    flags: &[switch("all", Some('a'), "send it to all processes of the container")],
    run,
    ..CONTAINER
};

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let name = if arguments.operands.len() > 1 { arguments.operand(1)? } else { "" };
    // As in runc, an empty one is none: `kill ID "$SIGNAL"`.
    let name = if name.is_empty() { "TERM" } else { name };
    let Some(signal) = parse_signal(name) else {
        bail!("unknown signal {name:?}: give a number from 0 to 64 or a name such as TERM or SIGTERM");
    };
    session.runtime()?.kill(arguments.operand(0)?, signal, arguments.is_set("all"))?;
    Ok(0)
}

/// First and last real-time signal for programs; libc keeps 32 and 33 for itself.
const REALTIME: (i32, i32) = (34, 64);

/// A signal's number, from `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3` or `RTMAX-1`. 0 only asks whether the
/// process is there.
fn parse_signal(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (0..=64).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(REALTIME.0, offset, '+');
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(REALTIME.1, offset, '-');
    }
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        "UNUSED" => "SYS",
        other => other,
    };
    Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
}

fn realtime(base: i32, offset: &str, sign: char) -> Option<i32> {
    if offset.is_empty() {
        return Some(base);
    }
    let digits = offset
        .strip_prefix(sign)
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let distance: i32 = digits.parse().ok()?;
    let number = if sign == '+' { base.checked_add(distance)? } else { base.checked_sub(distance)? };
    (REALTIME.0..=REALTIME.1).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", Some(9)),
            ("0", Some(0)),
            ("64", Some(64)),
            ("65", None),
            ("100", None),
            ("-9", None),
            ("+9", None),
            ("", None),
            ("KILL", Some(9)),
            ("SIGKILL", Some(9)),
            ("sigKILL", Some(9)),
            ("term", Some(15)),
            ("HUP", Some(1)),
            ("USR1", Some(10)),
            ("WINCH", Some(28)),
            ("IO", Some(29)),
            ("POLL", Some(29)),
            ("CLD", Some(17)),
            ("STKFLT", Some(16)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX", Some(64)),
            ("RTMAX-14", Some(50)),
            ("RTMIN+31", None),
            ("RTMIN-1", None),
            ("RTMIN+", None),
            ("RTMIN+99999999999", None),
            ("SIGSIGKILL", None),
            ("FOO", None),
            ("SIG", None),
        ] {
            assert_eq!(parse_signal(text), number, "{text:?}");
        }
    }
}
