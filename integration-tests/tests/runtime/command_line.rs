//! What the command line is taken for, and how its mistakes are told: flint beside runc.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use integration_tests::{Case, Command, ConsoleSocket, peers, under_test_only, wait_until};
use serde_json::json;

/// The runtime with its state in the case, by a shell: what stands before it and behind it is the shell's.
fn by_shell(case: &Case, before: &str, behind: &str) -> Command {
    let (runtime, root) = (case.runtime.path.display(), case.state_root());
    Command::new("sh").args(["-c", &format!("{before} {runtime} --root {} {behind}", root.display())])
}

/// Whoever called the tests may have left some open.
const CLOSED: &str = "exec 3<&- 4<&- 5<&-;";

#[test]
fn sockets_of_another_process_are_not_passed_on() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l").write();
        let run = format!("run --bundle {} {}", bundle.display(), case.id("a"));
        let given = |pid: &str| by_shell(&case, &format!("exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID={pid} exec"), &run);
        for another in ["1", "x", "''"] {
            let output = given(another).output().ok();
            assert_eq!(output.stdout, "\n4\n", "{}: {another}", runtime.name);
        }
        assert_eq!(given("$$").output().ok().stdout, "1 1\n5\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn preserved_descriptors_must_be_open() {
    let Some([runtime]) = under_test_only("runc 1.1 takes its own descriptors for the caller's") else { return };
    let case = Case::new(&runtime);
    let id = case.detached(&case.bundle().forever(), "a");
    let (bundle, other) = (case.bundle().write(), case.id("b"));
    for (number, open, missing) in [
        ("1", "", "unable to stat preserved-fd 0 (of 1)"),
        ("2", "exec 3</dev/null;", "unable to stat preserved-fd 1 (of 2)"),
        ("2147483647", "", "unable to stat preserved-fd 0 (of 2147483647)"),
        ("4294967295", "", "unable to stat preserved-fd 0 (of 4294967295)"),
    ] {
        for (verb, code) in [
            (format!("run --preserve-fds {number} --bundle {} {other}", bundle.display()), 1),
            (format!("create --preserve-fds {number} --bundle {} {other}", bundle.display()), 1),
            (format!("exec --preserve-fds {number} {id} true"), 255),
        ] {
            let output = by_shell(&case, &format!("{CLOSED} {open} exec"), &verb).output();
            assert_eq!(output.code, code, "{verb}: {}", output.stderr);
            assert!(output.stderr.contains(missing), "{verb}: {}", output.stderr);
            assert_eq!(output.error_lines().len(), 1, "{verb}: {}", output.stderr);
            assert_eq!(case.status(&other), "", "{verb}");
        }
    }
    // Less than none is none.
    let run = format!("run --preserve-fds=-1 --bundle {} {other}", bundle.display());
    let _ = by_shell(&case, &format!("{CLOSED} exec"), &run).output().ok();
    case.delete(&id);
    case.finish();
}

#[test]
fn descriptors_of_a_socket_unit_must_be_open() {
    let Some([runtime]) = under_test_only("a clear answer to LISTEN_FDS without descriptors") else { return };
    let case = Case::new(&runtime);
    let bundle = case.bundle().write();
    let run = format!("run --bundle {} {}", bundle.display(), case.id("a"));
    for (number, missing) in [("1", "LISTEN_FDS is 1"), ("4294967295", "LISTEN_FDS is 4294967295")] {
        let output = by_shell(&case, &format!("{CLOSED} LISTEN_FDS={number} exec"), &run).output().exits(1);
        assert!(output.stderr.contains(missing) && output.stderr.contains("bad file"), "{}", output.stderr);
    }
    case.finish();
}

#[test]
fn real_time_signals_are_forwarded() {
    let Some(peers) = peers() else { return };
    let script = "trap 'echo got; exit 9' 40; echo ready; while :; do sleep 0.1; done";
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let exec = case.command(["exec", &id, "sh", "-c", script]).spawn();
        let run = case.spawn(&case.bundle().shell(script), &case.id("b"));
        for (running, verb) in [(exec, "exec"), (run, "run")] {
            wait_until("the program is ready", || running.stdout().contains("ready"));
            let _ = Command::new("kill").args(["-40", &running.pid().to_string()]).output().ok();
            assert_eq!(running.finish(verb).exits(9).stdout, "ready\ngot\n", "{}: {verb}", runtime.name);
        }
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn what_the_container_has_can_be_told_off() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever().edit(json!({"process": {"noNewPrivileges": true}})), "a");
        for (flags, value) in [(&[][..], "1"), (&["--no-new-privs=false"], "0"), (&["--no-new-privs"], "1")] {
            let exec = case.command(["exec"]).args(flags.iter().copied());
            let output = exec.args([&id, "grep", "NoNewPrivs", "/proc/self/status"]).output().ok();
            assert_eq!(output.stdout, format!("NoNewPrivs:\t{value}\n"), "{}: {flags:?}", runtime.name);
        }
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn a_detached_exec_has_the_size_of_config_json() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let size = json!({"process": {"consoleSize": {"height": 21, "width": 43}}});
        let id = case.detached(&case.bundle().forever().edit(size), "a");
        let socket = ConsoleSocket::listen(case.path());
        let exec = case.command(["exec", "-t", "--detach", "--console-socket"]).args([socket.path()]);
        let running = exec.args([id.as_str(), "sh", "-c", "stty size; read line; echo ended"]).spawn();
        let mut received = socket.receive();
        let _ = running.finish("exec").ok();
        received.terminal.send("go\n");
        let text = received.terminal.finish();
        assert!(text.contains("21 43"), "{}: {text}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn the_systems_words_are_in_lower_case() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let folder = case.path().display().to_string();
        for (place, words) in [("/no/such/file", "no such file or directory"), (&folder, "is a directory")] {
            let output = case.call(["update", "-r", place, &id]).exits(1);
            assert!(output.stderr.contains(words), "{}: {}", runtime.name, output.stderr);
        }
        let log = case.call(["--log", "/no/such/folder/log", "state", &case.id("missing")]);
        assert!(log.stderr.contains("no such file or directory"), "{}: {}", runtime.name, log.stderr);
        case.delete(&id);
        case.finish();
    }
    let Some([runtime]) = under_test_only("a full disk is told of") else { return };
    let case = Case::new(&runtime);
    let output = by_shell(&case, "exec", "features > /dev/full").output().exits(1);
    assert!(output.stderr.contains("writing to stdout: no space left on device"), "{}", output.stderr);
    case.finish();
}

#[test]
fn mistakes_have_runcs_codes() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        for (words, code, said) in [
            (&["nonsense"][..], 3, "No help topic for 'nonsense'"),
            (&["nonsense", "-h"], 3, "No help topic for 'nonsense'"),
            (&["help", "nonsense"], 3, "No help topic for 'nonsense'"),
            (&["exec", "-g", "x", "a", "true"], 1, "invalid value \"x\" for flag -"),
            (&["exec", "--preserve-fds", "x", "a", "true"], 1, "invalid value \"x\" for flag -preserve-fds"),
            (&["exec", "--preserve-fds=", "a", "true"], 1, "invalid value \"\" for flag -preserve-fds"),
            (&["exec", "--preserve-fds=0x0", "a", "true"], 255, "exec failed: "),
            (&["exec", "-g", "-1", "a", "true"], 255, "exec failed: "),
            (&["events", "--interval=", "a"], 1, "invalid value \"\" for flag -interval"),
            (&["update", "--blkio-weight=", "a"], 1, "invalid value \"\" for flag -blkio-weight"),
            (&["checkpoint", "--status-fd", "x", "a"], 1, "invalid value \"x\" for flag -status-fd"),
            (&["checkpoint", "--status-fd", "-1", "a"], 1, "does not exist"),
        ] {
            let output = case.call(words.iter().copied()).exits(code);
            let told = output.stderr.replace("\\\"", "\"") + &output.stdout;
            assert!(told.contains(said), "{}: {words:?}: {told}", runtime.name);
        }
        case.finish();
    }
}

#[test]
fn numbers_and_truths_are_gos() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        for value in ["1", "t", "TRUE", "True", "0", "f", "false", "auto", "AUTO"] {
            let command = case.command(["--rootless", value, "run", "--bundle"]);
            let _ = command.args([case.bundle().write()]).args([case.id("b")]).output().ok();
        }
        for preserve in ["+0", "0x0", "0b0", "-0"] {
            let _ = case.call(["exec", &format!("--preserve-fds={preserve}"), &id, "true"]).ok();
        }
        for refused in [["--cpu-share", "+5"], ["--cpu-share", "-5"], ["--kernel-memory", "x"], ["--cpu-quota", "0x10"]]
        {
            let output = case.command(["update"]).args(refused).args([&id]).output();
            assert_eq!(output.code, 1, "{}: {refused:?}", runtime.name);
        }
        for taken in [["--cpu-quota", "+50000"], ["--pids-limit", "0x100"], ["--kernel-memory", "1m"]] {
            let output = case.command(["update"]).args(taken).args([&id]).output();
            assert_eq!(output.code, 0, "{}: {taken:?}: {}", runtime.name, output.stderr);
        }
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn an_empty_signal_is_term() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.1; done");
        let running = case.spawn(&bundle, &case.id("a"));
        wait_until("the program is ready", || running.stdout().contains("ready"));
        let _ = case.call(["kill", &case.id("a"), ""]).ok();
        assert_eq!(running.finish("run").exits(4).stdout, "ready\nterm\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn arguments_need_not_be_utf8() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let odd = OsString::from_vec(b"x\xffy".to_vec());
        let output = case.command(["exec", &id, "echo", "-n"]).args([odd.clone()]).output().ok();
        assert_eq!(output.stdout_bytes, "x\u{fffd}y".as_bytes(), "{}", runtime.name);
        let output = case.command(["ps", &id]).args([odd]).output();
        assert!(output.code != 0 && output.stderr.contains("ps"), "{}: {}", runtime.name, output.stderr);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn two_dashes_behind_the_container_are_no_argument() {
    let Some([runtime]) = under_test_only("newer runcs leave out the --") else { return };
    let case = Case::new(&runtime);
    let id = case.detached(&case.bundle().forever(), "a");
    assert_eq!(case.call(["exec", &id, "--", "echo", "--", "x"]).ok().stdout, "-- x\n");
    assert!(case.call(["ps", &id, "--", "aux"]).ok().stdout.contains("sleep"));
    let _ = case.call(["kill", &id, "--", "KILL"]).ok();
    case.delete(&id);
    case.finish();
}

#[test]
fn help_is_shown_whatever_stands_behind_it() {
    let Some([runtime]) = under_test_only("newer runcs show the help") else { return };
    let case = Case::new(&runtime);
    for words in [&["run", "-h", "-b"][..], &["run", "-h", "--nonsense"], &["exec", "--help", "-g", "x"]] {
        assert!(case.call(words.iter().copied()).ok().stdout.contains("USAGE:"), "{words:?}");
    }
    case.finish();
}

#[test]
fn a_cgroup_of_exec_is_named_once() {
    let Some([runtime]) = under_test_only("newer runcs refuse it before anything is made") else { return };
    let case = Case::new(&runtime);
    let id = case.detached(&case.bundle().forever(), "a");
    for (places, said) in [
        (["pids:/", "pids:/"], "invalid --cgroup argument(s): controller pids specified multiple times"),
        (["/", "/"], "invalid --cgroup argument: / (missing <controller>: prefix)"),
        (["pids:/", ":/"], "invalid --cgroup argument: :/ (empty <controller> prefix)"),
    ] {
        let output = case.call(["exec", "--cgroup", places[0], "--cgroup", places[1], &id, "true"]).exits(255);
        assert!(output.stderr.contains(said), "{places:?}: {}", output.stderr);
    }
    case.delete(&id);
    case.finish();
}

#[test]
fn list_makes_no_state_root() {
    let Some([runtime]) = under_test_only("runc 1.1 makes one, newer ones do not") else { return };
    for (words, printed) in [("-q", ""), ("-f json", "null\n")] {
        let script = format!("mount -t tmpfs none /run && {} list {words} && ls -A /run", runtime.path.display());
        assert_eq!(Command::new("unshare").args(["-m", "sh", "-c", &script]).output().ok().stdout, printed);
    }
}
