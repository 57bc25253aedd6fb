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
