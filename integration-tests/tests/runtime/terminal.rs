//! Terminals: the console socket's protocol, `-t` in the foreground, and what the container's side looks like.

use integration_tests::{Case, ConsoleSocket, PtyRun, peers};
use serde_json::{Value, json};

const LOOK: &str = "tty; ls -ln $(tty) | awk '{print $1, $3, $4}'; stty size; test -t 0 && test -t 1 && test -t 2 && echo three; \
                    ls -l /dev/console | cut -c1-10; cut -d' ' -f6 /proc/$$/stat; echo done";

fn with_terminal(process: &Value) -> Value {
    let mut edit = json!({"process": {"terminal": true}});
    integration_tests::merge(&mut edit["process"], process.clone());
    edit
}

#[test]
fn the_console_socket_gets_one_master() {
    let Some(peers) = peers() else { return };
    let texts = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let socket = ConsoleSocket::listen(case.path());
        let size = json!({"consoleSize": {"height": 21, "width": 43}});
        let bundle = case.bundle().shell(&format!("read line; {LOOK}")).edit(with_terminal(&size));
        let id = case.id("a");
        let create = case.command(["create", "--console-socket"]).args([socket.path()]).args(["--bundle"]);
        let running = create.args([bundle.write()]).args([&id]).spawn();
        let mut received = socket.receive();
        let _ = running.finish("create").ok();
        assert_eq!(received.descriptors, 1);
        assert!(!received.name.is_empty(), "the message carries the terminal's name");
        let _ = case.call(["start", &id]).ok();
        received.terminal.send("go\n");
        received.terminal.wait_for("done\n");
        case.wait_for(&id, "stopped");
        let _ = case.call(["delete", &id]).ok();
        let text = received.terminal.finish();
        case.finish();
        text
    });
    assert!(
        texts[1].contains("/dev/pts/0") && texts[1].contains("21 43") && texts[1].contains("three"),
        "{}",
        texts[1]
    );
    assert_eq!(texts[0], texts[1], "flint (left) against runc");
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let Some(peers) = peers() else { return };
    let texts = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let socket = ConsoleSocket::listen(case.path());
        let user = json!({"user": {"uid": 1000, "gid": 1000}});
        let bundle = case.bundle().shell(&format!("read line; {LOOK}")).edit(with_terminal(&user));
        let id = case.id("a");
        let run = case.command(["run", "--detach", "--console-socket"]).args([socket.path()]).args(["--bundle"]);
        let running = run.args([bundle.write()]).args([&id]).spawn();
        let mut received = socket.receive();
        let _ = running.finish("run").ok();
        received.terminal.send("go\n");
        received.terminal.wait_for("done\n");
        case.delete(&id);
        let text = received.terminal.finish();
        case.finish();
        text
    });
    assert!(texts[1].contains(" 1000 5"), "{}", texts[1]);
    assert_eq!(texts[0], texts[1], "flint (left) against runc");
}

#[test]
fn exec_uses_a_console_socket() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let socket = ConsoleSocket::listen(case.path());
        let exec = case.command(["exec", "-t", "--detach", "--console-socket"]).args([socket.path()]);
        let running = exec.args([id.as_str(), "sh", "-c", "read line; tty; echo ended"]).spawn();
        let mut received = socket.receive();
        let _ = running.finish("exec").ok();
        received.terminal.resize(5, 6);
        received.terminal.send("go\n");
        let text = received.terminal.finish();
        assert!(text.contains("/dev/pts/0\nended\n"), "{}: {text}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn the_foreground_copies_and_resizes() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case
            .bundle()
            .shell("echo up; read a; echo size $(stty size), got $a; read b; echo size $(stty size); exit 5");
        let dir = bundle.edit(with_terminal(&json!({}))).write().display().to_string();
        let (root, id) = (case.state_root().display().to_string(), case.id("a"));
        let mut run = PtyRun::start(&runtime.path, &["--root", &root, "run", "--bundle", &dir, &id], &[], 30, 70);
        // The runtime copies the size beside the start of the program, and again after each SIGWINCH.
        let size_becomes = |wanted: &str| {
            integration_tests::wait_until(&format!("the size is {wanted}"), || {
                case.exec(&id, &["sh", "-c", "stty size < /dev/pts/0"]).stdout.trim() == wanted
            });
        };
        run.wait_for("up");
        size_becomes("30 70");
        run.send("hello\n");
        run.wait_for("size 30 70, got hello");
        if let Some(terminal) = &run.terminal {
            terminal.resize(31, 71);
        }
        // The kernel sends SIGWINCH to the terminal's session alone; the harness made none, so it tells the runtime.
        let pid = rustix::process::Pid::from_raw(run.pid()).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::WINCH).expect("kill");
        size_becomes("31 71");
        run.send("\n");
        let output = run.finish().exits(5);
        assert!(output.stdout.contains("size 31 71"), "{}: {}", runtime.name, output.stdout);
        case.finish();
    }
}

#[test]
fn exec_in_the_foreground() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let root = case.state_root().display().to_string();
        let args = ["--root", &root, "exec", "-t", "-u", "1000", &id, "sh", "-c", "read a; tty; echo got $a; exit 6"];
        let mut exec = PtyRun::start(&runtime.path, &args, &[], 24, 80);
        exec.send("hello\n");
        let output = exec.finish().exits(6);
        assert!(output.stdout.contains("/dev/pts/0\ngot hello"), "{}: {}", runtime.name, output.stdout);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn a_detached_terminal_needs_a_socket() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().edit(with_terminal(&json!({})));
        let output = case.command(["create", "--bundle"]).args([bundle.write()]).args([case.id("a")]).output();
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains("console"), "{}: {}", runtime.name, output.stderr);
        let without = case.command(["create", "--console-socket", "/no/such/socket", "--bundle"]);
        let output = without.args([bundle.write()]).args([case.id("b")]).output();
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains("/no/such/socket"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}
