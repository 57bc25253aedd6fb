//! The foreground with real processes, ptys and signals, and without a container.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, raise};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Program, attend};
use crate::signals::Signals;
use crate::terminal::Relay;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn pidfd(child: &Child) -> OwnedFd {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
    pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd")
}

fn program<'a>(child: &Child, pidfd: &'a OwnedFd) -> Program<'a> {
    Program { pid: child.id().cast_signed(), pidfd: pidfd.as_fd(), orphans: false }
}

/// Runs `script` on a pty, relays `input` to it, and gives what it showed.
fn relayed(script: &str, input: &[u8]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    unlockpt(&master).expect("unlocked");
    let terminal = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("its other end");
    // Before any input can come.
    let mut settings = tcgetattr(&terminal).expect("settings");
    settings.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Now, &settings).expect("no echo");
    let stdio = || Stdio::from(terminal.try_clone().expect("a duplicate"));
    // It starts before the signals are blocked here: a child inherits that.
    let mut child = shell(script).stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("a shell");
    drop(terminal);
    let signals = Signals::block().expect("a signalfd");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(input).expect("written");
    drop(writer);
    let mut shown = tempfile::tempfile().expect("a file");
    let output: File = shown.try_clone().expect("a duplicate");
    let mut relay = Relay::new(master, reader.as_fd(), output.as_fd()).expect("a relay");
    let pidfd = pidfd(&child);
    attend(program(&child, &pidfd), &signals, Some(&mut relay)).expect("attended");
    assert!(child.wait().expect("waited").success());
    let mut text = String::new();
    shown.rewind().expect("rewound");
    shown.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn the_end_of_input_reaches_the_program() {
    assert_eq!(relayed("cat; echo over", b"one\ntwo\n"), "one\ntwo\nover\n");
    // Without a newline at the end, a pty needs its EOF character twice.
    assert_eq!(relayed("cat; echo over", b"part"), "partover\n");
}

#[test]
fn all_output_before_the_end_is_shown() {
    let shown = relayed("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done", b"");
    let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(lines.len(), 3000);
    assert_eq!(lines.last(), Some(&"line 2999"));
}

#[test]
fn a_program_that_closes_its_terminal_does_not_make_us_spin() {
    let before = std::time::Instant::now();
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let started = cpu();
    relayed("echo bye; exec </dev/null >/dev/null 2>&1; sleep 0.5", b"");
    let ended = cpu();
    let used = (ended.tv_sec - started.tv_sec) * 1_000_000_000 + (ended.tv_nsec - started.tv_nsec);
    assert!(before.elapsed().as_millis() >= 500);
    assert!(used < 200_000_000, "{used} ns of CPU time");
}

#[test]
fn signals_are_forwarded_even_when_they_came_first() {
    // The shell says that its trap is set, and only then may the signal come. SIGINT would not do: a shell that was
    // started in the background ignores it and sets no trap for it.
    let mut child = shell("trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut ready = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("ready");
    let signals = Signals::block().expect("a signalfd");
    raise(Signal::SIGUSR1).expect("pending before anybody attends");
    let pidfd = pidfd(&child);
    attend(program(&child, &pidfd), &signals, None).expect("attended");
    assert_eq!(child.wait().expect("waited").code(), Some(42));
}
