//! `logs`: a container's lines.

use std::io::Write;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Args;
use flintd::api::client::{Client, Target};
use flintd::logs::rfc3339;
use flintd::scheduler::{LogLine, LogRequest, Stream};

use crate::command::Session;
use crate::values::duration;

/// Print a container's log
///
/// Standard output goes to standard output, and errors to errors. Following goes on over restarts until the container has ended for
/// good or the pod is removed.
#[derive(Args)]
pub(crate) struct Logs {
    /// The pod
    pod: String,
    /// The container [default: the pod's first]
    #[arg(long, short, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// So many of the last lines
    #[arg(long, value_name = "NUMBER")]
    tail: Option<u64>,
    /// Lines of the last while (5m), or since a time (2026-11-28T16:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// The time before each line
    #[arg(long, short)]
    timestamps: bool,
    /// The container's run before this one
    #[arg(long, short, conflicts_with = "follow")]
    previous: bool,
}

/// A while ago, or a time.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = duration(text) {
        return Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
    }
    flintd::logs::parse_rfc3339(text)
        .ok_or_else(|| format!("{text:?} is neither a while like 5m nor a time like 2026-11-28T16:00:00Z"))
}

impl Logs {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let target = session.target(&self.pod, self.container.as_ref());
        let wanted = LogRequest { follow: self.follow, tail: self.tail, since: self.since };
        show(&client, &target, &wanted, self.previous, self.timestamps).await?;
        Ok(0)
    }
}

/// Prints lines as they come, until there are no more.
pub(crate) async fn show(
    client: &Client,
    target: &Target,
    wanted: &LogRequest,
    previous: bool,
    timestamps: bool,
) -> Result<()> {
    let mut lines = client.logs(target, wanted, previous).await?;
    let mut printer = Printer { timestamps, is_inside: [false; 2] };
    while let Some(line) = lines.next().await? {
        let bytes = printer.bytes(&line);
        match line.stream {
            Stream::Stdout => std::io::stdout().lock().write_all(&bytes).context("write to stdout")?,
            Stream::Stderr => std::io::stderr().lock().write_all(&bytes).context("write to stderr")?,
        }
        // A line at once where somebody looks on; the lock's buffer is by lines already, but for a part of one.
        if !line.bytes.ends_with(b"\n") {
            std::io::stdout().flush().context("write to stdout")?;
        }
    }
    std::io::stdout().flush().context("write to stdout")
}

/// Puts times before lines, not before their parts.
struct Printer {
    timestamps: bool,
    /// Whether the last part of a stream had no newline.
    is_inside: [bool; 2],
}

impl Printer {
    fn bytes(&mut self, line: &LogLine) -> Vec<u8> {
        let inside = &mut self.is_inside[usize::from(line.stream == Stream::Stderr)];
        let mut bytes = Vec::with_capacity(line.bytes.len() + 32);
        if self.timestamps && !*inside {
            bytes.extend_from_slice(rfc3339(line.at).as_bytes());
            bytes.push(b' ');
        }
        *inside = !line.bytes.ends_with(b"\n");
        bytes.extend_from_slice(&line.bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_stand_before_whole_lines() {
        let mut printer = Printer { timestamps: true, is_inside: [false; 2] };
        let mut print = |stream, text: &str| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            String::from_utf8(printer.bytes(&LogLine { at, stream, bytes: text.into() })).unwrap()
        };
        assert_eq!(print(Stream::Stdout, "$ "), "1970-01-01T00:00:01.000000000Z $ ");
        assert_eq!(print(Stream::Stderr, "x\n"), "1970-01-01T00:00:01.000000000Z x\n");
        assert_eq!(print(Stream::Stdout, "ls\n"), "ls\n");
        assert_eq!(print(Stream::Stdout, "a\n"), "1970-01-01T00:00:01.000000000Z a\n");
    }

    #[test]
    fn since_is_a_while_or_a_time() {
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
        assert!(since("5m").unwrap() < SystemTime::now());
        assert!(since("yesterday").is_err());
    }
}
