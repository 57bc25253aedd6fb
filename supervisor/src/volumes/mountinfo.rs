//! What is mounted below a folder.

use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::{Error, Result};

const TABLE: &str = "/proc/self/mountinfo";

/// Mount points at or below `folder`, in the order in which they can be unmounted: the last mounted first.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    static READINGS: Readings = Readings::new();
    let text = READINGS.after_now(|| std::fs::read(TABLE));
    let doing = || format!("read {TABLE}");
    match text.as_ref() {
        Ok(text) => Ok(below_in(text, folder)),
        // It is shared, and an io::Error cannot be copied.
        Err(error) => Err(Error::os(
            doing(),
            error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
        )),
    }
}

type Text = Arc<io::Result<Vec<u8>>>;

/// Readings of the table that callers share: with 1,000 pods one takes the kernel 9 ms, and pods go in crowds. Nobody gets
/// one that began before they asked.
struct Readings {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// Readings that have begun.
    begun: u64,
    is_reading: bool,
    /// Callers that wait for one.
    waiting: usize,
    /// The last one and its number, while somebody waits who may want it.
    last: Option<(u64, Text)>,
}

impl Readings {
    const fn new() -> Self {
        let state = State { begun: 0, is_reading: false, waiting: 0, last: None };
        Self { state: Mutex::new(state), ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after_now(&self, read: impl FnOnce() -> io::Result<Vec<u8>>) -> Text {
        let mut state = self.lock();
        let wanted = state.begun + 1;
        while state.is_reading {
            state.waiting += 1;
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
            let last = state.last.as_ref().filter(|(number, _)| *number >= wanted).map(|(_, text)| text.clone());
            if state.waiting == 0 {
                state.last = None;
            }
            if let Some(text) = last {
                return text;
            }
        }
        state.begun += 1;
        state.is_reading = true;
        let number = state.begun;
        drop(state);
        let text: Text = Arc::new(read());
        let mut state = self.lock();
        state.is_reading = false;
        state.last = (state.waiting > 0).then(|| (number, text.clone()));
        self.ended.notify_all();
        text
    }
}

fn below_in(table: &[u8], folder: &Path) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    // The fifth field is the mount point (proc_pid_mountinfo(5)). What cannot be below is not decoded: a node has thousands.
    let wanted = folder.as_os_str().as_bytes();
    let prefix = wanted.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\\')).next().unwrap_or(b"");
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = fields.filter(|field| field.starts_with(prefix)).map(decode);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    found.reverse();
    found
}

/// Space, tab, newline and backslash come as `\040` and so on.
fn decode(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &behind[3..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mounted_comes_first_and_neighbours_do_not() {
        let table = b"22 1 0:20 / /run rw - tmpfs tmpfs rw\n\
            30 22 0:40 / /run/f\\040d/pods/a rw shared:1 - tmpfs tmpfs rw\n\
            31 30 0:41 / /run/f\\040d/pods/a/x rw - tmpfs tmpfs rw\n\
            32 22 0:42 / /run/f\\040d/pods/ab rw - tmpfs tmpfs rw\n";
        let found = below_in(table, Path::new("/run/f d/pods/a"));
        assert_eq!(found, [PathBuf::from("/run/f d/pods/a/x"), PathBuf::from("/run/f d/pods/a")]);
    }

    #[test]
    fn a_crowd_shares_the_reading_that_begins_after_it_came() {
        let readings = Readings::new();
        let gate = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                readings.after_now(|| {
                    gate.wait();
                    Ok(b"first".to_vec())
                })
            });
            while !readings.lock().is_reading {
                std::thread::yield_now();
            }
            let crowd: Vec<_> =
                (0..10).map(|_| scope.spawn(|| readings.after_now(|| Ok(b"second".to_vec())))).collect();
            while readings.lock().waiting < 10 {
                std::thread::yield_now();
            }
            gate.wait();
            let text = |text: Text| text.as_ref().as_ref().unwrap().clone();
            assert_eq!(text(first.join().unwrap()), b"first");
            for one in crowd {
                assert_eq!(text(one.join().unwrap()), b"second");
            }
        });
        let state = readings.lock();
        assert_eq!(state.begun, 2);
        assert!(state.last.is_none() && state.waiting == 0 && !state.is_reading);
    }

    #[test]
    fn a_failure_is_told_with_its_number() {
        let failed = Readings::new().after_now(|| Err(io::Error::from_raw_os_error(13)));
        assert_eq!(failed.as_ref().as_ref().unwrap_err().raw_os_error(), Some(13));
    }
}
