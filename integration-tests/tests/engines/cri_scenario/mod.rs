//! What flint's shim has to do under a CRI plugin, whichever it is.

use integration_tests::cri::{
    AttachRequest, Code, ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ExecRequest,
    LinuxContainerResources, ListContainerStatsRequest, NamespaceOption, Node, Pod, PodSandboxStatsRequest,
    UInt64Value, UpdateContainerResourcesRequest, container_state, namespace_mode,
};
use integration_tests::{cgroup_value, wait_until};

/// The runtime handlers of docs/containerd.md.
const HANDLERS: [&str; 2] = ["flint", "flint-by-name"];
const FOREVER: &str = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done";

/// The host's network: needs no CNI.
fn host_network() -> NamespaceOption {
    NamespaceOption { network: namespace_mode::NODE, pid: namespace_mode::CONTAINER, ..NamespaceOption::default() }
}

pub(crate) fn two_containers_and_one_shim(node: &Node) {
    for handler in HANDLERS {
        let mut pod = Pod::run(node, handler, host_network());
        assert_eq!(pod.sandbox().runtime_handler, handler);
        let first = pod.container("first", FOREVER);
        let second = pod.container("second", "echo out; echo err >&2; exit 5");
        assert_eq!(pod.shims().len(), 1, "{handler}: {:?}", pod.shims());

        let status = pod.ended(&second);
        assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"), "{handler}");
        // The plugin takes the time of the start once it has the answer: a short life has ended before.
        assert!(status.created_at > 0 && status.started_at > status.created_at, "{status:?}");
        assert!(status.finished_at > status.created_at, "{status:?}");
        assert_eq!(pod.status(&first).state, container_state::RUNNING);
        // Each stream has a reader of its own.
        pod.wait_for_log("second", "stderr F err\n");
        pod.wait_for_log("second", "stdout F out\n");
        for line in ["stdout F out", "stderr F err"] {
            let log = pod.log("second");
            // 2026-01-02T03:04:05.000000006Z stdout F text, without zeros at the end of the fraction
            let mut lines = log.lines().filter_map(|text| text.split_once(' '));
            let (time, _) = lines.find(|(_, rest)| *rest == line).unwrap_or_else(|| panic!("no {line}: {log}"));
            assert!(time.len() >= "2026-01-02T03:04:05Z".len() && time[..11].ends_with('T'), "{log}");
        }

        let answer = pod.exec(&first, "echo out; echo err >&2; exit 3", 0).expect("exec");
        assert_eq!((answer.stdout.as_slice(), answer.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(answer.exit_code, 3, "{handler}");
        let late = pod.exec(&first, "sleep 1000", 1).expect_err("a time limit");
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        wait_until("only the container's own is left", || count(&pod, &first, "sleep 1000") == 1);
        let cmd = vec!["sh".to_owned()];
        let exec = pod.cri.get(ExecRequest { container_id: first.clone(), cmd, stdout: true });
        let attach = pod.cri.get(AttachRequest { container_id: first.clone(), stdout: true });
        assert!(exec.url.contains("/exec/") && attach.url.contains("/attach/"), "{exec:?} {attach:?}");

        assert_eq!(pod.stop(&first, 30).exit_code, 7, "{handler}: it ended by itself at SIGTERM");
        pod.wait_for_log("first", "stdout F bye\n");
        pod.remove_container(&second);
        pod.remove();
    }
}

/// How many processes of that command line a container sees.
#[track_caller]
fn count(pod: &Pod<'_>, container: &str, line: &str) -> usize {
    // A process may end between the two: that is no failure.
    let script = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file; echo; done 2> /dev/null";
    pod.sh(container, script).lines().filter(|found| found.trim_end() == line).count()
}

fn number(value: Option<UInt64Value>) -> u64 {
    value.unwrap_or_default().value
}

/// A container that holds 16 MiB and has used the processor: both are seen, and are no more than they can be.
#[track_caller]
fn assert_plausible(stats: &ContainerStats) {
    let memory = stats.memory.clone().unwrap_or_default();
    let held = number(memory.working_set_bytes.clone());
    assert!((16 << 20..48 << 20).contains(&held), "working set: {memory:?}");
    let used = number(stats.cpu.clone().unwrap_or_default().usage_core_nano_seconds);
    assert!((1_000_000..600_000_000_000).contains(&used), "{used} ns of processor time");
}

pub(crate) fn stats_and_limits(node: &Node) {
    let mut pod = Pod::run(node, HANDLERS[0], host_network());
    let limit =
        |bytes: i64| LinuxContainerResources { memory_limit_in_bytes: bytes, ..LinuxContainerResources::default() };
    let script = "head -c 16777216 /dev/zero > /dev/shm/held; echo held; while :; do sleep 1000 & wait $!; done";
    let id = pod.container_with("holds", script, limit(64 << 20), |_| {});
    let other = pod.container("other", FOREVER);
    pod.wait_for_log("holds", "stdout F held");

    let stats = pod.cri.get(ContainerStatsRequest { container_id: id.clone() }).stats.expect("stats");
    assert_eq!(stats.attributes.as_ref().expect("attributes").id, id);
    assert_plausible(&stats);
    let filter = Some(ContainerStatsFilter { pod_sandbox_id: pod.id.clone() });
    // It leaves out a container of which it has nothing yet.
    let list = || pod.cri.get(ListContainerStatsRequest { filter: filter.clone() }).stats;
    let ids = || list().into_iter().filter_map(|stats| Some(stats.attributes?.id)).collect::<Vec<_>>();
    wait_until("both are listed", || ids().len() == 2 && ids().contains(&id) && ids().contains(&other));
    let listed = list().into_iter().find(|stats| stats.attributes.as_ref().is_some_and(|about| about.id == id));
    assert_plausible(&listed.expect("its stats"));
    let of_the_pod = pod.cri.get(PodSandboxStatsRequest { pod_sandbox_id: pod.id.clone() }).stats;
    let linux = of_the_pod.and_then(|stats| stats.linux).expect("stats of Linux");
    let held = number(linux.memory.clone().unwrap_or_default().usage_bytes);
    assert!(held >= 16 << 20, "of the pod: {held} bytes, {linux:?}");
    assert_eq!(linux.containers.len(), 2, "{linux:?}");

    let limited = || cgroup_value("memory", &id, "memory.limit_in_bytes", "memory.max");
    assert_eq!(limited(), (64 << 20).to_string());
    let shares = LinuxContainerResources { cpu_shares: 512, ..limit(96 << 20) };
    let _ = pod.cri.get(UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(shares) });
    assert_eq!(limited(), (96 << 20).to_string());
    assert!(["512", "20"].contains(&cgroup_value("cpu", &id, "cpu.shares", "cpu.weight").as_str()));
    pod.remove();
}

/// containerd's own shim, whose program is flint.
pub(crate) fn a_pod_by_runcs_shim(node: &Node) {
    let mut pod = Pod::run(node, "flint-by-runc-shim", host_network());
    let limit =
        |bytes: i64| LinuxContainerResources { memory_limit_in_bytes: bytes, ..LinuxContainerResources::default() };
    let id = pod.container_with("first", FOREVER, limit(64 << 20), |_| {});
    let answer = pod.exec(&id, "echo out; echo err >&2; exit 3", 0).expect("exec");
    assert_eq!((answer.stdout.as_slice(), answer.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(answer.exit_code, 3);
    let limited = || cgroup_value("memory", &id, "memory.limit_in_bytes", "memory.max");
    assert_eq!(limited(), (64 << 20).to_string());
    let more = LinuxContainerResources { cpu_shares: 512, ..limit(96 << 20) };
    let _ = pod.cri.get(UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(more) });
    assert_eq!(limited(), (96 << 20).to_string());
    assert_eq!(pod.stop(&id, 30).exit_code, 7, "it ended by itself at SIGTERM");
    pod.remove();
}

pub(crate) fn want_of_memory_is_the_reason(node: &Node) {
    for handler in HANDLERS {
        let mut pod = Pod::run(node, handler, host_network());
        let limits = LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..LinuxContainerResources::default() };
        // tail keeps a line that never ends.
        let id = pod.container_with("eats", "exec tail /dev/zero", limits, |_| {});
        let status = pod.ended(&id);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{handler}: {status:?}");
        pod.remove();
    }
}

pub(crate) fn stop_is_patient_and_then_not(node: &Node) {
    let mut pod = Pod::run(node, HANDLERS[0], host_network());
    let deaf = pod.container("deaf", "trap '' TERM; echo up; while :; do sleep 1000 & wait $!; done");
    let willing = pod.container("willing", FOREVER);
    pod.wait_for_log("deaf", "up");
    pod.wait_for_log("willing", "up");
    assert_eq!(pod.stop(&willing, 60).exit_code, 7);
    assert_eq!(pod.stop(&deaf, 1).exit_code, 137);
    // A second time is no error.
    assert_eq!(pod.stop(&deaf, 1).exit_code, 137);
    pod.remove();
}

/// With the host's pid namespace the end of init ends nobody else: the runtime has to.
pub(crate) fn a_pod_with_the_hosts_pids_leaves_no_process(node: &Node) {
    let namespaces = NamespaceOption { pid: namespace_mode::NODE, ..host_network() };
    let mut pod = Pod::run(node, HANDLERS[0], namespaces);
    let id = pod.container(
        "parent",
        "busybox setsid sleep 2000 & echo up; trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done",
    );
    pod.wait_for_log("parent", "up");
    wait_until("its child sleeps", || count(&pod, &id, "sleep 2000") == 1);

    assert_eq!(pod.stop(&id, 30).exit_code, 7);
    pod.remove_container(&id);
    pod.remove();
}

/// Its containers are in the pause container's pid namespace: the end of the pause container is theirs.
pub(crate) fn a_pod_with_shared_pids_ends_with_its_pause(node: &Node) {
    let namespaces = NamespaceOption { pid: namespace_mode::POD, ..host_network() };
    let mut pod = Pod::run(node, HANDLERS[0], namespaces);
    let id = pod.container("sees", FOREVER);
    let other = pod.container("other", "sleep 3000");
    pod.wait_for_log("sees", "up");
    wait_until("they see each other", || count(&pod, &id, "sleep 3000") == 1);
    let killed = node.containerd.ctr(&["task", "kill", "--signal", "KILL", &pod.id]).ok();
    assert_eq!(killed.stderr, "");
    assert_eq!((pod.ended(&id).exit_code, pod.ended(&other).exit_code), (137, 137));
    wait_until("the sandbox is not ready", || pod.sandbox().state != 0);
    pod.remove();
}

pub(crate) fn a_pod_has_a_network(node: &Node) {
    if !node.has_network() {
        return;
    }
    let mut pod =
        Pod::run(node, HANDLERS[0], NamespaceOption { pid: namespace_mode::CONTAINER, ..NamespaceOption::default() });
    let ip = pod.sandbox().network.expect("a network").ip;
    assert!(ip.starts_with("10.88."), "{ip}");
    let server = pod.container("server", "echo greeting | busybox nc -l -p 8080; echo served");
    let client = pod.container("client", FOREVER);
    assert_eq!(pod.sh(&client, "hostname").trim(), "pod");
    assert!(pod.sh(&client, "ip addr show eth0").contains(&ip));
    // What listens in one container answers the other, on the pod's own loopback.
    wait_until("the other container answers", || {
        let answer = pod.exec(&client, "busybox nc 127.0.0.1 8080 < /dev/null", 0).expect("exec");
        answer.stdout == b"greeting\n"
    });
    assert_eq!(pod.ended(&server).exit_code, 0);
    pod.remove();
}
