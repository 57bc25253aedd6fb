//! flintctl's streams with the real flintd, shim and runtime: terminals, pipes, logs, and clients that go.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::Stdio;

use integration_tests::{PtyRun, TELL_SIZE, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::node::rig::{IMAGE, Node};

/// What a pod has that is talked to.
const TALKATIVE: &str = "    stdin: true\n    tty: true\n    command:";

/// Bytes of every value, a different sequence in each block.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("signal flintctl");
}

/// A pod whose shell is on a terminal.
fn shell(node: &Node, name: &str) {
    node.apply(&node.manifest(name, "  restartPolicy: Never\n", "exec sh").replace("    command:", TALKATIVE));
    node.wait_for(name, "Running");
}

fn remove(node: &Node, name: &str) {
    let _ = node.ctl(["rm", name]).ok();
    node.wait_gone(name);
}

/// Types into a shell: its terminal has the size of ours, also when that changes.
fn follows_the_size(run: &mut PtyRun) {
    run.send(TELL_SIZE);
    run.wait_for("size 33 77");
    run.wait_for("/dev/pts/");
    run.terminal.as_ref().expect("a terminal").resize(40, 100);
    // Our terminal is nobody's controlling one: the kernel tells nobody.
    signal(run.pid(), Signal::WINCH);
    run.send("until stty size | grep -q 40; do sleep 0.05; done; echo now' '$(stty size)\n");
    run.wait_for("now 40 100");
}

#[test]
fn run_on_a_terminal_is_the_containers_shell_and_ends_with_its_status() {
    let Some(node) = Node::start() else { return };
    let args =
        ["run", "--rm", "-it", "--host-network", "--name", "shell", IMAGE, "/bin/sh", "-c", "echo beg''un; exec sh"];
    let mut run = node.ctl_on_terminal(&args);
    // What was written before anybody was attached.
    run.wait_for("begun");
    follows_the_size(&mut run);
    run.send("exit 7\n");
    assert_eq!(run.finish().code, 7);
    node.wait_gone("shell");
    // One that is over at once is shown as well.
    let args = ["run", "--rm", "-t", "--host-network", "--name", "short", IMAGE, "/bin/echo", "all of it"];
    let short = node.ctl_on_terminal(&args).finish();
    assert_eq!((short.code, short.stdout.trim_end()), (0, "all of it"));
    node.wait_gone("short");
    node.finish();
}

#[test]
fn exec_on_a_terminal_is_a_shell_beside_the_containers_own() {
    let Some(node) = Node::start() else { return };
    node.apply(&node.manifest("one", "", "sleep 1000"));
    node.wait_for("one", "Running");
    let mut run = node.ctl_on_terminal(&["exec", "-it", "one", "--", "/bin/sh"]);
    follows_the_size(&mut run);
    run.send("exit 5\n");
    assert_eq!(run.finish().code, 5);
    assert_eq!(node.ctl(["exec", "one", "/bin/nothing"]).code, 127);
    wait_until("nothing is left of both", || node.execs() == 0);
    remove(&node, "one");
    node.finish();
}

#[test]
fn clients_attach_and_leave_and_the_container_goes_on() {
    let Some(node) = Node::start() else { return };
    shell(&node, "shell");
    let pid = node.status("shell")["containers"]["main"]["pid"].clone();
    let mut first = node.ctl_on_terminal(&["attach", "shell"]);
    // The prompt was written before.
    first.wait_for("/ # ");
    let mut second = node.ctl_on_terminal(&["attach", "-it", "--detach-keys", "ctrl-a,d", "shell"]);
    second.wait_for("/ # ");
    first.send("echo of' 'the first\n");
    second.send("echo of' 'the second\n");
    for client in [&first, &second] {
        client.wait_for("of the first");
        client.wait_for("of the second");
    }
    first.send("\x10\x11");
    assert_eq!(first.finish().code, 0);
    // Those keys are not the second's.
    second.send("\x10\x11echo still' 'here\n");
    second.wait_for("still here");
    second.send("\x01d");
    assert_eq!(second.finish().code, 0);
    assert_eq!(node.status("shell")["containers"]["main"]["pid"], pid, "it has gone on");
    assert!(node.ctl(["logs", "shell"]).ok().stdout.contains("of the first"), "the log was written as well");
    let mut last = node.ctl_on_terminal(&["attach", "shell"]);
    last.wait_for("/ # ");
    last.send("exit 3\n");
    assert_eq!(last.finish().code, 3);
    wait_until("its end is known", || node.state("shell")["exited"]["status"] == 3);
    wait_until("its network and volumes are gone", || node.status("shell")["is_prepared"] == false);
    assert!(node.ctl(["logs", "shell"]).ok().stdout.contains("of the first"), "its log stays");
    let refused = node.ctl(["attach", "shell"]).exits(1);
    assert!(refused.stderr.contains("does not run"), "{}", refused.stderr);
    remove(&node, "shell");
    node.finish();
}

#[test]
fn what_is_attached_to_outlives_flintd() {
    let Some(mut node) = Node::start() else { return };
    shell(&node, "shell");
    let mut before = node.ctl_on_terminal(&["attach", "shell"]);
    before.wait_for("/ # ");
    before.send("value=kept; (while [ ! -e /dev/shm/go ]; do sleep 0.1; done; echo mean' 'while) &\n");
    before.wait_for("while) &\n");
    node.end(Signal::KILL);
    let cut = before.finish();
    assert_eq!(cut.code, 1);
    assert!(cut.stdout.contains("flintctl attach"), "it is told what to do: {}", cut.stdout);
    node.launch();
    node.wait_for("shell", "Running");
    let mut after = node.ctl_on_terminal(&["attach", "shell"]);
    after.send("echo $value; > /dev/shm/go\n");
    after.wait_for("kept");
    after.wait_for("mean while");
    after.send("exit 4\n");
    assert_eq!(after.finish().code, 4);
    remove(&node, "shell");
    node.finish();
}

#[test]
fn pipes_carry_every_byte_and_their_end() {
    let Some(node) = Node::start() else { return };
    node.apply(&node.manifest("one", "", "sleep 1000"));
    node.wait_for("one", "Running");
    let sent = noise(1 << 20);
    let echoed = node.ctl_command(["exec", "-i", "one", "/bin/cat"]).input(sent.clone()).output().ok();
    assert!(echoed.stdout_bytes == sent, "{} of {} bytes came back", echoed.stdout_bytes.len(), sent.len());
    // A container's own streams go through its log, and are the same bytes all the same.
    let args =
        ["run", "--rm", "-i", "--host-network", "--name", "cat", IMAGE, "/bin/sh", "-c", "cat; echo end >&2; exit 6"];
    let echoed = node.ctl_command(args).input(sent.clone()).output().exits(6);
    assert!(echoed.stdout_bytes == sent, "{} of {} bytes came back", echoed.stdout_bytes.len(), sent.len());
    assert_eq!(echoed.stderr, "end\n");
    node.wait_gone("cat");
    remove(&node, "one");
    node.finish();
}

#[test]
fn an_input_stays_open_unless_it_is_for_one() {
    let Some(node) = Node::start() else { return };
    let script = "while read line; do echo \"[$line]\"; done; echo end";
    for (name, once) in [("many", "    stdin: true\n"), ("once", "    stdin: true\n    stdinOnce: true\n")] {
        let fields = format!("{once}    command:");
        node.apply(&node.manifest(name, "  restartPolicy: Never\n", script).replace("    command:", &fields));
        node.wait_for(name, "Running");
    }
    let once = node.ctl_command(["attach", "once"]).input("one\n").output().ok();
    assert_eq!(once.stdout, "[one]\nend\n");
    for text in ["one", "two"] {
        let client = node.ctl_command(["attach", "many"]).input(format!("{text}\n")).spawn();
        wait_until("it is answered", || client.stdout().contains(&format!("[{text}]")));
    }
    assert_eq!(node.ctl(["logs", "many"]).ok().stdout, "[one]\n[two]\n", "it waits for more");
    let refused = node.ctl(["attach", "-it", "many"]).exits(1);
    assert!(refused.stderr.contains("tty: true"), "{}", refused.stderr);
    for name in ["many", "once"] {
        remove(&node, name);
    }
    node.finish();
}

/// Nobody reads what a client prints: others, the log and the container go on.
#[test]
fn a_slow_client_holds_up_nobody() {
    let Some(node) = Node::start() else { return };
    let script = "(until [ -e /told ]; do echo .; sleep 0.1; done) & read line; : > /told; wait; \
                  seq 300000; echo last; exec sleep 1000";
    node.apply(&node.manifest("loud", "", script).replace("    command:", "    stdin: true\n    command:"));
    node.wait_for("loud", "Running");
    let mut slow =
        node.ctl_process(&["attach", "--no-stdin", "loud"]).stdout(Stdio::piped()).spawn().expect("flintctl");
    let mut output = slow.stdout.take().expect("its output");
    // It is attached before the other one lets the container begin.
    let mut line = [0; 2];
    output.read_exact(&mut line).expect("read a dot");
    let quick = node.ctl_command(["attach", "loud"]).input("go\n").spawn();
    wait_until("another has all of it", || quick.stdout().ends_with("300000\nlast\n"));
    assert_eq!(node.ctl(["logs", "--tail", "2", "loud"]).ok().stdout, "300000\nlast\n");
    // The slow one has lost nothing.
    let mut expected = String::new();
    (1..=300_000).for_each(|number| writeln!(expected, "{number}").expect("a string"));
    while line == *b".\n" {
        output.read_exact(&mut line).expect("read what it printed");
    }
    let mut came = vec![0; expected.len()];
    came[..2].copy_from_slice(&line);
    output.read_exact(&mut came[2..]).expect("read what it printed");
    let _ = slow.kill();
    let _ = slow.wait();
    assert!(came == expected.as_bytes(), "it is all the same");
    remove(&node, "loud");
    node.finish();
}

#[test]
fn logs_are_followed_over_a_restart() {
    let Some(node) = Node::start() else { return };
    node.apply(&node.manifest("again", "", "echo begun; sleep 0.5; exit 1"));
    let follow = node.ctl_command(["logs", "-f", "again"]).spawn();
    wait_until("it was started again", || follow.stdout() == "begun\nbegun\n");
    let previous = node.ctl(["logs", "--previous", "again"]).ok();
    assert_eq!(previous.stdout, "begun\n");
    remove(&node, "again");
    let _ = follow.finish("logs -f").ok();
    node.finish();
}

#[test]
fn exec_is_a_user_of_the_container() {
    let Some(node) = Node::start() else { return };
    let script = "mkdir -p /etc; echo web:x:33:34::/srv/web: > /etc/passwd; echo log:x:4:web > /etc/group; \
                  echo ready; exec sleep 1000";
    node.apply(&node.manifest("one", "", script));
    wait_until("it has its users", || node.ctl(["logs", "one"]).stdout == "ready\n");
    let id = |user: &str| {
        let script = "echo $(id -u) $(id -g) $(id -G) $HOME";
        node.ctl(["exec", "-u", user, "one", "--", "/bin/sh", "-c", script])
    };
    assert_eq!(id("web").ok().stdout, "33 34 34 4 /srv/web\n");
    assert_eq!(id("web:log").ok().stdout, "33 4 4 /srv/web\n");
    assert_eq!(id("1000:7").ok().stdout, "1000 7 7 /\n");
    let refused = id("nobody").exits(126);
    assert!(refused.stderr.contains("no user \"nobody\""), "{}", refused.stderr);
    remove(&node, "one");
    node.finish();
}

#[test]
fn clients_that_are_killed_leave_nothing() {
    let Some(mut node) = Node::start() else { return };
    shell(&node, "shell");
    let inside = |word: &str| node.ctl(["exec", "shell", "/bin/ps"]).ok().stdout.contains(word);
    let exec = |seconds: &str| {
        let client = node.ctl_command(["exec", "-i", "shell", "/bin/sleep", seconds]).spawn();
        wait_until("its program runs", || inside(seconds));
        client
    };
    // Dropped, a client is killed.
    drop(exec("12345"));
    wait_until("its program has ended", || !inside("12345"));
    let attached = node.ctl_on_terminal(&["attach", "shell"]);
    attached.wait_for("/ # ");
    drop(attached);
    assert!(node.state("shell")["running"].is_object(), "{}", node.state("shell"));
    // A program whose flintd was killed is ended by the next one.
    let client = exec("12346");
    node.end(Signal::KILL);
    assert_eq!(client.finish("exec").code, 1);
    node.launch();
    wait_until("its program has ended", || !node.ctl(["exec", "shell", "/bin/ps"]).stdout.contains("12346"));
    wait_until("nothing is left of programs", || node.execs() == 0);
    remove(&node, "shell");
    node.finish();
}
