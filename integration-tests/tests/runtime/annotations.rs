//! crun's annotations (`run.oci.*`) that flint follows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use integration_tests::{Bundle, Case, Command, skip, under_test_only};
use serde_json::{Value, json};

fn case() -> Option<Case> {
    let [flint] = under_test_only("run.oci annotations are crun's")?;
    Some(Case::new(&flint))
}

fn annotated(bundle: Bundle, name: &str, value: impl Into<Value>) -> Bundle {
    bundle.edit(json!({"annotations": {name: value.into()}}))
}

#[test]
fn original_groups_are_kept() {
    let Some(case) = case() else { return };
    for (value, expected) in [("1", "5555"), ("0", "7")] {
        let bundle = annotated(case.bundle().args(&["id", "-G"]), "run.oci.keep_original_groups", value)
            .edit(json!({"process": {"user": {"additionalGids": [7]}}}));
        let output = Command::new("setpriv")
            .args(["--groups", "5555"])
            .args([case.runtime.path.as_os_str(), "--root".as_ref(), case.state_root().as_os_str()])
            .args(["run", "--bundle"])
            .args([bundle.write().into_os_string(), case.id("run").into()])
            .output()
            .ok();
        assert_eq!(output.stdout, format!("0 {expected}\n"), "{value}");
    }
    case.finish();
}

#[test]
fn output_of_hooks_goes_to_files() {
    let Some(case) = case() else { return };
    let (out, err) = (case.path().join("out"), case.path().join("err"));
    fs::write(&out, "before\n").expect("write");
    let mut hooks = json!({});
    let stages = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for stage in stages {
        let script = format!("echo {stage}; echo {stage} failed >&2");
        hooks[stage] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    }
    let bundle = annotated(case.bundle().args(&["/bin/true"]), "run.oci.hooks.stdout", out.display().to_string());
    let bundle = annotated(bundle, "run.oci.hooks.stderr", err.display().to_string()).edit(json!({"hooks": hooks}));
    let output = case.run(&bundle).ok();
    assert_eq!(output.stdout + &output.stderr, "");
    let read = |path: &Path| fs::read_to_string(path).expect("read the hooks' output");
    assert_eq!(read(&out), format!("before\n{}\n", stages.join("\n")));
    assert_eq!(read(&err), stages.map(|stage| format!("{stage} failed\n")).concat());
    assert_eq!(fs::metadata(&err).expect("stat").permissions().mode() & 0o777, 0o600);

    let nowhere = case.path().join("nowhere/out");
    let bundle = annotated(case.bundle().args(&["/bin/true"]), "run.oci.hooks.stdout", nowhere.display().to_string());
    let hook = json!({"hooks": {"createContainer": [{"path": "/bin/true"}]}});
    let output = case.run(&bundle.edit(hook)).exits(1);
    assert!(output.stderr.contains("nowhere/out for the output of hooks"), "{}", output.stderr);
    case.finish();
}

#[test]
fn unknown_system_calls_may_be_errors() {
    let Some(case) = case() else { return };
    for (value, code) in [("0", 0), ("1", 1)] {
        let bundle = annotated(case.bundle().args(&["/bin/true"]), "run.oci.seccomp_fail_unknown_syscall", value).edit(
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["chmod", "socketcall", "arm_fadvise64_64", "not_a_call"], "action": "SCMP_ACT_ERRNO"}
            ]}}}),
        );
        let output = case.run(&bundle).exits(code);
        assert_eq!(output.stderr.contains("not_a_call"), code == 1, "{}", output.stderr);
    }
    case.finish();
}

#[test]
fn time_offsets_of_the_annotation() {
    let Some(case) = case() else { return };
    let bundle = case.bundle().push("/linux/namespaces", json!({"type": "time"}));
    let bundle = annotated(bundle, "run.oci.timens_offset", "monotonic 7881 5");
    let output = case.run(&bundle.args(&["cat", "/proc/self/timens_offsets"])).ok();
    assert!(output.stdout.starts_with("monotonic        7881         5\n"), "{}", output.stdout);
    case.finish();
}

#[test]
fn pidfd_and_seccomp_listener_go_to_their_receivers() {
    let Some(case) = case() else { return };
    let (pidfd, agent) = (case.path().join("pidfd"), case.path().join("agent"));
    let pidfds = UnixListener::bind(&pidfd).expect("listen");
    let agents = UnixListener::bind(&agent).expect("listen");
    let bundle = annotated(case.bundle().forever(), "run.oci.pidfd_receiver", pidfd.display().to_string());
    let bundle = annotated(bundle, "run.oci.seccomp.receiver", agent.display().to_string()).edit(json!({
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                              "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}}
    }));
    let id = case.detached(&bundle, "a");
    let text = |listener: &UnixListener| {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut text = vec![0; 64 << 10];
        let length = std::io::Read::read(&mut stream, &mut text).expect("a message");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(text(&pidfds), "pidfd");
    assert!(text(&agents).contains("seccompFd"));
    case.delete(&id);
    case.finish();
}

/// crun's variable, where config.json names nobody; exec asks the same agent.
#[test]
fn a_seccomp_receiver_of_the_environment() {
    let Some(case) = case() else { return };
    let agent = case.path().join("agent");
    let listener = UnixListener::bind(&agent).expect("listen");
    let container = || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut text = vec![0; 64 << 10];
        let length = std::io::Read::read(&mut stream, &mut text).expect("a message");
        let message: serde_json::Value = serde_json::from_slice(&text[..length]).expect("JSON");
        message["state"]["id"].as_str().unwrap_or_default().to_owned()
    };
    let bundle = case.bundle().forever().edit(json!({
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                              "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}}
    }));
    let id = case.id("a");
    let create = |receiver: &str| {
        case.command(["create", "--bundle", &bundle.write().to_string_lossy(), &id])
            .env("RUN_OCI_SECCOMP_RECEIVER", receiver)
    };
    let refused = create("").output().exits(1);
    assert!(refused.stderr.contains("listenerPath is not set"), "{}", refused.stderr);
    let refused = create("agent").output().exits(1);
    assert!(refused.stderr.contains("RUN_OCI_SECCOMP_RECEIVER"), "{}", refused.stderr);
    let _ = create(&agent.to_string_lossy()).output().ok();
    let _ = case.call(["start", &id]).ok();
    assert_eq!(container(), id);
    let _ = case.call(["exec", &id, "/bin/true"]).ok();
    assert_eq!(container(), id);
    case.delete(&id);
    case.finish();
}

#[test]
fn what_flint_cannot_do_is_refused() {
    let Some(case) = case() else { return };
    for (name, value) in [("run.oci.handler", "wasm"), ("run.oci.seccomp_bpf_data", "AAAA")] {
        let output = case.run(&annotated(case.bundle().args(&["/bin/true"]), name, value)).exits(1);
        assert!(output.stderr.contains(name), "{}", output.stderr);
    }
    case.finish();
}

/// The container's part of its cgroup: limits stay where it cannot change them.
#[test]
fn a_delegated_cgroup() {
    let Some(case) = case() else { return };
    let script = "cat /proc/self/cgroup; mount -t cgroup2 none /sys/fs/cgroup 2>&1; sleep 1000";
    let bundle = annotated(case.bundle().args(&["/bin/sh", "-c", script]), "run.oci.delegate-cgroup", "payload/own")
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .edit(json!({"linux": {"resources": {"pids": {"limit": 33}}}}));
    let id = case.detached(&bundle, "a");
    let pid = case.state(&id)["pid"].clone();
    let host = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read");
    if host.lines().count() > 1 {
        case.delete(&id);
        case.finish();
        skip("needs cgroup v2 alone (in the virtual machine)");
        return;
    }
    let path = host.trim().strip_prefix("0::").expect("a path on v2").to_owned();
    let outer = path.strip_suffix("/payload/own").unwrap_or_else(|| panic!("{path}"));
    let limit = fs::read_to_string(format!("/sys/fs/cgroup{outer}/pids.max")).expect("the limit");
    assert_eq!(limit.trim(), "33");
    // The root of its cgroup namespace is the limited one, so it sees where it is in it.
    let inside = case.exec(&id, &["cat", "/proc/1/cgroup"]).ok().stdout;
    assert_eq!(inside, "0::/payload/own\n");
    let pids = case.call(["ps", "--format", "json", &id]).ok().stdout;
    assert!(pids.contains(&pid.to_string()), "{pids}");
    case.delete(&id);
    case.finish();
}
