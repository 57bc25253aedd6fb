//! What containerd does with a runtime by its own shim, whichever containerd it is: flint beside runc.

use std::fs;

use integration_tests::{Containerd, Runtime, wait_until, whole_output};

/// Counts in `/count`: whether it goes on can be seen, and that it did not begin anew.
const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.05; done";

fn status(containerd: &Containerd, id: &str) -> String {
    let list = containerd.ctr(&["task", "ls"]).ok().stdout;
    let line = list.lines().find(|line| line.starts_with(id)).unwrap_or_default();
    line.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// A task that counts, detached; its id.
fn counting(containerd: &Containerd, runtime: &Runtime, options: &[&str]) -> String {
    let id = containerd.id();
    let all: Vec<&str> = ["--detach", "--null-io"].iter().chain(options).copied().collect();
    let _ = containerd.run(runtime, &all, &id, &["sh", "-c", COUNTING]).ok();
    wait_until("it counts", || count(containerd, &id) > 3);
    id
}

fn count(containerd: &Containerd, id: &str) -> u32 {
    let output = containerd.ctr(&["task", "exec", "--exec-id", &containerd.id(), id, "cat", "/count"]);
    output.stdout.trim().parse().unwrap_or(0)
}

/// By force, running as it is.
fn remove(containerd: &Containerd, id: &str) {
    let _ = containerd.ctr(&["task", "rm", "--force", id]).ok();
    let _ = containerd.ctr(&["container", "rm", id]).ok();
    containerd.assert_gone(id);
}

pub(crate) fn pause(containerd: &Containerd, peers: &[Runtime; 2]) {
    for runtime in peers {
        let id = counting(containerd, runtime, &[]);
        let _ = containerd.ctr(&["task", "pause", &id]).ok();
        assert_eq!(status(containerd, &id), "PAUSED", "{}", runtime.name);
        let folder = containerd.cgroup("freezer", &id);
        let frozen = ["freezer.state", "cgroup.freeze"].map(|file| fs::read_to_string(folder.join(file)).ok());
        assert!(frozen.iter().flatten().any(|text| ["FROZEN", "1"].contains(&text.trim())), "{frozen:?}");
        let _ = containerd.ctr(&["task", "resume", &id]).ok();
        assert_eq!(status(containerd, &id), "RUNNING", "{}", runtime.name);
        let before = count(containerd, &id);
        wait_until("it counts on", || count(containerd, &id) > before);
        remove(containerd, &id);
    }
}

pub(crate) fn checkpoint_and_restore(containerd: &Containerd, peers: &[Runtime; 2]) {
    if !containerd.place().has_criu() {
        return;
    }
    for runtime in peers {
        let image = format!("localhost/{}", containerd.id());
        let id = counting(containerd, runtime, &[]);
        let _ = containerd.ctr(&["container", "checkpoint", "--rw", "--image", "--task", &id, &image]).ok();
        assert_eq!(status(containerd, &id), "RUNNING", "{}: it goes on", runtime.name);
        let before = count(containerd, &id);
        remove(containerd, &id);
        let restored = containerd.id();
        let client = containerd.spawn(&["container", "restore", "--rw", "--live", &restored, &image]);
        wait_until("it runs again", || status(containerd, &restored) == "RUNNING");
        let after = count(containerd, &restored);
        assert!(after > 3 && after < before + 1000, "{}: {before}, then {after}", runtime.name);
        wait_until("it counts on", || count(containerd, &restored) > after);
        let _ = containerd.ctr(&["task", "kill", "--signal", "KILL", &restored]).ok();
        let _ = client.finish("ctr container restore");
        wait_until("the task is deleted", || {
            let _ = containerd.ctr(&["task", "rm", "--force", &restored]);
            status(containerd, &restored).is_empty()
        });
        let _ = containerd.ctr(&["container", "rm", &restored]).ok();
        let _ = containerd.ctr(&["image", "rm", &image]).ok();
        containerd.assert_gone(&restored);
    }
}

/// Runs the script under both runtimes; what they print must be equal, whole (it ends with `end`) and pass `check`.
#[track_caller]
fn prints(containerd: &Containerd, peers: &[Runtime; 2], options: &[&str], script: &str, check: impl Fn(&str) -> bool) {
    let outputs = peers.each_ref().map(|runtime| {
        let once = || {
            let id = containerd.id();
            let output = containerd.run(runtime, options, &id, &["sh", "-c", script]).ok();
            containerd.assert_gone(&id);
            output
        };
        whole_output(once, |stdout| stdout.ends_with("end\n")).stdout
    });
    assert!(check(&outputs[1]), "runc does not print what the test expects, {options:?}: {}", outputs[1]);
    assert_eq!(outputs[0], outputs[1], "flint (left) against runc, {options:?}");
}

pub(crate) fn user_namespaces(containerd: &Containerd, peers: &[Runtime; 2]) {
    let script = "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map; id -u; touch /x; \
                  stat -c '%u %g' /x /bin/busybox; grep -E 'Cap|NoNew' /proc/self/status; echo end";
    let options = ["--rm", "--uidmap", "0:700000:65536", "--gidmap", "0:700000:65536"];
    prints(containerd, peers, &options, script, |text| {
        text.starts_with(" 0 700000 65536\n 0 700000 65536\n0\n0 0\n0 0\n")
    });
}

pub(crate) fn a_seccomp_profile_of_ones_own(containerd: &Containerd, peers: &[Runtime; 2]) {
    let profile = containerd.place().path().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
        {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;
    fs::write(&profile, text).expect("write the profile");
    let profile = profile.display().to_string();
    let options = ["--rm", "--cap-add", "CAP_SYS_ADMIN", "--seccomp", "--seccomp-profile", &profile];
    let script = "mkdir /tmp/x 2>&1; (hostname x) 2>/dev/null; echo $?; grep Seccomp: /proc/self/status; echo end";
    let expected = "mkdir: can't create directory '/tmp/x': Operation not supported\n159\nSeccomp:\t2\nend\n";
    prints(containerd, peers, &options, script, |text| text == expected);
}
