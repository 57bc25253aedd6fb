//! One line of a log file: `2026-11-28T16:00:00.000000000Z stdout F text`.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::scheduler::Stream;

/// A line of a file, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// When it was written.
    pub(super) at: SystemTime,
    /// Where.
    pub(super) stream: Stream,
    /// Whether the container's line ends here (`F`), else it goes on in the next entry of the stream (`P`).
    pub(super) is_full: bool,
    /// What was written.
    pub(super) text: &'a [u8],
}

/// The bytes before an entry's text are no more than this: a time of 35, a stream's name, a tag and spaces.
pub(super) const MAX_HEAD: usize = 64;

/// Reads a line. None if it is none of this form: half a line after a power cut, for one.
pub(super) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let at = std::str::from_utf8(fields.next()?).ok()?;
    let at = parse_rfc3339(at)?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let is_full = is_full_tag(fields.next()?)?;
    // An empty text may have lost its space.
    let text = fields.next().unwrap_or_default();
    Some(Entry { at, stream, is_full, text })
}

/// Whether an entry that begins so ends a line of the container; also if it is no entry at all, since it is shown as a line.
pub(super) fn ends_line(head: &[u8]) -> bool {
    let head = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    head.splitn(4, |byte| *byte == b' ').nth(2).and_then(is_full_tag).unwrap_or(true)
}

/// CRI allows more tags behind the first, divided by colons.
fn is_full_tag(tags: &[u8]) -> Option<bool> {
    match tags.split(|byte| *byte == b':').next()? {
        b"F" => Some(true),
        b"P" => Some(false),
        _ => None,
    }
}

/// Reads a time of RFC 3339.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

/// A time as the log files have it, with nine digits of a second.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, nano) = at.to_hms_nano();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nano:09}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_are_read() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_795_881_600, 5);
        let full = Entry { at, stream: Stream::Stdout, is_full: true, text: b"two words " };
        assert_eq!(parse(b"2026-11-28T16:00:00.000000005Z stdout F two words "), Some(full));
        let part = Entry { at, stream: Stream::Stderr, is_full: false, text: b"" };
        assert_eq!(parse(b"2026-11-28T17:00:00.000000005+01:00 stderr P:x "), Some(part));
        for bad in
            ["", "2026-11-28T16:0", "2026-11-28T16:00:00Z stdin F x", "2026-11-28T16:00:00Z stdout X x", "\0\0\0"]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(parse(b"2026-11-28T16:00:00Z stdout F").is_some_and(|entry| entry.text.is_empty()));
    }

    #[test]
    fn heads_tell_where_lines_end() {
        assert!(ends_line(b"2026-11-28T16:00:00Z stdout F x"));
        assert!(!ends_line(b"2026-11-28T16:00:00Z stdout P x"));
        assert!(ends_line(b"half\n2026-11-28T16:00:00Z stdout P x"));
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_795_881_600, 120_000_000);
        assert_eq!(rfc3339(at), "2026-11-28T16:00:00.120000000Z");
        assert_eq!(parse(format!("{} stdout F x", rfc3339(at)).as_bytes()).unwrap().at, at);
    }
}
