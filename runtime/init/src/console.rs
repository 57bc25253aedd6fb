//! The container's terminal (trap 9).

use flint_sys::{Fd, file, mount, process, socket, terminal};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::{PathBuffer, push_number};
use crate::plan::Slot;

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS_MAGIC: u64 = 0x1cd1;

impl Init<'_> {
    /// Opens a pty of the container's own devpts, sends its master away and takes the other end as stdio.
    pub(crate) fn console(&mut self, socket: Slot, size: (u16, u16), uid: u32, on_console: bool) -> Outcome {
        let master = self.open_master()?;
        terminal::unlock(master).at(Operation::Terminal)?;
        let (columns, rows) = size;
        if columns != 0 && rows != 0 {
            terminal::set_size(master, columns, rows).at(Operation::Terminal)?;
        }
        let peer = terminal::peer(master).at(Operation::Terminal)?;
        // While the capability to do so is there; gid keeps what the devpts mount says.
        file::chown(peer, uid, u32::MAX).at(Operation::Chown)?;
        if on_console {
            self.mount_on_console(peer)?;
        }
        let mut name = PathBuffer::new();
        name.push(b"/dev/pts/")?;
        push_number(&mut name, terminal::number(master).at(Operation::Terminal)?)?;
        socket::send_with_fd(self.slot(socket)?, name.as_c_str().to_bytes(), master).at(Operation::ConsoleSocket)?;
        let _ = file::close(master);
        for stdio in 0..3 {
            file::duplicate_to(peer, Fd(stdio)).at(Operation::Terminal)?;
        }
        file::close(peer).at(Operation::Terminal)
    }

    /// The image may have put anything at this path, so it must prove to lie on a devpts before it is opened
    /// for real, and that what was opened is on it too (CVE-2025-52565).
    fn open_master(&mut self) -> Outcome<Fd> {
        let path = c"/dev/pts/ptmx";
        let place = self.open_inside(path, libc::O_PATH | libc::O_NOFOLLOW, 0).at(Operation::Devpts)?;
        let devpts = file::filesystem_magic(place).at(Operation::Devpts)?;
        let _ = file::close(place);
        if devpts != DEVPTS_MAGIC {
            return Err(Failure::new(Operation::Devpts, libc::ENODEV));
        }
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW;
        let master = self.open_inside(path, flags, 0).at(Operation::Devpts)?;
        if file::filesystem_magic(master).at(Operation::Devpts)? != DEVPTS_MAGIC {
            return Err(Failure::new(Operation::Devpts, libc::ENODEV));
        }
        Ok(master)
    }

    fn mount_on_console(&mut self, peer: Fd) -> Outcome {
        let cover = mount::open_tree(peer, c"", mount::OPEN_TREE_CLONE).at(Operation::OpenSource)?;
        let (target, _) = self.target(c"/dev/console", false, true)?;
        mount::move_mount(cover, target).at(Operation::MoveMount)?;
        let _ = file::close(target);
        let _ = file::close(cover);
        Ok(())
    }

    /// For a hook or a program of its own: stdio from somewhere else, then execve.
    pub(crate) fn stdio_from([input, output, errors]: [Fd; 3]) {
        for (from, to) in [(input, Fd(0)), (output, Fd(1)), (errors, Fd(2))] {
            if file::duplicate_to(from, to).is_err() {
                process::exit(126);
            }
        }
    }
}
