//! `flint events`

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flint_runtime::{Event, Kind, Runtime};
use serde::Serialize;

use super::{CONTAINER, Verb};
use crate::arguments::{Arguments, Flag, option, switch};
use crate::{Session, print};

pub(super) const VERB: Verb = Verb {
    name: "events",
    summary: "print what a container uses, and when it runs out of memory",
    description: "Prints one JSON object a line: what the container uses (\"stats\"), again after each interval, and
each time it runs out of memory (\"oom\"). Ends when the container does.",
    flags: &[
        Flag {
            check: Some((|text| parse_duration(text).is_some(), "it must be a duration such as 5s, 100ms or 1m30s")),
            ..option("interval", None, "DURATION", "time between two prints, such as 500ms or 1m30s (default: 5s)")
        },
        switch("stats", None, "print once and end"),
    ],
    run,
    ..CONTAINER
};

/// Between two prints.
const INTERVAL: Duration = Duration::from_secs(5);

/// One line, as go-runc reads it.
#[derive(Serialize)]
struct Line<'a, Data: Serialize> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

fn run(session: &Session, arguments: &Arguments) -> Result<u8> {
    let id = arguments.operand(0)?;
    let interval = arguments.text("interval")?.and_then(parse_duration).unwrap_or(INTERVAL);
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    let runtime = session.runtime()?;
    if arguments.is_set("stats") {
        print_stats(&runtime, id)?;
        return Ok(0);
    }
    let mut watch = runtime.watch(id)?;
    let mut next = Instant::now() + interval;
    loop {
        match watch.next(next.saturating_duration_since(Instant::now()))? {
            Event::Ended => return Ok(0),
            Event::Oom => print_line(&Line::<()> { kind: "oom", id, data: None })?,
            Event::Nothing => {
                match print_stats(&runtime, id) {
                    Err(error) if ended(&error) => return Ok(0),
                    result => result?,
                }
                next += interval;
            }
        }
    }
}

/// Whether the container ended, and perhaps was deleted, between the watch and the look.
fn ended(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<flint_runtime::Error>();
    error.is_some_and(|error| matches!(error.kind(), Kind::WrongState | Kind::NotFound))
}

fn print_stats(runtime: &Runtime, id: &str) -> Result<()> {
    let stats = runtime.stats(id)?;
    print_line(&Line { kind: "stats", id, data: Some(stats) })
}

fn print_line(line: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(line).context("encoding an event")? + "\n"))
}

/// A duration as Go writes it: numbers with units, `1h2m3.5s`, `100ms`, `50us`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit_end = behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = behind;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            (".5s", Some(500)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("5s3", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }
}
