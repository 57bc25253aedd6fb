//! Parts of lines to lines.

use std::time::SystemTime;

use super::line::Entry;
use crate::scheduler::{LogLine, Stream};

/// A line may have so many bytes; a longer one is handed on in parts.
const MAX_LINE: usize = 256 << 10;

/// What is known of lines that have not ended, by stream.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    stdout: Part,
    stderr: Part,
}

#[derive(Debug, Default)]
struct Part {
    at: Option<SystemTime>,
    bytes: Vec<u8>,
}

impl Joiner {
    /// Takes an entry; the line that it ends, or that is too long to wait for its end.
    pub(super) fn push(&mut self, entry: &Entry<'_>) -> Option<LogLine> {
        let part = match entry.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let at = *part.at.get_or_insert(entry.at);
        part.bytes.extend_from_slice(entry.text);
        if entry.is_full {
            part.bytes.push(b'\n');
        } else if part.bytes.len() < MAX_LINE {
            return None;
        }
        part.at = None;
        Some(LogLine { at, stream: entry.stream, bytes: std::mem::take(&mut part.bytes) })
    }

    /// What there is of lines that have not ended: a prompt, which nobody would see if it waited for its newline.
    pub(super) fn flush(&mut self) -> Vec<LogLine> {
        let parts = [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)];
        let mut lines = Vec::new();
        for (stream, part) in parts {
            if let Some(at) = part.at.take()
                && !part.bytes.is_empty()
            {
                lines.push(LogLine { at, stream, bytes: std::mem::take(&mut part.bytes) });
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stream: Stream, is_full: bool, text: &str) -> Entry<'_> {
        Entry { at: SystemTime::UNIX_EPOCH, stream, is_full, text: text.as_bytes() }
    }

    #[test]
    fn parts_of_both_streams_are_kept_apart() {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.push(&entry(Stream::Stdout, false, "one ")), None);
        assert_eq!(joiner.push(&entry(Stream::Stderr, true, "other")).unwrap().bytes, b"other\n");
        assert_eq!(joiner.push(&entry(Stream::Stdout, true, "line")).unwrap().bytes, b"one line\n");
        assert_eq!(joiner.push(&entry(Stream::Stdout, false, "$ ")), None);
        assert_eq!(joiner.flush()[0].bytes, b"$ ");
        assert!(joiner.flush().is_empty());
    }

    #[test]
    fn a_line_without_end_comes_in_parts() {
        let mut joiner = Joiner::default();
        let text = "x".repeat(MAX_LINE);
        assert_eq!(joiner.push(&entry(Stream::Stdout, false, &text)).unwrap().bytes.len(), MAX_LINE);
        assert_eq!(joiner.push(&entry(Stream::Stdout, true, "end")).unwrap().bytes, b"end\n");
    }
}
