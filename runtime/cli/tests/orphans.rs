//! Reaping for a subreaper, in a process of its own: it takes every child's exit.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use flint_runtime::children::reap_orphans;
use rustix::process::{WaitId, WaitIdOptions, waitid};

#[test]
fn orphans_are_reaped_and_the_program_is_left_to_its_waiter() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let mut program = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
    let main = program.id().cast_signed();
    // The shell ends at once and leaves us its child, which ends by a signal without a name.
    let mut shell = Command::new("sh")
        .args(["-c", "sh -c 'sleep 0.2; kill -40 $$' >&2 & echo $!"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().expect("a pipe")).read_line(&mut line).expect("the orphan's pid");
    let orphan: u32 = line.trim().parse().expect("a pid");

    let there = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let begun = Instant::now();
    while there(orphan) || there(shell.id()) {
        assert!(begun.elapsed().as_secs() < 20, "a zombie stays");
        waitid(WaitId::All, ended).expect("an ended child");
        reap_orphans(main);
    }
    assert!(shell.wait().is_err(), "it was reaped above");

    drop(program.stdin.take());
    waitid(WaitId::All, ended).expect("the program's end");
    reap_orphans(main);
    assert!(program.wait().expect("its status is still there").success());
}
