//! The pods of Kubernetes' documentation (`supervisor/examples`), run as they stand: their images are pulled from a registry, and
//! each does what its example shows. Those that docs/manifests.md says are refused are refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration_tests::{Guarded, Output, Registry, Server, ServerImage, find_program, wait_until};
use serde_json::{Value, json};

use super::host;
use crate::node::rig::{Node, Setup};

/// What a pod has to show. Of a pod with several containers the name of one stands before a colon: `pod:container`.
enum Shows {
    /// It ends well, and has logged these.
    Said(&'static [&'static str]),
    /// All its containers are ready, and this script, run in it, prints these.
    Prints(&'static str, &'static [&'static str]),
}
use Shows::{Prints, Said};

/// Files of `supervisor/examples`, their pods, and what these show.
const TAKEN: &[(&str, &str, Shows)] = &[
    ("pods-commands", "words", Said(&["hello from words"])),
    ("pods-lifecycle-events", "hooks", Prints("cat /tmp/begun", &["begun"])),
    ("pods-probe-exec-liveness", "alive-exec", Prints("cat /proc/1/cmdline", &["touch /tmp/alive"])),
    ("pods-probe-http-liveness", "alive-http", Prints("cat /proc/1/cmdline", &["httpd"])),
    ("pods-probe-tcp-liveness-readiness", "alive-tcp", Prints("netstat -ltn", &[":8080 "])),
    ("pods-probe-grpc-liveness", "alive-grpc", Prints("netstat -ltn", &[":2379 "])),
    ("pods-probe-pod-with-http-healthcheck", "alive-timeout", Prints("netstat -ltn", &[":80 "])),
    ("pods-init-containers", "prepared", Prints("wget -qO- http://127.0.0.1/", &["page\n"])),
    ("pods-two-container-pod", "shared:server", Said(&[])),
    ("pods-share-process-namespace", "together:shell", Prints("ps", &["httpd", "sleep 3600"])),
    ("pods-simple-pod", "simple", Prints("wget -qO- http://127.0.0.1/", &["well"])),
    ("pods-inject-envars", "variables", Prints("env", &["FIRST=one and more\n", "SECOND=two\n"])),
    (
        "pods-inject-dependent-envars",
        "dependent",
        Prints("env", &["SERVICE=https://80\n", "ESCAPED=$(PROTOCOL)://never\n"]),
    ),
    (
        "pods-inject-dapi-envars-pod",
        "self-fields",
        Said(&["NODE=", "NAME=self-fields\n", "NAMESPACE=default\n", "ADDRESS=10.", "ACCOUNT=default\n"]),
    ),
    (
        "pods-inject-dapi-envars-container",
        "self-resources",
        Said(&["CPU_REQUEST=1\n", "CPU_LIMIT=1\n", "MEMORY_REQUEST=33554432\n", "MEMORY_LIMIT=67108864\n"]),
    ),
    (
        "pods-inject-dapi-volume",
        "self-files",
        Prints("cat /etc/podinfo/*", &["build=\"two\"", "rack=\"rack-22\"\n", "zone=\"north\""]),
    ),
    (
        "pods-inject-dapi-volume-resources",
        "self-resource-files",
        Prints("cd /etc/podinfo; echo $(cat cpu_limit) $(cat mem_request)", &["250 32\n"]),
    ),
    (
        "pods-inject-secret-pod",
        "secret-files",
        Prints("cd /etc/login; echo $(cat username) $(cat password)", &["node secret\n"]),
    ),
    ("pods-inject-secret-envars-pod", "secret-variables", Prints("env", &["USERNAME=node\n", "PASSWORD=secret\n"])),
    ("pods-inject-pod-secret-envFrom", "secret-all", Prints("env", &["username=node\n", "password=secret\n"])),
    ("pods-pod-configmap-envFrom", "config-variables", Said(&["SPECIAL_LEVEL=very\n", "SPECIAL_TYPE=charm\n"])),
    ("pods-pod-configmap-env-var-valueFrom", "config-command", Said(&["very charm\n"])),
    ("pods-pod-configmap-volume-specific-key", "config-file", Said(&["very"])),
    ("pods-config-redis-pod", "redis:redis", Prints("redis-cli config get maxmemory", &["2097152\n"])),
    (
        "pods-storage-redis",
        "redis-scratch:redis",
        Prints("redis-cli set key value; redis-cli get key", &["OK\nvalue\n"]),
    ),
    ("pods-storage-pv-pod", "claims", Prints("echo kept > /srv/pages/file; cat /srv/pages/file", &["kept\n"])),
    (
        "pods-storage-projected-secret-downwardapi-configmap",
        "projected",
        Prints(
            "cd /projected-volume; cat my-group/my-username my-group/my-config labels cpu_limit",
            &["nodecharmapp=\"projected\"1"],
        ),
    ),
    (
        "pods-storage-projected-secrets-nondefault-permission-mode",
        "projected-mode",
        Prints("cd /projected-volume/my-group; stat -Lc %a my-username my-password", &["511\n644\n"]),
    ),
    (
        "pods-security-security-context",
        "who",
        Prints(
            "id; cd /data/demo; touch file; stat -c %u:%g file",
            &["uid=1000 gid=3000 groups=2000,3000,4000\n", "1000:2000\n"],
        ),
    ),
    ("pods-security-security-context-2", "who-else", Prints("id -u", &["2000\n"])),
    // CAP_NET_ADMIN is bit 12 and CAP_SYS_TIME bit 25; without them it is 00000000a80425fb.
    ("pods-security-security-context-4", "able", Prints("cat /proc/1/status", &["CapEff:\t00000000aa0435fb\n"])),
    (
        "pods-security-seccomp-ga-default-pod",
        "filtered",
        Prints("cat /proc/1/status", &["NoNewPrivs:\t1\n", "Seccomp:\t2\n"]),
    ),
    (
        "pods-security-seccomp-ga-fine-pod",
        "filtered-own",
        Prints("cat /proc/1/status; mkdir /made 2>&1; true", &["Seccomp:\t2\n", "Operation not supported"]),
    ),
    ("pods-resource-memory-request-limit", "memory", Prints(LIMITS, &["memory 209715200\n"])),
    ("pods-resource-cpu-request-limit", "cpu", Prints(LIMITS, &["cpu 100000 100000\n"])),
    ("pods-qos-qos-pod", "guaranteed", Prints(LIMITS, &["memory 209715200\n", "cpu 70000 100000\n"])),
    ("pods-pod-with-node-affinity", "affine", Prints("hostname", &["affine\n"])),
    ("pods-pod-with-toleration", "tolerant", Prints("hostname", &["tolerant\n"])),
    ("pods-private-reg-pod", "private", Prints("hostname", &["private\n"])),
    (
        "service-networking-hostaliases-pod",
        "aliases",
        Said(&["127.0.0.1\tfoo.local\tbar.local\n", "10.1.2.3\tfoo.remote\tbar.remote\n"]),
    ),
    (
        "service-networking-custom-dns",
        "own-dns",
        Prints(
            "cat /etc/resolv.conf",
            &[
                "nameserver 192.0.2.1\n",
                "search ns1.svc.cluster-domain.example my.dns.search.suffix\n",
                "options ndots:2 edns0\n",
            ],
        ),
    ),
    ("debug-termination", "message", Prints("cat /proc/1/cmdline", &["sleep"])),
];

/// What its cgroups say of a container, on v1 and v2.
const LIMITS: &str = "cd /sys/fs/cgroup; \
    echo memory $(cat memory/memory.limit_in_bytes memory.max 2>/dev/null); \
    echo cpu $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu.max 2>/dev/null)";

/// What the images do without a command: they serve pages, and what else the examples' arguments ask for.
const ENTRY: &str = r#"#!/bin/sh
case "$1" in
--use) exec sh -c 'dd if=/dev/zero bs='"$2"' count=1 2>/dev/null | sleep 1000' ;;
--cpus) for _ in $(seq "$2"); do timeout 2 sh -c 'while true; do true; done' & done; wait; exec sleep 1000 ;;
'' | --once) httpd -p 80 -h /srv/pages 2>/dev/null; exec httpd -fvv -p 8080 -h /srv/pages ;;
http) exec httpd -fvv -p 8080 -h /srv/pages ;;
*) exec "$@" ;;
esac
"#;

/// What the example of a gRPC probe calls `server`.
const SERVER: &str = "#!/bin/sh\nexec nc -ll -p \"${2#:}\" -e /usr/bin/health\n";

/// A service of grpc.health.v1 that is well: RFC 9113 (frames) and RFC 7541 (headers), as much as one call needs.
const HEALTH: &str = r#"#!/bin/sh
printf '\0\0\0\4\0\0\0\0\0'                                       # SETTINGS
dd bs=1 count=24 2>/dev/null >/dev/null                           # the client's preface
while head="$(dd bs=1 count=9 2>/dev/null | xxd -p)" && [ ${#head} = 18 ]; do
    dd bs=1 count=$((0x${head:0:6})) 2>/dev/null >/dev/null
    case "${head:6:4}" in
    0400) printf '\0\0\0\4\1\0\0\0\0' ;;                          # SETTINGS, acknowledged
    0600) printf '\0\0\10\6\1\0\0\0\0\0\0\0\0\0\0\0\0' ;;         # PING
    00?1)                                                         # DATA that ends the request: headers, SERVING, status 0
        printf '\0\0\24\1\4\0\0\0\1\210\17\20\20application/grpc'
        printf '\0\0\7\0\0\0\0\0\1\0\0\0\0\2\10\1'
        printf '\0\0\17\1\5\0\0\0\1\0\13grpc-status\0010'
        echo asked >> /tmp/asked ;;
    esac
done
"#;

fn put(path: &Path, text: &str) {
    fs::write(path, text).expect("write a file of the image");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("let it be executed");
}

/// The image of all examples but those of Redis: busybox with all its names.
fn image(folder: &Path) -> Option<ServerImage> {
    let busybox = find_program("busybox")?;
    let rootfs = folder.join("payload");
    for name in ["bin", "usr/bin", "tmp", "srv/pages", "data"] {
        fs::create_dir_all(rootfs.join(name)).expect("make a folder of the image");
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("open /tmp to all");
    fs::copy(&busybox, rootfs.join("bin/busybox")).expect("copy busybox");
    let names = std::process::Command::new(&busybox).arg("--list").output().expect("ask busybox for its names");
    for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", rootfs.join("bin").join(name)).expect("link an applet");
    }
    put(&rootfs.join("bin/entry"), ENTRY);
    put(&rootfs.join("usr/bin/server"), SERVER);
    put(&rootfs.join("usr/bin/health"), HEALTH);
    for page in ["index.html", "health", "healthz"] {
        fs::write(rootfs.join("srv/pages").join(page), "well\n").expect("write a page");
    }
    let config = json!({"Entrypoint": ["/bin/entry"], "Env": ["PATH=/usr/bin:/bin"]});
    Some(ServerImage::of_files(rootfs, &config))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/examples")
}

/// Applies an example as it stands. Only the registry, who may pull from it, and how long a probe may take are this test's: on a busy
/// machine an answer may be later than a second.
fn apply(node: &Node, name: &str, registry: &Registry) -> Output {
    let text = fs::read_to_string(folder().join(name).with_extension("yaml")).expect("read the example");
    let text =
        text.replace("registry.example", &registry.host).replace(r#""username": "node""#, r#""username": "tester""#);
    let text = text.replace("      timeoutSeconds: 1\n", "").replace("Probe:\n", "Probe:\n      timeoutSeconds: 20\n");
    let path = node.folder("applied").join(name).with_extension("yaml");
    fs::write(&path, text).expect("write the manifest");
    node.ctl(["apply", "-f", &path.display().to_string()])
}

fn pod_and_container(name: &'static str) -> (&'static str, &'static str) {
    name.split_once(':').unwrap_or((name, "main"))
}

fn container(node: &Node, pod: &str, name: &str) -> Value {
    node.status(pod)["containers"][name].clone()
}

/// The namespace that the example has put its pod into.
fn namespace(node: &Node, pod: &str) -> String {
    node.status(pod)["key"]["namespace"].as_str().unwrap_or("default").to_owned()
}

/// flintctl on a container.
fn ctl(node: &Node, verb: &str, (pod, container): (&str, &str), more: &[&str]) -> Output {
    let namespace = namespace(node, pod);
    node.ctl([verb, "--namespace", &namespace, "--container", container, pod].into_iter().chain(more.iter().copied()))
}

#[track_caller]
fn shows(node: &Node, name: &'static str, wanted: &Shows) {
    let (pod, main) = pod_and_container(name);
    let mut last = String::new();
    let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match wanted {
        Said(texts) => wait_until("it has said it", || {
            let output = ctl(node, "logs", (pod, main), &[]);
            last = format!("{output:?}");
            texts.iter().all(|text| output.stdout.contains(text))
        }),
        Prints(script, texts) => wait_until("it prints it", || {
            let output = ctl(node, "exec", (pod, main), &["--", "sh", "-c", script]);
            last = format!("{output:?}");
            container(node, pod, main)["ready"] == true && texts.iter().all(|text| output.stdout.contains(text))
        }),
    }));
    assert!(shown.is_ok(), "{name}: {last}\n{:#}\n{:#?}", node.status(pod), node.events());
    if matches!(wanted, Said(_)) && main == "main" {
        node.wait_for(pod, "Succeeded");
    }
}

/// Waits for what takes seconds, without a look that costs more than it.
#[track_caller]
fn wait_long(what: &str, done: impl Fn() -> bool) {
    wait_until(what, || {
        std::thread::sleep(Duration::from_millis(500));
        done()
    });
}

/// What their probes and their ends show, which takes its time.
fn in_the_end(node: &Node) {
    let restarts = |pod: &str| container(node, pod, "main")["restarts"].clone();
    let page = || ctl(node, "exec", ("shared", "server"), &["--", "wget", "-qO-", "http://127.0.0.1/"]).stdout;
    wait_long("what one container wrote is served by the other", || page() == "hello\n");
    wait_long("the probe over HTTP has asked", || {
        ctl(node, "logs", ("alive-http", "main"), &[]).stderr.contains("url:/healthz")
    });
    wait_long("the probe by gRPC has asked", || {
        ctl(node, "exec", ("alive-grpc", "main"), &["--", "cat", "/tmp/asked"]).stdout.contains("asked")
    });
    wait_long("a message of the end is told", || {
        let main = container(node, "message", "main").to_string();
        main.contains(r#""over\n""#)
    });
    // After 30 seconds it removes its file, and 30 are the time that it is given to end.
    wait_long("the liveness probe fails", || node.events().iter().any(|(word, _)| word == "Unhealthy"));
    wait_long("and its container is started again", || restarts("alive-exec") == 1);
    for pod in ["alive-http", "alive-tcp", "alive-grpc", "alive-timeout", "memory", "cpu", "simple"] {
        assert_eq!(restarts(pod), 0, "{pod}: {:#}\n{:#?}", node.status(pod), node.events());
    }
}

#[test]
fn the_documentations_examples_run_or_are_refused() {
    let Some((host, redis)) = host(Server::Redis) else { return };
    host.within(|| {
        let (open, closed) = (Guarded::default(), Guarded { password: true, ..Guarded::default() });
        let (Some(hub), Some(private)) = (Registry::start(open), Registry::start(closed)) else { return };
        let mirror = format!("images.mirrors = {{\"docker.io\" = \"http://{}\"}}\n", hub.host);
        let Some(node) = Node::start_with(&Setup { keys: &mirror, ..Setup::default() }) else { return };
        let Some(payload) = image(&node.folder("images")) else { return };
        let oci = |image: &ServerImage| format!("oci:{}", image.layout.display());
        for (name, image) in
            [("payload:1", &payload), ("payload:1.14", &payload), ("redis:8.0", &redis), ("redis", &redis)]
        {
            hub.push(&oci(image), &format!("library/{name}"));
        }
        private.push(&oci(&payload), "private:1");
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
        fs::write(node.folder("root/seccomp/profiles").join("fine-grained.json"), profile).expect("write a profile");

        for (name, ..) in TAKEN {
            let _ = apply(&node, name, &private).ok();
        }
        let taken: BTreeSet<&str> = TAKEN.iter().map(|(name, ..)| *name).collect();
        let files = fs::read_dir(folder()).expect("read the folder of examples");
        let names: Vec<String> =
            files.filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
        for name in names.iter().filter(|name| !taken.contains(name.as_str())) {
            let output = apply(&node, name, &private);
            assert_ne!(output.code, 0, "{name} is not in this test's table, and not refused: {output:?}");
        }
        for (_, pod, wanted) in TAKEN {
            shows(&node, pod, wanted);
        }
        in_the_end(&node);
        let pods = || TAKEN.iter().map(|(_, pod, _)| pod_and_container(pod).0);
        for pod in pods() {
            let _ = node.ctl(["rm", "--no-wait", "--namespace", &namespace(&node, pod), pod]).ok();
        }
        pods().for_each(|pod| node.wait_gone(pod));
        node.finish();
    });
}
