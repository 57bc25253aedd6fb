//! The error log, in the shapes of logrus that runc's callers read.
//!
//! containerd takes the last entry of level `error`; podman reads the whole file as one JSON object, so a
//! failing command writes exactly one line. The file is opened only when there is something to write.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flint_runtime::error::io_text;
use serde::Serialize;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The command failed.
    Error,
    /// It went on, but not quite as asked.
    Warning,
    /// What it does, for those who look for a fault.
    Debug,
}

impl Level {
    /// Of `--log-level`. logrus has more levels; those between ours are the next graver one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => Some(Self::Error),
            "warn" | "warning" | "info" => Some(Self::Warning),
            "debug" | "trace" => Some(Self::Debug),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

/// Where messages go.
#[derive(Debug)]
pub(crate) struct Log {
    /// `--log`; without it, lines go to stderr.
    pub(crate) path: Option<PathBuf>,
    /// `--log-format`
    pub(crate) format: Format,
    /// The least grave level that is written.
    pub(crate) level: Level,
}

impl Default for Log {
    fn default() -> Self {
        Self { path: None, format: Format::Text, level: Level::Warning }
    }
}

impl Log {
    /// The command's failure.
    pub(crate) fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }

    /// Something that did not stop the command.
    pub(crate) fn warning(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// Something for `--debug`; the sentence is only made when it is wanted.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.level >= Level::Debug {
            self.write(Level::Debug, &message());
        }
    }

    /// Nobody is left to be told when stderr or the log cannot be written, so those failures end here.
    fn write(&self, level: Level, message: &str) {
        if level > self.level {
            return;
        }
        let mut stderr = std::io::stderr();
        let line = || line(self.format, level, message, SystemTime::now());
        let Some(path) = &self.path else {
            let told = if self.format == Format::Text && stderr.is_terminal() {
                format!("flint: {}{message}\n", if level == Level::Warning { "warning: " } else { "" })
            } else {
                line()
            };
            let _ = stderr.write_all(told.as_bytes());
            return;
        };
        if let Err(error) = append(path, &line()) {
            let _ = writeln!(stderr, "cannot write the log {}: {}", path.display(), io_text(&error));
        }
        if level <= Level::Warning {
            let _ = writeln!(stderr, "{message}");
        }
    }
}

/// In one write, so that lines of two commands do not mix.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)?.write_all(line.as_bytes())
}

#[derive(Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

/// One line of the log with its end.
pub(crate) fn line(format: Format, level: Level, message: &str, now: SystemTime) -> String {
    let time = rfc3339(now);
    match format {
        Format::Json => {
            let entry = Entry { level: level.name(), msg: message, time: &time };
            // Strings always serialize; an empty line would still be a line.
            serde_json::to_string(&entry).unwrap_or_default() + "\n"
        }
        Format::Text => format!("time=\"{time}\" level={} msg={}\n", level.name(), quote(message)),
    }
}

/// logrus leaves a value bare when all its characters are harmless, and else quotes it as Go's `%q` does.
fn quote(text: &str) -> Cow<'_, str> {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 8);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// Seconds in UTC: `2026-11-23T02:42:57Z`.
fn rfc3339(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn json_lines_have_the_three_keys_of_logrus() {
        let line = line(Format::Json, Level::Error, "exec: \"/x\": no\nway", at(1_795_401_777));
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"exec: \\\"/x\\\": no\\nway\",\"time\":\"2026-11-23T02:42:57Z\"}\n"
        );
    }

    #[test]
    fn text_lines_look_like_runcs() {
        assert_eq!(
            line(Format::Text, Level::Error, "exec: \"/bin/data\": permission denied", at(1_795_401_778)),
            "time=\"2026-11-23T02:42:58Z\" level=error msg=\"exec: \\\"/bin/data\\\": permission denied\"\n"
        );
        assert!(line(Format::Text, Level::Warning, "bare", at(0)).ends_with(" level=warning msg=bare\n"));
        assert!(line(Format::Text, Level::Error, "a\u{1b}[0m", at(0)).ends_with("msg=\"a\\x1b[0m\"\n"));
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(at(seconds)), text);
        }
    }

    #[test]
    fn the_file_is_appended_to_and_only_opened_for_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = Log { path: Some(path.clone()), format: Format::Json, level: Level::Warning };
        log.debug(|| unreachable!("not asked for"));
        assert!(!path.exists());
        log.error("one");
        log.error("two");
        let written = std::fs::read_to_string(&path).expect("a log");
        let messages: Vec<serde_json::Value> =
            written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[1]["msg"], "two");
    }
}
