//! Changes while a container runs, hooks of its life, and filters of its system calls.

use std::fs;
use std::path::PathBuf;

use integration_tests::wait_until;

use super::rig::Node;

/// Says what two files of a volume are, whenever that has changed, and what a secret is. A look that found the old folder on its way
/// out has less than both files.
const READER: &str = "last=; secret=; while true; do \
                      both=\"$(cd /conf/..data && cat a b 2>/dev/null)\"; \
                      [ ${#both} -lt 2 ] || [ \"$both\" = \"$last\" ] || { last=\"$both\"; echo \"sees $both\"; }; \
                      key=\"$(cat /secret/key)\"; \
                      [ \"$key\" = \"$secret\" ] || { secret=\"$key\"; echo \"knows $key\"; }; sleep 0.05; done";

fn objects(content: &str, secret: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{a: \"{content}\", b: \"{content}\"}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: secret}}\nstringData: {{key: {secret}}}\n---\n"
    )
}

fn reader(node: &Node, name: &str) -> String {
    let volumes = "  volumes: [{name: conf, configMap: {name: conf}}, {name: secret, secret: {secretName: secret}}]\n";
    node.manifest(name, volumes, READER).replace(
        "    command:",
        "    volumeMounts: [{name: conf, mountPath: /conf}, {name: secret, mountPath: /secret}]\n    command:",
    )
}

fn pid(node: &Node, name: &str) -> u64 {
    node.status(name)["containers"]["main"]["pid"].as_u64().expect("a pid")
}

#[track_caller]
fn says(node: &Node, name: &str, text: &str) {
    let mut last = None;
    let is_said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(&format!("{name} says {text:?}"), || {
            let logs = last.insert(node.ctl(["logs", name]));
            logs.stdout.contains(text) || logs.stderr.contains(text)
        });
    }));
    assert!(is_said.is_ok(), "{name} does not say {text:?}: {last:?}");
}

#[track_caller]
fn remove(node: &Node, name: &str) {
    let _ = node.ctl(["rm", name]).ok();
    node.wait_gone(name);
}

#[test]
fn files_of_config_maps_and_secrets_change_while_the_container_runs() {
    let Some(mut node) = Node::start() else { return };
    // By the local API, and by the folder of manifests with the objects in a file of their own.
    node.apply(&(objects("1", "one") + &reader(&node, "applied")));
    let manifests = node.path().join("manifests");
    let put = |name: &str, text: &str| {
        fs::write(manifests.join(".new"), text).expect("write a manifest");
        fs::rename(manifests.join(".new"), manifests.join(name)).expect("put a manifest in place");
    };
    put("objects.yaml", &objects("1", "one"));
    put("pod.yaml", &reader(&node, "followed"));
    for name in ["applied", "followed"] {
        says(&node, name, "sees 11\n");
        says(&node, name, "knows one\n");
    }
    let before = [pid(&node, "applied"), pid(&node, "followed")];
    node.apply(&(objects("2", "two") + &reader(&node, "applied")));
    put("objects.yaml", &objects("2", "two"));
    for name in ["applied", "followed"] {
        says(&node, name, "sees 22\n");
        says(&node, name, "knows two\n");
    }
    // A change that was acknowledged to a flintd that is killed is made by the next.
    node.apply(&(objects("3", "three") + &reader(&node, "applied")));
    node.end(rustix::process::Signal::KILL);
    node.launch();
    says(&node, "applied", "sees 33\n");
    says(&node, "applied", "knows three\n");
    assert_eq!([pid(&node, "applied"), pid(&node, "followed")], before, "they are the same processes");
    for name in ["applied", "followed"] {
        let log = node.ctl(["logs", name]).stdout;
        let whole = ["sees 11", "sees 22", "sees 33"];
        let mixed = log.lines().find(|line| line.starts_with("sees") && !whole.contains(line));
        assert_eq!(mixed, None, "each look sees all of one make: {log}");
    }
    fs::remove_file(manifests.join("pod.yaml")).expect("remove a manifest");
    remove(&node, "applied");
    node.wait_gone("followed");
    node.finish();
}

/// A file of a container's cgroup: v1's name of it, or v2's.
fn cgroup_file(node: &Node, name: &str, v1: (&str, &str), v2: &str) -> String {
    let container = format!("{}ns/{}{name}.main.1", node.prefix, node.prefix);
    let root = PathBuf::from("/sys/fs/cgroup");
    let path = if root.join(v1.0).is_dir() {
        root.join(v1.0).join(container).join(v1.1)
    } else {
        root.join(container).join(v2)
    };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display())).trim().to_owned()
}

#[test]
fn limits_change_and_go_while_the_container_runs() {
    let Some(node) = Node::start() else { return };
    let with = |resources: &str| {
        let manifest = node.manifest("limited", "", "while true; do sleep 0.1; done");
        manifest.replace("    command:", &format!("    resources: {resources}\n    command:"))
    };
    let memory = || cgroup_file(&node, "limited", ("memory", "memory.limit_in_bytes"), "memory.max");
    let quota = || cgroup_file(&node, "limited", ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    node.apply(&with("{limits: {memory: 64Mi, cpu: 500m}}"));
    node.wait_for("limited", "Running");
    let first = pid(&node, "limited");
    assert_eq!((memory(), quota().split(' ').next()), ((64_u64 << 20).to_string(), Some("50000")));
    // More, less, and none.
    for (resources, bytes, micros) in [
        ("{limits: {memory: 96Mi, cpu: 750m}}", Some(96_u64 << 20), Some("75000")),
        ("{limits: {memory: 32Mi, cpu: 250m}}", Some(32 << 20), Some("25000")),
        ("{}", None, None),
    ] {
        node.apply(&with(resources));
        wait_until(&format!("it has {resources}: {} {}", memory(), quota()), || {
            let is_memory = match bytes {
                Some(bytes) => memory() == bytes.to_string(),
                // v1 writes the largest number of pages there is.
                None => memory() == "max" || memory().parse::<u64>().is_ok_and(|bytes| bytes > 1 << 60),
            };
            let quota = quota();
            let quota = quota.split(' ').next().unwrap_or_default();
            is_memory && micros.map_or(quota == "-1" || quota == "max", |micros| quota == micros)
        });
    }
    assert_eq!(pid(&node, "limited"), first, "it is the same process");
    assert_eq!(node.status("limited")["containers"]["main"]["restarts"], 0);
    remove(&node, "limited");
    node.finish();
}

/// `main` with this lifecycle, which writes to /out.
fn with_hooks(node: &Node, name: &str, lifecycle: &str, script: &str) -> String {
    let out = node.folder("out");
    let volumes = format!("  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n", out.display());
    node.manifest(name, &volumes, script).replace(
        "    command:",
        &format!("    volumeMounts: [{{name: out, mountPath: /out}}]\n    lifecycle: {lifecycle}\n    command:"),
    )
}

#[test]
fn hooks_run_after_the_start_and_before_the_signal() {
    let Some(node) = Node::start() else { return };
    let hook = |name: &str, script: &str| format!("{name}: {{exec: {{command: [/bin/sh, -c, {script:?}]}}}}");
    let lifecycle = format!(
        "{{{}, {}}}",
        hook("postStart", "echo after the start >> /out/hooks"),
        hook("preStop", "sleep 0.3; echo before the stop >> /out/hooks")
    );
    let script = "trap 'echo signalled >> /out/hooks; exit 0' TERM; while true; do sleep 0.1; done";
    let manifest = with_hooks(&node, "hooked", &lifecycle, script);
    node.apply(&manifest.replace("Seconds: 5\n", "Seconds: 60\n"));
    let told = || fs::read_to_string(node.path().join("out/hooks")).unwrap_or_default();
    wait_until("the hook after the start has run", || told() == "after the start\n");
    remove(&node, "hooked");
    assert_eq!(told(), "after the start\nbefore the stop\nsignalled\n");
    // A hook that fails ends the container; what it said is told.
    let lifecycle = format!("{{{}}}", hook("postStart", "echo no such thing >&2; exit 4"));
    let manifest = with_hooks(&node, "failing", &lifecycle, "while true; do sleep 0.1; done");
    node.apply(&manifest.replace("  containers:", "  restartPolicy: Never\n  containers:"));
    node.wait_for("failing", "Failed");
    let (_, sentence) = node
        .events()
        .into_iter()
        .find(|(word, _)| word == "FailedPostStartHook")
        .expect("the hook's failure is an event");
    assert!(sentence.contains("no such thing"), "{sentence}");
    // One that hangs has the grace period and no more: then comes SIGKILL.
    let lifecycle = format!("{{{}}}", hook("preStop", "sleep 1000"));
    node.apply(&with_hooks(&node, "hanging", &lifecycle, "while true; do sleep 0.1; done"));
    node.wait_for("hanging", "Running");
    let _ = node.ctl(["stop", "--grace", "1s", "hanging"]).ok();
    wait_until("it was killed", || node.state("hanging")["exited"]["status"] == 137);
    for name in ["failing", "hanging"] {
        remove(&node, name);
    }
    node.finish();
}

#[test]
fn a_hook_after_the_start_that_flintd_died_in_is_run_again() {
    let Some(mut node) = Node::start() else { return };
    let script = "echo begun >> /out/hooks; while [ ! -e /out/go ]; do sleep 0.05; done; echo done >> /out/hooks";
    let lifecycle = format!("{{postStart: {{exec: {{command: [/bin/sh, -c, {script:?}]}}}}}}");
    node.apply(&with_hooks(&node, "hooked", &lifecycle, "while true; do sleep 0.1; done"));
    let told = || fs::read_to_string(node.path().join("out/hooks")).unwrap_or_default();
    let container = |node: &Node| node.status("hooked")["containers"]["main"].clone();
    wait_until("the hook has begun", || told() == "begun\n");
    node.wait_for("hooked", "Running");
    assert_eq!(container(&node)["ready"], false, "it is not ready before its hook has run");
    node.end(rustix::process::Signal::KILL);
    // So many programs of the last one take the next one a while to end: long enough for its own to begin meanwhile.
    for number in 0..5000 {
        let _ = node.folder(&format!("run/execs/not-started-{number}"));
    }
    node.launch();
    let told = || fs::read_to_string(node.path().join("out/hooks")).unwrap_or_default();
    wait_until("the hook has begun again", || told().matches("begun\n").count() == 2);
    wait_until("the programs of the last flintd have ended, the hook runs", || node.execs() == 1);
    assert_eq!(container(&node)["ready"], false);
    fs::write(node.path().join("out/go"), "").expect("let it end");
    wait_until("it is ready", || container(&node)["ready"] == true);
    assert_eq!(told(), "begun\nbegun\ndone\n", "that of the last flintd was ended before");
    assert_eq!(container(&node)["restarts"], 0, "{:#?}", node.events());
    remove(&node, "hooked");
    node.finish();
}

/// A shim that dies takes with it what nobody knows of then: that is not held against the container.
#[test]
fn a_hook_and_probes_whose_shim_has_died_are_run_again() {
    let Some(node) = Node::start() else { return };
    let script = "echo begun >> /out/hooks; while [ ! -e /out/go ]; do sleep 0.05; done; echo done >> /out/hooks";
    let lifecycle = format!("{{postStart: {{exec: {{command: [/bin/sh, -c, {script:?}]}}}}}}");
    // A single no would end the container.
    let probe = "{exec: {command: [/bin/sleep, '1']}, periodSeconds: 2, timeoutSeconds: 60, failureThreshold: 1}";
    let manifest = with_hooks(&node, "hooked", &lifecycle, "while true; do sleep 0.1; done");
    node.apply(&manifest.replace("    lifecycle:", &format!("    livenessProbe: {probe}\n    lifecycle:")));
    let told = || fs::read_to_string(node.path().join("out/hooks")).unwrap_or_default();
    let container = || node.status("hooked")["containers"]["main"].clone();
    wait_until("the hook has begun", || told() == "begun\n");
    node.wait_for("hooked", "Running");
    wait_until("the probe asks", || node.execs() == 2);
    let first = container()["pid"].clone();
    for shim in node.shims() {
        let shim = rustix::process::Pid::from_raw(shim).expect("a pid");
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("end the shim");
    }
    wait_until("there is another one", || !node.shims().is_empty());
    assert_eq!((told().as_str(), &container()["ready"]), ("begun\n", &false.into()));
    fs::write(node.path().join("out/go"), "").expect("let it end");
    wait_until("it is ready", || container()["ready"] == true);
    assert_eq!(told(), "begun\ndone\nbegun\ndone\n", "how the first has ended nobody knows");
    // What was lost of the first probe would be told by now.
    wait_until("the probe asks again", || node.execs() == 0);
    wait_until("and again", || node.execs() == 1);
    let container = container();
    assert_eq!((&container["restarts"], &container["pid"]), (&0.into(), &first), "{:#?}", node.events());
    remove(&node, "hooked");
    node.finish();
}

/// Nobody asks a container that has ended while its shim was dead.
#[test]
fn probes_end_with_their_container_though_its_shim_has_died_before() {
    let Some(node) = Node::start() else { return };
    let probe = "{exec: {command: [/bin/true]}, periodSeconds: 1, timeoutSeconds: 60}";
    let manifest = node.manifest("asked", "", "while true; do sleep 0.1; done");
    node.apply(&manifest.replace("    command:", &format!("    readinessProbe: {probe}\n    command:")));
    let container = || node.status("asked")["containers"]["main"].clone();
    wait_until("it is ready", || container()["ready"] == true);
    let init = pid(&node, "asked");
    for pid in node.shims().into_iter().chain([init as i32]) {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("end it");
    }
    wait_until("it is ready again", || container()["ready"] == true && container()["restarts"] == 1);
    // Long enough for one more question to the first.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let told = node.events();
    assert!(told.iter().all(|(word, _)| word != "Unhealthy"), "{told:#?}");
    remove(&node, "asked");
    node.finish();
}

/// The grace that was given to one stop is not that of the next.
#[test]
fn a_short_grace_ends_with_its_stop() {
    let Some(node) = Node::start() else { return };
    let script =
        "trap 'echo signalled >> /out/hooks; exit 3' TERM; echo up >> /out/hooks; while true; do sleep 0.1; done";
    let manifest = with_hooks(&node, "stopped", "{}", script).replace("Seconds: 5\n", "Seconds: 60\n");
    let told = || fs::read_to_string(node.path().join("out/hooks")).unwrap_or_default();
    node.apply(&manifest);
    wait_until("it is up", || told() == "up\n");
    let _ = node.ctl(["stop", "--grace", "0s", "stopped"]).ok();
    wait_until("it was killed", || node.state("stopped")["exited"]["status"] == 137);
    node.apply(&manifest);
    wait_until("it is up again", || told() == "up\nup\n");
    let _ = node.ctl(["stop", "stopped"]).ok();
    wait_until("it has ended", || node.state("stopped")["exited"].is_object());
    assert_eq!(node.state("stopped")["exited"]["status"], 3, "it had its own grace");
    assert_eq!(told(), "up\nup\nsignalled\n");
    remove(&node, "stopped");
    node.finish();
}

#[test]
fn a_seccomp_profile_of_the_node_is_applied() {
    let Some(node) = Node::start() else { return };
    let profiles = node.folder("root/seccomp/profiles");
    let rule = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    fs::write(profiles.join("no-folders.json"), rule).expect("write a profile");
    fs::write(node.path().join("outside.json"), rule).expect("write a file");
    std::os::unix::fs::symlink("../../../outside.json", profiles.join("out.json")).expect("make a link");
    let pod = |name: &str, profile: &str, script: &str| {
        let more = format!("  restartPolicy: Never\n  securityContext: {{seccompProfile: {profile}}}\n");
        node.apply(&node.manifest(name, &more, script));
    };
    let localhost = |file: &str| format!("{{type: Localhost, localhostProfile: {file}}}");
    pod("filtered", &localhost("profiles/no-folders.json"), "/bin/busybox mkdir /made");
    pod("unconfined", "{type: Unconfined}", "/bin/busybox mkdir /made && cat /proc/self/status");
    pod("default", "{type: RuntimeDefault}", "/bin/busybox mkdir /made && cat /proc/self/status");
    pod("missing", &localhost("profiles/none.json"), "true");
    pod("outside", &localhost("profiles/out.json"), "true");
    node.wait_for("filtered", "Failed");
    // 95 is EOPNOTSUPP: the filter's own number.
    says(&node, "filtered", "Operation not supported");
    for (name, mode) in [("unconfined", "0"), ("default", "2")] {
        node.wait_for(name, "Succeeded");
        says(&node, name, &format!("Seccomp:\t{mode}\n"));
    }
    for (name, why) in [("missing", "No such file"), ("outside", "profiles/out.json")] {
        wait_until(&format!("{name} is told to be wrong"), || {
            let waiting = &node.state(name)["waiting"];
            waiting["word"] == "CreateContainerConfigError"
                && waiting["sentence"].as_str().is_some_and(|sentence| sentence.contains(why))
        });
    }
    for name in ["filtered", "unconfined", "default", "missing", "outside"] {
        remove(&node, name);
    }
    node.finish();
}

/// A mask of signals outlives execve: flintd and what it starts do not keep their caller's.
#[test]
fn what_the_caller_had_blocked_is_heard() {
    let Some(mut node) = Node::start() else { return };
    node.end(rustix::process::Signal::TERM);
    node.launch_by(&["env", "--block-signal"]);
    node.apply(&node.manifest("one", "", "sleep 1000"));
    node.wait_for("one", "Running");
    let shims = node.shims();
    assert!(!shims.is_empty());
    for pid in [node.pid()].into_iter().chain(shims.into_iter().map(i32::cast_unsigned)) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("its mask").trim();
        assert_eq!(blocked, "0000000000000000", "{status}");
    }
    remove(&node, "one");
    node.end(rustix::process::Signal::TERM);
    node.launch();
    node.finish();
}
