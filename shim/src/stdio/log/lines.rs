//! Bytes of a stream to lines of the log: `2026-11-28T16:00:00.123456789Z stdout F text`.

use std::time::{Duration, Instant};

use super::Stream;

/// Bytes of text that a line of the log has at most, as containerd's CRI plugin has it: what is longer is cut into parts.
pub(super) const LONGEST: usize = 16 << 10;

/// What came of one stream and is no whole line yet.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    /// So long a line may wait for its end.
    delay: Duration,
    /// Less than [`LONGEST`]; without memory while it is empty.
    rest: Vec<u8>,
    /// When the rest began.
    since: Option<Instant>,
    /// Whether parts of the line have been written.
    in_parts: bool,
}

/// Takes whole lines of the log.
pub(super) trait Sink {
    /// `head` is all before the text; the text has no newline.
    fn line(&mut self, head: &[&[u8]], text: &[u8]);
}

impl Lines {
    pub(super) fn new(stream: Stream, delay: Duration) -> Self {
        Self { stream, delay, rest: Vec::new(), since: None, in_parts: false }
    }

    /// Takes what was read; `stamp` is the time as the log has it.
    pub(super) fn take(&mut self, mut bytes: &[u8], stamp: &[u8], sink: &mut impl Sink) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, behind) = bytes.split_at(end);
            bytes = behind.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                self.finish(line, stamp, sink);
            } else {
                let mut rest = std::mem::take(&mut self.rest);
                rest.extend_from_slice(line);
                self.finish(&rest, stamp, sink);
            }
        }
        if bytes.is_empty() {
            return;
        }
        if self.rest.is_empty() {
            self.since = Some(Instant::now());
        }
        if self.rest.len() + bytes.len() < LONGEST {
            self.rest.extend_from_slice(bytes);
            return;
        }
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(bytes);
        let left = whole.len() % LONGEST;
        let (parts, rest) = whole.split_at(whole.len() - left);
        for part in parts.chunks(LONGEST) {
            self.write(part, b" P ", stamp, sink);
        }
        self.in_parts = true;
        self.rest = rest.to_vec();
        self.since = (!rest.is_empty()).then(Instant::now);
    }

    fn finish(&mut self, line: &[u8], stamp: &[u8], sink: &mut impl Sink) {
        let mut parts = line.chunks(LONGEST).peekable();
        // An empty line is one; so is the end of one whose text is all written.
        if parts.peek().is_none() {
            self.write(b"", b" F ", stamp, sink);
        }
        while let Some(part) = parts.next() {
            let tag: &[u8] = if parts.peek().is_some() { b" P " } else { b" F " };
            self.write(part, tag, stamp, sink);
        }
        self.in_parts = false;
        self.since = None;
    }

    fn write(&self, text: &[u8], tag: &[u8], stamp: &[u8], sink: &mut impl Sink) {
        sink.line(&[stamp, b" ", self.stream.name().as_bytes(), tag], text);
    }

    /// When the rest is to be written though its line has not ended.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.delay)
    }

    /// Writes the rest as a part: its line has not ended, and perhaps never will.
    pub(super) fn flush(&mut self, stamp: &[u8], sink: &mut impl Sink) {
        let rest = std::mem::take(&mut self.rest);
        self.since = None;
        if !rest.is_empty() {
            self.write(&rest, b" P ", stamp, sink);
            self.in_parts = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, Lines, Sink};
    use crate::stdio::log::Stream;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Sink for Seen {
        fn line(&mut self, head: &[&[u8]], text: &[u8]) {
            self.0.push(String::from_utf8([head.concat(), text.to_vec()].concat()).unwrap());
        }
    }

    fn seen(chunks: &[&str]) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::new(Stream::Stderr, Duration::from_secs(1)), Seen::default());
        for chunk in chunks {
            lines.take(chunk.as_bytes(), b"T", &mut seen);
        }
        lines.flush(b"E", &mut seen);
        seen.0
    }

    #[test]
    fn lines_come_whole_however_they_were_read() {
        let whole = ["T stderr F one", "T stderr F ", "T stderr F three"];
        assert_eq!(seen(&["one\n\nthree\n"]), whole);
        assert_eq!(seen(&["o", "ne", "\n", "\nthr", "ee\n"]), whole);
        assert_eq!(seen(&["a\nb"]), ["T stderr F a", "E stderr P b"]);
        assert_eq!(seen(&[]), [""; 0]);
    }

    #[test]
    fn long_lines_are_parts_and_an_end() {
        let long = "x".repeat(2 * LONGEST + 5);
        let parts = |chunks: &[&str]| {
            let seen = seen(chunks);
            let tags: Vec<String> = seen.iter().map(|line| line.chars().nth(9).unwrap().to_string()).collect();
            let text: usize = seen.iter().map(|line| line.len() - "T stderr P ".len()).sum();
            (tags.concat(), text)
        };
        assert_eq!(parts(&[&format!("{long}\n")]), ("PPF".to_owned(), 2 * LONGEST + 5));
        assert_eq!(parts(&[&long, "yz\n"]), ("PPF".to_owned(), 2 * LONGEST + 7));
        assert_eq!(parts(&[&long]), ("PPP".to_owned(), 2 * LONGEST + 5));
        // Just as long as a part: the end comes by itself.
        let one = "x".repeat(LONGEST);
        assert_eq!(parts(&[&one, "\n"]), ("PF".to_owned(), LONGEST));
        assert_eq!(parts(&[&format!("{one}\n")]), ("F".to_owned(), LONGEST));
        for size in [1, 7, 4096, 5000] {
            let chunks: Vec<String> =
                long.as_bytes().chunks(size).map(|chunk| String::from_utf8(chunk.to_vec()).unwrap()).collect();
            let mut chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
            chunks.push("\n");
            assert_eq!(parts(&chunks).1, 2 * LONGEST + 5, "in chunks of {size}");
        }
    }
}
