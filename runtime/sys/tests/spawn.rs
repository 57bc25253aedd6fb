//! What [`flint_sys::process::spawn`] promises where panics unwind, as they do in every test.

use std::convert::Infallible;
use std::io::{PipeWriter, Read, Write};

use flint_sys::process::{self, Clone, Ended};

/// Something of the maker's whose end the world sees.
struct Told<'a>(&'a PipeWriter);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let _ = self.0.write_all(b"dropped");
    }
}

#[test]
fn a_child_that_panics_runs_no_destructor_of_its_maker() {
    // The hook prints, and another thread may hold what it wants at the moment of the clone.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let told = Told(&writer);
    let child = |()| -> Infallible { panic!("of the child") };
    let child = process::spawn(Clone { pidfd: true, ..Clone::default() }, (), child).unwrap();
    let ended = process::wait(child.pidfd.unwrap()).unwrap();
    std::mem::forget(told);
    drop(writer);
    let mut dropped = String::new();
    reader.read_to_string(&mut dropped).unwrap();
    assert_eq!((ended, dropped.as_str()), (Ended::Exited(101), ""));
}

/// Who has ended and is traced by another is seen by that one first: whoever must not wait for it can ask.
#[test]
fn a_traced_child_that_has_ended_is_reaped_when_its_tracer_is_gone() {
    fn rest(_: ()) -> Infallible {
        loop {
            std::thread::park();
        }
    }
    let child = process::spawn(Clone { pidfd: true, ..Clone::default() }, (), rest).unwrap();
    let (child, pidfd) = (child.pid, child.pidfd.unwrap());
    assert_eq!(process::try_wait(pidfd), Ok(None), "it runs");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let trace = move |mut told: PipeWriter| -> Infallible {
        // SAFETY: PTRACE_SEIZE takes no pointers.
        let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, child, 0, 0) };
        let _ = told.write_all(&[u8::from(done == 0)]);
        rest(())
    };
    let tracer = process::spawn(Clone { pidfd: true, ..Clone::default() }, writer, trace).unwrap();
    let mut told = [0];
    reader.read_exact(&mut told).unwrap();
    assert_eq!(told, [1], "it is traced");
    // SAFETY: a number for a number.
    let kill = |pid| assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    kill(child);
    let mut poll = libc::pollfd { fd: pidfd.0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives as long as the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 60_000) }, 1, "it has ended");
    assert_eq!(process::try_wait(pidfd), Ok(None), "its tracer comes first");
    kill(tracer.pid);
    process::wait(tracer.pidfd.unwrap()).unwrap();
    assert_eq!(process::try_wait(pidfd), Ok(Some(Ended::Signaled(libc::SIGKILL))));
}
