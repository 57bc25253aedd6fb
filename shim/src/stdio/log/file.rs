//! A log's file: appended to, rotated when it is full, and never waited for when it cannot be written.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::Form;
use super::lines::Sink;
use crate::{clock, log};

/// Between attempts to open a file again that could not be.
const AGAIN: Duration = Duration::from_secs(1);
/// Names differ by so much at least.
const NANOSECOND: Duration = Duration::from_nanos(1);
/// What is gathered before it is written, in bytes.
const GATHERED: usize = 32 << 10;

/// Lines that were lost, of all logs of this shim.
pub(super) static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A log that several streams write to.
#[derive(Debug)]
pub(super) struct LogFile {
    form: Form,
    file: Option<File>,
    /// Bytes in the file: whole lines.
    written: u64,
    /// With more it is rotated.
    limit: u64,
    tried: Option<Instant>,
    /// Lines that were lost since it could last be written.
    lost: u64,
    /// The last time that a file was named by.
    last: Option<SystemTime>,
}

/// A log, and what is to be written to it; the buffer is lent by whoever has many of them.
pub(super) struct Writing<'a> {
    pub(super) file: &'a mut LogFile,
    pub(super) gathered: &'a mut Vec<u8>,
}

impl Sink for Writing<'_> {
    fn line(&mut self, head: &[&[u8]], text: &[u8]) {
        let length = head.iter().map(|part| part.len()).sum::<usize>() + text.len() + 1;
        let before = self.file.written + self.gathered.len() as u64;
        if before != 0 && before + length as u64 > self.file.limit {
            self.write();
            self.file.rotate();
        } else if self.gathered.len() + length > GATHERED {
            self.write();
        }
        for part in head {
            self.gathered.extend_from_slice(part);
        }
        self.gathered.extend_from_slice(text);
        self.gathered.push(b'\n');
    }
}

impl Writing<'_> {
    /// Writes what was gathered.
    pub(super) fn write(&mut self) {
        if !self.gathered.is_empty() {
            self.file.append(self.gathered);
            self.gathered.clear();
        }
    }
}

impl LogFile {
    /// Opens it, behind what is in it already.
    pub(super) fn new(form: Form) -> Self {
        let limit = form.max_bytes;
        let mut log = Self { form, file: None, written: 0, limit, tried: None, lost: 0, last: None };
        log.open();
        log
    }

    fn open(&mut self) {
        if self.file.is_some() || self.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
            return;
        }
        self.tried = Some(Instant::now());
        match open(&self.form.path) {
            Ok((file, length)) => (self.file, self.written) = (Some(file), length),
            Err(error) => self.complain(&error),
        }
    }

    /// Once, until it can be written again.
    fn complain(&self, error: &std::io::Error) {
        if self.lost == 0 {
            log::warn(&format!("lines are lost: write the log {}: {error}", self.form.path.display()));
        }
    }

    fn append(&mut self, lines: &[u8]) {
        self.open();
        let Some(file) = &mut self.file else { return self.lose(lines) };
        match file.write_all(lines) {
            Ok(()) => {
                self.written += lines.len() as u64;
                if std::mem::take(&mut self.lost) != 0 {
                    log::warn(&format!("the log {} can be written again", self.form.path.display()));
                }
            }
            Err(error) => {
                // Part of a line is none.
                let _ = file.set_len(self.written);
                self.complain(&error);
                self.lose(lines);
            }
        }
    }

    fn lose(&mut self, lines: &[u8]) {
        let count = lines.split_inclusive(|&byte| byte == b'\n').count() as u64;
        self.lost += count;
        DROPPED.fetch_add(count, Ordering::Relaxed);
    }

    /// The file gets its time's name, which a reader that has it open does not notice, and a new one takes its place.
    fn rotate(&mut self) {
        self.file = None;
        self.tried = None;
        let moved = if self.form.max_files > 1 {
            self.rotated_name().and_then(|name| std::fs::rename(&self.form.path, name))
        } else {
            std::fs::remove_file(&self.form.path)
        };
        self.limit = self.form.max_bytes;
        if let Err(error) = moved {
            // It goes on growing for a while: better than lost lines.
            log::warn(&format!("rotate the log {}: {error}", self.form.path.display()));
            self.limit += self.written;
        }
        self.written = 0;
        self.open();
        remove_old(&self.form);
    }

    /// Sorts behind all that were given before, whatever the clock does.
    fn rotated_name(&mut self) -> std::io::Result<PathBuf> {
        // Those that another shim has named count, too.
        let last = self.last.or_else(|| last_rotated(&self.form.path));
        let mut time = last.map_or_else(SystemTime::now, |last| SystemTime::now().max(last + NANOSECOND));
        loop {
            let mut name = self.form.path.clone().into_os_string();
            name.push(format!(".{}", clock::compact(time)));
            if !Path::new(&name).try_exists()? {
                self.last = Some(time);
                return Ok(name.into());
            }
            time += NANOSECOND;
        }
    }
}

/// The file at a path, to append to, and its length.
fn open(path: &Path) -> std::io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true).mode(0o640).custom_flags(nix::libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok((file, 0));
    }
    // A power cut may have left part of a line.
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok((file, length));
    }
    file.write_all(b"\n")?;
    Ok((file, length + 1))
}

/// Rotated files of a log, the oldest first.
fn rotated(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let is_time =
        |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.');
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.file_name();
        let rest = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        if rest.is_some_and(is_time) {
            found.push(folder.join(file));
        }
    }
    found.sort();
    Ok(found)
}

/// The last time that a rotated file of a log is named by.
fn last_rotated(path: &Path) -> Option<SystemTime> {
    let head = path.file_name()?.len() + 1;
    let time = |file: PathBuf| clock::from_compact(file.file_name()?.to_str()?.get(head..)?);
    rotated(path).unwrap_or_default().into_iter().filter_map(time).max()
}

fn remove_old(form: &Form) {
    let Ok(files) = rotated(&form.path) else { return };
    let kept = form.max_files.saturating_sub(1) as usize;
    for old in files.iter().take(files.len().saturating_sub(kept)) {
        // Gone already is as good.
        let _ = std::fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Form, LogFile, Writing, rotated};
    use crate::stdio::log::lines::Sink as _;

    fn log(path: &Path, max_bytes: u64, max_files: u32) -> LogFile {
        LogFile::new(Form { path: path.to_owned(), max_bytes, max_files, delay: std::time::Duration::from_secs(1) })
    }

    fn write(file: &mut LogFile, texts: &[String]) {
        let mut gathered = Vec::new();
        let mut writing = Writing { file, gathered: &mut gathered };
        for text in texts {
            writing.line(&[b"T ", b"F "], text.as_bytes());
        }
        writing.write();
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/0.log");
        let mut file = log(&path, 100, 3);
        let texts: Vec<String> = (0..100).map(|number| format!("{number:016}")).collect();
        write(&mut file, &texts);
        // A line has 21 bytes: four to a file.
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&path).lines().count(), 4);
        let old = rotated(&path).unwrap();
        assert_eq!(old.len(), 2);
        let all: Vec<String> = old
            .iter()
            .chain([&path])
            .flat_map(|path| read(path).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let expected: Vec<String> = texts.iter().skip(88).map(|text| format!("T F {text}")).collect();
        assert_eq!(all, expected);
        // One line that is too long for any file has one of its own.
        write(&mut file, &["x".repeat(500)]);
        assert!(read(&path).len() > 500);
        write(&mut file, &["y".to_owned()]);
        assert_eq!(read(&path), "T F y\n");
    }

    #[test]
    fn names_go_on_behind_the_last_one_when_the_clock_was_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(folder.path().join("0.log.29991231-235959.999999999"), "T F before\n").unwrap();
        let texts: Vec<String> = (0..4).map(|number| format!("{number:016}")).collect();
        write(&mut log(&path, 21, 5), &texts);
        let names: Vec<String> = rotated(&path)
            .unwrap()
            .into_iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        let expected = ["29991231-235959.999999999", "30000101-000000.000000000", "30000101-000000.000000001"];
        assert_eq!(names[..3], expected.map(|time| format!("0.log.{time}")));
        assert_eq!(std::fs::read_to_string(folder.path().join(&names[3])).unwrap(), format!("T F {}\n", texts[2]));
    }

    #[test]
    fn a_log_goes_on_behind_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, "T F whole\nT F bro").unwrap();
        write(&mut log(&path, 1000, 3), &["next".to_owned()]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "T F whole\nT F bro\nT F next\n");
    }

    #[test]
    fn one_file_alone_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        write(&mut log(&path, 50, 1), &["a".repeat(40), "b".repeat(40)]);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("T F b"));
        assert!(rotated(&path).unwrap().is_empty());
    }
}
