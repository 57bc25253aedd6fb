//! What is done to a running container as a whole: paused, given other limits, taken to disk and back, removed.

use std::fs;

use integration_tests::{COUNTING, Podman, System, cgroup_value, pause_until_frozen, wait_until};

use super::RUNTIMES;

/// `podman run -d` of the script that counts; its id.
fn counting(podman: &Podman, runtime: &str) -> String {
    let (_, output) = podman.run(runtime, &["--detach"], &["sh", "-c", COUNTING]);
    let id = output.ok().stdout.trim().to_owned();
    wait_until("it counts", || count(podman, &id) > 3);
    id
}

fn count(podman: &Podman, id: &str) -> u32 {
    podman.call(&["exec", id, "cat", "/tmp/count"]).stdout.trim().parse().unwrap_or(0)
}

pub(crate) fn pause(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = counting(podman, runtime);
        pause_until_frozen(|| podman.call(&["pause", &id]));
        podman.wait_for(&id, "paused");
        let frozen = cgroup_value("freezer", &id, "freezer.state", "cgroup.freeze");
        assert!(["FROZEN", "1"].contains(&frozen.as_str()), "{runtime}: {frozen}");
        let refused = podman.call(&["exec", &id, "true"]);
        assert_ne!(refused.code, 0, "{runtime}: exec in a paused container");
        let _ = podman.call(&["unpause", &id]).ok();
        podman.wait_for(&id, "running");
        let before = count(podman, &id);
        wait_until("it counts on", || count(podman, &id) > before);
        // A paused one ends, too.
        pause_until_frozen(|| podman.call(&["pause", &id]));
        podman.remove(&id);
    }
}

pub(crate) fn update(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &["--memory", "64m", "--cpus", "0.5"]);
        let options = ["--memory", "96m", "--cpus", "0.25", "--cpu-shares", "512", "--cpuset-cpus", "0"];
        let mut all = vec!["update"];
        all.extend(options);
        all.push(&id);
        let _ = podman.call(&all).ok();
        let limit = |controller, v1, v2| cgroup_value(controller, &id, v1, v2);
        assert_eq!(limit("memory", "memory.limit_in_bytes", "memory.max"), "100663296", "{runtime}");
        let quota = limit("cpu", "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(quota.split(' ').next(), Some("25000"), "{runtime}");
        assert_eq!(limit("cpuset", "cpuset.cpus", "cpuset.cpus"), "0", "{runtime}");
        let exec = podman.call(&["exec", &id, "echo", "still here"]).ok();
        assert_eq!(exec.stdout, "still here\n", "{runtime}");
        podman.remove(&id);
    }
}

pub(crate) fn checkpoint_and_restore(podman: &Podman) {
    if !podman.place().has_criu() {
        return;
    }
    for runtime in RUNTIMES {
        let id = counting(podman, runtime);
        let _ = podman.call(&["container", "checkpoint", &id]).ok();
        podman.wait_for(&id, "exited");
        let _ = podman.call(&["container", "restore", &id]).ok();
        podman.wait_for(&id, "running");
        let first = count(podman, &id);
        assert!(first > 3, "{runtime}: it began anew: {first}");
        wait_until("it counts on", || count(podman, &id) > first);

        // As a file, which another container comes of.
        let archive = podman.place().path().join(format!("{runtime}-checkpoint.tar"));
        let archive = archive.display().to_string();
        let _ = podman.call(&["container", "checkpoint", "--compress", "none", "--export", &archive, &id]).ok();
        podman.remove(&id);
        let name = podman.place().name();
        let restore = ["container", "restore", "--import", &archive, "--name", &name];
        let restored = podman.call(&restore).ok().stdout.trim().to_owned();
        wait_until("it counts on", || count(podman, &restored) > first + 1);
        podman.remove(&restored);
        fs::remove_file(&archive).expect("remove the archive");
    }
}

/// Without stopping it first, with an exec inside.
pub(crate) fn rm_force_of_a_running_container(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &["--stop-timeout", "0"]);
        let _ = podman.call(&["exec", "--detach", &id, "sleep", "1000"]).ok();
        podman.remove(&id);
    }
}

/// A range of host ids for each container, taken by podman.
pub(crate) fn automatic_user_namespaces(podman: &Podman) {
    let place = podman.place();
    if place.system() == System::Sid {
        // It asks for the user, too.
        let _ = place.command("useradd").args(["--system", "containers"]).output().ok();
    }
    place.give_id_ranges("containers", 200_000);
    for runtime in RUNTIMES {
        let first = podman.forever(runtime, &["--userns", "auto:size=4096"]);
        let second = podman.forever(runtime, &["--userns", "auto:size=4096"]);
        let start = |id: &str| {
            let map = podman.call(&["exec", id, "cat", "/proc/self/uid_map"]).ok().stdout;
            let fields: Vec<u32> = map.split_whitespace().filter_map(|field| field.parse().ok()).collect();
            assert_eq!((fields[0], fields[2]), (0, 4096), "{runtime}: {map}");
            fields[1]
        };
        let (one, two) = (start(&first), start(&second));
        assert!(one >= 700_000 && two >= 700_000 && one.abs_diff(two) >= 4096, "{runtime}: {one} and {two}");
        podman.remove(&first);
        podman.remove(&second);
    }
    // Whatever else runs in the place may have a file of it open.
    let _ = place.command("umount").args(["--lazy", "/etc"]).output().ok();
}
