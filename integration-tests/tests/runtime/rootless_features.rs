//! What an ordinary user's containers need other ways for than root's: time namespaces, seccomp notifications, exec into a
//! container that waits for its start.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use integration_tests::{Command, Rootless, skip, under_test_only, wait_until};
use serde_json::json;

fn rootless() -> Option<Rootless> {
    let [flint] = under_test_only("Debian's runc does not have this, or has it as here")?;
    Rootless::new(&flint)
}

#[test]
fn a_time_namespace_with_offsets() {
    let Some(rootless) = rootless() else { return };
    let offsets = json!({"linux": {"timeOffsets": {
        "monotonic": {"secs": 7881, "nanosecs": 2_718_281}, "boottime": {"secs": 1337, "nanosecs": 3_141_519}
    }}});
    let script = "cat /proc/self/timens_offsets; \
                  for file in self/ns/time 1/ns/time self/ns/time_for_children; do readlink /proc/$file; done";
    for with_ranges in [false, true] {
        let mut bundle = rootless.bundle().push("/linux/namespaces", json!({"type": "time"})).edit(offsets.clone());
        if with_ranges {
            bundle = rootless.with_ranges(bundle, 1);
        }
        let output = rootless.run(&bundle.args(&["/bin/sh", "-c", script])).ok().stdout;
        let expected = "monotonic        7881   2718281\nboottime         1337   3141519\n";
        let namespaces = output.strip_prefix(expected).unwrap_or_else(|| panic!("{output}"));
        let namespaces: Vec<_> = namespaces.lines().collect();
        let own = std::fs::read_link("/proc/self/ns/time").expect("a time namespace").display().to_string();
        assert!(namespaces.len() == 3 && namespaces.iter().all(|name| *name == namespaces[0]), "{output}");
        assert_ne!(namespaces[0], own);
    }
    rootless.case.finish();
}

#[test]
fn exec_into_a_created_container() {
    let Some(rootless) = rootless() else { return };
    let bundle = rootless.with_ranges(rootless.bundle(), 1).push("/linux/namespaces", json!({"type": "time"}));
    let (dir, id) = (bundle.forever().write(), rootless.case.id("a"));
    let _ = rootless.call(&["create", "--bundle", &dir.to_string_lossy(), &id]).ok();
    let script = "id -u; hostname; readlink /proc/1/exe > /dev/null || echo hidden; \
                  for kind in user pid net mnt ipc uts time; do readlink /proc/self/ns/$kind; done";
    let created = rootless.call(&["exec", &id, "/bin/sh", "-c", script]).ok().stdout;
    // Init is as far from the container's processes as before.
    assert!(created.starts_with("0\n") && created.contains("hidden\n"), "{created}");
    let _ = rootless.call(&["exec", &id, "/bin/true"]).ok();
    let _ = rootless.call(&["start", &id]).ok();
    let running = rootless.call(&["exec", &id, "/bin/sh", "-c", script]).ok().stdout;
    assert_eq!(created.replace("hidden\n", ""), running, "the same namespaces");
    rootless.delete(&id);
    rootless.case.finish();
}

/// Who may not take the listener out of init gets it sent.
#[test]
fn seccomp_notifications() {
    let Some(rootless) = rootless() else { return };
    let socket = rootless.user.home().join("agent");
    let listener = UnixListener::bind(&socket).expect("listen");
    rootless.user.own(&socket);
    let (sender, states) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Read without its descriptor, which is closed then: who asked gets ENOSYS.
            let mut text = vec![0; 64 << 10];
            let length = std::io::Read::read(&mut stream, &mut text).unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&text[..length]).into_owned());
        }
    });
    let asking = |names: &[&str]| {
        rootless.bundle().edit(json!({"linux": {"seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]
        }}}))
    };
    let bundle = asking(&["mkdir", "mkdirat"]).args(&["/bin/sh", "-c", "mkdir /dev/shm/x 2>&1; echo done"]);
    let output = rootless.run(&bundle).ok().stdout;
    assert!(output.contains("not implemented") && output.contains("done"), "{output}");
    let state = states.recv_timeout(Duration::from_secs(10)).expect("the agent's message");
    assert!(state.contains("seccompFd") && state.contains(&rootless.case.id("run")), "{state}");
    // It could not be sent: that would have to be asked of the one who waits for it.
    let output = rootless.run(&asking(&["sendmsg"]).args(&["/bin/true"]));
    assert!(output.code == 1 && output.stderr.contains("may not ask about sendmsg"), "{output:?}");
    rootless.case.finish();
}

/// A cgroup that root gave to the user: there limits work without systemd.
#[test]
fn limits_in_a_delegated_cgroup() {
    let Some(rootless) = rootless() else { return };
    let top = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_ascii_whitespace().any(|name| name == "pids") {
        rootless.case.finish();
        skip("needs cgroup v2 alone (cargo xtask vm --test rootless_features)");
        return;
    }
    fs::write(top.join("cgroup.subtree_control"), "+pids +memory").expect("enable controllers");
    let own = top.join(rootless.case.id("delegated"));
    fs::create_dir_all(own.join("shell")).expect("make the user's cgroup");
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "shell", "shell/cgroup.procs"] {
        std::os::unix::fs::chown(own.join(file), Some(rootless.user.uid), Some(rootless.user.gid)).expect("chown");
    }
    let name = own.file_name().expect("a name").to_string_lossy().into_owned();
    let limits = json!({"linux": {"resources": {"pids": {"limit": 20}, "memory": {"limit": 50_331_648}}}});
    let named = json!({"linux": {"cgroupsPath": format!("/{name}/named")}});
    for (edit, place) in [(json!({}), rootless.case.id("a")), (named, "named".to_owned())] {
        let bundle = rootless.bundle().forever().edit(limits.clone()).edit(edit);
        let (dir, id) = (bundle.write(), rootless.case.id("a"));
        let script = format!("echo $$ > {}/shell/cgroup.procs && exec \"$@\"", own.display());
        let (uid, gid) = (rootless.user.uid.to_string(), rootless.user.gid.to_string());
        let _ = Command::new("sh")
            .args(["-c", &script, "sh", "setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"])
            .args([rootless.program.as_os_str(), "--root".as_ref(), rootless.case.state_root().as_os_str()])
            .args(["run", "--detach", "--bundle", &dir.to_string_lossy(), &id])
            .output()
            .ok();
        let read = |file: &str| fs::read_to_string(own.join(&place).join(file)).expect("a file of the cgroup");
        assert_eq!((read("pids.max").trim(), read("memory.max").trim()), ("20", "50331648"), "{place}");
        wait_until("the shell and its sleep are in it", || read("cgroup.procs").lines().count() == 2);
        let _ = rootless.call(&["pause", &id]).ok();
        assert_eq!(rootless.status(&id), "paused");
        let _ = rootless.call(&["resume", &id]).ok();
        rootless.delete(&id);
        assert!(!own.join(&place).exists(), "{place} is left");
    }
    fs::remove_dir(own.join("shell")).expect("remove the user's cgroup");
    fs::remove_dir(&own).expect("remove the user's cgroup");
    rootless.case.finish();
}
