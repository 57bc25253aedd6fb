//! Reaping for a subreaper, in a process of its own: it takes every child's exit.
#![forbid(unsafe_code)]

#[allow(dead_code, unreachable_pub)] // Only the reaping is tested here.
#[path = "../src/signals.rs"]
mod signals;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::wait::{Id, WaitPidFlag, waitid};

#[test]
fn orphans_are_reaped_and_the_program_is_left_to_its_waiter() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let mut program = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    let main = program.id().cast_signed();
    // The shell ends at once and leaves us its child, which a real-time signal ends.
    let script = "sh -c 'sleep 0.2; kill -40 $$' & echo $!";
    let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().expect("a pipe")).read_line(&mut line).expect("the orphan's pid");
    let orphan: u32 = line.trim().parse().expect("a pid");

    let there = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    let begun = Instant::now();
    while there(orphan) || there(shell.id()) {
        assert!(begun.elapsed().as_secs() < 20, "a zombie stays");
        // An error for the orphan: nix does not know the signal.
        let _ = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        signals::reap_orphans(main);
    }
    assert!(shell.wait().is_err(), "it was reaped above");

    drop(program.stdin.take());
    waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("the program's end");
    signals::reap_orphans(main);
    assert!(program.wait().expect("its status is still there").success());
}
