//! `tmpcopyup`: a tmpfs that starts with what the folder below it held.

use core::ffi::CStr;

use flint_sys::{Errno, Fd, file};

use crate::failure::{At, Failure, Operation, Outcome};

/// Deepest nesting that is copied: each level holds a buffer on the stack.
const DEEPEST: u32 = 64;
/// Bytes of entries read at once, as u64 (the records' alignment).
const ENTRIES: usize = 256;
/// Offset of the name in struct linux_dirent64, and of the record's length.
const NAME: usize = 19;
const LENGTH: usize = 16;

/// Copies the entries of `from` (open as a path) into `to`: folders, files, links, devices, with owner and mode.
pub(crate) fn copy_folder(from: Fd, to: Fd) -> Outcome {
    let from = file::openat(from, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0).at(Operation::CopyUp)?;
    let result = copy_entries(from, to, DEEPEST);
    let _ = file::close(from);
    result
}

fn copy_entries(from: Fd, to: Fd, depth: u32) -> Outcome {
    let Some(depth) = depth.checked_sub(1) else { return Err(Failure::new(Operation::CopyUp, libc::ELOOP)) };
    let mut words = [0u64; ENTRIES];
    loop {
        let length = file::read_folder(from, &mut words).at(Operation::CopyUp)?;
        if length == 0 {
            return Ok(());
        }
        let mut at = 0usize;
        while at < length {
            let mut name = [0u8; 256];
            let record = record(&words, at, &mut name);
            if record == 0 {
                return Err(Failure::new(Operation::CopyUp, libc::EIO));
            }
            at = at.wrapping_add(record);
            let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"");
            if !matches!(name.to_bytes(), b"." | b".." | b"") {
                copy_entry(from, to, name, depth)?;
            }
        }
    }
}

/// Reads the record at byte `at`: its length, and its name into `name`.
fn record(words: &[u64], at: usize, name: &mut [u8; 256]) -> usize {
    let byte = |index: usize| {
        let word = words.get(index / 8).copied().unwrap_or(0);
        word.to_ne_bytes().get(index % 8).copied().unwrap_or(0)
    };
    let length = usize::from(u16::from_ne_bytes([byte(at + LENGTH), byte(at + LENGTH + 1)]));
    let room = length.saturating_sub(NAME).min(255);
    for (index, place) in name.iter_mut().take(room).enumerate() {
        *place = byte(at + NAME + index);
    }
    length
}

fn copy_entry(from: Fd, to: Fd, name: &CStr, depth: u32) -> Outcome {
    let stat = file::stat(from, name).at(Operation::CopyUp)?;
    let mode = stat.mode & 0o7777;
    match stat.kind() {
        libc::S_IFDIR => {
            file::mkdirat(to, name, 0o700).at(Operation::CopyUp)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let inner_from = file::openat(from, name, flags, 0).at(Operation::CopyUp)?;
            let inner_to = file::openat(to, name, flags, 0).at(Operation::CopyUp)?;
            let result = copy_entries(inner_from, inner_to, depth);
            let _ = file::close(inner_from);
            let _ = file::close(inner_to);
            result?;
        }
        libc::S_IFREG => copy_file(from, to, name)?,
        libc::S_IFLNK => {
            let mut target = [0u8; 4096];
            let length =
                file::readlinkat(from, name, target.get_mut(..4095).unwrap_or(&mut [])).at(Operation::CopyUp)?;
            if let Some(end) = target.get_mut(length) {
                *end = 0;
            }
            let target = CStr::from_bytes_until_nul(&target).unwrap_or(c"");
            file::symlinkat(target, to, name).at(Operation::CopyUp)?;
        }
        _ => file::mknodat(to, name, stat.mode, stat.device.0, stat.device.1).at(Operation::CopyUp)?,
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let copy = file::openat(to, name, flags, 0).at(Operation::CopyUp)?;
    let owned = file::chown(copy, stat.uid, stat.gid).at(Operation::CopyUp);
    let _ = file::close(copy);
    owned?;
    // After chown, which clears set-id bits. The tmpfs is not attached yet: nobody can have swapped the name.
    if stat.kind() == libc::S_IFLNK { Ok(()) } else { file::chmodat(to, name, mode).at(Operation::CopyUp) }
}

fn copy_file(from: Fd, to: Fd, name: &CStr) -> Outcome {
    let source =
        file::openat(from, name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0).at(Operation::CopyUp)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let target = file::openat(to, name, flags, 0o600).at(Operation::CopyUp)?;
    let mut buffer = [0u8; 16384];
    let result = loop {
        match file::read(source, &mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) => {
                if let Err(errno) = write_all(target, buffer.get(..count).unwrap_or(&[])) {
                    break Err(errno);
                }
            }
            Err(errno) => break Err(errno),
        }
    };
    let _ = file::close(source);
    let _ = file::close(target);
    result.at(Operation::CopyUp)
}

fn write_all(fd: Fd, mut data: &[u8]) -> flint_sys::Result<()> {
    while !data.is_empty() {
        let written = file::write(fd, data)?;
        if written == 0 {
            return Err(Errno(libc::EIO));
        }
        data = data.get(written..).unwrap_or(&[]);
    }
    Ok(())
}
