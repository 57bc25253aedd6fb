//! The container's program: HOME, the working directory, the look-up, the end of init.

use flint_sys::{Errno, Fd, file, process, signal};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::PathBuffer;
use crate::plan::{Range, Text};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `_NSIG`
const LAST_SIGNAL: i32 = 64;
/// Longest line of /etc/passwd that is looked at, and most of the file that is read.
const PASSWD_LINE: usize = 1024;
const PASSWD_MOST: usize = 1 << 20;

impl Init<'_> {
    /// Changes to the folder without following a link of procfs (/proc/self/fd/7), then asks the kernel whether it
    /// can be reached from the root: a path through a leaked descriptor cannot (CVE-2024-21626). Changed to early, with
    /// all of root's rights, it is not changed to again: the user may lack the right to enter it, as under runc.
    pub(crate) fn working_directory(&mut self, path: Text, early: bool) -> Outcome {
        if self.in_working_directory {
            return reachable();
        }
        let folder = match self.open_inside(self.text(path)?, libc::O_PATH | libc::O_DIRECTORY, 0) {
            Err(Errno(libc::EACCES)) if early => return Ok(()),
            Err(Errno(libc::ELOOP)) => return Err(Failure::new(Operation::OutsideRoot, libc::ELOOP)),
            result => result.at(Operation::Chdir)?,
        };
        let changed = file::fchdir(folder);
        let _ = file::close(folder);
        match changed {
            Err(Errno(libc::EACCES)) if early => return Ok(()),
            result => result.at(Operation::Chdir)?,
        }
        self.in_working_directory = true;
        reachable()
    }

    /// As execvpe(3): a name with a slash is a path; else the first executable file in PATH. A file that may
    /// not be executed is remembered, so that the error says so rather than "not found".
    pub(crate) fn find_program(&mut self, name: Text, path: Text) -> Outcome {
        let name = self.text(name)?.to_bytes();
        if name.contains(&b'/') {
            self.program.clear();
            self.program.push(name)?;
            return executable(&self.program).at(Operation::FindProgram);
        }
        let folders = match self.optional_text(path)? {
            Some(path) => path.to_bytes(),
            None => DEFAULT_PATH,
        };
        let mut error = libc::ENOENT;
        for folder in folders.split(|&byte| byte == b':') {
            self.program.clear();
            // An empty entry is the current directory.
            self.program.push(if folder.is_empty() { b"." } else { folder })?;
            self.program.push(b"/")?;
            self.program.push(name)?;
            match executable(&self.program) {
                Ok(()) => return Ok(()),
                Err(Errno(libc::EACCES)) => error = libc::EACCES,
                Err(_) => {}
            }
        }
        Err(Failure::new(Operation::FindProgram, error))
    }

    /// HOME from the container's /etc/passwd, by number (CVE-2016-3697: a name is never taken for a user), or `/`.
    pub(crate) fn find_home(&mut self, uid: u32, entry: u32) -> Outcome {
        self.home.clear();
        self.home.push(b"HOME=")?;
        if !self.home_from_passwd(uid)? {
            self.home.clear();
            self.home.push(b"HOME=/")?;
        }
        let pointer = self.home.as_c_str().as_ptr();
        match self.pointers.get_mut(entry as usize) {
            Some(place) => *place = pointer,
            None => return Err(Failure::new(Operation::Plan, libc::EFAULT)),
        }
        Ok(())
    }

    /// Reads the file line by line in a fixed buffer. What is no regular file is not read: it could block. No link leads out
    /// of the root, by a descriptor either.
    fn home_from_passwd(&mut self, uid: u32) -> Outcome<bool> {
        let flags = libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK;
        let Ok(fd) = self.open_inside(c"/etc/passwd", flags, 0) else { return Ok(false) };
        let mut found = false;
        if file::stat(fd, c"").is_ok_and(|stat| stat.kind() == libc::S_IFREG) {
            let mut line = [0u8; PASSWD_LINE];
            let mut length = 0usize;
            let mut chunk = [0u8; 4096];
            let mut total = 0usize;
            'reading: while let Ok(count) = file::read(fd, &mut chunk) {
                total = total.wrapping_add(count);
                if count == 0 || total > PASSWD_MOST {
                    break;
                }
                for &byte in chunk.get(..count).unwrap_or(&[]) {
                    if byte != b'\n' {
                        if let Some(place) = line.get_mut(length) {
                            *place = byte;
                        }
                        length = length.saturating_add(1);
                        continue;
                    }
                    found = self.take_home(line.get(..length).unwrap_or(&[]), uid)?;
                    length = 0;
                    if found {
                        break 'reading;
                    }
                }
            }
            if !found {
                found = self.take_home(line.get(..length).unwrap_or(&[]), uid)?;
            }
        }
        let _ = file::close(fd);
        Ok(found)
    }

    /// name:password:uid:gid:gecos:home:shell (passwd(5)).
    fn take_home(&mut self, line: &[u8], uid: u32) -> Outcome<bool> {
        let mut fields = line.split(|&byte| byte == b':');
        let (Some(id), Some(home)) = (fields.nth(2), fields.nth(2)) else { return Ok(false) };
        if number(id) != Some(uid) || home.is_empty() {
            return Ok(false);
        }
        self.home.push(home)?;
        Ok(true)
    }

    /// The end of init. What the maker ignores would stay ignored after exec, as would its mask (trap 3): std's
    /// runtime ignores SIGPIPE, nohup SIGHUP, and callers what they like.
    pub(crate) fn execute(&mut self, arguments: Range, environment: Range) -> Outcome {
        self.announce()?;
        for signal in 1..=LAST_SIGNAL {
            // SIGKILL and SIGSTOP cannot be set.
            let _ = signal::set_default(signal);
        }
        signal::set_mask(0).at(Operation::Signals)?;
        let Errno(number) =
            process::execve(self.program.as_c_str(), self.pointers(arguments), self.pointers(environment));
        Err(Failure::new(Operation::Execve, number))
    }
}

/// Whether the current directory lies below the root.
fn reachable() -> Outcome {
    match file::current_directory_is_reachable() {
        Ok(true) => Ok(()),
        Ok(false) | Err(Errno(libc::ENOENT)) => Err(Failure::new(Operation::OutsideRoot, libc::ENOENT)),
        Err(Errno(number)) => Err(Failure::new(Operation::Chdir, number)),
    }
}

/// Whether the path is a file that may be executed.
fn executable(path: &PathBuffer) -> flint_sys::Result<()> {
    file::may_execute(path.as_c_str())?;
    // Links were followed by the check; a folder may be "executed" too, so its type is asked for.
    let fd = file::openat(Fd::CWD, path.as_c_str(), libc::O_PATH, 0)?;
    let folder = file::stat(fd, c"").is_ok_and(|stat| stat.is_folder());
    let _ = file::close(fd);
    if folder { Err(Errno(libc::EACCES)) } else { Ok(()) }
}

/// A decimal number and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    let mut number = 0u32;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u32::from(digit.wrapping_sub(b'0')))?;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn ids_are_numbers_only() {
        assert_eq!(number(b"1000"), Some(1000));
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        for wrong in [&b""[..], b"4294967296", b"-1", b"+1", b"1x", b" 1"] {
            assert_eq!(number(wrong), None);
        }
    }
}
