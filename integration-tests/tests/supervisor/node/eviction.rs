//! Pods that go because the node is short of something, or because they write more than they may.
//!
//! The machine itself is never short of anything: disks are a small tmpfs, the memory that pods may have together is made small
//! by what is reserved, and process ids are short against a threshold near to what is left.

use integration_tests::{skip, wait_until};
use serde_json::Value;

use super::rig::{Node, Setup, free_port};

/// Writes so many MiB to a file, says so, and goes on.
fn writes(mebibytes: u32, path: &str) -> String {
    format!(
        "/bin/busybox dd if=/dev/zero of={path} bs=1M count={mebibytes} && echo written; while true; do sleep 0.1; done"
    )
}

/// A volume `data` at /data of the container `main`.
fn with_volume(manifest: &str, volume: &str) -> String {
    manifest
        .replace("  containers:", &format!("  volumes: [{{name: data, emptyDir: {volume}}}]\n  containers:"))
        .replace("    command:", "    volumeMounts: [{name: data, mountPath: /data}]\n    command:")
}

fn with_resources(manifest: &str, resources: &str) -> String {
    manifest.replace("    command:", &format!("    resources: {resources}\n    command:"))
}

fn condition(node: &Node, name: &str) -> bool {
    let output = node.ctl(["node", "--json"]).ok();
    let facts: Value = serde_json::from_str(&output.stdout).expect("node prints JSON");
    facts["conditions"][name][0].as_bool().unwrap_or_else(|| panic!("no condition {name}: {facts:#}"))
}

/// Waits until a pod was evicted; the sentence.
#[track_caller]
fn evicted(node: &Node, name: &str) -> String {
    node.wait_for(name, "Failed");
    let status = node.status(name);
    assert_eq!(status["reason"]["word"], "Evicted", "{status:#}");
    let sentence = status["reason"]["sentence"].as_str().expect("a sentence").to_owned();
    let told = ("Evicted".to_owned(), sentence.clone());
    // The status is written first.
    wait_until("it is an event of the pod", || node.events().contains(&told));
    sentence
}

#[track_caller]
fn remove(node: &Node, names: &[&str]) {
    for name in names {
        let _ = node.ctl(["rm", name]).ok();
    }
    for name in names {
        node.wait_gone(name);
    }
}

fn said(node: &Node, name: &str, text: &str) {
    wait_until(&format!("{name} says {text:?}"), || node.ctl(["logs", name]).stdout.contains(text));
}

#[test]
fn a_disk_that_gets_full_evicts_who_has_more_than_it_asked_for() {
    let port = free_port();
    let setup = Setup {
        keys: &format!(
            "page = \"127.0.0.1:{port}\"\neviction.monitoring-interval = 1\neviction.pressure-transition-period = 20\n\
             eviction.hard = {{\"nodefs.available\" = \"50%\", \"imagefs.available\" = \"0%\", \
             \"imagefs.inodesFree\" = \"0%\"}}\n"
        ),
        small: &[("root", "64m")],
        ..Setup::default()
    };
    let Some(node) = Node::start_with(&setup) else { return };
    assert!(!condition(&node, "DiskPressure"));
    // Its priority is the lowest, but it keeps to what it asked for.
    let low = node.manifest("low", "  priority: -10\n", &writes(10, "/data/file"));
    node.apply(&with_resources(&with_volume(&low, "{}"), "{requests: {ephemeral-storage: 16Mi}}"));
    said(&node, "low", "written");
    let pid = node.status("low")["containers"]["main"]["pid"].clone();
    let over = node.manifest("over", "  priority: 10\n", &writes(30, "/data/file"));
    node.apply(&with_volume(&over, "{}"));
    let sentence = evicted(&node, "over");
    assert!(
        sentence.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 32Mi"),
        "{sentence}"
    );
    assert!(condition(&node, "DiskPressure"), "it holds for a while");
    let refused = node.ctl(["apply", "-f", &manifest_file(&node, &node.manifest("late", "", "true"))]);
    assert!(refused.code != 0, "{refused:?}");
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("DiskPressure"), "{refused:?}");
    // One of the folder of manifests is refused, too, and waits.
    let waits = node.manifest("waits", "", "while true; do sleep 0.1; done");
    std::fs::write(node.path().join("manifests/waits.yaml"), waits).expect("write a manifest");
    wait_until("it is told to be refused", || {
        node.events().iter().any(|(word, why)| word == "BadManifest" && why.contains("DiskPressure"))
    });
    // A pod that was evicted is not started again by itself, nor by hand while it would be evicted again.
    let again = node.ctl(["restart", "over"]);
    assert!(again.code != 0 && again.stderr.contains("DiskPressure"), "{again:?}");
    assert_eq!(node.status("low")["phase"], "Running");
    assert_eq!(node.status("low")["containers"]["main"]["pid"], pid, "it was left alone");
    let text = Node::get(port, "/metrics");
    assert!(text.contains("flint_evictions_total{signal=\"nodefs.available\"} 1"), "{text}");
    assert!(text.contains("flint_node_available{signal=\"nodefs.available\"}"), "{text}");
    wait_until("the pressure is over", || !condition(&node, "DiskPressure"));
    // The condition changes first.
    wait_until("it is told", || node.events().iter().any(|(word, _)| word == "NodeHasNoDiskPressure"));
    let words: Vec<String> = node.events().into_iter().map(|(word, _)| word).collect();
    for word in ["NodeHasDiskPressure", "EvictionThresholdMet", "NodeHasNoDiskPressure"] {
        assert!(words.iter().any(|one| one == word), "{word}: {words:?}");
    }
    node.apply(&node.manifest("late", "", "while true; do sleep 0.1; done"));
    node.wait_for("late", "Running");
    node.wait_for("waits", "Running");
    let log = node.ctl(["logs", "over"]).ok();
    assert!(log.stdout.contains("written"), "the log of a pod that has ended stays: {log:?}");
    std::fs::remove_file(node.path().join("manifests/waits.yaml")).expect("remove a manifest");
    node.wait_gone("waits");
    remove(&node, &["low", "over", "late"]);
    node.finish();
}

fn manifest_file(node: &Node, text: &str) -> String {
    let path = node.path().join("late.yaml");
    std::fs::write(&path, text).expect("write a manifest");
    path.display().to_string()
}

#[test]
fn pods_that_write_more_than_they_may_are_evicted_and_others_are_not() {
    let setup = Setup { keys: "eviction.monitoring-interval = 1\n", ..Setup::default() };
    let Some(node) = Node::start_with(&setup) else { return };
    node.apply(&with_volume(&node.manifest("volume", "", &writes(4, "/data/file")), "{sizeLimit: 1Mi}"));
    node.apply(&with_resources(&node.manifest("layer", "", &writes(4, "/file")), "{limits: {ephemeral-storage: 1Mi}}"));
    let message = node.manifest("message", "", &writes(4, "/dev/termination-log"));
    node.apply(&with_resources(&message, "{limits: {ephemeral-storage: 1Mi}}"));
    // The pod as a whole keeps to the sum of its limits; one container does not.
    let two = with_resources(&node.manifest("two", "", &writes(4, "/file")), "{limits: {ephemeral-storage: 1Mi}}");
    let beside = two.replace(
        "  containers:\n",
        "  containers:\n  - name: beside\n    image: tests/busybox:1\n    imagePullPolicy: Never\n    \
         resources: {limits: {ephemeral-storage: 100Mi}}\n    command: [/bin/sleep, \"1000\"]\n",
    );
    node.apply(&beside);
    let fits = with_volume(&node.manifest("fits", "", &writes(1, "/data/file")), "{sizeLimit: 4Mi}");
    node.apply(&with_resources(&fits, "{limits: {ephemeral-storage: 8Mi}}"));
    for (name, sentence) in [
        ("volume", "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\"."),
        ("layer", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi."),
        ("message", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi."),
        ("two", "Container main exceeded its local ephemeral storage limit \"1Mi\"."),
    ] {
        assert_eq!(evicted(&node, name), sentence);
    }
    said(&node, "fits", "written");
    // A look that comes after all of this leaves it alone, too.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(node.status("fits")["phase"], "Running");
    remove(&node, &["volume", "layer", "message", "two", "fits"]);
    node.finish();
}

/// Bytes of memory of this machine.
fn memory_total() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("read /proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("MemTotal");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn memory_that_pods_have_together_evicts_the_one_that_asked_for_none() {
    if !std::path::Path::new("/sys/fs/cgroup/memory").is_dir() && !has_memory_controller() {
        return skip("no cgroup hierarchy with the memory controller");
    }
    // 200 MiB for all pods, of which a tenth has to be left.
    let reserved = memory_total() - (200 << 20);
    let setup = Setup {
        keys: &format!(
            "reserved.memory = {reserved}\neviction.monitoring-interval = 1\neviction.pressure-transition-period = 20\n"
        ),
        ..Setup::default()
    };
    let Some(node) = Node::start_with(&setup) else { return };
    let asks = node.manifest("asks", "  priority: -10\n", &writes(10, "/data/file"));
    node.apply(&with_resources(&with_volume(&asks, "{medium: Memory}"), "{requests: {memory: 64Mi}}"));
    said(&node, "asks", "written");
    node.apply(&with_volume(&node.manifest("hog", "", &writes(185, "/data/file")), "{medium: Memory}"));
    let sentence = evicted(&node, "hog");
    assert!(
        sentence.starts_with("The node was low on resource: memory. Threshold quantity: 20Mi, available: "),
        "{sentence}"
    );
    assert!(sentence.contains("Container main was using ") && sentence.contains("request is 0"), "{sentence}");
    assert_eq!(node.status("asks")["phase"], "Running");
    // While it holds, who asks for nothing is kept out, and who asks for something is let in.
    assert!(condition(&node, "MemoryPressure"));
    let refused = node.ctl(["apply", "-f", &manifest_file(&node, &node.manifest("late", "", "true"))]);
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("MemoryPressure"), "{refused:?}");
    let late = node.manifest("late", "", "while true; do sleep 0.1; done");
    node.apply(&with_resources(&late, "{requests: {memory: 8Mi}}"));
    node.wait_for("late", "Running");
    remove(&node, &["asks", "hog", "late"]);
    node.finish();
}

fn has_memory_controller() -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|text| text.contains("memory"))
}

#[test]
fn process_ids_that_run_out_evict_who_has_most() {
    /// So many more than now are too many: more than what others start meanwhile.
    const ROOM: u64 = 2000;
    /// So many there would be at most, whatever others end meanwhile; the machine must not run out of memory.
    const MOST: u64 = 6000;
    let read = |file: &str| std::fs::read_to_string(file).expect("read /proc");
    let number = |file: &str| read(file).trim().parse::<u64>().expect("a number");
    let limit = number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"));
    let load = read("/proc/loadavg");
    let tasks: u64 = load.split([' ', '/']).nth(4).expect("tasks").parse().expect("a number");
    let least = limit - tasks - ROOM;
    let setup = Setup {
        keys: &format!(
            "eviction.monitoring-interval = 1\neviction.hard = {{\"pid.available\" = \"{least}\", \
             \"nodefs.available\" = \"0%\", \"nodefs.inodesFree\" = \"0%\", \"imagefs.available\" = \"0%\", \
             \"imagefs.inodesFree\" = \"0%\"}}\n"
        ),
        ..Setup::default()
    };
    let Some(node) = Node::start_with(&setup) else { return };
    node.apply(&node.manifest("few", "", "while true; do sleep 0.1; done"));
    node.wait_for("few", "Running");
    let script = format!("n=0; while [ $n -lt {MOST} ]; do sleep 1000 & n=$((n+1)); done; wait");
    node.apply(&node.manifest("many", "", &script));
    let sentence = evicted(&node, "many");
    assert!(
        sentence.starts_with(&format!("The node was low on resource: pids. Threshold quantity: {least}")),
        "{sentence}"
    );
    assert_eq!(node.status("few")["phase"], "Running");
    remove(&node, &["few", "many"]);
    node.finish();
}

#[test]
fn a_container_that_its_own_limit_killed_is_told_so() {
    let Some(node) = Node::start() else { return };
    let script = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
    let greedy = node.manifest("greedy", "  restartPolicy: Never\n", script);
    node.apply(&with_resources(&greedy, "{limits: {memory: 16Mi}}"));
    node.wait_for("greedy", "Failed");
    let exit = &node.state("greedy")["exited"];
    assert_eq!(exit["reason"]["word"], "OOMKilled", "{exit:#}");
    assert_eq!((&exit["oom"], &exit["status"]), (&Value::Bool(true), &Value::from(137)));
    wait_until("it is told", || node.events().iter().any(|(word, _)| word == "OOMKilled"));
    remove(&node, &["greedy"]);
    node.finish();
}
