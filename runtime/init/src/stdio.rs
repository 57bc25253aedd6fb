//! Standard input, output and error.

use flint_sys::{Errno, Fd, file};

use crate::executor::Init;
use crate::failure::{At, Operation, Outcome};
use crate::mask::is_null_device;

/// Puts the maker's choice at 0, 1 and 2; whose numbers are above these, so that none is lost on the way.
pub(crate) fn take(stdio: Option<[Fd; 3]>) -> Outcome {
    let Some([input, output, errors]) = stdio else { return Ok(()) };
    for (from, to) in [(input, Fd(0)), (output, Fd(1)), (errors, Fd(2))] {
        file::duplicate_to(from, to).at(Operation::Stdio)?;
    }
    Ok(())
}

impl Init<'_> {
    /// The user must be able to open /dev/stdout again (/proc/self/fd/1 checks the file's owner). Files that
    /// cannot change owner stay as they are, as with runc. Without `files`, what a shell redirects to and its terminal stay
    /// whose they are: runc gives the program pipes of its own there.
    pub(crate) fn own_stdio(&mut self, uid: u32, files: bool) -> Outcome {
        for fd in [Fd(0), Fd(1), Fd(2)] {
            let stat = match file::stat(fd, c"") {
                // Closed by the caller: nothing to give away.
                Err(Errno(libc::EBADF)) => continue,
                result => result.at(Operation::Stat)?,
            };
            if is_null_device(fd)? {
                self.reopen_null(fd)?;
            } else if stat.uid != uid && (files || matches!(stat.kind(), libc::S_IFIFO | libc::S_IFSOCK)) {
                match file::chown(fd, uid, u32::MAX) {
                    Ok(()) | Err(Errno(libc::EINVAL | libc::EPERM | libc::EROFS)) => {}
                    result => result.at(Operation::Chown)?,
                }
            }
        }
        Ok(())
    }

    /// A file of the host must not be left in the container: not even its null device, whose owner and mode a
    /// container could change through the descriptor.
    fn reopen_null(&mut self, fd: Fd) -> Outcome {
        let Ok(null) = self.open_inside(c"/dev/null", libc::O_RDWR | libc::O_NOFOLLOW, 0) else {
            // A container without devices: the host's stays.
            return Ok(());
        };
        let result = if is_null_device(null)? { file::duplicate_to(null, fd).at(Operation::Open) } else { Ok(()) };
        let _ = file::close(null);
        result
    }
}
