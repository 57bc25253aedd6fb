//! What containerd does with a runtime by its own shim, whichever containerd it is: flint beside runc.

pub(crate) mod checkpoint;

use std::fs;

use checkpoint::count;
use integration_tests::{
    COUNTING, Containerd, Runtime, SECCOMP_DENIED, SECCOMP_PROFILE, SECCOMP_TRIES, cgroup_value, pause_until_frozen,
    wait_until, whole_output,
};

/// A task that counts, detached; its id.
fn counting(containerd: &Containerd, runtime: &Runtime, options: &[&str]) -> String {
    let id = containerd.id();
    let all: Vec<&str> = ["--detach", "--null-io"].iter().chain(options).copied().collect();
    let _ = containerd.run(runtime, &all, &id, &["sh", "-c", COUNTING]).ok();
    wait_until("it counts", || count(containerd, &id) > 3);
    id
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
        pause_until_frozen(|| containerd.ctr(&["task", "pause", &id]));
        assert_eq!(containerd.task_status(&id), "PAUSED", "{}", runtime.name);
        let frozen = cgroup_value("freezer", &id, "freezer.state", "cgroup.freeze");
        assert!(["FROZEN", "1"].contains(&frozen.as_str()), "{frozen}");
        let _ = containerd.ctr(&["task", "resume", &id]).ok();
        assert_eq!(containerd.task_status(&id), "RUNNING", "{}", runtime.name);
        let before = count(containerd, &id);
        wait_until("it counts on", || count(containerd, &id) > before);
        remove(containerd, &id);
    }
}

pub(crate) fn checkpoint_and_restore(containerd: &Containerd, peers: &[Runtime; 2]) {
    for runtime in peers {
        checkpoint::to_an_image_and_back(containerd, |id, program| {
            containerd.run(runtime, &["--detach", "--null-io"], id, program)
        });
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
    fs::write(&profile, SECCOMP_PROFILE).expect("write the profile");
    let profile = profile.display().to_string();
    let options = ["--rm", "--cap-add", "CAP_SYS_ADMIN", "--seccomp", "--seccomp-profile", &profile];
    let script = format!("{SECCOMP_TRIES}; echo end");
    prints(containerd, peers, &options, &script, |text| text == format!("{SECCOMP_DENIED}end\n"));
}
