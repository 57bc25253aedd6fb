//! Containers that are written to files and brought back: `checkpoint` and `restore`, by CRIU.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use integration_tests::{
    Bundle, Case, Command, ConsoleSocket, Runtime, criu, criu_has, peers, skip, under_test_only, wait_until,
    write_program,
};
use serde_json::json;

/// A case and the CRIU that it uses.
struct Saved {
    case: Case,
    path: PathBuf,
}

impl Saved {
    fn new(runtime: &Runtime, path: &Path) -> Self {
        Self { case: Case::new(runtime), path: path.to_owned() }
    }

    /// The runtime, which finds CRIU in PATH, as runc does.
    fn command(&self, args: &[&str]) -> Command {
        let path = format!("{}:{}", self.path.display(), std::env::var("PATH").unwrap_or_default());
        self.case.command(args.iter().copied()).env("PATH", path)
    }

    fn folder(&self, name: &str) -> String {
        self.case.path().join(name).display().to_string()
    }

    #[track_caller]
    fn checkpoint(&self, id: &str, more: &[&str]) {
        let (images, work) = (self.folder("images"), self.folder("work"));
        let command = self.command(&["checkpoint", "--image-path", &images, "--work-path", &work]);
        let _ = command.args(more.iter().copied()).args([id]).output().ok();
    }

    /// `restore --detach`.
    fn restore(&self, id: &str, bundle: &Bundle, more: &[&str]) -> Command {
        let (images, work) = (self.folder("images"), self.folder("work"));
        let bundle = bundle.write().display().to_string();
        let args = ["restore", "--detach", "--image-path", &images, "--work-path", &work, "--bundle", &bundle];
        self.command(&args).args(more.iter().copied()).args([id])
    }
}

/// Counts in /data/count, which is a folder of the host; keeps none of the test's files open, which are not in the container.
fn counter(saved: &Saved) -> (Bundle, PathBuf) {
    let data = saved.case.path().join("data");
    fs::create_dir_all(&data).expect("make the data folder");
    let script = "exec >/dev/null 2>&1; i=0; while :; do i=$((i+1)); echo $i > /data/new; mv /data/new /data/count; \
                  sleep 0.05; done";
    let mount = json!({"type": "bind", "source": data, "destination": "/data", "options": ["bind", "rw"]});
    (saved.case.bundle().shell(script).push("/mounts", mount), data.join("count"))
}

fn count(file: &Path) -> u32 {
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn a_counter_goes_on_where_it_was() {
    let (Some(peers), Some(path)) = (peers(), criu()) else { return };
    for runtime in peers {
        let saved = Saved::new(&runtime, &path);
        let (bundle, file) = counter(&saved);
        let bundle = bundle.edit(json!({"linux": {"resources": {"pids": {"limit": 33}}}}));
        let id = saved.case.detached(&bundle, "a");
        wait_until("it counts", || count(&file) > 3);
        for _ in 0..2 {
            saved.checkpoint(&id, &[]);
            assert_eq!(saved.case.status(&id), "", "{}: it is gone as if deleted", runtime.name);
            let before = count(&file);
            let pid_file = saved.folder("pid");
            let _ = saved.restore(&id, &bundle, &["--pid-file", &pid_file]).output().ok();
            wait_until("it counts on", || count(&file) > before);
            assert!(count(&file) < before + 1000 && before > 3, "{}: it started over", runtime.name);
            let state = saved.case.state(&id);
            assert_eq!(state["status"], "running");
            let pid = fs::read_to_string(&pid_file).expect("read the pid file");
            assert_eq!(state["pid"].to_string(), pid, "{}", runtime.name);
            // In its own cgroup, with its limits; and a process can be added.
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its cgroups");
            let own = cgroups.lines().find(|line| line.contains(":pids:")).or(cgroups.lines().last());
            assert!(own.is_some_and(|line| line.ends_with(&id)), "{}: {cgroups}", runtime.name);
            let seen = saved.case.exec(&id, &["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; ls /data"]).ok().stdout;
            assert!(seen.contains("count"), "{}: {seen}", runtime.name);
        }
        saved.case.delete(&id);
        saved.case.finish();
    }
}

#[test]
fn what_a_restored_container_sees_is_what_it_saw() {
    let (Some([runtime]), Some(path)) = (under_test_only("its own view"), criu()) else { return };
    let saved = Saved::new(&runtime, &path);
    let (bundle, file) = counter(&saved);
    let id = saved.case.detached(&bundle, "a");
    wait_until("it counts", || count(&file) > 3);
    // Not what the kernel numbers anew: the first fields of mountinfo, the propagation, the order.
    let look = "awk '{ split($0, half, \" - \"); split(half[2], fs, \" \"); print $4, $5, $6, fs[1] }' /proc/1/mountinfo | \
                sort; cat /proc/1/environ | tr '\\0' '\\n'; grep -E 'Cap|Seccomp|NoNewPrivs|Umask|Groups' /proc/1/status; \
                cat /proc/1/oom_score_adj /proc/1/limits; hostname; ip addr show lo | grep -o 'LOOPBACK,UP'; ls -l /dev | \
                awk '{ print $1, $3, $4, $5, $6, $NF }'; cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l";
    let before = saved.case.exec(&id, &["sh", "-c", look]).ok().stdout;
    let clock = |id: &str| {
        let text = saved.case.exec(id, &["cut", "-d.", "-f1", "/proc/uptime"]).ok().stdout;
        text.trim().parse::<i64>().expect("seconds")
    };
    let then = clock(&id);
    saved.checkpoint(&id, &[]);
    let _ = saved.restore(&id, &bundle, &[]).output().ok();
    let after = saved.case.exec(&id, &["sh", "-c", look]).ok().stdout;
    assert_eq!(before, after);
    assert!(clock(&id) >= then, "exec is in the time namespace that CRIU gives the container");
    saved.case.delete(&id);
    saved.case.finish();
}

/// Sources that are named by the bundle, one of them the bundle itself, and with a mount below it. (What CRIU 3.17 refused of
/// their names is tested in the library.)
#[test]
fn sources_in_the_bundle_are_found_again() {
    let (Some([runtime]), Some(path)) = (under_test_only("relative sources"), criu()) else { return };
    let saved = Saved::new(&runtime, &path);
    let (bundle, file) = counter(&saved);
    let own = |source, destination, kind| {
        let options = [kind];
        json!({"type": "bind", "source": source, "destination": destination, "options": options})
    };
    let bundle = bundle
        .push("/mounts", own(".", "/bundle", "bind"))
        .push("/mounts", own("./some/folder", "/folder", "rbind"))
        .push("/mounts", own("./some", "/folder/nested", "bind"));
    let folder = bundle.write().join("some/folder");
    fs::create_dir_all(&folder).expect("make the folder");
    let id = saved.case.detached(&bundle, "a");
    wait_until("it counts", || count(&file) > 3);
    saved.checkpoint(&id, &[]);
    fs::remove_dir(folder.join("nested")).expect("it was made as a mountpoint");
    let _ = saved.restore(&id, &bundle, &[]).output().ok();
    let seen = saved.case.exec(&id, &["ls", "/bundle/config.json", "/folder", "/folder/nested"]).ok().stdout;
    assert_eq!(seen, "/bundle/config.json\n\n/folder:\nnested\n\n/folder/nested:\nfolder\n");
    saved.case.delete(&id);
    saved.case.finish();
}

#[test]
fn pipes_are_replaced_by_the_callers() {
    let (Some(peers), Some(path)) = (peers(), criu()) else { return };
    for runtime in peers {
        let saved = Saved::new(&runtime, &path);
        let (bundle, file) = counter(&saved);
        let bundle = bundle.shell(
            "i=0; while :; do i=$((i+1)); echo $i; echo $i > /data/new; mv /data/new /data/count; sleep 0.05; done",
        );
        let dir = bundle.write().display().to_string();
        let id = saved.case.id("a");
        let environment = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
        let root = saved.case.state_root();
        let call = |args: &[&str]| {
            let (mut reader, writer) = std::io::pipe().expect("make a pipe");
            let mut command = std::process::Command::new(&runtime.path);
            command.arg("--root").arg(&root).args(args).env("PATH", &environment).stdin(std::process::Stdio::null());
            command.stdout(writer.try_clone().expect("dup")).stderr(writer);
            let status = command.status().expect("start the runtime");
            drop(command);
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = reader.read_to_string(&mut text);
                (status, text)
            })
        };
        let first = call(&["run", "--detach", "--bundle", &dir, &id]);
        wait_until("it counts", || count(&file) > 3);
        saved.checkpoint(&id, &[]);
        let (status, text) = first.join().expect("the reader");
        assert!(status.success() && text.starts_with("1\n2\n3\n"), "{}: {text}", runtime.name);
        let last: u32 = text.lines().last().and_then(|line| line.parse().ok()).expect("a number");
        let images = saved.folder("images");
        let second = call(&["restore", "--detach", "--image-path", &images, "--bundle", &dir, &id]);
        wait_until("it counts on", || count(&file) > last + 3);
        saved.case.delete(&id);
        let (status, text) = second.join().expect("the reader");
        assert!(status.success(), "{}: {text}", runtime.name);
        assert!(text.starts_with(&format!("{}\n", last + 1)), "{}: {last}, then {text}", runtime.name);
        saved.case.finish();
    }
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let (Some(peers), Some(path)) = (peers(), criu()) else { return };
    for runtime in peers {
        let saved = Saved::new(&runtime, &path);
        let bundle = saved.case.bundle().shell("while read line; do echo got $line; done");
        let bundle = bundle.edit(json!({"process": {"terminal": true}}));
        let socket = ConsoleSocket::listen(saved.case.path());
        let (id, dir, place) = (saved.case.id("a"), bundle.write(), socket.path().display().to_string());
        let run = saved.command(&["run", "--detach", "--console-socket", &place, "--bundle"]);
        let running = run.args([dir]).args([&id]).spawn();
        let mut console = socket.receive();
        let _ = running.finish("run").ok();
        console.terminal.send("one\n");
        console.terminal.wait_for("got one");
        saved.checkpoint(&id, &[]);
        let running = saved.restore(&id, &bundle, &["--console-socket", &place]).spawn();
        let mut console = socket.receive();
        let _ = running.finish("restore").ok();
        assert_eq!(console.descriptors, 1);
        console.terminal.send("two\n");
        console.terminal.wait_for("got two");
        saved.case.delete(&id);
        saved.case.finish();
    }
}

#[test]
fn left_running_it_goes_on() {
    let (Some(peers), Some(path)) = (peers(), criu()) else { return };
    for runtime in peers {
        let saved = Saved::new(&runtime, &path);
        let (bundle, file) = counter(&saved);
        let id = saved.case.detached(&bundle, "a");
        wait_until("it counts", || count(&file) > 3);
        saved.checkpoint(&id, &["--leave-running"]);
        let before = count(&file);
        assert_eq!(saved.case.status(&id), "running");
        wait_until("it counts on", || count(&file) > before);
        assert_ne!(saved.restore(&id, &bundle, &[]).output().code, 0, "{}: its id is taken", runtime.name);
        assert_eq!(saved.case.status(&id), "running", "{}: and it is unharmed", runtime.name);
        saved.case.delete(&id);
        let _ = saved.restore(&id, &bundle, &[]).output().ok();
        saved.case.delete(&id);
        saved.case.finish();
    }
}

#[test]
fn in_the_foreground_restore_is_the_programs_end() {
    let (Some([runtime]), Some(path)) = (under_test_only("its exit code"), criu()) else { return };
    let saved = Saved::new(&runtime, &path);
    let script = "exec >/dev/null 2>&1; trap 'exit 7' TERM; echo > /data/count; while :; do sleep 0.05; done";
    let (bundle, file) = counter(&saved);
    let bundle = bundle.shell(script);
    let id = saved.case.detached(&bundle, "a");
    wait_until("it runs", || file.exists());
    saved.checkpoint(&id, &[]);
    let (images, dir) = (saved.folder("images"), bundle.write().display().to_string());
    let running = saved.command(&["restore", "--image-path", &images, "--bundle", &dir, &id]).spawn();
    saved.case.wait_for(&id, "running");
    let _ = saved.case.call(["kill", &id, "TERM"]).ok();
    let _ = running.finish("restore").exits(7);
    assert_eq!(saved.case.status(&id), "");
    saved.case.finish();
}

#[test]
fn mountpoints_and_hooks_are_there_again() {
    let (Some([runtime]), Some(path)) = (under_test_only("hooks at restore"), criu()) else { return };
    let saved = Saved::new(&runtime, &path);
    let (bundle, file) = counter(&saved);
    let inner = saved.case.path().join("inner");
    fs::create_dir(&inner).expect("make a folder");
    let log = saved.folder("hooks");
    let hook = |name: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >> {log}")]});
    let mount = json!({"type": "bind", "source": inner, "destination": "/data/for/nested", "options": ["bind"]});
    let bundle = bundle
        .push("/mounts", mount)
        .push("/hooks/prestart", hook("prestart"))
        .push("/hooks/createRuntime", hook("createRuntime"))
        .push("/hooks/poststop", hook("poststop"));
    let id = saved.case.detached(&bundle, "a");
    wait_until("it counts", || count(&file) > 3);
    saved.checkpoint(&id, &[]);
    fs::remove_dir_all(file.with_file_name("for")).expect("remove the mountpoint");
    let _ = saved.restore(&id, &bundle, &[]).output().ok();
    let _ = saved.case.exec(&id, &["touch", "/data/for/nested/x"]).ok();
    assert!(inner.join("x").exists());
    saved.case.delete(&id);
    let ran = fs::read_to_string(&log).expect("the hooks' log");
    assert_eq!(ran, "prestart\ncreateRuntime\npoststop\n".repeat(2));
    saved.case.finish();
}

#[test]
fn a_failure_is_one_sentence_and_the_container_goes_on() {
    let (Some([runtime]), Some(path)) = (under_test_only("the sentence"), criu()) else { return };
    let saved = Saved::new(&runtime, &path);
    let id = saved.case.detached(&saved.case.bundle().forever(), "a");
    let (images, work) = (saved.folder("images"), saved.folder("work"));
    // Nobody listens there.
    let nowhere = ["--page-server", "127.0.0.1:1"];
    let command = saved.command(&["checkpoint", "--image-path", &images, "--work-path", &work]);
    let output = command.args(nowhere).args([id.as_str()]).output().exits(1);
    let lines = output.error_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("CRIU failed: Error (") && lines[0].contains(&format!("{work}/dump.log")), "{lines:?}");
    assert_eq!(saved.case.status(&id), "running");
    let restored = saved.restore("other", &saved.case.bundle(), &[]).output().exits(1);
    assert_eq!(restored.error_lines().len(), 1, "{restored:?}");
    assert_eq!(saved.case.status("other"), "", "nothing is left of it");
    saved.case.delete(&id);
    saved.case.finish();
}

#[test]
fn a_missing_or_old_criu_is_told() {
    let Some([runtime]) = under_test_only("--criu") else { return };
    let case = Case::new(&runtime);
    let id = case.detached(&case.bundle().forever(), "a");
    let output = case.call(["--criu", "/no/such/criu", "checkpoint", &id]).exits(1);
    assert!(
        output.stderr.contains("/no/such/criu: no such file or directory (checkpoint and restore need CRIU"),
        "{output:?}"
    );
    // Answers the request for its version with 3.1.
    let old = case.path().join("criu");
    let script = "printf '\\010\\012\\020\\001\\122\\004\\010\\003\\020\\001' >&3\n";
    // Before it was asked, or with what it was asked unread.
    for wait in ["", "sleep 0.3; "] {
        write_program(&old, format!("#!/bin/sh\n{wait}{script}"));
        let old = old.display().to_string();
        let output = case.call(["--criu", &old, "checkpoint", "--image-path", &old, &id]).exits(1);
        assert!(output.stderr.contains("CRIU 3.1") && output.stderr.contains("too old"), "{output:?}");
    }
    let silent = case.call(["--criu", "/bin/true", "checkpoint", &id]).exits(1);
    assert!(silent.stderr.contains("without an answer"), "{silent:?}");
    assert_eq!(case.status(&id), "running");
    case.delete(&id);
    case.finish();
}

#[test]
fn podman_finds_what_it_probes_for() {
    let Some([runtime]) = under_test_only("the words of the probe") else { return };
    let case = Case::new(&runtime);
    let probe = case.call(["restore", "--lsm-mount-context"]);
    assert!(probe.stderr.contains("flag needs an argument"), "{probe:?}");
    let _ = case.call(["checkpoint", "--help"]).ok();
    case.finish();
}

#[test]
fn connections_can_come_back_closed() {
    let (Some([runtime]), Some(path)) = (under_test_only("runc has no --tcp-close"), criu()) else { return };
    let saved = Saved::new(&runtime, &path);
    // State 0A of tcp(7): it listens, on the address of IPv6 that takes both.
    let script = "exec >/dev/null 2>&1; nc -l -p 7 -e sleep 1000 & \
                  until grep -q ':0007 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done; \
                  sleep 1000 | nc 127.0.0.1 7 & sleep 1000";
    let bundle = saved.case.bundle().shell(script);
    let id = saved.case.detached(&bundle, "a");
    // State 1 of tcp(7).
    let established = |id: &str| saved.case.exec(id, &["grep", "-q", " 0100007F:0007 01 ", "/proc/net/tcp"]).code == 0;
    wait_until("it is connected", || established(&id));
    let wrong = saved.command(&["checkpoint", "--network-lock", "rope", &id]).output().exits(1);
    assert!(wrong.stderr.contains("network lock method"), "{wrong:?}");
    saved.checkpoint(&id, &["--tcp-established", "--network-lock", "skip"]);
    assert_ne!(saved.restore(&id, &bundle, &[]).output().code, 0, "CRIU wants to be told what to do with it");
    let _ = saved.restore(&id, &bundle, &["--tcp-close", "--network-lock", "skip"]).output().ok();
    assert!(!established(&id));
    assert_eq!(saved.case.status(&id), "running");
    saved.case.delete(&id);
    saved.case.finish();
}

#[test]
fn memory_is_written_ahead() {
    let (Some(peers), Some(path)) = (peers(), criu()) else { return };
    for runtime in peers {
        let saved = Saved::new(&runtime, &path);
        let (bundle, file) = counter(&saved);
        let id = saved.case.detached(&bundle, "a");
        wait_until("it counts", || count(&file) > 3);
        let (parent, images) = (saved.folder("parent"), saved.folder("images"));
        for wrong in [parent.as_str(), "../missing"] {
            let output = saved.command(&["checkpoint", "--image-path", &images, "--parent-path", wrong, &id]).output();
            assert!(output.code != 0 && output.stderr.contains("--parent-path"), "{}: {output:?}", runtime.name);
        }
        let ahead = saved.command(&["checkpoint", "--pre-dump", "--image-path", &parent, &id]).output();
        if criu_has(&path, "mem_dirty_track") {
            assert_eq!(ahead.code, 0, "{ahead:?}");
            assert_eq!(saved.case.status(&id), "running");
            saved.checkpoint(&id, &["--parent-path", "../parent"]);
            assert!(Path::new(&images).join("parent").exists());
            let _ = saved.restore(&id, &bundle, &[]).output().ok();
        } else {
            assert_ne!(ahead.code, 0);
            assert!(runtime.is_runc() || ahead.stderr.contains("CONFIG_MEM_SOFT_DIRTY"), "{ahead:?}");
            skip("the kernel does not track written memory: only the refusal was tested");
        }
        assert_eq!(saved.case.status(&id), "running");
        saved.case.delete(&id);
        saved.case.finish();
    }
}
