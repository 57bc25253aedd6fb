//! Where a reader is in a log.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{Age, LogFile, Place, list};
use super::joiner::Joiner;
use super::line::{Entry, parse};
use super::tail::start_of_last;
use crate::scheduler::{LogLine, LogRequest, Stream};

/// Bytes that are read at once.
const BLOCK: usize = 64 << 10;

/// No entry has so many bytes; more without a newline is damage.
const MAX_ENTRY: usize = 1 << 20;

/// Which of a container's attempts is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The last one and, when following, those after it.
    Last,
    /// The one before the last, alone.
    Previous,
    /// This one alone; it may have no file yet.
    Only(u32),
}

/// What a step has brought.
#[derive(Debug)]
pub(super) enum Step {
    /// Lines, perhaps none: go on.
    Lines(Vec<LogLine>),
    /// All that is there has been read; with it, parts of lines whose ends are not.
    End(Vec<LogLine>),
}

/// A reader's place in a log. Its calls block.
#[derive(Debug)]
pub(super) struct Cursor {
    folder: PathBuf,
    request: LogRequest,
    attempt: Attempt,
    /// Without following: the attempt that is read, and the inode of the last file there was.
    until: Option<(u32, u64)>,
    file: Option<Open>,
    /// Files up to here were read, or were there before the one that is being read.
    floor: Option<Place>,
    /// Bytes of an entry whose end has not been read.
    rest: Vec<u8>,
    joiner: Joiner,
    /// The time of the last entry, for what has none.
    last: SystemTime,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    place: Place,
    /// Bytes that may be read: without following, what was there at the beginning.
    left: u64,
    /// Whether a later file was seen: this one does not grow any more.
    is_superseded: bool,
}

impl Cursor {
    /// At the beginning of what is asked for: of the last attempt, or the one before it.
    pub(super) fn new(folder: &Path, request: LogRequest, attempt: Attempt) -> io::Result<Self> {
        let mut cursor = Self {
            folder: folder.to_owned(),
            request,
            attempt,
            until: None,
            file: None,
            floor: None,
            rest: Vec::new(),
            joiner: Joiner::default(),
            last: SystemTime::UNIX_EPOCH,
        };
        // Files may be rotated between the list and the opening: then once more.
        while !cursor.seek_start()? {}
        Ok(cursor)
    }

    /// Opens the first file; false if it was another one by then.
    fn seek_start(&mut self) -> io::Result<bool> {
        let files = list(&self.folder)?;
        let mut attempts: Vec<u32> = files.iter().map(|file| file.place.attempt).collect();
        attempts.dedup();
        let wanted = match self.attempt {
            Attempt::Last => attempts.last().copied(),
            Attempt::Previous => {
                let before = attempts.len().checked_sub(2).map(|index| attempts[index]);
                Some(before.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "there was no attempt before"))?)
            }
            Attempt::Only(wanted) => {
                // Files of attempts before are none of its.
                self.floor = Some(Place { attempt: wanted, age: Age::Rotated(String::new()) });
                attempts.contains(&wanted).then_some(wanted)
            }
        };
        let Some(attempt) = wanted else { return Ok(true) };
        let files: Vec<&LogFile> = files.iter().filter(|file| file.place.attempt == attempt).collect();
        if !self.request.follow {
            self.until = files.last().map(|last| (attempt, last.inode));
        }
        let mut left = self.request.tail;
        for (index, file) in files.iter().enumerate().rev() {
            let Some(mut open) = Open::new(file, self.request.follow)? else { return Ok(false) };
            let mut is_first = index == 0;
            if let Some(lines) = left {
                let (offset, found) = start_of_last(&open.file, file.length, lines)?;
                open.file.seek(SeekFrom::Start(offset))?;
                open.left = open.left.saturating_sub(offset);
                left = Some(lines - found);
                // Else a line may begin at the end of the file before.
                is_first |= offset > 0;
            }
            // Files of before that time have no line of interest.
            let is_old = |file: &&LogFile| self.request.since.is_some_and(|since| file.modified < since);
            if is_first || files.get(index.wrapping_sub(1)).is_some_and(is_old) {
                self.set(open, files.get(index.wrapping_sub(1)).map(|file| &file.place));
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn set(&mut self, open: Open, before: Option<&Place>) {
        // A file that is being written to becomes a rotated one; those that were there are older.
        self.floor = match (&open.place.age, before) {
            (Age::Rotated(_), _) => Some(open.place.clone()),
            (Age::Current, Some(before)) => Some(before.clone()),
            (Age::Current, None) => Some(Place { attempt: open.place.attempt, age: Age::Rotated(String::new()) }),
        };
        self.file = Some(open);
    }

    /// Reads on.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        loop {
            let Some(open) = &mut self.file else {
                if !self.go_on()? {
                    return Ok(Step::End(self.joiner.flush()));
                }
                continue;
            };
            let before = self.rest.len();
            let wanted = open.left.min(BLOCK as u64);
            let count = (&mut open.file).take(wanted).read_to_end(&mut self.rest)? as u64;
            open.left -= count;
            if count > 0 {
                return Ok(Step::Lines(self.take_lines(before)));
            }
            if open.left == 0 {
                // Without following: this file to the length it had.
                open.is_superseded = true;
            }
            if open.is_superseded {
                // Half an entry, as a power cut leaves it.
                if !self.rest.is_empty() {
                    self.rest.push(b'\n');
                    return Ok(Step::Lines(self.take_lines(0)));
                }
                if !self.go_on()? {
                    return Ok(Step::End(self.joiner.flush()));
                }
            } else if self.next()?.is_some() {
                // What was written between the read and the list is still to come.
                if let Some(open) = &mut self.file {
                    open.is_superseded = true;
                }
            } else {
                self.let_go_of_removed()?;
                return Ok(Step::End(self.joiner.flush()));
            }
        }
    }

    /// Closes a file that was removed: while it is open its folder stays in the kernel, and nobody is told that it is gone, too.
    fn let_go_of_removed(&mut self) -> io::Result<()> {
        if let Some(open) = &self.file
            && open.file.metadata()?.nlink() == 0
        {
            self.file = None;
        }
        Ok(())
    }

    /// Goes to the next file, if there is one.
    fn go_on(&mut self) -> io::Result<bool> {
        while let Some((file, before)) = self.next()? {
            if let Some(open) = Open::new(&file, self.request.follow)? {
                self.set(open, before.as_ref());
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The file behind the one that is read, and the place of the one before it.
    fn next(&self) -> io::Result<Option<(LogFile, Option<Place>)>> {
        let files = match list(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let open = self.file.as_ref();
        let here = open.and_then(|open| files.iter().position(|file| file.inode == open.inode));
        let next = match here {
            Some(index) => index + 1,
            // Rotated away, or nothing was read yet.
            None => files
                .iter()
                .position(|file| self.floor.as_ref().is_none_or(|floor| file.place > *floor))
                .unwrap_or(files.len()),
        };
        let Some(file) = files.get(next) else { return Ok(None) };
        let is_behind = |(attempt, inode)| file.place.attempt > attempt || open.is_some_and(|open| open.inode == inode);
        let is_of_another = matches!(self.attempt, Attempt::Only(only) if file.place.attempt != only);
        if is_of_another || self.until.is_some_and(is_behind) {
            return Ok(None);
        }
        let before = next.checked_sub(1).map(|index| files[index].place.clone());
        let before = before.filter(|before| before.attempt == file.place.attempt);
        Ok(Some((file.clone(), before)))
    }

    /// Takes whole entries out of what was read; the first `looked_at` bytes have no newline.
    fn take_lines(&mut self, looked_at: usize) -> Vec<LogLine> {
        if self.rest.len() > MAX_ENTRY {
            self.rest.push(b'\n');
        }
        let Some(end) = self.rest[looked_at..].iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.rest.split_off(looked_at + end + 1);
        let entries = std::mem::replace(&mut self.rest, rest);
        let mut lines = Vec::new();
        for text in entries[..entries.len() - 1].split(|byte| *byte == b'\n') {
            // What is of no known form is shown as it is; a disk that lost its power leaves zeros, which nobody wrote.
            let raw = || Entry { at: self.last, stream: Stream::Stdout, is_full: true, text };
            let entry = match parse(text) {
                Some(entry) => entry,
                None if text.iter().all(|byte| *byte == 0) => continue,
                None => raw(),
            };
            self.last = entry.at;
            let Some(line) = self.joiner.push(&entry) else { continue };
            if self.request.since.is_none_or(|since| line.at >= since) {
                lines.push(line);
            }
        }
        lines
    }
}

impl Open {
    /// Opens a file that was listed; none if another one has its name by now, or none.
    fn new(listed: &LogFile, follow: bool) -> io::Result<Option<Self>> {
        let file = match File::open(&listed.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_it = file.metadata()?.ino() == listed.inode;
        let left = if follow { u64::MAX } else { listed.length };
        Ok(is_it.then(|| Self { file, inode: listed.inode, place: listed.place.clone(), left, is_superseded: false }))
    }
}
