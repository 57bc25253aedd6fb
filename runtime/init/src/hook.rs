//! Hooks in the container's namespaces: createContainer before the root is changed, startContainer after.

use core::convert::Infallible;
use core::ffi::c_char;

use flint_sys::process::{self, Clone, Ended};
use flint_sys::{Errno, Fd, file, signal, socket};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::{Hook, HookStage, Slot};
use crate::protocol::{self, TEXT};

/// What a hook's process needs.
#[derive(Clone, Copy)]
struct HookProcess<'a> {
    path: &'a core::ffi::CStr,
    arguments: &'a [*const c_char],
    environment: &'a [*const c_char],
    /// Standard input, output and error.
    stdio: [Fd; 3],
    folder: Option<Fd>,
}

impl Init<'_> {
    /// Runs a hook and waits for it. Its output goes to memory, and to the host if the hook fails: init's own stdio
    /// is the container's. createContainer hooks start in the container's root, as under runc.
    pub(crate) fn run_hook(&mut self, hook: &Hook) -> Outcome {
        let state = self.slot(hook.state)?;
        file::rewind(state).at(Operation::Open)?;
        let output = file::memory_file(c"flint-hook-output").at(Operation::Open)?;
        let process = HookProcess {
            path: self.text(hook.path)?,
            arguments: self.pointers(hook.arguments),
            environment: self.pointers(hook.environment),
            stdio: [state, self.output_of(hook.stdout, output)?, self.output_of(hook.stderr, output)?],
            folder: if hook.stage == HookStage::CreateContainer { self.root } else { None },
        };
        let options = Clone { pidfd: true, ..Clone::default() };
        let child = process::spawn(options, process, execute).at(Operation::Clone)?;
        let ended =
            child.pidfd.map_or(Err(Failure::new(Operation::Clone, libc::EBADF)), |pidfd| wait(pidfd, hook.timeout));
        let result = ended.and_then(|ended| match ended {
            Ended::Exited(0) => Ok(()),
            Ended::Exited(code) => Err(Failure::new(Operation::HookExited, code)),
            Ended::Signaled(signal) => Err(Failure::new(Operation::HookSignaled, signal)),
        });
        if result.is_err() {
            self.tell_output(output);
        }
        let _ = file::close(output);
        result
    }

    fn output_of(&self, slot: Option<Slot>, otherwise: Fd) -> Outcome<Fd> {
        slot.map_or(Ok(otherwise), |slot| self.slot(slot))
    }

    /// The beginning of what a hook wrote: worth trying, but no reason to hide the hook's own failure.
    fn tell_output(&self, output: Fd) {
        let mut text = [0u8; TEXT];
        if file::rewind(output).is_ok()
            && let Ok(length @ 1..) = file::read(output, &mut text)
            && let Some(text) = text.get(..length)
        {
            let _ = protocol::send_text(self.channel, text);
        }
    }
}

fn wait(pidfd: Fd, timeout: u32) -> Outcome<Ended> {
    let limit = if timeout == 0 { None } else { Some(timeout) };
    let in_time = socket::wait_readable(pidfd, limit).at(Operation::HookTimedOut)?;
    if !in_time {
        let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
    }
    let ended = process::wait(pidfd).at(Operation::HookExited);
    let _ = file::close(pidfd);
    if in_time { ended } else { Err(Failure::new(Operation::HookTimedOut, timeout as i32)) }
}

/// The hook's process, from the clone to its program. 127 and 126 are the shell's codes for a program that is
/// missing or cannot be executed.
// Never inlined: the check of the linked program finds it by its name.
#[inline(never)]
fn execute(hook: HookProcess<'_>) -> Infallible {
    if let Some(folder) = hook.folder {
        let _ = file::fchdir(folder);
    }
    Init::stdio_from(hook.stdio);
    let _ = signal::set_default(libc::SIGPIPE);
    let _ = signal::set_mask(0);
    let Errno(number) = process::execve(hook.path, hook.arguments, hook.environment);
    process::exit(if number == libc::ENOENT { 127 } else { 126 })
}
