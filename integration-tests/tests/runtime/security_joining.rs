//! Attacks on what is done to a running container: `umount`, `exec`, `ps`, `kill`, `delete`, the pid file. Tried on flint and, where it has
//! the verb, on runc.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use integration_tests::{Case, ConsoleSocket, flint, peers, skip, wait_until};
use serde_json::json;

/// The container's root renames a folder above a mountpoint, which the kernel allows, and puts links there that lead to what
/// protects /proc: an `umount` of what was mounted for it would lay that bare.
#[test]
fn an_unmount_is_not_led_to_what_protects_proc() {
    for (place, probe) in [("sys", "[ -w /proc/sys/kernel/core_pattern ]"), ("timer_list", "[ -s /proc/timer_list ]")] {
        let case = Case::new(&flint());
        let volume = case.path().join("volume");
        fs::create_dir(&volume).expect("make a volume");
        // What is asked after the attack must differ from what it is now; the mountinfo tells of masks of empty files, too.
        let script =
            format!("{{ {probe} && echo BARE; grep -c ' /proc/{place} ' /proc/self/mountinfo; }} 2>/dev/null; true");
        let id = case.detached(&case.bundle().writable().forever(), "a");
        let look = |case: &Case| case.exec(&id, &["/bin/sh", "-c", &script]).ok().stdout;
        let before = look(&case);
        assert_eq!(before.lines().last(), Some("1"), "/proc/{place} is not protected at all: {before}");
        let _ = case.command(["mount", &id]).args([&volume]).args(["/data/inner"]).output().ok();
        let attack = format!("mv /data /old && mkdir /data && ln -s /proc/{place} /data/inner");
        let _ = case.exec(&id, &["/bin/sh", "-c", &attack]).ok();
        let output = case.call(["umount", &id, "/data/inner"]);
        assert!(output.code != 0 && output.stderr.contains("a link leads there"), "{output:?}");
        // By a folder on the way, too.
        let _ = case.exec(&id, &["/bin/sh", "-c", "rm -r /data && ln -s /proc /data"]).ok();
        let output = case.call(["umount", &id, &format!("/data/{place}")]);
        assert!(output.code != 0 && output.stderr.contains("a link leads there"), "{output:?}");
        assert_eq!(look(&case), before);
        let _ = case.call(["umount", &id, "/old/inner"]).ok();
        case.delete(&id);
        case.finish();
    }
}

/// A program without any right may make a user namespace, and in it a mount namespace where the container's programs are its
/// own: a process of `exec` would execute those with rights that the program does not have.
#[test]
fn exec_does_not_follow_an_init_to_namespaces_of_its_own() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let script = "exec unshare --user --map-root-user --mount sh -c \
                      'mount --bind /tmp/evil /bin/probe && : > /tmp/ready && exec sleep 1000'";
        let bundle = case
            .bundle()
            .writable()
            .file("/bin/probe", "#!/bin/sh\necho the container\n", 0o755)
            .file("/tmp/evil", "#!/bin/sh\necho owned by uid $(id -u)\n", 0o755)
            .shell(script)
            .edit(json!({"process": {"user": {"uid": 1000, "gid": 1000}}, "linux": {"seccomp": null}}));
        fs::set_permissions(bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod /tmp");
        let id = case.detached(&bundle, "a");
        wait_until("the program has left its namespaces", || bundle.rootfs().join("tmp/ready").exists());
        let output = case.call(["exec", "--user", "0:0", &id, "/bin/probe"]);
        if runtime.is_runc() {
            // runc has this hole; it shows that the attack is one.
            assert_eq!(output.stdout, "owned by uid 0\n", "{output:?}");
        } else {
            assert_eq!((output.code, output.stdout.as_str()), (255, ""), "{output:?}");
            assert!(output.stderr.contains("has left the user namespace"), "{output:?}");
        }
        case.delete(&id);
        case.finish();
    }
}

/// The same for mounts: in a user namespace of its own the program could change what is mounted there, and so write to it.
#[test]
fn mounts_do_not_follow_an_init_to_namespaces_of_its_own() {
    let case = Case::new(&flint());
    let given = case.path().join("given");
    fs::create_dir(&given).expect("make a source");
    fs::set_permissions(&given, fs::Permissions::from_mode(0o777)).expect("chmod the source");
    let script = "exec unshare --user --map-root-user --mount sh -c ': > /tmp/ready; while sleep 0.01; do \
                  mount -o remount,bind,rw /tmp/data 2>/dev/null && echo owned > /tmp/data/file; done'";
    let user = json!({"uid": 1000, "gid": 1000});
    let bundle = case.bundle().writable().shell(script);
    let bundle = bundle.edit(json!({"process": {"user": user}, "linux": {"seccomp": null}}));
    fs::set_permissions(bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod /tmp");
    fs::create_dir(bundle.rootfs().join("tmp/data")).expect("make a destination");
    let id = case.detached(&bundle, "a");
    wait_until("the program has left its namespaces", || bundle.rootfs().join("tmp/ready").exists());
    let given = given.display().to_string();
    for args in [&["mount", "-o", "ro", &id, &given, "/tmp/data"][..], &["umount", &id, "/proc"]] {
        let output = case.call(args.iter().copied());
        assert!(output.code != 0 && output.stderr.contains("has left the user namespace"), "{args:?}: {output:?}");
    }
    assert_eq!(fs::read_dir(given).expect("read the source").count(), 0);
    case.delete(&id);
    case.finish();
}

/// What a spy of the container sees of a process's permitted capabilities, where they are not its own; it starts no program, so
/// that there are no processes but those of `exec`.
const SPY: &str = "own=; while read -r key value; do [ \"$key\" = CapPrm: ] && own=$value; done </proc/self/status; : >/tmp/seen; \
                   : >/tmp/ready; while :; do for process in /proc/[0-9]*; do \
                   { while read -r key value; do case $key in CapPrm:) [ \"$value\" = \"$own\" ] || echo \"$value\" >>/tmp/seen; \
                   break;; esac; done <$process/status; } 2>/dev/null; done; done";

/// The same where only an earlier process of `exec` has it.
#[test]
fn who_enters_later_is_not_seen_with_more_rights_either() {
    let case = Case::new(&flint());
    let bundle = case.bundle().writable().forever();
    let id = case.detached(&bundle, "a");
    let _ = case.call(["exec", "--detach", "--cap", "CAP_SYS_PTRACE", &id, "sh", "-c", SPY]).ok();
    wait_until("the spy spies", || bundle.rootfs().join("tmp/ready").exists());
    for _ in 0..20 {
        let _ = case.exec(&id, &["true"]).ok();
    }
    let seen = fs::read_to_string(bundle.rootfs().join("tmp/seen")).expect("the spy works");
    let seen: std::collections::BTreeSet<_> = seen.lines().collect();
    // What init has as well, and nobody with all.
    assert!(seen.len() <= 1, "processes had other capabilities: {seen:?}");
    case.delete(&id);
    case.finish();
}

/// A container with CAP_SYS_PTRACE may take over whatever is in its pid namespace: a process of `exec` that still has all
/// capabilities there gives it the host (the idea of CVE-2016-9962, with the capability).
#[test]
fn nobody_enters_with_more_rights_than_the_program_gets() {
    let refused = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO"}, {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    for (no_new_privileges, filter) in
        [(true, json!(null)), (false, json!(null)), (false, refused.clone()), (true, refused)]
    {
        let case = Case::new(&flint());
        let process = json!({"noNewPrivileges": no_new_privileges, "terminal": false});
        let bundle = case.bundle().writable().shell(SPY).capabilities(&["CAP_SYS_PTRACE"]);
        let bundle = bundle.edit(json!({"process": process, "linux": {"seccomp": filter}}));
        let id = case.detached(&bundle, "a");
        wait_until("the spy spies", || bundle.rootfs().join("tmp/ready").exists());
        for _ in 0..20 {
            let _ = case.exec(&id, &["true"]).ok();
        }
        let seen = fs::read_to_string(bundle.rootfs().join("tmp/seen")).expect("the spy works");
        assert_eq!(seen, "", "a process had other capabilities (noNewPrivileges {no_new_privileges})");
        // It is what it would be without a spy: a session of its own, the user, the filter, the exit code.
        let script = "cut -d' ' -f1,6 /proc/self/stat; id -u; grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status; exit 7";
        let look = |id: &str| case.command(["exec", "--user", "1000", id, "sh", "-c", script]).output();
        let born = look(&id);
        assert_eq!(born.code, 7, "{born:?}");
        let (pids, text) = born.stdout.split_once('\n').expect("lines");
        let (_, session) = pids.split_once(' ').expect("two numbers");
        assert_ne!(session, "0", "its session is of another pid namespace");
        // Of a container without the capability, whose processes are born first.
        let plain = case.bundle().forever().edit(json!({"process": process, "linux": {"seccomp": filter}}));
        let other = case.detached(&plain, "b");
        let first = look(&other);
        let without = |text: &str| text.lines().filter(|line| !line.starts_with("Cap")).collect::<Vec<_>>().join("\n");
        assert_eq!(without(text), without(first.stdout.split_once('\n').expect("lines").1));
        case.delete(&id);
        case.delete(&other);
        case.finish();
    }
}

/// With a terminal, a pid file and a program that is not there: what the late birth must not change.
#[test]
fn a_process_that_is_born_late_has_its_terminal_and_its_pid_file() {
    let case = Case::new(&flint());
    let id = case.detached(&case.bundle().forever().capabilities(&["CAP_SYS_PTRACE"]), "a");
    let (socket, file) = (ConsoleSocket::listen(case.path()), case.path().join("pid"));
    let exec = case.command(["exec", "-t", "--detach", "--console-socket"]).args([socket.path()]).args(["--pid-file"]);
    let script = "read line; tty; exec 3</dev/tty && echo controlling; echo ended";
    let running = exec.args([file.as_os_str()]).args([id.as_str(), "sh", "-c", script]).spawn();
    let mut received = socket.receive();
    let _ = running.finish("exec").ok();
    let pid = fs::read_to_string(&file).expect("the pid file");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its process");
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() == 3), "{status}");
    received.terminal.send("go\n");
    received.terminal.wait_for("controlling\nended\n");
    let output = case.exec(&id, &["/nonexistent"]);
    assert!(output.code == 255 && output.stderr.contains("no such file"), "{output:?}");
    case.delete(&id);
    let _ = received.terminal.finish();
    case.finish();
}

/// A container whose cgroups are writable makes some below its own until no path of the host's reaches the last.
#[test]
fn cgroups_that_are_too_deep_for_a_path_are_listed_killed_and_removed() {
    let case = Case::new(&flint());
    let name = "d".repeat(250);
    let script = format!(
        "sleep 1000 & cd /cgroups; [ -d pids ] && cd pids; i=0; while [ $i -lt 16 ]; do mkdir {name} && cd {name} || exit 1; \
         i=$((i+1)); done; echo $! > cgroup.procs && : > /tmp/ready; wait"
    );
    // A long path of the host's, and a short one in the container.
    let path = format!("/{}{}", case.id("deep"), "x".repeat(150));
    let mount = json!({"destination": "/cgroups", "type": "cgroup", "source": "cgroup", "options": ["rw", "nosuid"]});
    let bundle = case.bundle().writable().shell(&script).push("/mounts", mount);
    let bundle = bundle.edit(json!({"linux": {"cgroupsPath": path}}));
    let id = case.detached(&bundle, "a");
    wait_until("the cgroups are made", || bundle.rootfs().join("tmp/ready").exists());
    let pids = case.call(["ps", "--format", "json", &id]).ok().stdout;
    assert_eq!(pids.matches(',').count(), 1, "a shell and its sleep: {pids}");
    let _ = case.call(["kill", "--all", &id, "KILL"]).ok();
    case.wait_for(&id, "stopped");
    let _ = case.call(["delete", &id]).ok();
    case.finish();
}

/// A container whose cgroups are writable freezes its own init, by a cgroup below its own. On cgroup v1 what is frozen does not
/// even die.
#[test]
fn a_container_that_freezes_itself_is_killed_and_removed() {
    if !Path::new("/sys/fs/cgroup/freezer/cgroup.clone_children").exists() {
        return skip("there is no freezer of cgroup v1");
    }
    let case = Case::new(&flint());
    let script = "cd /cgroups/freezer && mkdir -p a/b && echo 1 > a/b/cgroup.procs; : > /tmp/ready; echo FROZEN > a/freezer.state; \
                  exec sleep 1000";
    let mount = json!({"destination": "/cgroups", "type": "cgroup", "source": "cgroup", "options": ["rw", "nosuid"]});
    let bundle = case.bundle().writable().shell(script).push("/mounts", mount);
    let id = case.detached(&bundle, "a");
    wait_until("the container is about to freeze", || bundle.rootfs().join("tmp/ready").exists());
    let pid = case.state(&id)["pid"].as_i64().expect("a pid");
    wait_until("the container is frozen", || is_frozen(pid));
    case.delete(&id);
    case.finish();
}

/// By the freezer that the process is in.
fn is_frozen(pid: i64) -> bool {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = cgroups.lines().find_map(|line| line.split_once(":freezer:")).map_or("", |(_, path)| path);
    fs::read_to_string(format!("/sys/fs/cgroup/freezer{path}/freezer.state"))
        .is_ok_and(|state| state.trim() == "FROZEN")
}

/// Somebody else may write to the pid file's folder, and puts links to a file of the host where flint writes it aside.
#[test]
fn a_pid_file_is_not_written_through_a_link() {
    let case = Case::new(&flint());
    let (folder, victim) = (case.path().join("pids"), case.path().join("victim"));
    fs::create_dir(&folder).expect("make a folder");
    fs::write(&victim, "the host's\n").expect("write a file");
    // The next commands' pids, wherever the machine's numbers start again.
    let now = std::process::id();
    for pid in now..now + 3000 {
        symlink(&victim, folder.join(format!("pid.{pid}"))).expect("make a link");
    }
    let file = folder.join("pid");
    let bundle = case.bundle().forever();
    let id = case.id("a");
    let run = case.command(["run", "--detach", "--pid-file"]).args([file.as_os_str()]).args(["--bundle"]);
    let _ = run.args([bundle.write()]).args([&id]).output().ok();
    assert_eq!(fs::read_to_string(&victim).expect("read"), "the host's\n");
    let pid: i32 = fs::read_to_string(&file).expect("read the pid file").parse().expect("a number");
    assert_eq!(case.state(&id)["pid"], pid);
    assert!(fs::symlink_metadata(&file).expect("look").is_file());
    case.delete(&id);
    case.finish();
}
