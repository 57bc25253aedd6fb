//! What is outside of the shim and hangs, or is refused by the kernel: it stops its own container at most.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;

use containerd_shim_protos::api::Status;
use integration_tests::{Fifo, Streams, Tampered, processes_with, wait_until};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::delays::{LIFE, Slow, process};

/// More than a pool of threads has by any default but tokio's, which is 512.
const HOOKS: usize = 80;

/// The kernel lets nothing be watched: the container runs as it did, and how it ends is told.
#[test]
fn a_process_that_cannot_be_watched_has_not_ended() {
    let Some(slow) = Slow::new() else { return };
    let refuse = ["--trace=epoll_ctl", "--inject=epoll_ctl:error=ENOSPC"];
    let log = slow.case.path().join("strace");
    let Some(tampered) = Tampered::attach(slow.shim.pid(), &log, &refuse) else { return };
    let id = slow.run("a", &Streams::default());
    let begin = Fifo::new(&slow.case, "begin");
    let streams = Streams { stdin: begin.path(), ..Streams::default() };
    slow.shim.exec(&id, "e", &process("read line; exit 3"), &streams).expect("exec");
    slow.shim.run(&id, "e").expect("start");
    wait_until("it is refused for both", || {
        fs::read_to_string(&log).is_ok_and(|text| text.matches("ENOSPC").count() >= 2)
    });
    for exec in ["", "e"] {
        assert_eq!(slow.shim.state(&id, exec).expect("state").status.unwrap(), Status::RUNNING, "{exec:?}");
    }
    fs::write(begin.path(), "\n").expect("let it go on");
    assert_eq!(slow.shim.wait(&id, "e").expect("wait"), 3);
    slow.end_it(&id);
    drop(tampered);
    slow.shim.delete(&id, "").expect("delete");
    slow.events.wait_for(&id, &["create", "start", "exec-added:e", "exec-started:e", "exit:e", "exit", "delete"]);
    slow.finish();
}

/// Nobody reads it yet: neither Create nor anything else waits for that.
#[test]
fn a_file_that_is_a_fifo_needs_no_reader() {
    let Some(slow) = Slow::new() else { return };
    let id = slow.run("a", &Streams::default());
    for terminal in [false, true] {
        let fifo = Fifo::new(&slow.case, &format!("out-{terminal}"));
        let streams = Streams { terminal, stdout: format!("file://{}", fifo.path()), ..Streams::default() };
        let mut says = process("echo said");
        says["terminal"] = json!(terminal);
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open =
            || fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(fifo.path()).expect("open the fifo");
        slow.shim.exec(&id, "e", &says, &streams).expect("exec");
        // What a terminal says is kept while it is relayed.
        let early = terminal.then(open);
        slow.shim.run(&id, "e").expect("start");
        assert_eq!(slow.shim.wait(&id, "e").expect("wait"), 0);
        // Without one it is kept for who comes late.
        let reader = early.unwrap_or_else(open);
        slow.shim.delete(&id, "e").expect("delete");
        assert_eq!(std::io::read_to_string(reader).expect("read it").trim_end(), "said", "terminal: {terminal}");
    }
    slow.end_it(&id);
    slow.shim.delete(&id, "").expect("delete");
    slow.finish();
}

/// A terminal's output goes to what takes no more: a fifo that nobody reads, and a serial line that nobody is at.
#[test]
fn a_terminal_whose_file_takes_no_more_waits_alone() {
    let Some(slow) = Slow::new() else { return };
    let id = slow.run("a", &Streams::default());
    let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a terminal");
    grantpt(&line).and_then(|()| unlockpt(&line)).expect("prepare a terminal");
    let line_is = ptsname(&line, Vec::new()).expect("ptsname").into_string().expect("a path");
    let fifo = Fifo::new(&slow.case, "full");
    for path in [fifo.path(), line_is] {
        let streams = Streams { terminal: true, stdout: format!("file://{path}"), ..Streams::default() };
        let mut floods = process("exec yes");
        floods["terminal"] = json!(true);
        slow.shim.exec(&id, "e", &floods, &streams).expect("exec");
        let pid = slow.shim.run(&id, "e").expect("start");
        let written = || fs::read_to_string(format!("/proc/{pid}/io")).expect("what it wrote");
        let mut before = String::new();
        wait_until("it waits", || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let now = written();
            now == std::mem::replace(&mut before, now.clone())
        });
        let other = slow.run("other", &Streams::default());
        slow.end_it(&other);
        slow.shim.delete(&other, "").expect("delete");
        slow.shim.kill(&id, "e", 9).expect("kill");
        assert_eq!(slow.shim.wait(&id, "e").expect("wait"), 137);
        slow.shim.delete(&id, "e").expect("delete");
    }
    slow.end_it(&id);
    slow.shim.delete(&id, "").expect("delete");
    slow.finish();
}

/// As many containers wait for programs of their owners as one likes: one more lives and ends meanwhile.
#[test]
fn containers_that_wait_for_their_hooks_hold_up_no_other() {
    let Some(slow) = Slow::new() else { return };
    let begin = Fifo::new(&slow.case, "begin");
    let waits = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!(": < {}", begin.path())]}]);
    let bundle = slow.case.bundle().forever().edit(json!({"hooks": {"createRuntime": waits}}));
    let _ = bundle.write();
    let ids: Vec<_> = (0..HOOKS).map(|number| slow.case.id(&format!("h{number}"))).collect();
    let create = |id| slow.shim.begin("Create", &slow.shim.create_request(id, bundle.path(), &Streams::default()));
    let creations: Vec<_> = ids.iter().map(|id| create(id.as_str())).collect();
    wait_until("all hooks wait", || processes_with(&begin.path()).len() == HOOKS);
    let other = slow.run("other", &Streams::default());
    slow.end_it(&other);
    slow.shim.delete(&other, "").expect("delete");
    slow.events.wait_for(&other, &LIFE);
    slow.taken();
    assert!(creations.iter().all(integration_tests::Pending::is_pending));
    // Open until all have it: a hook may not have come as far as the fifo yet.
    let go = fs::OpenOptions::new().read(true).write(true).open(begin.path()).expect("let them go on");
    for creation in creations {
        assert!(creation.answer().expect("an answer").is_ok());
    }
    drop(go);
    for id in &ids {
        slow.shim.delete(id, "").expect("delete");
    }
    slow.finish();
}

/// Who traces a process hears of its end first, and may take its time: a debugger at its prompt, or another process of the container
/// that means harm to the others of the shim.
#[test]
fn a_traced_process_that_has_ended_holds_nobody_up() {
    let Some(slow) = Slow::new() else { return };
    let id = slow.run("a", &Streams::default());
    slow.shim.exec(&id, "e", &process("sleep 1000; true"), &Streams::default()).expect("exec");
    let pid = slow.shim.run(&id, "e").expect("start");
    let traced = Pid::from_raw(pid as i32);
    // By this thread, which does not wait for it. Not strace: that stops it on its way out.
    ptrace::seize(traced, ptrace::Options::empty()).expect("trace it");
    slow.shim.kill(&id, "e", 9).expect("kill");
    let is_zombie = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    wait_until("it has ended", is_zombie);
    // Longer than the shim takes to see it.
    for _ in 0..10 {
        assert_eq!(slow.shim.state(&id, "").expect("the shim answers").status.unwrap(), Status::RUNNING);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    waitpid(traced, Some(WaitPidFlag::__WALL)).expect("hear of its end");
    assert_eq!(slow.shim.wait(&id, "e").expect("wait"), 137);
    slow.end_it(&id);
    slow.shim.delete(&id, "").expect("delete");
    slow.events.wait_for(&id, &["create", "start", "exec-added:e", "exec-started:e", "exit:e", "exit", "delete"]);
    slow.finish();
}
