//! `cri-log:///PATH?max-size=BYTES&max-files=N&delay=MILLISECONDS`: output as lines of Kubernetes' log format, in files that are rotated.
//!
//! ```text
//!  container ─fifo─▶ writer: one thread for all of the shim ─▶ lines: split, stamped ─▶ file: written, rotated
//! ```
//!
//! The fifo is in the container's bundle, and the container's end of it is open for reading, too: so it outlives this shim,
//! what was written meanwhile waits in it (64 KiB), and the shim that adopts the container reads on.
//!
//! A disk that is full loses lines, counted; one that is slow holds up the writer's thread, and no request.

mod file;
mod lines;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use writer::{Log, dropped};

use crate::error::{Error, Result};

/// As the kubelet's defaults.
const MAX_BYTES: u64 = 10 << 20;
const MAX_FILES: u32 = 5;
/// A file that is smaller would hold a line or none.
const LEAST_BYTES: u64 = 1 << 10;
/// A prompt is seen after so long, and its memory given back.
const DELAY: Duration = Duration::from_secs(1);

/// What the URI says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) path: PathBuf,
    /// A file of more bytes is rotated.
    pub(crate) max_bytes: u64,
    /// Files that are kept, with the one that is written.
    pub(crate) max_files: u32,
    /// A line that does not end is written as a part after so long.
    pub(crate) delay: Duration,
}

impl Form {
    /// What stands behind `cri-log://`. The path is taken as it is; a `?` ends it.
    ///
    /// # Errors
    ///
    /// A path that is not absolute; another parameter, or no number.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("the stream cri-log://{text}: {why}"));
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(wrong("a log's path is absolute and names a file (cri-log:///var/log/x)"));
        }
        let mut form = Self { path: path.into(), max_bytes: MAX_BYTES, max_files: MAX_FILES, delay: DELAY };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let number = |text: &str| text.parse::<u64>().map_err(|_| wrong(&format!("{pair} has no number")));
            match pair.split_once('=') {
                Some(("max-size", bytes)) => form.max_bytes = number(bytes)?.max(LEAST_BYTES),
                Some(("max-files", files)) => {
                    form.max_files = u32::try_from(number(files)?).unwrap_or(u32::MAX).max(1);
                }
                Some(("delay", milliseconds)) => form.delay = Duration::from_millis(number(milliseconds)?),
                _ => {
                    let known = "there are max-size, max-files and delay";
                    return Err(wrong(&format!("the parameter {pair} is unknown: {known}")));
                }
            }
        }
        Ok(form)
    }
}

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn uris() {
        let form = Form::parse("/var/log/a b/0.log?max-size=2048&max-files=3").unwrap();
        assert_eq!((form.path.to_str(), form.max_bytes, form.max_files), (Some("/var/log/a b/0.log"), 2048, 3));
        let form = Form::parse("/x").unwrap();
        assert_eq!((form.max_bytes, form.max_files, form.delay.as_millis()), (10 << 20, 5, 1000));
        assert_eq!(Form::parse("/x?delay=5").unwrap().delay.as_millis(), 5);
        assert_eq!(Form::parse("/x?max-files=0").unwrap().max_files, 1);
        for wrong in ["x", "/x/", "", "/x?max-size=a", "/x?delay=-1", "/x?mode=1", "/x?max-size"] {
            let error = Form::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("cri-log://{wrong}")), "{error}");
        }
    }
}
